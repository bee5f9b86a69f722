//! Traces to an OpenTelemetry collector over OTLP/HTTP: passes of the loop with their actions, requests of the admin API.
//!
//! A thread of its own exports what waits in a bounded queue. Who makes a span never waits: where the collector is away
//! or slow, spans are lost, and a warning says so at most once a minute. Deliberately absent: TLS (a collector
//! beside the daemon adds it), and traces of the data plane's requests, which passes `traceparent` through.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter,
};
use tokio::runtime::Handle;
use tracing::{Level, Metadata};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;

use super::logging::Spans;
use crate::cmd::BadInput;

/// Spans that wait for the exporter at most; more are lost.
const QUEUE_MAX: usize = 2048;
const BATCH_MAX: usize = 512;
/// Spans wait for company so long.
const DELAY: Duration = Duration::from_secs(1);
/// How long a collector may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the daemon's end waits for the last spans.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// What a collector may answer: it says hardly anything.
const ANSWER_BYTES_MAX: usize = 64 << 10;
const WARN_PAUSE: Duration = Duration::from_secs(60);
const PATH: &str = "/v1/traces";

/// The way of traces out of the daemon.
pub(super) struct Traces(SdkTracerProvider);

/// Starts exporting. `endpoint` is a collector, such as `http://127.0.0.1:4318`.
///
/// # Errors
/// An endpoint that is no URL, or one that needs TLS.
pub(super) fn start(endpoint: &str, instance: &str, runtime: Handle) -> anyhow::Result<(Traces, Spans)> {
    let url = traces_url(endpoint)?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let exporter = OtlpExporter::builder()
        .with_http()
        .with_http_client(OnRuntime { client, runtime })
        .with_endpoint(&url)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .context("the exporter of traces")?;
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_MAX)
        .with_max_export_batch_size(BATCH_MAX)
        .with_scheduled_delay(DELAY)
        .build();
    let exporter = Told { exporter, url, losses: Mutex::default() };
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let resource = Resource::builder()
        .with_service_name("ringmaster")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ])
        .build();
    let provider =
        SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build();
    // Lines of the log that are not for debugging go along as events of their span.
    let wanted = |metadata: &Metadata<'_>| metadata.is_span() || *metadata.level() <= Level::INFO;
    let ours = filter_fn(move |metadata| metadata.target().starts_with("ringmaster") && wanted(metadata));
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("ringmaster"))
        .with_location(false)
        .with_threads(false)
        .with_filter(ours);
    Ok((Traces(provider), layer.boxed()))
}

impl Traces {
    /// Sends what waits, within a second.
    pub(super) fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(END_TIMEOUT) {
            tracing::debug!(%error, "the last traces are lost");
        }
    }
}

/// Makes a request's span part of the trace that its headers name (W3C Trace Context), if they do.
pub(super) fn join(span: &tracing::Span, request: &http::request::Parts) {
    span.set_attribute("http.request.method", request.method.to_string());
    span.set_attribute("url.path", request.uri.path().to_owned());
    let context = TraceContextPropagator::new().extract(&Headers(&request.headers));
    if context.span().span_context().is_valid()
        && let Err(error) = span.set_parent(context)
    {
        tracing::debug!(?error, "a span stays outside of its client's trace");
    }
}

struct Headers<'a>(&'a http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Where traces go at a collector.
fn traces_url(endpoint: &str) -> anyhow::Result<String> {
    let bad = |why: &str| BadInput(format!("--otlp-endpoint {endpoint}: {why}"));
    let url: http::Uri = endpoint.parse().map_err(|_| bad("not a URL such as http://127.0.0.1:4318"))?;
    match url.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(bad("TLS is not built in: let a collector on this host pass traces on").into());
        }
        _ => return Err(bad("not a URL such as http://127.0.0.1:4318").into()),
    }
    let base = endpoint.trim_end_matches('/');
    Ok(if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") })
}

/// An HTTP client whose requests run on the daemon's runtime: the exporter's thread has none.
struct OnRuntime {
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: Handle,
}

impl fmt::Debug for OnRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnRuntime").finish_non_exhaustive()
    }
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let exchange = async {
                let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
                Ok::<_, HttpError>(Response::from_parts(head, body))
            };
            tokio::time::timeout(EXPORT_TIMEOUT, exchange).await?
        });
        sent.await?
    }
}

/// An exporter that says when it loses spans, at most once a minute.
#[derive(Debug)]
struct Told<E> {
    exporter: E,
    url: String,
    losses: Mutex<Losses>,
}

#[derive(Debug, Default)]
struct Losses {
    warned_at: Option<Instant>,
    spans: usize,
}

impl Losses {
    /// Counts; how many are to be told of, if it is time.
    fn add(&mut self, spans: usize, now: Instant) -> Option<usize> {
        self.spans += spans;
        if self.warned_at.is_some_and(|at| now.duration_since(at) < WARN_PAUSE) {
            return None;
        }
        self.warned_at = Some(now);
        Some(std::mem::take(&mut self.spans))
    }
}

impl<E: SpanExporter> SpanExporter for Told<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        if let Err(error) = &result {
            let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(spans) = losses.add(spans, Instant::now()) {
                let url = &self.url;
                tracing::warn!(%error, "{spans} spans are lost: {url} does not take them; nothing else is held up");
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_named_by_its_base_or_in_full() {
        let url = |endpoint: &str| traces_url(endpoint).map_err(|error| error.to_string());
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(url(endpoint).unwrap(), "http://c:4318/v1/traces");
        }
        assert!(url("https://c:4318").unwrap_err().contains("TLS is not built in"));
        assert!(url("c:4318").unwrap_err().contains("not a URL"));
        assert!(url("").unwrap_err().contains("not a URL"));
    }

    #[test]
    fn losses_are_told_once_a_minute_and_none_is_forgotten() {
        let (mut losses, start) = (Losses::default(), Instant::now());
        assert_eq!(losses.add(3, start), Some(3));
        assert_eq!(losses.add(4, start + Duration::from_secs(59)), None);
        assert_eq!(losses.add(5, start + Duration::from_secs(60)), Some(9));
    }
}
