//! How far a rollout has come, and whether it is over because it failed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Progress, Rolling};
use crate::desired::DesiredService;
use crate::ids::ServiceName;
use crate::observed::Observed;
use crate::spec::Rollback;

/// So many failures in a row of one replica of a release are too many: the third is the first that a wait came before.
pub const FAILURES_MAX: u32 = 3;

/// How far a rollout has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Every replica is of the wanted release and has been ready for long enough.
    #[default]
    Complete,
    /// It goes on.
    Progressing,
    /// Somebody holds it.
    Paused,
    /// The canary is ready, and the others wait for its promotion.
    AwaitingPromotion,
    /// One that a newer daemon knows.
    #[serde(other)]
    Unknown,
}

impl Stage {
    /// Every stage that there is.
    pub const ALL: [Stage; 4] =
        [Stage::Complete, Stage::Progressing, Stage::Paused, Stage::AwaitingPromotion];

    /// Whether it goes on only when somebody says so.
    pub fn is_held(self) -> bool {
        matches!(self, Stage::Paused | Stage::AwaitingPromotion)
    }

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Complete => "complete",
            Stage::Progressing => "progressing",
            Stage::Paused => "paused",
            Stage::AwaitingPromotion => "awaitingPromotion",
            Stage::Unknown => "unknown",
        }
    }
}

/// How far the rollout of a service has come.
pub fn stage(rolling: &Rolling<'_>, progress: Progress) -> Stage {
    let Progress { places, updated, available, limit } = progress;
    if available == places && (rolling.wanted.is_some() || places == 0) {
        Stage::Complete
    } else if rolling.rollout.paused && rolling.stable_differs == Some(true) {
        Stage::Paused
    } else if rolling.wanted.is_some() && limit < places && updated >= limit && available >= limit {
        Stage::AwaitingPromotion
    } else {
        Stage::Progressing
    }
}

/// Why the wanted release of a service is to be given up, if it is: then the service goes back to its stable release.
/// `stalled_for` is how long there has been no progress, where progress is wanted.
pub fn failure(
    name: &ServiceName,
    service: &DesiredService,
    observed: &Observed,
    stage: Stage,
    stalled_for: Duration,
) -> Option<String> {
    let strategy = &service.spec.strategy;
    let stable = observed.stable.get(name)?;
    // None while it is looked up: an image may be pulled for minutes, or for ever.
    let wanted = observed.revisions.get(name);
    let differs = match wanted {
        Some(wanted) => wanted.as_ref().ok() != Some(&stable.revision),
        None => service.spec.template != stable.template,
    };
    // What cannot be seen is not judged, and whoever holds a rollout decides about it.
    let open = differs && !service.deleting && !service.members.is_empty() && observed.list_error.is_none();
    if !open || strategy.rollback == Rollback::Never || service.rollout.paused {
        return None;
    }
    if let Some(Ok(revision)) = wanted
        && let Some((ordinal, past)) = observed.history.failing(name, revision)
        && past.failures >= FAILURES_MAX
        && service.has_member(ordinal)
    {
        let last = past.last_failure.as_deref().unwrap_or("unknown");
        return Some(format!("{name}-{ordinal} failed {} times in a row, last: {last}", past.failures));
    }
    if stage == Stage::Progressing && stalled_for >= strategy.progress_deadline.0 {
        let starting = observed.replicas.iter().filter(|r| r.name.service == *name && !r.is_ready());
        let why = match wanted {
            None => Some("what its template names is still being looked up, or pulled".to_owned()),
            Some(Err(error)) => Some(error.clone()),
            Some(Ok(revision)) => {
                starting.filter(|replica| replica.revision == *revision).find_map(|replica| {
                    Some(format!("{}: {}", replica.name, replica.health.last_failure.as_ref()?))
                })
            }
        };
        let why = why.map_or(String::new(), |why| format!("; {why}"));
        return Some(format!("no progress for {}{why}", strategy.progress_deadline));
    }
    None
}
