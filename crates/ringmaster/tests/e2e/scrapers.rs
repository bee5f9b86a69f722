//! Scrapers that go away in the middle of an answer hold up nobody, and leave nothing behind.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tokio::time::Instant;

use crate::common::{Daemon, On, Setup, eventually, free_address, shared};
use crate::load::Load;

const SCRAPERS: usize = 50;
/// Services without replicas, so that an answer is more than a connection holds unread.
const SERVICES: usize = 60;

fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scraper_that_goes_away_in_the_middle_holds_up_nobody() {
    let _shared = shared().await;
    let (setup, _folder) = Setup::new(On::Process);
    let metrics = free_address();
    let daemon = Daemon::with(setup.with(&["--metrics-listen", &metrics.to_string()])).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 2, "")).await;
    let empty =
        |n: usize| daemon.manifest(&format!("empty-{n}"), 0, &format!("  route: {{ pathPrefix: /{n} }}\n"));
    daemon.apply(&(0..SERVICES).map(empty).collect::<Vec<_>>().join("---\n")).await;
    let mut load = Load::start(daemon.setup.listen, 100);
    load.more(20).await;
    let scrape = async |address: std::net::SocketAddr| {
        reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap()
    };
    let all = |text: &str| text.contains(&format!("service=\"empty-{}\"", SERVICES - 1));
    eventually("every service is told", || async { all(&scrape(metrics).await).then_some(()) }).await;
    let whole = scrape(metrics).await.len();
    let before = descriptors(daemon.pid());
    for address in [metrics, daemon.setup.admin] {
        let gone: Vec<TcpStream> = (0..SCRAPERS)
            .map(|_| {
                let mut stream = TcpStream::connect(address).unwrap();
                // Little is taken, so that most of the answer is still to come.
                rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096).unwrap();
                stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
                stream.read_exact(&mut [0; 100]).unwrap();
                stream
            })
            .collect();
        // While they hold on, others are served.
        let asked = Instant::now();
        assert_eq!(scrape(address).await.len() / 1000, whole / 1000);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        drop(gone);
    }
    load.more(20).await;
    let outcome = load.stop().await;
    // Those of the load are closed too: how many it has depends on how busy the machine is.
    eventually("their connections are closed", || async {
        (descriptors(daemon.pid()) <= before + 10).then_some(())
    })
    .await;
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
    assert!(outcome.slowest < Duration::from_secs(1), "a request took {:?}", outcome.slowest);
    assert!(!daemon.log().contains("\"ERROR\""), "{}", daemon.log());
}
