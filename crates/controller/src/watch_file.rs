//! `serve --watch`: edits of the manifest apply by themselves.
//!
//! Editors rename over a file, and a watch on the file itself would end with the first such edit: the folder
//! is watched, and what counts is the file's content once it has been still for a moment. A file that is
//! missing, half-written or wrong changes nothing and is reported.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use ringmaster_core::Reason;
use ringmaster_core::api::ManifestFile;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::figures;
use crate::store::Store;
use crate::timeline::Timeline;

/// A file counts as written when nothing has happened to it for this long.
const QUIET: Duration = Duration::from_millis(200);
/// However restless its folder is, it is read after this long.
const UNREST_MAX: Duration = Duration::from_secs(2);
/// A refusal that may pass is tried again after this long.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Watches `path` until shut down.
///
/// # Errors
/// If the folder cannot be watched.
pub async fn run(
    path: PathBuf,
    store: Arc<Store>,
    timeline: Arc<Timeline>,
    shutdown: CancellationToken,
) -> Result<(), notify::Error> {
    let changed = Arc::new(Notify::new());
    let notify = Arc::clone(&changed);
    let mut watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
        // Any event in the folder, an overflow included, is reason enough to read the file again.
        if event.is_ok_and(|event| event.kind.is_access() && !closed_after_write(&event)) {
            return;
        }
        notify.notify_one();
    })?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    // What was written between the start of the daemon and that of the watch counts as well.
    changed.notify_one();
    let mut last: Option<Result<String, String>> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = changed.notified() => {}
            // A change that was refused for a passing reason (a full disk, a service on its way out, a rollout) is tried again.
            () = tokio::time::sleep(RETRY_AFTER), if last.is_none() => {}
        }
        let still = async { while tokio::time::timeout(QUIET, changed.notified()).await.is_ok() {} };
        // A folder that never rests must not keep the file from being read, nor the daemon from ending.
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = tokio::time::timeout(UNREST_MAX, still) => {}
        }
        let found = tokio::fs::read_to_string(&path).await.map_err(|error| error.to_string());
        if last.as_ref() == Some(&found) {
            continue;
        }
        let (store, timeline, file) = (Arc::clone(&store), Arc::clone(&timeline), path.clone());
        let text = found.clone();
        let applied = tokio::task::spawn_blocking(move || apply(&file, text, &store, &timeline)).await;
        last = applied.unwrap_or(false).then_some(found);
    }
}

fn closed_after_write(event: &notify::Event) -> bool {
    use notify::event::{AccessKind, AccessMode, EventKind};
    matches!(event.kind, EventKind::Access(AccessKind::Close(AccessMode::Write)))
}

/// Applies what was found. Returns whether that is settled; if not, it is worth another try.
fn apply(path: &Path, found: Result<String, String>, store: &Store, timeline: &Timeline) -> bool {
    let file = path.display().to_string();
    let text = match found {
        Ok(text) => text,
        Err(why) => {
            let message = format!("{file}: {why}: nothing was changed");
            figures::config_applied(false);
            timeline.warning(None, "manifest", Reason::ManifestUnreadable, message);
            return true;
        }
    };
    match store.apply_file_once(&ManifestFile { file: file.clone(), text }) {
        Ok(None) => {}
        Ok(Some(response)) if response.changes() => {
            let message = format!("{file} applied as generation {}", response.generation);
            timeline.normal(None, "manifest", Reason::ManifestApplied, message);
        }
        Ok(Some(_)) => {
            timeline.normal(None, "manifest", Reason::ManifestUnchanged, format!("{file} changes nothing"))
        }
        Err(error) => {
            let message = format!("{file} was refused, nothing was changed: {error}");
            timeline.warning(None, "manifest", Reason::ManifestRefused, message);
            return !error.is_passing();
        }
    }
    true
}
