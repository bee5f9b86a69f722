//! Who uses a data plane's folder: a lock that its holder's end gives back, and what is known of the holder.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// How long the one before may take to give it back.
const PATIENCE: Duration = Duration::from_secs(2);

/// Held until the process ends.
pub(crate) struct Lock {
    _file: File,
}

/// Who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) pid: i32,
    version: String,
    arguments: Vec<String>,
}

impl Holder {
    fn new(arguments: &[OsString]) -> Holder {
        let text = |argument: &OsString| argument.to_string_lossy().into_owned();
        Holder {
            pid: std::process::id() as i32,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            arguments: arguments.iter().map(text).collect(),
        }
    }

    /// Whether it runs this version under these arguments.
    pub(crate) fn is_like(&self, arguments: &[OsString]) -> bool {
        Holder { pid: self.pid, ..Holder::new(arguments) } == *self
    }
}

impl Lock {
    /// Takes the lock of a folder, which is made if needed, for this process.
    pub(crate) fn take(folder: &Path, arguments: &[OsString]) -> anyhow::Result<Lock> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("make the folder {}", folder.display()))?;
        let mut file = open(folder)?;
        let begun = Instant::now();
        // Before anything else runs here: a thread may sleep.
        while !try_lock(&file, folder)? {
            if begun.elapsed() > PATIENCE {
                bail!(
                    "the folder {} is in use by another data plane: end that one, or choose another --state-dir",
                    folder.display()
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let text = serde_json::to_string(&Holder::new(arguments))?;
        let written = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
        written.with_context(|| format!("write the lock in {}", folder.display()))?;
        Ok(Lock { _file: file })
    }

    /// Who holds the lock of a folder; none if nobody does.
    pub(crate) fn holder(folder: &Path) -> anyhow::Result<Option<Holder>> {
        let begun = Instant::now();
        loop {
            let mut file = open(folder)?;
            // Given back at once, as the file is closed.
            if try_lock(&file, folder)? {
                return Ok(None);
            }
            let mut text = String::new();
            file.rewind()
                .and_then(|()| file.read_to_string(&mut text))
                .context("read the data plane's lock")?;
            match serde_json::from_str(&text) {
                Ok(holder) => return Ok(Some(holder)),
                // It has the lock and is about to say who it is.
                Err(_) if begun.elapsed() < PATIENCE => std::thread::yield_now(),
                Err(error) => bail!("the lock in {} cannot be read: {error}", folder.display()),
            }
        }
    }
}

fn open(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let opened =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
    opened.with_context(|| format!("open {}", path.display()))
}

fn try_lock(file: &File, folder: &Path) -> anyhow::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(std::io::Error::from(error)).with_context(|| format!("lock {}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_says_who_holds_it_until_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<OsString> = vec!["proxy".into(), "--listen".into(), "127.0.0.1:1".into()];
        assert_eq!(Lock::holder(folder.path()).unwrap(), None);
        let lock = Lock::take(folder.path(), &arguments).unwrap();
        let holder = Lock::holder(folder.path()).unwrap().unwrap();
        assert_eq!(holder.pid, std::process::id() as i32);
        assert!(holder.is_like(&arguments) && !holder.is_like(&arguments[..2]));
        drop(lock);
        assert_eq!(Lock::holder(folder.path()).unwrap(), None);
    }
}
