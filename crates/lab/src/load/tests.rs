//! The generator against a server that does as it is told.

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;

/// A server whose answer depends on the request's text.
async fn server(answer: impl Fn(&str) -> Option<String> + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer.clone()));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, answer: impl Fn(&str) -> Option<String>) {
    let mut buffer = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut buffer).await {
        if !buffer.ends_with(b"\r\n\r\n") {
            continue;
        }
        let Some(answer) = answer(std::str::from_utf8(&buffer).unwrap()) else { return };
        stream.write_all(answer.as_bytes()).await.unwrap();
        buffer.clear();
    }
}

fn ok(server: u32) -> String {
    let body = format!(r#"{{"message":"Hello from Server: {server}","status":"successful"}}"#);
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn id(request: &str) -> u32 {
    let (_, rest) = request.split_once("X-Request-Id: ").unwrap();
    rest[..6].parse().unwrap()
}

fn plan(address: SocketAddr, requests: usize, pace: Pace) -> Plan {
    let target = Target { address, host: address.to_string(), path: "/home".to_owned(), keys: Vec::new() };
    Plan { target, seed: 42, requests, pace, timeout: Duration::from_secs(5) }
}

fn open(per_second: f64) -> Pace {
    let stop = CancellationToken::new();
    stop.cancel();
    Pace::Open { per_second, stop }
}

async fn outcome(plan: Plan) -> Outcome {
    run(plan, ProgressBar::hidden(), CancellationToken::new()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_counted_for_its_replica_and_the_ids_are_those_of_the_seed() {
    let address = server(|request| Some(ok(1 + id(request) % 3))).await;
    for pace in [Pace::Waves { concurrency: 10 }, open(20_000.0)] {
        let plan = plan(address, 2_000, pace);
        let ids = plan.ids();
        let outcome = outcome(plan).await;
        assert_eq!((outcome.failures.len(), outcome.unnamed), (0, 0), "{:?}", outcome.failures);
        let sent: BTreeSet<u32> = outcome.samples.iter().map(|sample| sample.id).collect();
        assert_eq!((outcome.samples.len(), sent), (2_000, ids.iter().copied().collect()));
        for (ordinal, count) in outcome.counts() {
            let expected = ids.iter().filter(|id| *id % 3 == u32::from(ordinal.0)).count();
            assert_eq!(count, expected as u64, "{ordinal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_keeps_its_times_when_the_server_stalls() {
    // Everything that arrives in the second fifth of a second is answered at its end.
    let began = Instant::now();
    let (from, until) = (Duration::from_millis(200), Duration::from_millis(400));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = vec![0; 1_024];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    if (from..until).contains(&began.elapsed()) {
                        tokio::time::sleep_until(began + until).await;
                    }
                    stream.write_all(ok(1).as_bytes()).await.unwrap();
                }
            });
        }
    });
    let outcome = outcome(plan(address, 1_200, open(2_000.0))).await;
    assert_eq!(outcome.failures, []);
    // The arrivals go on at their rate: in the stall about 400 of them, give or take the generator's start.
    let held: Vec<&Sample> =
        outcome.samples.iter().filter(|s| s.ended - s.intended > Duration::from_millis(20)).collect();
    assert!((250..450).contains(&held.len()), "{}", held.len());
    // And each is late by as much as was left of the stall when it was meant to be sent.
    let longest = held.iter().map(|s| s.ended - s.intended).max().unwrap();
    assert!(longest > Duration::from_millis(150), "{longest:?}");
    assert!(outcome.latency.p90_ms > 50.0 && outcome.latency.p50_ms < 20.0, "{:?}", outcome.latency);
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_kept_with_cause_and_time() {
    let address = server(|request| match id(request) % 4 {
        0 => None,
        1 => Some("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy".to_owned()),
        2 => Some("nonsense\r\n\r\n".to_owned()),
        _ => Some(ok(2)),
    })
    .await;
    let plan = plan(address, 400, Pace::Waves { concurrency: 4 });
    let ids = plan.ids();
    let outcome = outcome(plan).await;
    let kind = |rest: u32| ids.iter().filter(|id| *id % 4 == rest).count();
    let with = |text: &str| outcome.failures.iter().filter(|f| f.cause.contains(text)).count();
    assert_eq!(with("closed without an answer"), kind(0));
    assert_eq!(with("status 503: busy"), kind(1));
    assert_eq!(with("not an answer of HTTP/1.1"), kind(2));
    assert_eq!(outcome.counts()[&Ordinal(1)], kind(3) as u64);
    assert_eq!(outcome.failures.len() + kind(3), 400);
    assert!(outcome.failures.iter().all(|f| f.at_seconds >= 0.0 && ids.contains(&f.id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_a_failure_and_so_is_silence() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    let mut waiting = plan(silent, 3, Pace::Waves { concurrency: 3 });
    waiting.timeout = Duration::from_millis(50);
    let causes: Vec<String> = outcome(waiting).await.failures.into_iter().map(|f| f.cause).collect();
    assert_eq!(causes, ["no answer within 50ms"; 3]);
    drop(listener);
    let refused = outcome(plan(silent, 5, open(1_000.0))).await;
    assert_eq!(refused.failures.len(), 5);
    assert!(refused.failures[0].cause.contains("refused"), "{:?}", refused.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_load_keeps_what_has_ended() {
    let address = server(|_| Some(ok(1))).await;
    let cancel = CancellationToken::new();
    let pace = Pace::Open { per_second: 500.0, stop: CancellationToken::new() };
    let bar = ProgressBar::hidden();
    let running = tokio::spawn(run(plan(address, 10, pace), bar.clone(), cancel.clone()));
    while bar.position() < 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cancel.cancel();
    let outcome = running.await.unwrap().unwrap();
    assert!(outcome.samples.len() >= 20 && outcome.failures.is_empty(), "{}", outcome.samples.len());
}

#[test]
fn the_header_field_tells_the_replica_before_the_body_does() {
    let answer = |replica: Option<&str>, body: &str| Answer {
        status: 200,
        body: body.as_bytes().to_vec(),
        replica: replica.map(ToOwned::to_owned),
        keep: true,
    };
    assert_eq!(replica_of(&answer(Some("my-web-12"), "Hello from Server: 3")), Some(Ordinal(12)));
    assert_eq!(replica_of(&answer(None, r#"{"message":"Hello from Server: 3""#)), Some(Ordinal(2)));
    assert_eq!(replica_of(&answer(None, "Server: 0")), None);
    assert_eq!(replica_of(&answer(None, "hello")), None);
}
