//! The data planes that a controller has to reckon with: those that are connected, and those that may still serve.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use ringmaster_core::snapshot::Report;
use ringmaster_core::{Generation, Reason};
use tokio::time::Instant;

use crate::FORGOTTEN_AFTER;
use crate::message::Hello;
use crate::session::Session;

/// Most data planes of one controller.
const PLANES_MAX: usize = 32;

/// Something that people should hear of a data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// It is connected.
    Connected {
        /// Its name.
        name: String,
        /// Its version.
        software: String,
    },
    /// It is cut off, and may be serving.
    Away {
        /// Its name.
        name: String,
        /// Why, as far as is known.
        why: String,
    },
    /// It has ended in order.
    Ended {
        /// Its name.
        name: String,
    },
    /// It has been away for so long that nothing waits for it any more.
    Forgotten {
        /// Its name.
        name: String,
    },
    /// Somebody was not let in.
    Refused {
        /// Why.
        why: String,
    },
}

/// All of them, by name.
#[derive(Debug)]
pub(crate) struct Planes {
    all: BTreeMap<String, Plane>,
    /// Where their names are remembered over a restart of the controller.
    memory: Option<PathBuf>,
    /// Changes whenever one comes or goes: then their counters together leap.
    epoch: u64,
}

#[derive(Debug)]
struct Plane {
    state: State,
    /// Of this run; with nothing acknowledged until it says so.
    report: Report,
    /// It has reported by its connection.
    heard: bool,
    listeners: Vec<String>,
}

#[derive(Debug)]
enum State {
    /// Becomes `Away` when it is cut off; ends with a goodbye.
    Connected(Arc<Session>),
    /// Becomes `Connected` when it is back; ends after [`FORGOTTEN_AFTER`].
    Away { since: Instant },
}

impl Note {
    /// Its kind in one word.
    pub fn reason(&self) -> Reason {
        match self {
            Note::Connected { .. } => Reason::DataPlaneConnected,
            Note::Away { .. } => Reason::DataPlaneAway,
            Note::Ended { .. } => Reason::DataPlaneEnded,
            Note::Forgotten { .. } => Reason::DataPlaneForgotten,
            Note::Refused { .. } => Reason::DataPlaneRefused,
        }
    }

    /// Whether all is as it should be.
    pub fn is_good(&self) -> bool {
        matches!(self, Note::Connected { .. } | Note::Ended { .. })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Connected { name, software } => write!(f, "data plane {name} ({software}) is connected"),
            Note::Away { name, why } => write!(
                f,
                "data plane {name} is cut off ({why}): it serves by its last snapshot, and removals wait for it"
            ),
            Note::Ended { name } => write!(f, "data plane {name} has ended in order"),
            Note::Forgotten { name } => write!(
                f,
                "data plane {name} has been away for {} minutes: removals wait for it no longer",
                FORGOTTEN_AFTER.as_secs() / 60
            ),
            Note::Refused { why } => write!(f, "a data plane was not let in: {why}"),
        }
    }
}

impl Planes {
    /// Those that are remembered: each may be serving, so it counts as away from now on.
    pub(crate) fn remembered(memory: Option<PathBuf>) -> Planes {
        let read = |path: &PathBuf| match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str::<Vec<String>>(&text).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "names of data planes cannot be read");
                Vec::new()
            }),
            // The first start.
            Err(_) => Vec::new(),
        };
        let names = memory.as_ref().map(read).unwrap_or_default();
        let since = Instant::now();
        let away = |name| {
            let plane = Plane {
                state: State::Away { since },
                report: Report::default(),
                heard: false,
                listeners: Vec::new(),
            };
            (name, plane)
        };
        Planes { all: names.into_iter().map(away).collect(), memory, epoch: 0 }
    }

    /// One says hello. A connection of the same process takes the place of the one before; another process of the same
    /// name does not.
    pub(crate) fn join(&mut self, hello: &Hello, session: &Arc<Session>) -> Result<(), String> {
        let (name, count) = (&hello.name, self.all.len());
        match self.all.get_mut(name) {
            Some(Plane { state: State::Connected(other), .. }) if other.process != hello.process => {
                Err(format!(
                    "a data plane named `{name}` is connected already: give this one another name with --name"
                ))
            }
            Some(plane) => {
                plane.state = State::Connected(Arc::clone(session));
                plane.heard = false;
                // Its process may be another one, which knows nothing of what the one before has acknowledged.
                plane.report.acknowledged = Generation(0);
                Ok(())
            }
            None if count >= PLANES_MAX => {
                Err(format!("{PLANES_MAX} data planes are the most that one controller has"))
            }
            None => {
                let state = State::Connected(Arc::clone(session));
                let plane = Plane { state, report: Report::default(), heard: false, listeners: Vec::new() };
                self.all.insert(name.clone(), plane);
                self.remember();
                Ok(())
            }
        }
    }

    /// A connection has ended, in order or not. Returns whether it was the plane's own.
    pub(crate) fn leave(&mut self, name: &str, session: &Arc<Session>, in_order: bool) -> bool {
        let Some(plane) = self.all.get_mut(name) else { return false };
        if !matches!(&plane.state, State::Connected(own) if Arc::ptr_eq(own, session)) {
            return false;
        }
        if in_order {
            self.all.remove(name);
            self.epoch += 1;
            self.remember();
        } else {
            plane.state = State::Away { since: Instant::now() };
        }
        true
    }

    /// One reports by its connection.
    pub(crate) fn report(&mut self, name: &str, session: &Arc<Session>, report: Report) {
        if let Some(plane) = self.own(name, session) {
            plane.report = report;
            let is_first = !std::mem::replace(&mut plane.heard, true);
            self.epoch += u64::from(is_first);
        }
    }

    /// One tells where it listens.
    pub(crate) fn listen(&mut self, name: &str, session: &Arc<Session>, listeners: Vec<String>) {
        if let Some(plane) = self.own(name, session) {
            plane.listeners = listeners;
        }
    }

    /// What all of them report together; none if there are none.
    pub(crate) fn together(&self) -> Option<Report> {
        let together = Report::together(self.all.values().map(|plane| &plane.report))?;
        let is_of_now = |plane: &Plane| plane.heard && matches!(plane.state, State::Connected(_));
        Some(Report { epoch: self.epoch, stale: !self.all.values().all(is_of_now), ..together })
    }

    /// Where those that are connected listen.
    pub(crate) fn listeners(&self) -> Vec<String> {
        let connected = self.all.values().filter(|plane| matches!(plane.state, State::Connected(_)));
        let mut all: Vec<String> = connected.flat_map(|plane| plane.listeners.iter().cloned()).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Every name, with its connection if it is connected.
    pub(crate) fn sessions(&self) -> Vec<(String, Option<Arc<Session>>)> {
        let session = |plane: &Plane| match &plane.state {
            State::Connected(session) => Some(Arc::clone(session)),
            State::Away { .. } => None,
        };
        self.all.iter().map(|(name, plane)| (name.clone(), session(plane))).collect()
    }

    /// When the next one is forgotten.
    pub(crate) fn forget_at(&self) -> Option<Instant> {
        let away = self.all.values().filter_map(|plane| match plane.state {
            State::Away { since } => Some(since + FORGOTTEN_AFTER),
            State::Connected(_) => None,
        });
        away.min()
    }

    /// Forgets those that have been away for too long.
    pub(crate) fn forget(&mut self, now: Instant) -> Vec<String> {
        let is_lost =
            |plane: &Plane| matches!(plane.state, State::Away { since } if since + FORGOTTEN_AFTER <= now);
        let lost: Vec<String> =
            self.all.extract_if(.., |_, plane| is_lost(plane)).map(|(name, _)| name).collect();
        if !lost.is_empty() {
            self.epoch += 1;
            self.remember();
        }
        lost
    }

    fn own(&mut self, name: &str, session: &Arc<Session>) -> Option<&mut Plane> {
        let plane = self.all.get_mut(name)?;
        matches!(&plane.state, State::Connected(own) if Arc::ptr_eq(own, session)).then_some(plane)
    }

    /// Not synced: what a crash of the machine loses has crashed with it.
    fn remember(&self) {
        let Some(path) = &self.memory else { return };
        let names: Vec<&String> = self.all.keys().collect();
        let text = serde_json::to_string(&names).expect("names are text");
        let temporary = path.with_extension("tmp");
        if let Err(error) = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path)) {
            tracing::warn!(path = %path.display(), %error, "names of data planes cannot be remembered over a restart");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(name: &str, process: u64) -> Hello {
        Hello { name: name.to_owned(), process, software: "test".to_owned(), token: None, rings: Vec::new() }
    }

    fn acknowledged(generation: u64) -> Report {
        Report { acknowledged: Generation(generation), ..Report::default() }
    }

    fn told(planes: &Planes) -> Option<u64> {
        planes.together().map(|report| report.acknowledged.0)
    }

    #[tokio::test]
    async fn figures_are_of_now_while_all_are_there_and_of_another_epoch_when_one_has_come_or_gone() {
        let mut planes = Planes::remembered(None);
        let (a, b) = (Session::of(1), Session::of(2));
        let told = |planes: &Planes| planes.together().map(|report| (report.epoch, report.stale));
        planes.join(&hello("a", 1), &a).unwrap();
        assert_eq!(told(&planes), Some((0, true)), "it has said nothing yet");
        planes.report("a", &a, acknowledged(1));
        planes.report("a", &a, acknowledged(2));
        assert_eq!(told(&planes), Some((1, false)));
        planes.join(&hello("b", 2), &b).unwrap();
        assert_eq!(told(&planes), Some((1, true)));
        planes.report("b", &b, acknowledged(2));
        assert_eq!(told(&planes), Some((2, false)));
        planes.leave("a", &a, false);
        assert_eq!(told(&planes), Some((2, true)), "it may be serving");
        planes.forget(planes.forget_at().unwrap());
        assert_eq!(told(&planes), Some((3, false)));
    }

    #[tokio::test]
    async fn who_is_cut_off_counts_and_who_ends_in_order_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Some(folder.path().join("planes"));
        let mut planes = Planes::remembered(memory.clone());
        assert_eq!(planes.together(), None);
        let (a, b) = (Session::of(1), Session::of(2));
        planes.join(&hello("a", 1), &a).unwrap();
        planes.join(&hello("b", 2), &b).unwrap();
        planes.report("a", &a, acknowledged(5));
        planes.report("b", &b, acknowledged(9));
        assert!(planes.leave("b", &b, true));
        assert_eq!(told(&planes), Some(5));
        assert!(planes.leave("a", &a, false));
        assert_eq!(told(&planes), Some(5), "it may be serving");
        // The controller starts again: nobody has acknowledged anything of this run.
        let mut planes = Planes::remembered(memory.clone());
        assert_eq!(told(&planes), Some(0));
        assert_eq!(planes.forget(Instant::now()), Vec::<String>::new());
        assert_eq!(planes.forget(planes.forget_at().unwrap()), ["a"]);
        assert_eq!(planes.together(), None);
        assert_eq!(Planes::remembered(memory).together(), None);
    }

    #[tokio::test]
    async fn a_name_belongs_to_one_process_at_a_time() {
        let mut planes = Planes::remembered(None);
        let (first, again, other) = (Session::of(1), Session::of(1), Session::of(2));
        planes.join(&hello("a", 1), &first).unwrap();
        assert!(planes.join(&hello("a", 2), &other).unwrap_err().contains("--name"));
        planes.report("a", &first, acknowledged(5));
        planes.join(&hello("a", 1), &again).unwrap();
        planes.report("a", &first, acknowledged(7));
        assert_eq!(told(&planes), Some(0), "the connection before it is nobody's");
        assert!(!planes.leave("a", &first, false));
        assert!(planes.leave("a", &again, false));
        planes.join(&hello("a", 2), &other).unwrap();
    }
}
