//! What was told of each service: since when conditions have held, and when there was progress last.
//!
//! Seen, not decided, and of no weight but to who reads it: so it is not synced, and damage only means that times begin
//! anew.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ringmaster_core::ServiceName;
use ringmaster_core::status::Remembered;

use super::{StateDir, StateError, io, read_whole, seal};

/// What is kept of the status of every service.
pub type Statuses = BTreeMap<ServiceName, Remembered>;

impl StateDir {
    /// What was written last; nothing if that cannot be read.
    pub fn load_statuses(&self) -> Statuses {
        read_whole(&self.statuses_path())
            .unwrap_or_else(|why| {
                tracing::warn!("the file of statuses {why}: times of conditions begin anew");
                None
            })
            .unwrap_or_default()
    }

    /// Where they are written.
    pub fn statuses_path(&self) -> PathBuf {
        self.root.join("statuses")
    }
}

/// Writes them: a process that is killed leaves the old file or the new one.
///
/// # Errors
/// The operation that failed; then what was written before stays.
pub fn save(path: &Path, statuses: &Statuses) -> Result<(), StateError> {
    let text = serde_json::to_string(statuses).expect("names are text");
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(seal(&text).as_bytes())?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| io("write", path, source))
}

#[cfg(test)]
mod tests {
    use ringmaster_core::status::{ConditionKind, Held};
    use ringmaster_core::{Generation, Timestamp};

    use super::*;

    #[test]
    fn they_are_read_as_they_were_written_and_damage_is_no_reason_not_to_start() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert_eq!(state.load_statuses(), Statuses::new());
        let held = Held { kind: ConditionKind::Available, status: true, since: Timestamp(5) };
        let known = Remembered {
            generation: Generation(3),
            replicas: 2,
            ready: 2,
            updated: 1,
            progressed_at: Timestamp(7),
            conditions: vec![held],
        };
        let statuses = Statuses::from([(ServiceName::new("web").unwrap(), known)]);
        save(&state.statuses_path(), &statuses).unwrap();
        assert_eq!(state.load_statuses(), statuses);
        let whole = fs::read(state.statuses_path()).unwrap();
        for cut in 0..whole.len() {
            fs::write(state.statuses_path(), &whole[..cut]).unwrap();
            assert_eq!(state.load_statuses(), Statuses::new(), "cut at {cut}");
        }
    }
}
