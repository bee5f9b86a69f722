//! `/metrics`: what the `metrics` macros of all crates count, and the process's own figures.

mod families;
mod process;
mod recorder;

use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use ringmaster_core::exposition::{Exposition, Kind};
use tokio_util::sync::CancellationToken;

/// How often histograms are folded together when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Takes over what the macros count, from now on.
pub(super) fn install() -> anyhow::Result<PrometheusHandle> {
    let recorder = recorder::recorder(&families::FAMILIES).context("metrics: the table of families")?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).ok().context("metrics: another recorder is installed")?;
    Ok(handle)
}

/// Keeps what is counted small while nobody scrapes.
pub(super) async fn upkeep(handle: PrometheusHandle, shutdown: CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(UPKEEP) => handle.run_upkeep(),
        }
    }
}

/// The figures of this process alone.
pub(crate) fn of_process() -> String {
    let mut out = Exposition::new();
    process::render(&mut out);
    out.finish()
}

/// What is known of this daemon and its process.
pub(super) struct About {
    pub(super) version: &'static str,
    pub(super) runtime: &'static str,
    pub(super) instance: String,
}

/// Renders everything but the controller's state and the data plane's figures, which the admin API adds.
pub(super) fn renderer(
    counted: PrometheusHandle,
    about: About,
) -> impl Fn(&dyn Fn(&str) -> bool) -> String + Send + Sync + 'static {
    move |is_live| {
        let mut out = Exposition::new();
        out.family("ringmaster_build_info", Kind::Gauge, "1; its labels say what runs.");
        let labels =
            [("version", about.version), ("runtime", about.runtime), ("instance_name", &about.instance)];
        out.sample(&labels, 1);
        process::render(&mut out);
        out.finish() + &recorder::render(&counted, is_live)
    }
}
