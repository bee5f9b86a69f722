//! What is written down of a replica, so that the next daemon finds it: one small JSON file each.
//!
//! Written to a temporary file and renamed, so that a reader sees the old record or the new one. Not synced to
//! the disk: a crash of the machine ends the processes too.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use ringmaster_core::observed::ExitInfo;
use ringmaster_core::spec::Lifecycle;
use ringmaster_core::{ReplicaName, Revision, Timestamp};
use serde::{Deserialize, Serialize};

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Never used twice, also when the name is.
    pub(crate) id: String,
    pub(crate) instance: String,
    pub(crate) name: ReplicaName,
    pub(crate) revision: Revision,
    pub(crate) host: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) port: u16,
    pub(crate) created_at: Timestamp,
    /// The boot in which `process` means anything.
    pub(crate) boot_id: String,
    /// None while it is being started.
    pub(crate) process: Option<ProcessId>,
    pub(crate) exit: Option<ExitInfo>,
    /// Bytes of output that are kept when the log is cut.
    pub(crate) log_keep: u64,
    /// Bytes of output above which the log is cut.
    pub(crate) log_max: u64,
    /// How it is asked to end. Records of earlier versions have none.
    #[serde(default)]
    pub(crate) lifecycle: Lifecycle,
}

/// A process, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
}

/// The folder of records and logs.
#[derive(Debug, Clone)]
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    fn path(&self, name: &ReplicaName, extension: &str) -> PathBuf {
        self.0.join(format!("{name}.{extension}"))
    }

    /// Where its output goes.
    pub(crate) fn log(&self, name: &ReplicaName) -> PathBuf {
        self.path(name, "log")
    }

    /// Where older output is kept when the log has been cut.
    pub(crate) fn older_log(&self, name: &ReplicaName) -> PathBuf {
        self.path(name, "log.1")
    }

    /// Takes the name: fails with [`io::ErrorKind::AlreadyExists`] if it is taken, by whichever daemon.
    pub(crate) fn reserve(&self, record: &Record) -> io::Result<()> {
        let path = self.path(&record.name, "json");
        drop(OpenOptions::new().write(true).create_new(true).open(path)?);
        self.write(record)
    }

    /// Replaces the record as a whole.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        let temporary = self.path(&record.name, "json.new");
        serde_json::to_writer_pretty(File::create(&temporary)?, record)?;
        fs::rename(temporary, self.path(&record.name, "json"))
    }

    /// The record of this name, if there is one that can be read.
    pub(crate) fn read(&self, name: &ReplicaName) -> Option<Record> {
        serde_json::from_slice(&fs::read(self.path(name, "json")).ok()?).ok()
    }

    /// Forgets a replica: record and logs.
    pub(crate) fn remove(&self, name: &ReplicaName) -> io::Result<()> {
        for path in [self.log(name), self.older_log(name), self.path(name, "json")] {
            remove_if_there(&path)?;
        }
        Ok(())
    }

    /// All records. One that cannot be read is put aside: it was being written when the machine crashed.
    pub(crate) fn all(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match serde_json::from_slice(&fs::read(&path)?) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "putting a broken record aside");
                    fs::rename(&path, path.with_extension("broken"))?;
                }
            }
        }
        Ok(records)
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
