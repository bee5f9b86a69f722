//! 100 MB either way past someone who does not read: what the proxy holds of each stream is bounded.
//!
//! Measured in a process of its own, where the memory of other cases does not count. The sockets' own buffers are the
//! kernel's and no part of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::world::{World, within};

/// Slow readers.
const DOWNLOADS: u64 = 200;
/// Those whose bodies nobody takes: each takes its time until all the buffers on its way are full.
const UPLOADS: u64 = 32;
const BODY_BYTES: u64 = 100_000_000;
/// The goal: at most this much for each stream.
const KIB_PER_STREAM_MAX: u64 = 256;
const PART: &[u8] = &[b'x'; 50_000];

/// All those buffers take their time to fill where other tests run beside.
const LONG: Duration = Duration::from_secs(120);

/// Opens the origin: until then it neither reads nor writes bodies, or clients do not.
type Gate = watch::Receiver<bool>;

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_nobody_reads_leave_memory_bounded() {
    for alone in ["memory::downloads_alone", "memory::uploads_alone"] {
        let this = std::env::current_exe().unwrap();
        let run = Command::new(this).args(["--ignored", "--exact", alone]).output();
        let output = timeout(LONG, run).await.expect("it ends before the deadline").unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("1 passed"), "{alone}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by streams_that_nobody_reads_leave_memory_bounded, in a process of its own"]
async fn downloads_alone() {
    let moved = Arc::new(AtomicU64::new(0));
    let written = Arc::clone(&moved);
    let origin = origin(move |mut stream: TcpStream| {
        let written = Arc::clone(&written);
        async move {
            head(&mut stream).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            send_body(&mut stream, &written).await;
        }
    })
    .await;
    let world = World::start(origin).await;
    let mut warm = ask(&world, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(receive(&mut warm).await > BODY_BYTES);
    let before = resident_kib();
    let mut clients = Vec::new();
    for _ in 0..DOWNLOADS {
        clients.push(ask(&world, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await);
    }
    stalled(&moved, DOWNLOADS).await;
    bounded(before, DOWNLOADS);
    assert!(receive(&mut clients[0]).await > BODY_BYTES, "what was held up comes as a whole");
    drop((warm, clients));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by streams_that_nobody_reads_leave_memory_bounded, in a process of its own"]
async fn uploads_alone() {
    let (open, gate) = watch::channel(true);
    let origin = origin(move |stream| take_and_answer(stream, gate.clone())).await;
    let world = World::start(origin).await;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    let moved = Arc::new(AtomicU64::new(0));
    let mut warm = ask(&world, &head).await;
    send_body(&mut warm, &moved).await;
    assert!(answered(&mut warm).await);
    open.send_replace(false);
    let before = resident_kib();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..UPLOADS {
        let (mut client, moved) = (ask(&world, &head).await, Arc::clone(&moved));
        clients.spawn(async move {
            send_body(&mut client, &moved).await;
            answered(&mut client).await
        });
    }
    stalled(&moved, UPLOADS).await;
    bounded(before, UPLOADS);
    open.send_replace(true);
    let all = tokio::time::timeout(Duration::from_secs(60), clients.join_all()).await.unwrap();
    assert!(all.into_iter().all(|answered| answered), "what was held up was taken as a whole");
    drop(warm);
    world.stop().await;
}

/// One that runs this on each connection.
async fn origin<F>(script: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(script(stream));
        }
    });
    address
}

/// Takes a body once the gate is open, and answers.
async fn take_and_answer(mut stream: TcpStream, mut gate: Gate) {
    let mut taken = head(&mut stream).await;
    // Not a byte of our own is held before the gate opens: it would count as the proxy's.
    let opened = gate.wait_for(|open| *open).await.is_ok();
    let mut buffer = vec![0; 1 << 16];
    while taken < BODY_BYTES {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(opened && count > 0, "the body ended at {taken}");
        taken += count as u64;
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await.unwrap();
}

/// Reads to the end of a head; how many bytes came behind it.
async fn head(stream: &mut TcpStream) -> u64 {
    let mut got = Vec::new();
    loop {
        if let Some(end) = crate::message::find(&got, b"\r\n\r\n") {
            return (got.len() - end - 4) as u64;
        }
        if stream.read_buf(&mut got).await.unwrap() == 0 {
            // Somebody looked whether the origin is there.
            return std::future::pending().await;
        }
    }
}

async fn ask(world: &World, head: &str) -> TcpStream {
    let mut client = within(TcpStream::connect(world.address)).await.unwrap();
    within(client.write_all(head.as_bytes())).await.unwrap();
    client
}

async fn send_body(stream: &mut TcpStream, moved: &AtomicU64) {
    for _ in 0..BODY_BYTES / PART.len() as u64 {
        if stream.write_all(PART).await.is_err() {
            return;
        }
        moved.fetch_add(PART.len() as u64, Ordering::Relaxed);
    }
}

/// Reads until the body must be there; how many bytes came.
async fn receive(client: &mut TcpStream) -> u64 {
    let mut buffer = vec![0; 1 << 16];
    let mut got = 0;
    while got <= BODY_BYTES {
        match within(client.read(&mut buffer)).await.unwrap() {
            0 => break,
            count => got += count as u64,
        }
    }
    got
}

async fn answered(client: &mut TcpStream) -> bool {
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.is_ok() && &answer == b"HTTP/1.1 200"
}

/// Waits until nothing moves any more.
async fn stalled(moved: &AtomicU64, streams: u64) {
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    let (mut before, mut quiet) = (0, 0);
    while quiet < 3 {
        ticks.tick().await;
        let now = moved.load(Ordering::Relaxed);
        quiet = if now == before && now > 0 { quiet + 1 } else { 0 };
        before = now;
    }
    assert!(before < streams * BODY_BYTES, "nothing was held up");
}

fn bounded(before: u64, streams: u64) {
    let each = resident_kib().saturating_sub(before) / streams;
    assert!(each <= KIB_PER_STREAM_MAX, "{each} KiB are held of each stream");
    println!("{each} KiB are held of each stream");
}

/// This process's memory.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
