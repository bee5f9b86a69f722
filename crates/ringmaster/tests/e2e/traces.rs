//! Traces over OTLP: a collector sees what an `apply` led to in its client's trace, and none is missed.

use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::common::{Daemon, On, Setup, free_address, shared};
use crate::load::Load;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Takes spans as OTLP over HTTP brings them.
struct Collector {
    address: SocketAddr,
    spans: watch::Receiver<Vec<Span>>,
}

impl Collector {
    async fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, spans) = watch::channel(Vec::new());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, sender.clone()));
            }
        });
        Collector { address, spans }
    }

    /// Awaits a span.
    async fn span(&mut self, what: &str, fits: impl Fn(&Span) -> bool) -> Span {
        let found = self.spans.wait_for(|spans| spans.iter().any(&fits));
        let spans = tokio::time::timeout(crate::common::SOON, found).await;
        let spans = spans.unwrap_or_else(|_| panic!("no span: {what}")).unwrap();
        spans.iter().find(|span| fits(span)).unwrap().clone()
    }
}

/// Requests of one connection, one after the other.
async fn serve(stream: TcpStream, spans: watch::Sender<Vec<Span>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut length, mut line) = (String::new(), 0, String::new());
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            head.push_str(&lower);
        }
        assert!(head.starts_with("post /v1/traces ") && head.contains("application/x-protobuf"), "{head}");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let export = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
        let scopes = export.resource_spans.into_iter().flat_map(|resource| {
            let resource_of = resource.resource.unwrap();
            let named = resource_of.attributes.iter().any(|a| a.key == "service.name");
            assert!(named, "{resource_of:?}");
            resource.scope_spans
        });
        let new: Vec<Span> = scopes.flat_map(|scope| scope.spans).collect();
        spans.send_modify(|spans| spans.extend(new));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    }
}

fn attribute(span: &Span, key: &str) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|found| found.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_is_in_the_trace_of_its_client_with_all_that_it_led_to() {
    let _shared = shared().await;
    let mut collector = Collector::start().await;
    let (setup, _folder) = Setup::new(On::Process);
    let endpoint = format!("http://{}", collector.address);
    let mut daemon = Daemon::with(setup.with(&["--otlp-endpoint", &endpoint])).await;
    let url = format!("http://{}/api/v1/apply", daemon.setup.admin);
    let body = json!({ "files": [{ "file": "-", "text": daemon.manifest("web", 2, "") }] });
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let request = reqwest::Client::new().post(url).header("traceparent", parent).header("x-request-id", "me");
    assert_eq!(request.json(&body).send().await.unwrap().status(), 200);

    let admin =
        collector.span("the request", |span| hex(&span.trace_id) == TRACE && span.name == "admin").await;
    assert_eq!(hex(&admin.parent_span_id), PARENT);
    let told = ["http.request.method", "url.path", "request_id", "status"].map(|key| attribute(&admin, key));
    assert_eq!(told, ["POST", "/api/v1/apply", "me", "200"]);
    let applied = admin.events.iter().any(|event| event.name.contains("applied as generation 1"));
    assert!(applied, "what was decided goes along: {:?}", admin.events);
    let pass = collector
        .span("the pass", |span| span.name == "reconcile" && span.parent_span_id == admin.span_id)
        .await;
    assert_eq!((hex(&pass.trace_id).as_str(), attribute(&pass, "generation").as_str()), (TRACE, "1"));
    let of_apply =
        |span: &Span, name: &str, replica: &str| span.name == name && attribute(span, "replica") == replica;
    for replica in ["web-0-0", "web-1-0"] {
        let create = collector.span("a create", |span| of_apply(span, "create", replica)).await;
        assert_eq!(hex(&create.trace_id), TRACE);
        assert!(!attribute(&create, "reason").is_empty(), "{create:?}");
        assert!(create.end_time_unix_nano > create.start_time_unix_nano);
    }

    // Without a client's trace there are traces of their own.
    daemon.until("web", "ready", |status| status.ready == 2 && status.is_converged()).await;
    daemon.client.scale(&crate::common::name("web"), 1).await.unwrap();
    for name in ["drain", "remove"] {
        let span = collector.span(name, |span| of_apply(span, name, "web-1-0")).await;
        assert_ne!(hex(&span.trace_id), TRACE);
        assert_eq!(attribute(&span, "reason"), "scaled down");
    }
    // The last spans are sent before the end.
    daemon.client.scale(&crate::common::name("web"), 3).await.unwrap();
    daemon.until("web", "scaled", |status| status.ready == 3).await;
    assert_eq!(daemon.end(Signal::TERM).await, Some(0));
    collector.span("the last change", |span| attribute(span, "generation") == "3").await;
    daemon.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_never_answers_holds_up_nobody() {
    let _shared = shared().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for endpoint in [free_address(), silent.local_addr().unwrap()] {
        let (setup, _folder) = Setup::new(On::Process);
        let endpoint = format!("http://{endpoint}");
        let mut daemon = Daemon::with(setup.with(&["--otlp-endpoint", &endpoint])).await;
        daemon.apply_and_converge("web", &daemon.manifest("web", 2, "")).await;
        let mut load = Load::start(daemon.setup.listen, 100);
        load.more(20).await;
        // More spans than the queue holds.
        let http = reqwest::Client::new();
        let url = format!("http://{}/healthz", daemon.setup.admin);
        let mut slowest = Duration::ZERO;
        for _ in 0..3_000 {
            let asked = Instant::now();
            assert_eq!(http.get(&url).send().await.unwrap().status(), 200);
            slowest = slowest.max(asked.elapsed());
        }
        assert!(slowest < Duration::from_secs(1), "a request took {slowest:?}");
        let warnings = || daemon.log().matches("spans are lost").count();
        crate::common::eventually("a warning", || async { (warnings() > 0).then_some(()) }).await;
        daemon.client.scale(&crate::common::name("web"), 3).await.unwrap();
        daemon.until("web", "scaled", |status| status.ready == 3).await;
        load.more(20).await;
        let outcome = load.stop().await;
        assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
        assert_eq!(warnings(), 1, "{}", daemon.log());
        let ending = Instant::now();
        assert_eq!(daemon.end(Signal::TERM).await, Some(0));
        assert!(ending.elapsed() < Duration::from_secs(5), "it ended after {:?}", ending.elapsed());
        daemon.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_behind_tls_is_refused_at_the_start() {
    let _shared = shared().await;
    let (setup, _folder) = Setup::new(On::Process);
    let (code, err) = setup.with(&["--otlp-endpoint", "https://collector:4318"]).refused();
    assert!(code == Some(2) && err.contains("TLS is not built in"), "{code:?} {err}");
}
