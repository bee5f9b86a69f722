//! A rough measure of one worker: requests per second and processor time per request, closed loop, against
//! three origins of its own. Run with `cargo run --release -p ringmaster-proxy --example bench`.
//!
//! Everything runs in one process on however many cores there are, so this compares two builds of the proxy on
//! one machine and says little else. The comparison with other proxies is a bench of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringmaster_core::ring::{RingMember, fresh};
use ringmaster_core::snapshot::{Endpoint, Report, ServiceRouting, Snapshot};
use ringmaster_core::spec::{Balancing, HashKeys, HashOn, Resilience, RouteSpec};
use ringmaster_core::{Attempt, Generation, Ordinal, ReplicaName, ServiceName};
use ringmaster_proxy::{Proxy, ProxyConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 32;
const DURATION: Duration = Duration::from_secs(5);
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\nContent-Type: text/plain\r\n\r\n\
    0123456789012345678901234567890123456789012345678901234567890123";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut origins = Vec::new();
    for _ in 0..3 {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        origins.push(listener.local_addr()?);
        tokio::spawn(origin(listener));
    }
    let (_snapshots, receiver) = watch::channel(Arc::new(snapshot(&origins)?));
    let (reports, mut acknowledged) = watch::channel(Report::default());
    let token = CancellationToken::new();
    let mut config = ProxyConfig::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    config.workers = 1;
    let proxy = Proxy::start(config, receiver, reports, token.clone())?;
    acknowledged.wait_for(|report| report.acknowledged == Generation(1)).await?;

    let count = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let (started, cpu) = (Instant::now(), worker_cpu()?);
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(client(proxy.local_addrs()[0], Arc::clone(&count), Arc::clone(&stop))))
        .collect();
    tokio::time::sleep(DURATION).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    let (elapsed, cpu) = (started.elapsed(), worker_cpu()? - cpu);
    let requests = count.load(Ordering::Relaxed);
    println!(
        "{:.0} requests/s over {CLIENTS} connections; the worker used {:.1} µs of processor time per request and \
         {:.0} % of a core",
        requests as f64 / elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / requests as f64,
        cpu.as_secs_f64() / elapsed.as_secs_f64() * 100.0,
    );
    token.cancel();
    proxy.join().await?;
    Ok(())
}

fn snapshot(origins: &[SocketAddr]) -> Result<Snapshot, Box<dyn std::error::Error>> {
    let name = ServiceName::new("web")?;
    let balancing = Balancing { hash_on: HashKeys(vec![HashOn::RequestId]), ..Balancing::default() };
    let member =
        |ordinal| RingMember { ordinal: Ordinal(ordinal), name: format!("web-{ordinal}"), weight: 1 };
    let members: Vec<RingMember> = (0..origins.len() as u16).map(member).collect();
    let ring = fresh(&balancing, 7, &members)?;
    let endpoint = |(ordinal, address): (u16, &SocketAddr)| {
        let replica = ReplicaName { service: name.clone(), ordinal: Ordinal(ordinal), attempt: Attempt(0) };
        (Ordinal(ordinal), Endpoint { replica, address: *address, weight: 1, new_since: None })
    };
    let routing = ServiceRouting {
        name: name.clone(),
        route: RouteSpec::default(),
        balancing,
        resilience: Resilience::default(),
        ring,
        endpoints: (0..).zip(origins).map(endpoint).collect(),
    };
    let services = BTreeMap::from([(name, Arc::new(routing))]);
    Ok(Snapshot { generation: Generation(1), services, ..Snapshot::default() })
}

/// Answers every request; a read is one request, since requests are small and come one by one.
async fn origin(listener: TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            while stream.read(&mut buffer).await? > 0 {
                stream.write_all(RESPONSE).await?;
            }
            io::Result::Ok(())
        });
    }
}

async fn client(address: SocketAddr, count: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /home HTTP/1.1\r\nHost: {address}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US\r\n\
         Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nCookie: session=0123456789abcdef\r\n\r\n"
    );
    let mut buffer = [0; 4_096];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(request.as_bytes()).await?;
        let mut length = 0;
        // The proxy may relay head and body in two parts.
        while !buffer[..length].ends_with(b"0123") {
            let read = stream.read(&mut buffer[length..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            length += read;
        }
        if !buffer.starts_with(b"HTTP/1.1 200") {
            return Err(io::Error::other("an answer was not 200"));
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// The processor time of the worker's thread so far, in the kernel's unit of 10 ms.
fn worker_cpu() -> io::Result<Duration> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        if let Some((_, fields)) = stat.split_once("(proxy-worker-0) ") {
            // Fields 14 and 15 of proc(5), counted from 1; three precede the split.
            let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
            return Ok(Duration::from_millis(ticks * 10));
        }
    }
    Err(io::Error::other("the worker's thread is not there"))
}
