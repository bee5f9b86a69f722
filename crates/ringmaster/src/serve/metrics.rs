//! `/metrics`: what the `metrics` macros of all crates count, the process's own figures, and the data plane's.

mod families;
mod process;
mod recorder;

use std::sync::Arc;

use anyhow::Context;
use ringmaster_core::exposition::{Exposition, Kind};

use recorder::Recorder;

/// Takes over what the macros count, from now on.
pub(super) fn install() -> anyhow::Result<Arc<Recorder>> {
    let recorder = Arc::new(Recorder::new(&families::FAMILIES));
    metrics::set_global_recorder(recorder::Installed(Arc::clone(&recorder)))
        .context("metrics: another recorder is installed")?;
    Ok(recorder)
}

/// What is known of this daemon and its process.
pub(super) struct About {
    pub(super) version: &'static str,
    pub(super) runtime: &'static str,
    pub(super) instance: String,
}

/// Renders everything but the controller's state, which the admin API adds.
pub(super) fn renderer(
    recorder: Arc<Recorder>,
    about: About,
    data_plane: impl Fn() -> String + Send + Sync + 'static,
) -> impl Fn(&dyn Fn(&str) -> bool) -> String + Send + Sync + 'static {
    move |is_live| {
        let mut out = Exposition::new();
        out.family("ringmaster_build_info", Kind::Gauge, "1; its labels say what runs.");
        let labels =
            [("version", about.version), ("runtime", about.runtime), ("instance_name", &about.instance)];
        out.sample(&labels, 1);
        process::render(&mut out);
        recorder.render(&mut out, is_live);
        out.finish() + &data_plane()
    }
}
