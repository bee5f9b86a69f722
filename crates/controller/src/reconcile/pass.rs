//! One pass: the planner's input, the plan, the snapshot that follows from it, and only then the actions.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringmaster_core::desired::Desired;
use ringmaster_core::observed::{Observed, Pending};
use ringmaster_core::plan::{Action, Plan, RepairReason};
use ringmaster_core::snapshot::Snapshot;
use ringmaster_core::status::{ServiceStatus, status_after};
use ringmaster_core::world::{Outlook, Pass};
use ringmaster_core::{Reason, ReplicaName, Timestamp};
use ringmaster_runtime::{CreateRequest, RuntimeError};
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::tasks::Done;
use super::{Board, CAUSE_MAX, Reconciler};
use crate::probe::Wanted;
use crate::{act, figures};

impl Reconciler {
    /// Decides and publishes, then acts. Nothing is decided before the first list.
    pub(super) fn pass(&mut self, desired: &Arc<Desired>) {
        let started = std::time::Instant::now();
        let now = self.clock.now();
        let outlook = Outlook { first_generation: self.first_generation, settle: self.settle };
        let current = Arc::clone(&self.snapshots.borrow());
        let Some(pass) = self.world.pass(desired, &current, outlook, now) else {
            return self.publish_ignorance(desired);
        };
        let Pass { mut observed, news, plan, settling_until, snapshot, wake_at } = pass;
        for (name, why) in news {
            self.timeline.warning(
                Some(&name.service),
                &name.short(),
                Reason::Failed,
                format!("{name}: {why}"),
            );
            self.fetch_output(name);
        }
        self.wake_at = wake_at;
        if settling_until.is_some() {
            self.sync_probes(desired);
            self.publish_status(desired, &observed, &plan);
            return;
        }
        let span = self.span(desired, &plan);
        let _entered = span.enter();
        if let Some(next) = snapshot {
            self.publish(&current, next, &observed, &plan);
        }
        self.sync_probes(desired);
        self.note_ready(desired, &mut observed, &plan);
        self.autoscale(desired, &plan, now);
        let deadline = self.publish_status(desired, &observed, &plan);
        self.note_orphans(&plan);
        self.finish(&plan);
        self.write_ready();
        self.write_memory();
        self.wake_at = self.wake_at.into_iter().chain(deadline).min();
        self.spans.planned(desired, &plan, now);
        let waiting = plan.actions.into_iter().filter_map(|action| self.start(action, desired)).count();
        metrics::gauge!("ringmaster_workqueue_depth").set(waiting as f64);
        metrics::gauge!("ringmaster_workqueue_active").set(self.tasks.len() as f64);
        metrics::histogram!("ringmaster_reconcile_duration_seconds").record(started.elapsed());
        metrics::counter!("ringmaster_reconcile_total").increment(1);
        self.end_cause();
    }

    /// The span of a pass: it belongs to the request that asked for what is done, if one did. Without one, and with
    /// nothing to do, there is none: such passes would only hide the others.
    fn span(&mut self, desired: &Desired, plan: &Plan) -> Span {
        if let Some(cause) = self.store.take_cause() {
            self.cause = Some((cause, Instant::now()));
        }
        let (generation, actions) = (desired.generation.0, plan.actions.len());
        match &self.cause {
            None if actions == 0 && !self.spans.drains_begin(plan) => Span::none(),
            None => tracing::info_span!(parent: None, "reconcile", generation, actions),
            Some((cause, _)) => tracing::info_span!(parent: cause.id(), "reconcile", generation, actions),
        }
    }

    /// Forgets for whom the loop works once it is done, or has taken too long.
    fn end_cause(&mut self) {
        let is_done = self.board.borrow().statuses.values().all(ServiceStatus::is_converged);
        self.cause.take_if(|(_, since)| is_done || since.elapsed() >= CAUSE_MAX);
    }

    /// Publishes a snapshot, and tells who gets traffic now and who no longer does.
    fn publish(&mut self, current: &Snapshot, next: Snapshot, observed: &Observed, plan: &Plan) {
        let names = |snapshot: &Snapshot| -> BTreeSet<ReplicaName> {
            snapshot.endpoints().map(|endpoint| endpoint.replica.clone()).collect()
        };
        let (before, after) = (names(current), names(&next));
        self.snapshots.send_replace(Arc::new(next));
        self.spans.published(&before, &after, plan, observed.now);
        for name in after.difference(&before) {
            let at = observed.replicas.iter().find(|r| r.name == *name).and_then(|r| r.address);
            let at = at.map_or(String::new(), |address| format!(" at {address}"));
            self.timeline.normal(
                Some(&name.service),
                &name.short(),
                Reason::Ready,
                format!("{name} gets traffic{at}"),
            );
        }
        for name in before.difference(&after) {
            let why = match (plan.draining.get(name), observed.replicas.iter().find(|r| r.name == *name)) {
                (Some(reason), _) => reason.to_string(),
                (None, _) if plan.standby.contains(name) => "its successor has taken over".to_owned(),
                (None, Some(replica)) if replica.is_live() => {
                    replica.health.last_failure.clone().unwrap_or_else(|| "it is not ready".to_owned())
                }
                (None, Some(_)) => "it has ended".to_owned(),
                (None, None) => "it is gone".to_owned(),
            };
            let message = format!("{name} gets no new requests: {why}");
            self.timeline.normal(Some(&name.service), &name.short(), Reason::Withdrawn, message);
        }
    }

    fn sync_probes(&mut self, desired: &Desired) {
        let wanted = self.world.running().filter_map(|replica| {
            let service = desired.services.get(&replica.name.service)?;
            let (name, id, probes) = (&replica.name, &replica.id, &service.spec.probes);
            Some(Wanted { name, id, address: replica.address?, probes })
        });
        self.prober.sync(wanted, |name| self.world.health(name));
    }

    /// Before the first list there is no status, but there may be a reason for that.
    fn publish_ignorance(&mut self, desired: &Arc<Desired>) {
        let engine_error = self.world.list_error().map(ToOwned::to_owned);
        if engine_error.is_some() {
            let board = Board { desired: Arc::clone(desired), engine_error, ..Board::default() };
            self.publish_board(board);
        }
    }

    fn publish_board(&self, board: Board) {
        self.board.send_if_modified(|current| {
            let changed = **current != board;
            if changed {
                *current = Arc::new(board);
            }
            changed
        });
    }

    /// Returns when a rollout is to be looked at again.
    fn publish_status(
        &mut self,
        desired: &Arc<Desired>,
        observed: &Observed,
        plan: &Plan,
    ) -> Option<Timestamp> {
        let previous = Arc::clone(&self.board.borrow());
        let known = &self.memory.recollection;
        let mut statuses = status_after(desired, observed, plan, &previous.statuses, known);
        self.memory.take_up(statuses.iter(), desired, observed, plan);
        self.scaling.tell(&mut statuses);
        for (name, service) in &statuses {
            if !previous.statuses.contains_key(name) {
                figures::appeared(name);
            }
            let degraded = |status: Option<&ringmaster_core::status::ServiceStatus>| {
                let condition = status?.condition(ringmaster_core::status::ConditionKind::Degraded)?;
                condition.status.then(|| condition.clone())
            };
            match (degraded(previous.statuses.get(name)), degraded(Some(service))) {
                (before, Some(now)) if before.as_ref().map(|b| b.reason) != Some(now.reason) => {
                    self.timeline.warning(Some(name), "service", now.reason, now.message);
                }
                (Some(before), None) => {
                    let message = format!("no longer degraded ({})", before.reason);
                    self.timeline.normal(Some(name), "service", Reason::Recovered, message);
                }
                _ => {}
            }
        }
        let look_at = self.judge_rollouts(desired, observed, &previous.statuses, &statuses);
        let board = Board {
            desired: Arc::clone(desired),
            statuses,
            engine_error: observed.list_error.clone(),
            snapshot: self.snapshots.borrow().generation,
        };
        self.publish_board(board);
        look_at
    }

    /// Replicas of ours whose service nobody desires are reported once, and never touched: a lost state folder
    /// must not cost what runs.
    fn note_orphans(&mut self, plan: &Plan) {
        self.orphans.retain(|name| plan.orphans.contains(name));
        for name in &plan.orphans {
            if self.orphans.insert(name.clone()) {
                let message = format!(
                    "{name} runs for service `{}`, which is not desired: it is left alone; apply a manifest that \
                     names the service to take it up, or remove it by hand",
                    name.service
                );
                self.timeline.warning(None, &name.short(), Reason::Orphaned, message);
            }
        }
    }

    /// Starts an action; gives back one that has to wait.
    fn start(&mut self, action: Action, desired: &Desired) -> Option<Action> {
        let now = self.clock.now();
        match action {
            Action::Create { name, host, revision, reason } => {
                if !self.world.may_create(&name.service) {
                    return Some(Action::Create { name, host, revision, reason });
                }
                let service = desired.services.get(&name.service)?;
                let (template, content_id) = self.world.content(&name.service, service, &revision)?;
                let (template, content_id) = (template.clone(), content_id.to_owned());
                self.timeline.normal(
                    Some(&name.service),
                    &name.short(),
                    Reason::Creating,
                    format!("{name} at revision {revision}: {reason}"),
                );
                let request = CreateRequest {
                    name: name.clone(),
                    host,
                    template,
                    content_id,
                    revision: revision.clone(),
                };
                self.world.begin_create(&request.name, &request.revision, request.host.clone(), now);
                self.spans.creating(&name, now);
                let runtime = Arc::clone(&self.runtime);
                let span = tracing::debug_span!("create", replica = %name, %revision, %reason, error = Empty);
                let create = async move {
                    let result = told(act::create(runtime, request).await);
                    Done::Created { name, revision, reason, result: Box::new(result) }
                };
                self.tasks.spawn(create.instrument(span));
            }
            Action::Remove { id, name, grace, reason } => {
                let what = if grace.is_some() { "stopping and removing" } else { "removing" };
                let message = format!("{what} {name}: {reason}");
                self.timeline.normal(Some(&name.service), &name.short(), Reason::Removing, message);
                self.world.begin_action(&name, Pending::Remove, now);
                let runtime = Arc::clone(&self.runtime);
                let span = tracing::debug_span!("remove", replica = %name, %reason, error = Empty);
                let remove = async move {
                    let (result, hook) = act::remove(&*runtime, &id, &name, grace).await;
                    Done::Removed { name, id, reason, hook, result: told(result) }
                };
                self.tasks.spawn(remove.instrument(span));
            }
            Action::Repair { id, name, reason } => {
                // That it is tried once more is no news.
                if !self.world.is_unrepaired(&name) {
                    let how = self.world.limits_of(&id).filter(|_| reason == RepairReason::Limits);
                    let how = how.map_or(String::new(), |how| format!(" ({how})"));
                    let message = format!("{reason}{how}: undoing that");
                    self.timeline.warning(Some(&name.service), &name.short(), Reason::Repairing, message);
                }
                self.world.begin_action(&name, Pending::Repair, now);
                let runtime = Arc::clone(&self.runtime);
                let span = tracing::debug_span!("repair", replica = %name, %reason, error = Empty);
                let repair = async move {
                    let result = told(runtime.repair(&id).await);
                    Done::Repaired { name, reason, result }
                };
                self.tasks.spawn(repair.instrument(span));
            }
        }
        None
    }
}

/// An action's end, with its error on the span that is entered.
fn told<T>(result: Result<T, RuntimeError>) -> Result<T, RuntimeError> {
    if let Err(error) = &result {
        Span::current().record("error", tracing::field::display(error));
    }
    result
}
