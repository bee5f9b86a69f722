//! The desired state on disk: it survives a crash at any byte.
//!
//! Each generation is one immutable file `revisions/rev-N` that holds everything; `state` names the newest one
//! by number. Every file is written to a temporary name, synced, renamed, and its folder synced. If
//! `state` is damaged, the newest revision that is whole takes its place, and the caller is told. Ring tables
//! are files of their own (`rings/<service>-<seed>-<epoch>`), written before the revision that needs them.
//!
//! Deliberately absent: what the state means ([`crate::store`]).

mod history;
mod ready;
mod rings;
mod statuses;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use history::History;
pub use ready::save as save_ready;
use ringmaster_core::desired::Member;
use ringmaster_core::ring::RingState;
use ringmaster_core::rollout::{Ready, Rollout};
use ringmaster_core::spec::{GatewaySpec, ServiceSpec};
use ringmaster_core::{Generation, ServiceName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
pub use statuses::{Statuses, save as save_statuses};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// How many revisions are kept, and how many older ones in which a service's template changed.
const REVISIONS_KEPT: usize = 20;
/// Snapshots of one run: at ten a second, a day's.
const GENERATIONS_PER_RUN: u64 = 1_000_000;
const MAGIC: &str = "ringmaster-state 1";

/// The state folder could not be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// Another daemon holds it.
    #[error(
        "state folder {} is in use by another ringmaster daemon: stop that one, or give this one its own \
         --state-dir", .0.display()
    )]
    Locked(PathBuf),
    /// There is a state, and none of it can be read.
    #[error(
        "the state in {} cannot be read ({why}): was it written by a newer version? Go back to that version, or \
         move the folder away: replicas that run are then taken up again by applying their manifest", .root.display()
    )]
    Unreadable {
        /// The folder.
        root: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An operation on a file failed.
    #[error("{operation} {}: {source}{}", .path.display(), advice(.source))]
    Io {
        /// What was done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// What is kept of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredService {
    /// Its spec as applied.
    pub spec: ServiceSpec,
    /// The generation of its last change.
    pub generation: Generation,
    /// Its members.
    pub members: Vec<Member>,
    /// The file of its ring table: seed and epoch, so that no two tables ever share a name.
    pub ring: String,
    /// What was decided about its rollouts; none if it was written before there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// It is being deleted.
    pub deleting: bool,
}

/// What is kept of one generation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredRevision {
    /// The generation.
    pub generation: Generation,
    /// The services.
    pub services: BTreeMap<ServiceName, StoredService>,
    /// The gateway.
    pub gateway: GatewaySpec,
    /// The digest of the manifest file that `serve --manifest` applied last: unchanged, it is not applied
    /// again at a restart.
    pub manifest_digest: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    generation: Generation,
}

/// What was found at the start.
#[derive(Debug)]
pub struct Loaded {
    /// The newest revision that is whole.
    pub revision: StoredRevision,
    /// The releases of each service that were ready.
    pub ready: Ready,
    /// What was told of each service last.
    pub statuses: Statuses,
    /// The ring of each service.
    pub rings: BTreeMap<ServiceName, RingState>,
    /// One of them is not as it was on disk: it has to be saved before it is used.
    pub rings_mended: bool,
    /// What was damaged and what was done about it, for the timeline.
    pub damage: Vec<String>,
}

/// The state folder, held by this daemon alone.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Opens the folder, making it if needed, and locks it against a second daemon.
    ///
    /// # Errors
    /// [`StateError::Locked`], or the operation that failed.
    pub fn open(root: &Path) -> Result<StateDir, StateError> {
        for dir in [root.to_owned(), root.join("revisions"), root.join("rings")] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .map_err(|e| io("create folder", &dir, e))?;
        }
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| io("open", &path, e))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(StateDir { root: root.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::Locked(root.to_owned())),
            Err(errno) => Err(io("lock", &path, errno.into())),
        }
    }

    /// Reads what is there. Damage is mended where a whole revision is left, and always reported.
    ///
    /// # Errors
    /// [`StateError::Unreadable`] if there is a state and none of it is whole, or a folder that cannot be read.
    pub fn load(&self) -> Result<Loaded, StateError> {
        let mut damage = Vec::new();
        let head = match read_whole::<Head>(&self.root.join("state")) {
            Ok(head) => head,
            Err(why) => {
                damage.push(format!("state file {why}"));
                None
            }
        };
        let mut revision = None;
        let mut generations = self.generations()?;
        generations.sort_by_key(|generation| std::cmp::Reverse(*generation));
        let known = head.as_ref().map(|head| head.generation);
        // A revision newer than the head was written but never acknowledged to anyone: the head decides.
        for generation in generations.iter().filter(|g| known.is_none_or(|known| **g <= known)) {
            match read_whole::<StoredRevision>(&self.revision_path(*generation)) {
                Ok(Some(found)) => {
                    revision = Some(found);
                    break;
                }
                Ok(None) => {}
                Err(why) => damage.push(format!("revision {generation} {why}")),
            }
        }
        if revision.is_none() && (known.is_some() || !generations.is_empty() || !damage.is_empty()) {
            // To go on with nothing would orphan every replica: that is a person's decision.
            let why = if damage.is_empty() { "its revision is lost".to_owned() } else { damage.join("; ") };
            return Err(StateError::Unreadable { root: self.root.clone(), why });
        }
        if let (Some(known), Some(found)) = (known, &revision)
            && found.generation != known
        {
            damage.push(format!("revision {known} is lost"));
        }
        if let (false, Some(found)) = (damage.is_empty(), &revision) {
            damage.push(format!("going on with revision {}", found.generation));
        }
        let revision = revision.unwrap_or_default();
        let rings = self.load_rings(&revision)?;
        let rings_mended = !rings.damage.is_empty();
        damage.extend(rings.damage);
        let mut revision = revision;
        let ready = self.load_ready().unwrap_or_else(|why| {
            damage.push(format!(
                "the file of releases that were ready {why}: any kept revision may be gone back to"
            ));
            revision.services.values_mut().for_each(|service| service.rollout = None);
            Ready::default()
        });
        // What is noted of a service that is not there was lost with it: its namesake is another one.
        let mut ready = ready;
        ready.0.retain(|name, _| revision.services.contains_key(name));
        let statuses = self.load_statuses();
        Ok(Loaded { revision, ready, statuses, rings: rings.rings, rings_mended, damage })
    }

    /// Writes a generation: rings first, then the revision, then the head that makes it count.
    ///
    /// # Errors
    /// The operation that failed; then the generation before it stays in force.
    pub fn save(
        &self,
        revision: &StoredRevision,
        rings: &BTreeMap<ServiceName, RingState>,
    ) -> Result<(), StateError> {
        for (name, service) in &revision.services {
            let path = self.ring_path(name, &service.ring);
            let Some(bytes) = rings.get(name).map(RingState::encode) else { continue };
            // A file of that name may be left from a change that was never committed: only its content counts.
            if fs::read(&path).ok().as_ref() != Some(&bytes) {
                write_atomically(&path, &bytes)?;
            }
        }
        let text = serde_json::to_string_pretty(revision).expect("the state has only string keys");
        let sealed = seal(&text);
        write_atomically(&self.revision_path(revision.generation), sealed.as_bytes())?;
        let head = Head { generation: revision.generation };
        let head = serde_json::to_string(&head).expect("a head has only string keys");
        let path = self.root.join("state");
        if let Err(error) = write_atomically(&path, seal(&head).as_bytes()) {
            // Renamed, but the folder could not be synced: the next start would find the change, so it has happened.
            let found = read_whole::<Head>(&path).ok().flatten().map(|head| head.generation);
            if found != Some(revision.generation) {
                return Err(error);
            }
            tracing::warn!(%error, "the state is written, and may be lost if the machine crashes now");
        }
        if let Err(error) = self.prune(revision.generation) {
            tracing::warn!(%error, "old revisions could not be removed");
        }
        Ok(())
    }

    /// Remembers which runtime was chosen, so that a later start does not silently choose another.
    ///
    /// # Errors
    /// The operation that failed.
    pub fn remember_runtime(&self, kind: &str) -> Result<(), StateError> {
        write_atomically(&self.root.join("runtime"), kind.as_bytes())
    }

    /// Sets generations of snapshots aside for this run: higher than those of every run before, so that a data plane
    /// which outlives the controller never sees them go down.
    ///
    /// # Errors
    /// The operation that failed.
    pub fn reserve_generations(&self) -> Result<Generation, StateError> {
        let path = self.root.join("snapshots");
        // Lost or damaged it begins anew: the data plane then counts on by itself.
        let used: u64 =
            fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default();
        write_atomically(&path, (used + GENERATIONS_PER_RUN).to_string().as_bytes())?;
        Ok(Generation(used + 1))
    }

    /// A folder of its own for another part of the daemon, made if needed.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, StateError> {
        let dir = self.root.join(name);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|e| io("create folder", &dir, e))?;
        Ok(dir)
    }

    /// The runtime that was chosen before.
    pub fn remembered_runtime(&self) -> Option<String> {
        fs::read_to_string(self.root.join("runtime")).ok()
    }

    fn generations(&self) -> Result<Vec<Generation>, StateError> {
        let dir = self.root.join("revisions");
        let entries = fs::read_dir(&dir).map_err(|e| io("read folder", &dir, e))?;
        let numbers = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_prefix("rev-")?.parse().ok().map(Generation)
        });
        Ok(numbers.collect())
    }

    /// Removes revisions beyond the limit, those newer than `current` (a crash left them), and ring tables
    /// that none of the newest revisions names.
    fn prune(&self, current: Generation) -> Result<(), StateError> {
        let mut generations = self.generations()?;
        generations.sort_unstable();
        let (mut generations, newer): (Vec<_>, Vec<_>) = generations.into_iter().partition(|g| *g <= current);
        let older = generations.drain(..generations.len().saturating_sub(REVISIONS_KEPT)).collect();
        for generation in newer.into_iter().chain(self.without_new_templates(older)) {
            let path = self.revision_path(generation);
            fs::remove_file(&path).map_err(|e| io("remove", &path, e))?;
        }
        let mut used = BTreeSet::new();
        for generation in &generations {
            if let Ok(Some(revision)) = read_whole::<StoredRevision>(&self.revision_path(*generation)) {
                used.extend(revision.services.iter().map(|(name, s)| self.ring_path(name, &s.ring)));
            }
        }
        let dir = self.root.join("rings");
        for entry in fs::read_dir(&dir).map_err(|e| io("read folder", &dir, e))?.flatten() {
            if !used.contains(&entry.path()) {
                fs::remove_file(entry.path()).map_err(|e| io("remove", &entry.path(), e))?;
            }
        }
        Ok(())
    }

    fn revision_path(&self, generation: Generation) -> PathBuf {
        self.root.join("revisions").join(format!("rev-{}", generation.0))
    }

    fn ring_path(&self, service: &ServiceName, ring: &str) -> PathBuf {
        self.root.join("rings").join(format!("{service}-{ring}"))
    }
}

/// The digest of a text, as it stands in files.
pub fn digest(text: &str) -> String {
    format!("{:016x}", xxh3_64(text.as_bytes()))
}

fn seal(text: &str) -> String {
    format!("{MAGIC} {}\n{text}\n", digest(text))
}

/// Reads a sealed file; `None` if there is none. The error is a clause about the file.
fn read_whole<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot be read ({error})")),
    };
    let (first, rest) = text.split_once('\n').ok_or("is truncated")?;
    let content = rest.strip_suffix('\n').ok_or("is truncated")?;
    let stated = first.strip_prefix(MAGIC).ok_or("was not written by this version")?.trim();
    if stated != digest(content) {
        return Err("is damaged (its checksum does not match)".to_owned());
    }
    serde_json::from_str(content).map(Some).map_err(|error| format!("cannot be understood ({error})"))
}

/// Writes a file whole or not at all: temporary name, sync, rename, sync of the folder.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let temporary = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| io("write", path, source))
}

fn io(operation: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { operation, path: path.to_owned(), source }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ": give this user the right to write there, or choose another --state-dir"
        }
        io::ErrorKind::StorageFull => ": free some space; nothing was changed",
        io::ErrorKind::ReadOnlyFilesystem => ": choose a --state-dir on a writable file system",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use ringmaster_core::desired::ring_members;

    use super::*;

    fn revision(generation: u64) -> StoredRevision {
        StoredRevision { generation: Generation(generation), ..StoredRevision::default() }
    }

    #[test]
    fn a_state_file_cut_at_any_byte_is_mended_from_the_newest_whole_revision() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        for generation in 1..=3 {
            state.save(&revision(generation), &BTreeMap::new()).unwrap();
        }
        let path = dir.path().join("state");
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let loaded = state.load().unwrap();
            assert_eq!(loaded.revision.generation, Generation(3), "cut at {cut}");
            assert!(!loaded.damage.is_empty(), "cut at {cut} went unnoticed");
        }
        fs::write(&path, &whole).unwrap();
        assert!(state.load().unwrap().damage.is_empty());
    }

    #[test]
    fn a_revision_cut_at_any_byte_falls_back_to_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        for generation in 1..=2 {
            state.save(&revision(generation), &BTreeMap::new()).unwrap();
        }
        let path = dir.path().join("revisions/rev-2");
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let loaded = state.load().unwrap();
            assert_eq!(loaded.revision.generation, Generation(1), "cut at {cut}");
            assert!(!loaded.damage.is_empty(), "cut at {cut} went unnoticed");
        }
    }

    #[test]
    fn a_second_daemon_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = StateDir::open(dir.path()).unwrap();
        let second = StateDir::open(dir.path());
        assert!(matches!(second, Err(StateError::Locked(_))), "{second:?}");
    }

    #[test]
    fn only_the_newest_revisions_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        for generation in 1..=30 {
            state.save(&revision(generation), &BTreeMap::new()).unwrap();
        }
        let mut kept = state.generations().unwrap();
        kept.sort_unstable();
        assert_eq!((kept.len(), kept[0], kept[19]), (REVISIONS_KEPT, Generation(11), Generation(30)));
    }

    #[test]
    fn a_state_of_which_nothing_can_be_read_is_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        assert_eq!(state.load().unwrap().revision, StoredRevision::default(), "a new folder is no damage");
        state.save(&revision(1), &BTreeMap::new()).unwrap();
        fs::write(dir.path().join("revisions/rev-1"), "written by a newer version").unwrap();
        assert!(matches!(state.load(), Err(StateError::Unreadable { .. })));
        fs::remove_file(dir.path().join("revisions/rev-1")).unwrap();
        assert!(matches!(state.load(), Err(StateError::Unreadable { .. })));
    }

    #[test]
    fn a_change_that_was_never_committed_leaves_no_ring_behind() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let web = ServiceName::new("web").unwrap();
        let spec = serde_json::json!({ "template": { "image": "x" } });
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        let members = |count| ringmaster_core::members::resize(&[], count).unwrap();
        let ring = |count| {
            let mut ring = RingState::new(&spec.balancing, 7).unwrap();
            ring.update(&spec.balancing, &ring_members(&web, &spec.balancing, &members(count))).unwrap();
            ring
        };
        let (two, three) = (ring(2), ring(3));
        assert_eq!(two.id(), three.id(), "both are the first epoch");
        let service = StoredService {
            generation: Generation(1),
            members: members(3),
            ring: three.id(),
            rollout: None,
            deleting: false,
            spec: spec.clone(),
        };
        fs::write(state.ring_path(&web, &service.ring), two.encode()).unwrap();
        let stored = StoredRevision { services: BTreeMap::from([(web.clone(), service)]), ..revision(1) };
        state.save(&stored, &BTreeMap::from([(web.clone(), three.clone())])).unwrap();
        assert_eq!(state.load().unwrap().rings[&web], three);
    }
}
