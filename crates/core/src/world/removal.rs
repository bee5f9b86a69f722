//! The second look at what is to be removed: nothing is destroyed on a list alone.

use std::time::Duration;

use crate::ids::ReplicaName;
use crate::observed::{ReplicaState, RuntimeReplica};

/// What to do with a replica that the plan removes, now that it was looked at once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is gone already.
    Done,
    /// It runs: stop it, SIGKILL after the grace, then remove it.
    Stop(Duration),
    /// It has ended: remove it.
    Remove,
    /// It is not what was meant, and stays; the text says why.
    Refused(String),
}

impl Removal {
    /// Decides for a replica that was listed as `name`; `grace` is none if it had ended then. `found` is what the
    /// engine says of its id now.
    pub fn of(found: Option<&RuntimeReplica>, name: &ReplicaName, grace: Option<Duration>) -> Removal {
        let Some(found) = found else { return Removal::Done };
        if found.name != *name {
            return Removal::Refused(format!("it is {} now: observing again", found.name));
        }
        match (&found.state, grace) {
            (ReplicaState::Running | ReplicaState::Paused, Some(grace)) => Removal::Stop(grace),
            // It was to be removed because it had ended, and somebody has started it again.
            (ReplicaState::Running | ReplicaState::Paused, None) => {
                Removal::Refused("it runs again: observing again".to_owned())
            }
            _ => Removal::Remove,
        }
    }
}
