//! A runtime whose operations are counted: how long each takes, and how it fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use ringmaster_core::observed::{RuntimeId, RuntimeReplica};
use ringmaster_core::spec::Template;
use ringmaster_runtime::{
    CreateRequest, ErrorKind, ExecOutcome, Inspected, Runtime, RuntimeError, Signal, Wake,
};

/// Another runtime, counted. Cancel-safe as that one is: a call that is dropped is not counted.
pub(crate) struct Metered(pub(crate) Arc<dyn Runtime>);

async fn count<T>(
    operation: &'static str,
    call: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    let started = Instant::now();
    let result = call.await;
    metrics::histogram!("ringmaster_engine_call_duration_seconds", "operation" => operation)
        .record(started.elapsed());
    if let Err(error) = &result {
        let kind = match error.kind {
            ErrorKind::NotFound => "not_found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::ImageMissing => "image_missing",
            ErrorKind::Invalid => "invalid",
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::Engine => "engine",
        };
        metrics::counter!("ringmaster_engine_call_errors_total", "operation" => operation, "kind" => kind)
            .increment(1);
    }
    result
}

#[async_trait]
impl Runtime for Metered {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    async fn resolve(&self, template: &Template) -> Result<String, RuntimeError> {
        count("resolve", self.0.resolve(template)).await
    }

    async fn list(&self) -> Result<Vec<RuntimeReplica>, RuntimeError> {
        count("list", self.0.list()).await
    }

    async fn inspect(&self, id: &RuntimeId) -> Result<Option<Inspected>, RuntimeError> {
        count("inspect", self.0.inspect(id)).await
    }

    async fn create(&self, request: &CreateRequest) -> Result<RuntimeReplica, RuntimeError> {
        count("create", self.0.create(request)).await
    }

    async fn exec(
        &self,
        id: &RuntimeId,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecOutcome, RuntimeError> {
        count("exec", self.0.exec(id, command, limit)).await
    }

    async fn stop(&self, id: &RuntimeId, grace: Duration) -> Result<(), RuntimeError> {
        count("stop", self.0.stop(id, grace)).await
    }

    async fn remove(&self, id: &RuntimeId) -> Result<(), RuntimeError> {
        count("remove", self.0.remove(id)).await
    }

    async fn repair(&self, id: &RuntimeId) -> Result<(), RuntimeError> {
        count("repair", self.0.repair(id)).await
    }

    async fn signal(&self, id: &RuntimeId, signal: Signal) -> Result<(), RuntimeError> {
        count("signal", self.0.signal(id, signal)).await
    }

    async fn logs(&self, id: &RuntimeId, lines: usize) -> Result<String, RuntimeError> {
        count("logs", self.0.logs(id, lines)).await
    }

    async fn cpu_used(&self, id: &RuntimeId) -> Result<Option<Duration>, RuntimeError> {
        count("cpu_used", self.0.cpu_used(id)).await
    }

    fn events(&self) -> BoxStream<'static, Wake> {
        let counted = self.0.events().inspect(|wake| {
            let kind = match wake {
                Wake::Changed => "changed",
                Wake::Stopping(_) => "stopping",
                Wake::ChangedLimits(..) => "changed_limits",
                Wake::Reconnected => "reconnected",
                Wake::Disconnected(_) => "disconnected",
            };
            metrics::counter!("ringmaster_engine_events_total", "kind" => kind).increment(1);
        });
        counted.boxed()
    }
}
