//! Bugs on purpose. Each is one line where the model hands something to the decisions or takes it from them, and each
//! must be caught by a promise: what no promise catches, the promises do not cover.
//!
//! Without the feature `planted` none of them is compiled.

/// Whether a bug is planted in this run.
macro_rules! has {
    ($sim:expr, $bug:ident) => {{
        #[cfg(feature = "planted")]
        let is_planted = $sim.setting.bug == Some(crate::planted::Bug::$bug);
        #[cfg(not(feature = "planted"))]
        let is_planted = false;
        is_planted
    }};
}
pub(crate) use has;

#[cfg(feature = "planted")]
pub use bugs::Bug;
#[cfg(feature = "planted")]
pub(crate) use bugs::{
    distort, distort_count, distort_plan, distort_rollouts, distort_saving, distort_statuses,
};

#[cfg(feature = "planted")]
mod bugs {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use ringmaster_core::autoscale::Decided;
    use ringmaster_core::desired::Desired;
    use ringmaster_core::observed::{Observed, ReplicaState};
    use ringmaster_core::plan::{Action, CreateReason, Plan, RemoveReason, RepairReason};
    use ringmaster_core::status::{ConditionKind, ServiceStatus};
    use ringmaster_core::world::Pass;
    use ringmaster_core::{Reason, ServiceName};

    use crate::fault::named;
    use crate::store::Saving;

    named! {
        /// A bug.
        Bug {
            /// A new run counts its snapshots from 1 again.
            FirstGenerationLow => "first-generation-low",
            /// A changed snapshot keeps its generation.
            GenerationStuck => "generation-stuck",
            /// What is published counts as acknowledged.
            AcknowledgesItself => "acknowledges-itself",
            /// Requests in flight are not looked at.
            ForgetsRequests => "forgets-requests",
            /// What drains is removed at once.
            RemovesWhatDrains => "removes-what-drains",
            /// Whoever runs counts as ready.
            TrustsEverybody => "trusts-everybody",
            /// A list that failed counts as an empty one.
            FailedListIsEmpty => "failed-list-is-empty",
            /// A list overrules what ended after it began.
            ListOverrulesActions => "list-overrules-actions",
            /// A list that failed is not told to the planner.
            ActsBlindly => "acts-blindly",
            /// Attempts are not counted on.
            ReusesNames => "reuses-names",
            /// Past failures are forgotten.
            ForgetsFailures => "forgets-failures",
            /// Lists are not repeated.
            NeverListsAgain => "never-lists-again",
            /// Nothing is removed.
            NeverRemoves => "never-removes",
            /// Nothing is repaired.
            NeverRepairs => "never-repairs",
            /// What has ended is not replaced.
            NeverReplaces => "never-replaces",
            /// All replicas of another revision are replaced at once.
            ReplacesAllAtOnce => "replaces-all-at-once",
            /// A ready replica loses its traffic while another is not ready.
            WithdrawsTheReady => "withdraws-the-ready",
            /// A manifest that is wrong counts as an empty one.
            AppliesWhatIsWrong => "applies-what-is-wrong",
            /// A change that could not be written counts as written.
            WritesNothing => "writes-nothing",
            /// What has the name of a new replica is removed.
            RemovesWhatIsInTheWay => "removes-what-is-in-the-way",
            /// What is to be removed is not looked at once more.
            NoSecondLook => "no-second-look",
            /// The data plane's reports are lost.
            LosesReports => "loses-reports",
            /// A status says too soon that all is as desired.
            ConvergedTooSoon => "converged-too-soon",
            /// A status shows the environment.
            ShowsTheEnvironment => "shows-the-environment",
            /// What is whole is repaired.
            RepairsWhatIsWhole => "repairs-what-is-whole",
            /// A plan depends on the order of the list.
            DependsOnOrder => "depends-on-order",
            /// What belongs to no service is not reported.
            HidesOrphans => "hides-orphans",
            /// While one place fails again and again, no other is filled.
            OneHoldsUpAll => "one-holds-up-all",
            /// A deleted service is never forgotten.
            NeverFinishes => "never-finishes",
            /// A release that has failed is not given up.
            NeverGivesUp => "never-gives-up",
            /// A release that has failed is gone back to.
            GoesBackToTheBad => "goes-back-to-the-bad",
            /// After a restart it is not known what was ready.
            ForgetsWhatWasReady => "forgets-what-was-ready",
            /// A release counts as ready as a whole once one replica is.
            ReadyTooSoon => "ready-too-soon",
            /// A count goes beyond its bounds.
            ScalesBeyond => "scales-beyond",
            /// A count goes down without waiting for its window.
            ScalesDownAtOnce => "scales-down-at-once",
            /// A count goes down although the last step down still drains.
            ScalesUnderDrain => "scales-under-drain",
            /// A service at zero stays there.
            NeverWakes => "never-wakes",
            /// Requests that wait for a replica are not told.
            ForgetsTheHeld => "forgets-the-held",
            /// Scaling down takes the lowest place, and not the highest.
            RemovesTheWrongOne => "removes-the-wrong-one",
        }
    }

    /// Changes what a pass has decided.
    pub(crate) fn distort(bug: Option<Bug>, desired: &Desired, pass: &mut Pass) {
        let Some(bug) = bug else { return };
        let serving: Vec<_> = pass.plan.serving.values().flat_map(|s| s.values().cloned()).collect();
        match (bug, &mut pass.snapshot) {
            (Bug::GenerationStuck, Some(next)) => {
                next.generation.0 = next.generation.0 / 1_000_000 * 1_000_000 + 1
            }
            (Bug::WithdrawsTheReady, Some(next)) if serving.len() > 1 => {
                for routing in next.services.values_mut() {
                    Arc::make_mut(routing).endpoints.pop_first();
                }
            }
            _ => {}
        }
        distort_plan(Some(bug), desired, &pass.observed, &mut pass.plan);
    }

    /// Changes a plan.
    pub(crate) fn distort_plan(bug: Option<Bug>, desired: &Desired, observed: &Observed, plan: &mut Plan) {
        let Some(bug) = bug else { return };
        let actions = &mut plan.actions;
        let remove = |r: &ringmaster_core::observed::Replica, reason| {
            let (id, name) = (r.id.clone()?, r.name.clone());
            (r.pending.is_none()).then_some(Action::Remove {
                id,
                name,
                grace: Some(std::time::Duration::from_secs(1)),
                reason,
            })
        };
        match bug {
            Bug::RemovesWhatDrains => {
                let draining = observed.replicas.iter().filter(|r| plan.draining.contains_key(&r.name));
                let more: Vec<_> = draining.filter_map(|r| remove(r, RemoveReason::Superseded)).collect();
                actions.retain(|a| !matches!(a, Action::Remove { grace: Some(_), .. }));
                actions.extend(more);
            }
            Bug::ActsBlindly if observed.list_error.is_some() => {
                let ended = observed.replicas.iter().filter(|r| matches!(r.state, ReplicaState::Exited(_)));
                actions.extend(ended.filter_map(|r| remove(r, RemoveReason::Ended)));
            }
            Bug::NeverRemoves => actions.retain(|a| !matches!(a, Action::Remove { .. })),
            Bug::NeverRepairs => actions.retain(|a| !matches!(a, Action::Repair { .. })),
            Bug::NeverReplaces => {
                actions.retain(|a| !matches!(a, Action::Create { reason: CreateReason::Replace, .. }));
            }
            Bug::ReplacesAllAtOnce => {
                let outdated = observed.replicas.iter().filter_map(|r| {
                    let revision = observed.revisions.get(&r.name.service)?.as_ref().ok()?;
                    let serves = plan.serving.get(&r.name.service)?.get(&r.name.ordinal) == Some(&r.name);
                    let newest = observed.history.next_attempt(&r.name.service, r.name.ordinal);
                    let name = ringmaster_core::ReplicaName { attempt: newest, ..r.name.clone() };
                    let alone = observed
                        .replicas
                        .iter()
                        .all(|o| o.name.ordinal != r.name.ordinal || o.name == r.name);
                    let reason = CreateReason::Outdated;
                    (serves && alone && r.revision != *revision && observed.list_error.is_none()).then(|| {
                        Action::Create { name, host: r.host.clone(), revision: revision.clone(), reason }
                    })
                });
                let outdated: Vec<_> = outdated.collect();
                actions.retain(|a| !matches!(a, Action::Create { reason: CreateReason::Outdated, .. }));
                actions.extend(outdated);
            }
            Bug::RepairsWhatIsWhole => {
                let whole = observed.replicas.iter().filter(|r| r.pending.is_none() && r.is_ready());
                let whole = whole.min_by_key(|r| &r.name);
                actions.extend(whole.and_then(|r| {
                    let (id, name) = (r.id.clone()?, r.name.clone());
                    Some(Action::Repair { id, name, reason: RepairReason::Paused })
                }));
            }
            Bug::DependsOnOrder => {
                if let Some(first) = observed.replicas.first() {
                    plan.serving.entry(first.name.service.clone()).or_default().remove(&first.name.ordinal);
                }
            }
            Bug::HidesOrphans => plan.orphans.clear(),
            Bug::OneHoldsUpAll => {
                let failing = |service: &ServiceName, ordinal| {
                    observed.history.member(service, ordinal).is_some_and(|past| past.failures > 1)
                };
                let held_up = desired.services.iter().filter(|(name, service)| {
                    service.members.iter().any(|member| failing(name, member.ordinal))
                });
                let held_up: Vec<&ServiceName> = held_up.map(|(name, _)| name).collect();
                actions.retain(|action| match action {
                    Action::Create { name, .. } => {
                        !held_up.contains(&&name.service) || failing(&name.service, name.ordinal)
                    }
                    _ => true,
                });
            }
            Bug::NeverFinishes => plan.finished.clear(),
            Bug::RemovesTheWrongOne => {
                let lowest =
                    |service: &ServiceName| desired.services.get(service)?.members.first().map(|m| m.ordinal);
                for action in actions {
                    let Action::Remove { id, name, reason: RemoveReason::ScaledDown, .. } = action else {
                        continue;
                    };
                    let other = observed.replicas.iter().find(|r| {
                        r.name.service == name.service
                            && Some(r.name.ordinal) == lowest(&name.service)
                            && r.is_ready()
                    });
                    if let Some((other, other_id)) = other.and_then(|r| Some((r, r.id.clone()?))) {
                        (*id, *name) = (other_id, other.name.clone());
                    }
                }
            }
            _ => {}
        }
    }

    /// Changes how far rollouts have come; none if it does not.
    pub(crate) fn distort_rollouts(bug: Option<Bug>, plan: &Plan) -> Option<Plan> {
        if bug != Some(Bug::ReadyTooSoon) {
            return None;
        }
        let mut distorted = plan.clone();
        for (progress, stage) in distorted.rollouts.values_mut().filter(|(progress, _)| progress.updated > 0)
        {
            (progress.available, *stage) = (1, ringmaster_core::rollout::Stage::Complete);
        }
        Some(distorted)
    }

    /// Changes a count that was decided on.
    pub(crate) fn distort_count(bug: Option<Bug>, decided: &mut Decided) {
        let (from, wanted) = (decided.from, &mut decided.now.wanted);
        match (bug, decided.now.reason) {
            (Some(Bug::ScalesBeyond), _) if decided.is_to_set && *wanted > from => *wanted += 100,
            (Some(Bug::ScalesDownAtOnce), Reason::ScaleDownStabilized)
            | (Some(Bug::ScalesUnderDrain), Reason::ScaleDownDraining)
                if from > 1 =>
            {
                (*wanted, decided.is_to_set) = (from - 1, true);
            }
            (Some(Bug::NeverWakes), Reason::Woken) => decided.is_to_set = false,
            _ => {}
        }
    }

    pub(crate) fn distort_statuses(
        bug: Option<Bug>,
        desired: &Desired,
        statuses: &mut BTreeMap<ServiceName, ServiceStatus>,
    ) {
        for (name, status) in statuses {
            match bug {
                Some(Bug::ConvergedTooSoon) => {
                    for condition in &mut status.conditions {
                        condition.status &= condition.kind != ConditionKind::Progressing;
                    }
                }
                Some(Bug::ShowsTheEnvironment) => {
                    let env = &desired.services[name].spec.template.env;
                    status.members.iter_mut().for_each(|member| member.message = format!("{env:?}"));
                }
                _ => {}
            }
        }
    }

    pub(crate) fn distort_saving(bug: Option<Bug>, saving: Saving) -> Saving {
        match (bug, saving) {
            (Some(Bug::WritesNothing), Saving::Good) => Saving::Forgotten,
            (_, saving) => saving,
        }
    }
}
