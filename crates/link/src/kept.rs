//! The last good snapshot on disk: a data plane that starts without its controller routes by it.
//!
//! Layout of the file, big-endian: magic `RMKEPT01`, length u32 and text of the snapshot as JSON, then each ring's length u32 and
//! bytes; last the XXH3-64 of all before it. It is written to a temporary name, synced, renamed, and its folder synced.
//! An acknowledgement waits until its snapshot is kept: otherwise a data plane could come back with an endpoint that has
//! been stopped on its word.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmaster_core::Generation;
use ringmaster_core::snapshot::{PackedSnapshot, RingBytes, RingDigest};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"RMKEPT01";
const FILE: &str = "snapshot";

/// What is kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    /// Under the data plane's own generation.
    pub(crate) snapshot: PackedSnapshot,
    pub(crate) rings: Vec<RingBytes>,
}

/// Writes what is handed to it, the newest first; what has been overtaken is left out.
#[derive(Debug)]
pub(crate) struct Keeper {
    wanted: watch::Sender<Option<(Generation, Arc<Kept>)>>,
    done: watch::Receiver<Generation>,
}

impl Keeper {
    /// One that writes to a folder, where `found` is kept already; or, without one, one that keeps nothing.
    pub(crate) fn start(folder: Option<PathBuf>, found: Generation) -> Keeper {
        let (wanted, mut receiver) = watch::channel::<Option<(Generation, Arc<Kept>)>>(None);
        let (sender, done) = watch::channel(if folder.is_some() { found } else { Generation(u64::MAX) });
        if let Some(folder) = folder {
            tokio::spawn(async move {
                while receiver.changed().await.is_ok() {
                    let Some((generation, kept)) = receiver.borrow_and_update().clone() else { continue };
                    let folder = folder.clone();
                    let written = tokio::task::spawn_blocking(move || write_or_remove(&folder, &kept)).await;
                    if let Err(error) = written {
                        tracing::error!(%error, "the snapshot is not kept");
                    }
                    sender.send_replace(generation);
                }
            });
        }
        Keeper { wanted, done }
    }

    /// What is to be kept from now on, under its own generation.
    pub(crate) fn keep(&self, generation: Generation, kept: Kept) {
        self.wanted.send_replace(Some((generation, Arc::new(kept))));
    }

    /// Up to which own generation all is kept that has to be.
    pub(crate) fn done(&mut self) -> Generation {
        *self.done.borrow_and_update()
    }

    /// Resolves when more is kept. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        if self.done.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// What is kept in a folder; none if there is nothing.
///
/// # Errors
/// A clause about the file, if it cannot be used.
pub(crate) fn read(folder: &Path) -> Result<Option<Kept>, String> {
    match fs::read(folder.join(FILE)) {
        Ok(bytes) => decode(&bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot be read ({error})")),
    }
}

/// A disk that takes nothing must not hold up every removal: then nothing is kept, rather than what is old.
fn write_or_remove(folder: &Path, kept: &Kept) {
    let Err(error) = write(folder, &encode(kept)) else { return };
    tracing::warn!(folder = %folder.display(), %error, "the snapshot cannot be kept: a restart waits for the controller");
    match fs::remove_file(folder.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::error!(%error, "the snapshot before it stays: a restart may choose replicas that are gone");
        }
        _ => {}
    }
}

fn write(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let (path, temporary) = (folder.join(FILE), folder.join("snapshot.tmp"));
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

fn encode(kept: &Kept) -> Vec<u8> {
    let text = serde_json::to_vec(&kept.snapshot).expect("a snapshot has keys that are text");
    let mut bytes = MAGIC.to_vec();
    for block in std::iter::once(&text[..]).chain(kept.rings.iter().map(|ring| &ring[..])) {
        bytes.extend_from_slice(&(block.len() as u32).to_be_bytes());
        bytes.extend_from_slice(block);
    }
    bytes.extend_from_slice(&xxh3_64(&bytes).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Kept, String> {
    let (content, digest) = bytes.split_last_chunk::<8>().ok_or("is truncated")?;
    let mut rest = content.strip_prefix(MAGIC).ok_or("was not written by this version")?;
    if xxh3_64(content).to_be_bytes() != *digest {
        return Err("is damaged (its checksum does not match)".to_owned());
    }
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>().ok_or("is truncated")?;
        let (block, after) =
            after.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or("is truncated")?;
        blocks.push(block);
        rest = after;
    }
    let (text, rings) = blocks.split_first().ok_or("is truncated")?;
    let snapshot: PackedSnapshot =
        serde_json::from_slice(text).map_err(|error| format!("cannot be understood ({error})"))?;
    Ok(Kept { snapshot, rings: rings.iter().map(|ring| (*ring).into()).collect() })
}

/// The digests of rings.
pub(crate) fn digests(rings: &[RingBytes]) -> impl Iterator<Item = (RingDigest, RingBytes)> + '_ {
    rings.iter().map(|bytes| (RingDigest::of(bytes), Arc::clone(bytes)))
}

#[cfg(test)]
mod tests {
    use ringmaster_core::snapshot::{Packer, Snapshot};

    use super::*;

    fn kept(generation: u64) -> Kept {
        let snapshot = Snapshot { generation: Generation(generation), ..Snapshot::default() };
        let rings = vec![RingBytes::from(&b"a ring"[..])];
        Kept { snapshot: Packer::default().pack(&snapshot), rings }
    }

    #[tokio::test]
    async fn what_is_kept_is_read_back_and_an_acknowledgement_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap().is_none());
        let mut keeper = Keeper::start(Some(folder.path().to_owned()), Generation(0));
        assert_eq!(keeper.done(), Generation(0));
        keeper.keep(Generation(5), kept(3));
        keeper.keep(Generation(6), kept(4));
        while keeper.done() < Generation(6) {
            keeper.changed().await;
        }
        let found = read(folder.path()).unwrap().unwrap();
        assert_eq!((found.snapshot.generation, &found.rings[0][..]), (Generation(4), &b"a ring"[..]));
        assert_eq!(Keeper::start(None, Generation(0)).done(), Generation(u64::MAX));
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_holds_up_nothing_and_leaves_nothing_old() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &encode(&kept(1))).unwrap();
        // A folder in the way of the temporary file.
        fs::create_dir(folder.path().join("snapshot.tmp")).unwrap();
        let mut keeper = Keeper::start(Some(folder.path().to_owned()), Generation(0));
        keeper.keep(Generation(2), kept(2));
        while keeper.done() < Generation(2) {
            keeper.changed().await;
        }
        assert!(read(folder.path()).unwrap().is_none());
    }

    #[test]
    fn a_file_cut_or_changed_at_any_byte_is_not_used() {
        let whole = encode(&kept(9));
        for at in 0..whole.len() {
            assert!(decode(&whole[..at]).is_err(), "cut at {at}");
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_err(), "changed at {at}");
        }
    }
}
