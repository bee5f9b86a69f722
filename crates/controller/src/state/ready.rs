//! Which releases of each service were ready as a whole ([`ringmaster_core::rollout::Ready`]), on disk.
//!
//! Seen, not decided, so it is a file of its own beside the revisions. It may lag behind: what is lost is seen again.

use std::path::PathBuf;

use ringmaster_core::rollout::Ready;

use super::{StateDir, StateError, read_whole, seal, write_atomically};

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
    use ringmaster_core::rollout::{ReadyReleases, Release};
    use ringmaster_core::spec::Template;
    use ringmaster_core::{Generation, Revision, ServiceName};

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
    fn it_is_read_as_it_was_written_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert_eq!(state.load_ready(), Ok(Ready::default()));
        let releases = vec![release("x", 3)];
        let releases = ReadyReleases { noted_from: Generation(1), releases };
        let ready = Ready([(ServiceName::new("web").unwrap(), releases)].into());
        save(&state.ready_path(), &ready).unwrap();
        assert_eq!(state.load_ready(), Ok(ready));
        let whole = std::fs::read(state.ready_path()).unwrap();
        std::fs::write(state.ready_path(), &whole[..whole.len() / 2]).unwrap();
        assert!(state.load_ready().is_err());
    }
}
