//! Why something is so or has happened, in one word: the one source for events, conditions, logs and metrics.
//!
//! Deliberately absent: sentences. Each event and condition has its own.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A reason, in one CamelCase word that scripts can match.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
            /// One that a newer daemon knows.
            #[serde(other)]
            Unknown,
        }

        impl Reason {
            /// Every reason that there is.
            pub const ALL: &[Reason] = &[$(Reason::$name,)+];

            /// As it is written.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => stringify!($name),)+
                    Reason::Unknown => "Unknown",
                }
            }
        }
    };
}

reasons! {
    /// An action on a replica has failed; it is tried again.
    ActionFailed,
    /// Condition: all is as desired.
    Converged,
    /// A replica fails again and again.
    CrashLoopBackOff,
    /// A replica could not be created.
    CreateFailed,
    /// A replica is being created.
    Creating,
    /// A data plane is cut off; it serves on.
    DataPlaneAway,
    /// A data plane follows.
    DataPlaneConnected,
    /// A data plane has ended in order.
    DataPlaneEnded,
    /// A data plane has been away for so long that nobody waits for it any more.
    DataPlaneForgotten,
    /// A data plane was turned away.
    DataPlaneRefused,
    /// The data plane does not acknowledge what is published.
    DataPlaneSilent,
    /// A service was deleted without waiting for the data plane.
    DeletedByForce,
    /// Autoscaler: as many as the targets call for.
    DesiredWithinRange,
    /// The data plane has stopped choosing a replica.
    Ejected,
    /// The engine answers again.
    EngineReachable,
    /// The engine does not answer.
    EngineUnreachable,
    /// A replica has ended, or does not live.
    Failed,
    /// Autoscaler: what it goes by is not known now.
    FailedGetMetrics,
    /// A person has sent a signal to a replica.
    FaultInjected,
    /// Condition: nothing keeps the service from being as desired.
    Healthy,
    /// Autoscaler: one key has more than a replica should have, and more replicas cannot take any of it.
    HotKey,
    /// What is logged was changed.
    LogFilterSet,
    /// A manifest was applied.
    ManifestApplied,
    /// A manifest is wrong, or could not be saved.
    ManifestRefused,
    /// A manifest was edited, and changes nothing.
    ManifestUnchanged,
    /// A manifest could not be read.
    ManifestUnreadable,
    /// Condition: nothing gets traffic.
    NoReplicaReady,
    /// A replica of ours runs for a service that nobody desires.
    Orphaned,
    /// What was to run before a replica's stop has failed; it is stopped all the same.
    PreStopFailed,
    /// Too much time has passed without progress.
    ProgressDeadlineExceeded,
    /// The canary of a release was good, and the others follow.
    Promoted,
    /// It gets traffic.
    Ready,
    /// What a template names has other content now.
    Rebuilt,
    /// Condition: something is still to be done.
    Reconciling,
    /// A service is no longer degraded.
    Recovered,
    /// A replica is gone.
    Removed,
    /// A replica is being removed.
    Removing,
    /// What somebody did to a replica by hand is being undone.
    Repairing,
    /// The data plane chooses a replica again that it had ejected.
    Returned,
    /// Somebody asked for other replicas of the same template.
    Restarted,
    /// A service went back to an earlier template.
    RolledBack,
    /// The canary is ready, and waits to be promoted.
    RolloutAwaitsPromotion,
    /// Every replica is of the wanted release, and ready.
    RolloutComplete,
    /// Somebody holds a rollout.
    RolloutPaused,
    /// Somebody lets a rollout go on.
    RolloutResumed,
    /// Replicas are being replaced by those of another release.
    RolloutStarted,
    /// Autoscaler: replicas that were taken out before still have requests.
    ScaleDownDraining,
    /// Autoscaler: not for long enough have fewer been called for.
    ScaleDownStabilized,
    /// Autoscaler: more at once are not added.
    ScaleUpLimit,
    /// Autoscaler: not for long enough have more been called for.
    ScaleUpStabilized,
    /// A person has set the number of replicas.
    Scaled,
    /// Nobody asks for the service: it has no replicas until somebody does.
    ScaledToZero,
    /// A replica runs.
    Started,
    /// State could not be written.
    StateNotWritten,
    /// State was damaged, and was mended.
    StateRecovered,
    /// Somebody is stopping a replica.
    Stopping,
    /// The autoscaler has set the number of replicas.
    SuccessfulRescale,
    /// What a template names could not be found.
    TemplateUnresolved,
    /// Autoscaler: fewer would be enough, and are not allowed.
    TooFewReplicas,
    /// Autoscaler: more are called for than are allowed.
    TooManyReplicas,
    /// A replica was removed by somebody.
    Vanished,
    /// A replica gets no new requests.
    Withdrawn,
    /// A request has come for a service without replicas.
    Woken,
}

impl Reason {
    /// Whether there are events of this reason about a service, and not only about the daemon or of conditions.
    pub fn is_of_services(self) -> bool {
        !matches!(
            self,
            Reason::Converged
                | Reason::DesiredWithinRange
                | Reason::EngineReachable
                | Reason::Healthy
                | Reason::LogFilterSet
                | Reason::ManifestApplied
                | Reason::ManifestRefused
                | Reason::ManifestUnchanged
                | Reason::ManifestUnreadable
                | Reason::NoReplicaReady
                | Reason::Orphaned
                | Reason::Reconciling
                | Reason::ScaleDownDraining
                | Reason::ScaleDownStabilized
                | Reason::ScaleUpLimit
                | Reason::ScaleUpStabilized
                | Reason::StateNotWritten
                | Reason::StateRecovered
                | Reason::TooFewReplicas
                | Reason::Unknown
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_travels_as_its_word_and_one_of_a_newer_daemon_is_no_error() {
        for reason in Reason::ALL {
            let text = serde_json::to_string(reason).unwrap();
            assert_eq!(text, format!("\"{reason}\""));
            assert_eq!(serde_json::from_str::<Reason>(&text).unwrap(), *reason);
        }
        assert_eq!(serde_json::from_str::<Reason>("\"Teleported\"").unwrap(), Reason::Unknown);
    }
}
