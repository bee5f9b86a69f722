//! Followers of the admin API that never read hold up neither the loop, nor the data plane, nor other followers, nor
//! the daemon's end; and what is kept for them is bounded.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use futures_util::StreamExt;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::common::{Daemon, On, SOON, alone};
use crate::load::Load;

const SLOW: usize = 10;
/// What each would have been sent: more than sockets hold, so that all of them stall.
const SENT: usize = 24 << 20;
/// What the daemon may hold for all of them: a full buffer of hyper (400 KiB) and an update (900 kB) each, twice.
const HELD_MAX: u64 = 40 << 20;

fn resident_bytes(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line with VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_that_never_read_hold_up_nobody() {
    let _alone = alone().await;
    let mut daemon = Daemon::start(On::Process).await;
    // Updates hold the specs: environment variables make them large, so that sockets fill in seconds.
    let variables: String = (0..9).map(|n| format!("V{n}: {}, ", "x".repeat(100_000))).collect();
    let env = format!("    env: {{ {} }}\n    resources:", variables.trim_end_matches(", "));
    let manifest = daemon.manifest("web", 3, "").replace("    resources:", &env);
    daemon.apply_and_converge("web", &manifest).await;
    let url = format!("http://{}/api/v1/watch", daemon.setup.admin);
    let mut load = Load::start(daemon.setup.listen, 100);
    load.more(50).await;
    let mut good = reqwest::get(&url).await.unwrap().bytes_stream();
    let (mut read, mut slowest, mut last) = (0, Duration::ZERO, Instant::now());
    while read < SENT / 4 {
        read += good.next().await.expect("the daemon lives").unwrap().len();
    }
    let before = resident_bytes(daemon.pid());

    let slow: Vec<TcpStream> = (0..SLOW)
        .map(|_| {
            let mut stream = TcpStream::connect(daemon.setup.admin).unwrap();
            stream.write_all(b"GET /api/v1/watch HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    (read, last) = (0, last.max(Instant::now()));
    while read < SENT {
        read += good.next().await.expect("the daemon lives").unwrap().len();
        slowest = slowest.max(last.elapsed());
        last = Instant::now();
    }
    let held = resident_bytes(daemon.pid()).saturating_sub(before);
    assert!(held < HELD_MAX, "{} KiB are held for {SLOW} followers", held >> 10);
    assert!(slowest < Duration::from_secs(1), "another follower waited for {slowest:?}");

    let asked = Instant::now();
    daemon.client.scale(&crate::common::name("web"), 4).await.unwrap();
    daemon.until("web", "scaled", |status| status.ready == 4 && status.is_converged()).await;
    let scaled = asked.elapsed();
    load.more(50).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
    assert!(outcome.slowest < Duration::from_secs(1), "a request took {:?}", outcome.slowest);

    let ending = Instant::now();
    let code = daemon.end(Signal::TERM).await;
    let ended = ending.elapsed();
    assert_eq!(code, Some(0));
    assert!(ended < SOON / 3, "it ended after {ended:?}");
    println!(
        "{SLOW} followers that never read: {} KiB held, another waited for {slowest:.0?} at most, scaled in {scaled:.1?}, \
         slowest of {} requests {:.0?}, ended in {ended:.1?}",
        held >> 10,
        outcome.total,
        outcome.slowest
    );
    drop(slow);
    daemon.restart().await;
}
