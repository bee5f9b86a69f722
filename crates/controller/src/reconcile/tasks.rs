//! What runs beside the loop and comes back as values: lists, resolutions of images, actions, commands.

use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::autoscale::CpuSample;
use ringmaster_core::desired::Desired;
use ringmaster_core::observed::{RuntimeId, RuntimeReplica};
use ringmaster_core::plan::{CreateReason, Plan, RemoveReason, RepairReason};
use ringmaster_core::spec::Template;
use ringmaster_core::world::{News, Resolved, retry_delay};
use ringmaster_core::{Generation, Reason, ReplicaName, Revision, ServiceName};
use ringmaster_runtime::RuntimeError;
use tokio::time::Instant;

use crate::act::HookEnd;
use crate::figures;
use crate::state::StateError;
use crate::store::StoreError;

use super::Reconciler;
use super::autoscale::Scaled;

/// Lines of output that are kept of a replica that has failed, and how much of each.
const OUTPUT_LINES: usize = 10;
const OUTPUT_LINE_CHARS_MAX: usize = 200;
/// Outputs that are fetched at the same time.
pub(super) const FETCHES_MAX: usize = 4;

/// Something that ran beside the loop has ended.
pub(super) enum Done {
    Listed {
        number: u64,
        took: Duration,
        result: Result<Vec<RuntimeReplica>, RuntimeError>,
    },
    Resolved {
        service: ServiceName,
        template: Box<Template>,
        result: Result<String, RuntimeError>,
    },
    Created {
        name: ReplicaName,
        revision: Revision,
        reason: CreateReason,
        result: Box<Result<RuntimeReplica, RuntimeError>>,
    },
    Removed {
        name: ReplicaName,
        id: RuntimeId,
        reason: RemoveReason,
        hook: HookEnd,
        result: Result<(), RuntimeError>,
    },
    Output {
        name: ReplicaName,
        text: String,
    },
    Repaired {
        name: ReplicaName,
        reason: RepairReason,
        result: Result<(), RuntimeError>,
    },
    Finished(Result<(), StoreError>),
    GivenUp {
        service: ServiceName,
        why: String,
        back_to: Generation,
        result: Result<Option<Generation>, StoreError>,
    },
    ReadyWritten(Result<(), StateError>),
    Remembered(Result<(), StateError>),
    Scaled(Box<Scaled>),
    CpuUsed {
        service: ServiceName,
        result: Result<CpuSample, RuntimeError>,
    },
    Replied,
}

/// The last lines as they can be shown anywhere: bounded, and without what a terminal would obey.
fn printable(text: &str) -> String {
    let lines = text.lines().map(|line| -> String {
        let shown = line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c });
        shown.take(OUTPUT_LINE_CHARS_MAX).collect()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Something that waits for the disk: whether it runs, and when it may be tried again.
#[derive(Debug, Default)]
pub(super) struct Finishing {
    running: bool,
    failures: u32,
    not_before: Option<Instant>,
}

impl Finishing {
    /// Begins, if it does not run already and is due.
    pub(super) fn begin(&mut self) -> bool {
        let begins = !self.running && self.due_in().is_none_or(|wait| wait.is_zero());
        if begins {
            (self.running, self.not_before) = (true, None);
        }
        begins
    }

    /// Whether it runs.
    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    /// It has ended.
    pub(super) fn ended(&mut self, good: bool) {
        self.running = false;
        self.failures = if good { 0 } else { self.failures + 1 };
        self.not_before = (!good).then(|| Instant::now() + retry_delay(self.failures));
    }

    /// Time until it may be tried again after a failure.
    pub(super) fn due_in(&self) -> Option<Duration> {
        Some(self.not_before?.saturating_duration_since(Instant::now()))
    }
}

impl Reconciler {
    /// Starts a list if one is due.
    pub(super) fn start_list(&mut self) {
        if self.world.listing.due_at().is_none_or(|at| at > self.clock.now()) {
            return;
        }
        let number = self.world.begin_list();
        let runtime = Arc::clone(&self.runtime);
        self.tasks.spawn(async move {
            let started = Instant::now();
            let result = runtime.list().await;
            Done::Listed { number, took: started.elapsed(), result }
        });
    }

    /// Resolves templates that are new, changed, or due: a tag may have been rebuilt.
    pub(super) fn start_resolutions(&mut self, desired: &Desired) {
        for (service, template) in self.world.begin_resolutions(desired, self.clock.now()) {
            let (runtime, template) = (Arc::clone(&self.runtime), Box::new(template));
            self.tasks.spawn(async move {
                let result = runtime.resolve(&template).await;
                Done::Resolved { service, template, result }
            });
        }
    }

    pub(super) fn on_done(&mut self, done: Done) {
        match done {
            Done::Listed { number, took, result } => self.on_listed(number, took, result),
            Done::Resolved { service, template, result } => self.on_resolved(service, &template, result),
            Done::Created { name, revision, reason, result } => {
                figures::acted("create", reason, result.is_ok());
                self.on_created(&name, &revision, *result);
            }
            Done::Removed { name, id, reason, hook, result } => {
                figures::acted("remove", reason, result.is_ok());
                if let HookEnd::Failed(why) = hook {
                    let message = format!("{name}: preStop has failed, it is stopped all the same: {why}");
                    self.timeline.warning(Some(&name.service), &name.short(), Reason::PreStopFailed, message);
                }
                match result {
                    Ok(()) => self.on_removed(&name, &id),
                    Err(error) => self.on_action_failed(&name, &error),
                }
            }
            Done::Repaired { name, reason, result } => {
                figures::acted("repair", reason, result.is_ok());
                match result {
                    Ok(()) => self.world.repaired(&name, self.clock.now()),
                    Err(error) => self.on_repair_failed(&name, &error),
                }
            }
            Done::Output { name, text } => self.world.history.record_output(&name, &text),
            Done::Finished(result) => self.on_finished(result),
            Done::GivenUp { service, why, back_to, result } => {
                self.on_given_up(&service, &why, back_to, result);
            }
            Done::ReadyWritten(result) => self.on_ready_written(result),
            Done::Remembered(result) => self.on_remembered(result),
            Done::Scaled(scaled) => self.on_scaled(*scaled),
            Done::CpuUsed { service, result } => self.on_cpu_used(&service, result),
            Done::Replied => {}
        }
    }

    /// Fetches the last lines of a replica that has failed, for whoever asks why.
    pub(super) fn fetch_output(&mut self, name: ReplicaName) {
        let Some(id) = self.world.replicas().find(|r| r.name == name).map(|r| r.id.clone()) else { return };
        let (runtime, fetches) = (Arc::clone(&self.runtime), Arc::clone(&self.fetches));
        self.tasks.spawn(async move {
            // A service that fails as a whole fails at once, and its output can wait.
            let _turn = fetches.acquire().await;
            match runtime.logs(&id, OUTPUT_LINES).await {
                Ok(text) => Done::Output { name, text: printable(&text) },
                Err(error) => {
                    tracing::debug!(%name, %error, "the output of a failed replica is not to be had");
                    Done::Replied
                }
            }
        });
    }

    /// Forgets deleted services of which nothing is left, beside the loop: it waits for the disk.
    pub(super) fn finish(&mut self, plan: &Plan) {
        if plan.finished.is_empty() || !self.finishing.begin() {
            return;
        }
        let (store, finished) = (Arc::clone(&self.store), plan.finished.clone());
        self.tasks.spawn_blocking(move || Done::Finished(store.finish(&finished)));
    }

    fn on_finished(&mut self, result: Result<(), StoreError>) {
        self.finishing.ended(result.is_ok());
        if let Err(error) = result {
            self.timeline.warning(None, "state", Reason::StateNotWritten, error.to_string());
        }
    }

    fn on_removed(&mut self, name: &ReplicaName, id: &RuntimeId) {
        self.world.removed(name, id);
        let message = format!("{name} is gone");
        self.timeline.normal(Some(&name.service), &name.short(), Reason::Removed, message);
    }

    fn on_listed(&mut self, number: u64, took: Duration, result: Result<Vec<RuntimeReplica>, RuntimeError>) {
        let now = self.clock.now();
        match result {
            Ok(list) => {
                figures::listed();
                let was_away = self.world.list_error().is_some();
                for News { name, reason, why } in self.world.listed(number, list, took, now) {
                    self.timeline.warning(Some(&name.service), &name.short(), reason, why);
                }
                match self.world.list_error() {
                    Some(why) => self.tell_unreachable(why),
                    None if was_away => {
                        let message = "it answers again: everything is listed";
                        self.timeline.normal(None, "engine", Reason::EngineReachable, message);
                    }
                    None => {}
                }
            }
            Err(error) => {
                let why = error.to_string();
                self.tell_unreachable(&why);
                self.world.not_listed(why, took, now);
            }
        }
    }

    fn on_resolved(
        &mut self,
        service: ServiceName,
        template: &Template,
        result: Result<String, RuntimeError>,
    ) {
        let result = result.map_err(|error| error.to_string());
        let error = result.as_ref().err().cloned().unwrap_or_default();
        match self.world.resolved(&service, template, result, self.clock.now()) {
            Resolved::Rebuilt(revision) => {
                let message = format!("what the template runs has changed: revision {revision}");
                self.timeline.normal(Some(&service), "service", Reason::Rebuilt, message);
            }
            Resolved::Kept(revision) => {
                let message = format!("{error}; going on with revision {revision}");
                self.timeline.warning(Some(&service), "service", Reason::TemplateUnresolved, message);
            }
            Resolved::Nothing | Resolved::First(_) | Resolved::Unknown => {}
        }
    }

    fn on_created(
        &mut self,
        name: &ReplicaName,
        revision: &Revision,
        result: Result<RuntimeReplica, RuntimeError>,
    ) {
        match result {
            Ok(replica) => {
                let at = replica.address.map_or(String::new(), |address| format!(" at {address}"));
                self.timeline.normal(
                    Some(&name.service),
                    &name.short(),
                    Reason::Started,
                    format!("{name} runs{at}"),
                );
                self.world.created(replica);
            }
            Err(error) => {
                self.spans.not_created(name);
                let (kind, why) = (error.kind, error.to_string());
                self.timeline.warning(Some(&name.service), &name.short(), Reason::CreateFailed, why.clone());
                self.world.create_failed(name, revision, why, kind, self.clock.now());
            }
        }
    }

    fn on_repair_failed(&mut self, name: &ReplicaName, error: &RuntimeError) {
        let why = error.to_string();
        if self.world.repair_failed(name, why.clone(), self.clock.now()) {
            self.timeline.warning(Some(&name.service), &name.short(), Reason::ActionFailed, why);
        }
    }

    fn on_action_failed(&mut self, name: &ReplicaName, error: &RuntimeError) {
        self.timeline.warning(Some(&name.service), &name.short(), Reason::ActionFailed, error.to_string());
        self.world.action_failed(name, self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn what_a_replica_wrote_cannot_command_a_terminal() {
        assert_eq!(printable("a\tb\x1b[2Jc\r\nü\0\n"), "a\tb\u{fffd}[2Jc\nü\u{fffd}");
        assert_eq!(printable(&"x".repeat(1_000)).len(), 200);
    }
}
