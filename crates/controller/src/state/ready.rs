//! Which releases of each service were ready as a whole: what a service may go back to.
//!
//! Seen, not decided, so it is a file of its own beside the revisions. It may lag behind: what is lost is seen again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ringmaster_core::rollout::Release;
use ringmaster_core::{Generation, ServiceName};
use serde::{Deserialize, Serialize};

use super::{StateDir, StateError, read_whole, seal, write_atomically};

/// So many releases of a service are kept.
const RELEASES_KEPT: usize = 40;

/// The releases of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadyReleases {
    /// Since when they have been noted: a service that was deleted and made again is another one.
    pub noted_from: Generation,
    /// Each template once, by when it was ready last; the last one is the stable release.
    pub releases: Vec<Release>,
}

/// The releases of every service.
pub type Ready = BTreeMap<ServiceName, ReadyReleases>;

impl ReadyReleases {
    /// Adds a release that is ready now.
    pub fn note(&mut self, release: Release) {
        self.releases.retain(|earlier| earlier.template != release.template);
        self.releases.push(release);
        self.releases.drain(..self.releases.len().saturating_sub(RELEASES_KEPT));
    }
}

impl StateDir {
    /// What was written; nothing if nothing was.
    ///
    /// # Errors
    /// A clause about the file, if it cannot be read.
    pub fn load_ready(&self) -> Result<Ready, String> {
        Ok(read_whole(&self.ready_path())?.unwrap_or_default())
    }

    /// Where it is written.
    pub fn ready_path(&self) -> PathBuf {
        self.root.join("ready")
    }
}

/// Writes it.
///
/// # Errors
/// The operation that failed; then what was written before stays.
pub fn save(path: &std::path::Path, ready: &Ready) -> Result<(), StateError> {
    let text = serde_json::to_string(ready).expect("names are text");
    write_atomically(path, seal(&text).as_bytes())
}

#[cfg(test)]
mod tests {
    use ringmaster_core::Revision;
    use ringmaster_core::spec::Template;

    use super::*;

    fn release(image: &str, generation: u64) -> Release {
        let template: Template = serde_json::from_value(serde_json::json!({ "image": image })).unwrap();
        let revision = Revision(format!("r{image}"));
        Release {
            revision,
            content_id: "c".to_owned(),
            template,
            restarted_at: None,
            generation: Generation(generation),
        }
    }

    #[test]
    fn each_template_is_kept_once_and_what_is_stable_is_never_dropped() {
        let mut ready = ReadyReleases { noted_from: Generation(1), releases: Vec::new() };
        for number in 0..100 {
            ready.note(release(&format!("x:{number}"), number));
            ready.note(release("x:first", number));
        }
        assert_eq!((ready.releases.len(), ready.releases.last().unwrap().generation.0), (RELEASES_KEPT, 99));
        assert_eq!(ready.releases.last().unwrap().template.image.as_deref(), Some("x:first"));
    }

    #[test]
    fn it_is_read_as_it_was_written_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert_eq!(state.load_ready(), Ok(Ready::new()));
        let releases = vec![release("x", 3)];
        let ready = Ready::from([(
            ServiceName::new("web").unwrap(),
            ReadyReleases { noted_from: Generation(1), releases },
        )]);
        save(&state.ready_path(), &ready).unwrap();
        assert_eq!(state.load_ready(), Ok(ready));
        let whole = std::fs::read(state.ready_path()).unwrap();
        std::fs::write(state.ready_path(), &whole[..whole.len() / 2]).unwrap();
        assert!(state.load_ready().is_err());
    }
}
