//! What runs beside the loop and comes back as values: lists, resolutions of images, actions, commands.

use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::desired::Desired;
use ringmaster_core::observed::{ReplicaState, RuntimeId, RuntimeReplica};
use ringmaster_core::plan::Plan;
use ringmaster_core::spec::{PullPolicy, Template};
use ringmaster_core::{Ordinal, Reason, ReplicaName, Revision, ServiceName};
use ringmaster_runtime::{ErrorKind, RuntimeError};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::figures;
use crate::store::StoreError;

use super::{CREATES_MAX, Command, RESYNC_PERIOD, Reconciler};

/// Shortest pause between two lists.
const LIST_PAUSE_MIN: Duration = Duration::from_millis(10);
/// Backoff of what the engine refused.
const RETRY_BASE: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Something that ran beside the loop has ended.
pub(super) enum Done {
    Listed { number: u64, took: Duration, result: Result<Vec<RuntimeReplica>, RuntimeError> },
    Resolved { service: ServiceName, template: Box<Template>, result: Result<String, RuntimeError> },
    Created { name: ReplicaName, revision: Revision, result: Box<Result<RuntimeReplica, RuntimeError>> },
    Removed { name: ReplicaName, id: RuntimeId, result: Result<(), RuntimeError> },
    Repaired { name: ReplicaName, result: Result<(), RuntimeError> },
    Finished(Result<(), StoreError>),
    Replied,
}

/// When to list next.
#[derive(Debug)]
pub(super) struct Listing {
    wanted: bool,
    running: bool,
    not_before: Instant,
    resync_at: Instant,
}

impl Listing {
    /// A list is due at once.
    pub(super) fn wanted() -> Listing {
        let now = Instant::now();
        Listing { wanted: true, running: false, not_before: now, resync_at: now }
    }

    /// Something changed: list soon.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Time until the next list; none while one runs.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let at = if self.wanted { self.not_before } else { self.resync_at };
        (!self.running).then(|| at.saturating_duration_since(Instant::now()))
    }

    fn ended(&mut self, took: Duration, good: bool) {
        let now = Instant::now();
        self.running = false;
        // Lists take at most half of the time, however slow the engine is or however much happens.
        self.not_before = now + if good { took.clamp(LIST_PAUSE_MIN, RETRY_BASE) } else { RETRY_BASE };
        self.resync_at = now + if good { RESYNC_PERIOD } else { RETRY_BASE };
    }
}

/// When deleted services of which nothing is left may be forgotten: that waits for the disk.
#[derive(Debug, Default)]
pub(super) struct Finishing {
    running: bool,
    failures: u32,
    not_before: Option<Instant>,
}

impl Finishing {
    /// Time until it may be tried again after a failure.
    pub(super) fn due_in(&self) -> Option<Duration> {
        Some(self.not_before?.saturating_duration_since(Instant::now()))
    }
}

/// What a service's template resolves to, and when to ask again.
#[derive(Debug)]
pub(super) struct Resolution {
    template: Template,
    running: bool,
    failures: u32,
    again_at: Option<Instant>,
    /// The revision and the content that it stands for.
    pub(super) resolved: Option<(Revision, String)>,
}

impl Resolution {
    /// Time until it is asked again; none if never or while it runs.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let at = self.again_at.filter(|_| !self.running)?;
        Some(at.saturating_duration_since(Instant::now()))
    }
}

impl Reconciler {
    /// Starts a list if one is due.
    pub(super) fn start_list(&mut self) {
        if self.listing.due_in() != Some(Duration::ZERO) {
            return;
        }
        self.listing.wanted = false;
        self.listing.running = true;
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
        self.resolutions
            .retain(|name, _| desired.services.get(name).is_some_and(|service| !service.deleting));
        for (name, service) in desired.services.iter().filter(|(_, service)| !service.deleting) {
            let template = &service.spec.template;
            let known = self.resolutions.get(name);
            let changed = known.is_none_or(|known| known.template != *template);
            if !changed && known.and_then(Resolution::due_in) != Some(Duration::ZERO) {
                continue;
            }
            let fresh = || Resolution {
                template: template.clone(),
                running: true,
                failures: 0,
                again_at: None,
                resolved: None,
            };
            if changed {
                // Until it is known, whatever runs is good enough, and nothing new is created.
                self.world.revisions.remove(name);
                self.resolutions.insert(name.clone(), fresh());
            } else if let Some(known) = self.resolutions.get_mut(name) {
                known.running = true;
            }
            let (runtime, service, template) =
                (Arc::clone(&self.runtime), name.clone(), Box::new(template.clone()));
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
            Done::Created { name, revision, result } => self.on_created(&name, &revision, *result),
            Done::Removed { name, id, result } => {
                figures::acted("remove", result.is_ok());
                match result {
                    Ok(()) => self.on_removed(&name, &id),
                    Err(error) => self.on_action_failed(&name, &error),
                }
            }
            Done::Repaired { name, result } => {
                figures::acted("repair", result.is_ok());
                match result {
                    Ok(()) => self.on_repaired(&name),
                    Err(error) => self.on_action_failed(&name, &error),
                }
            }
            Done::Finished(result) => self.on_finished(result),
            Done::Replied => {}
        }
    }

    /// Forgets deleted services of which nothing is left, beside the loop: it waits for the disk.
    pub(super) fn finish(&mut self, plan: &Plan) {
        let due = self.finishing.due_in().is_none_or(|wait| wait.is_zero());
        if plan.finished.is_empty() || self.finishing.running || !due {
            return;
        }
        self.finishing.running = true;
        self.finishing.not_before = None;
        let (store, finished) = (Arc::clone(&self.store), plan.finished.clone());
        self.tasks.spawn_blocking(move || Done::Finished(store.finish(&finished)));
    }

    fn on_finished(&mut self, result: Result<(), StoreError>) {
        self.finishing.running = false;
        match result {
            Ok(()) => self.finishing.failures = 0,
            Err(error) => {
                self.finishing.failures += 1;
                self.finishing.not_before = Some(Instant::now() + retry_delay(self.finishing.failures));
                self.timeline.warning(None, "state", Reason::StateNotWritten, error.to_string());
            }
        }
    }

    fn on_removed(&mut self, name: &ReplicaName, id: &RuntimeId) {
        self.failures.remove(name);
        self.world.removed(name, id);
        let message = format!("{name} is gone");
        self.timeline.normal(Some(&name.service), &name.short(), Reason::Removed, message);
    }

    /// A repair that worked is confirmed by the next list; one that has to be done again and again waits longer
    /// each time.
    fn on_repaired(&mut self, name: &ReplicaName) {
        let repairs = self.repairs.entry(name.clone()).or_default();
        *repairs += 1;
        match *repairs {
            1 => self.world.ended(name),
            again => self.world.failed(name, self.clock.now().after(retry_delay(again - 1))),
        }
        self.listing.want();
    }

    fn on_listed(&mut self, number: u64, took: Duration, result: Result<Vec<RuntimeReplica>, RuntimeError>) {
        self.listing.ended(took, result.is_ok());
        match result {
            Ok(list) => {
                figures::listed();
                let now = self.clock.now();
                self.failures.retain(|name, _| list.iter().any(|r| r.name == *name));
                self.repairs.retain(|name, _| list.iter().any(|r| r.name == *name && !is_whole(r)));
                for replica in self.world.end_list(number, list) {
                    let why = format!("{} was removed by somebody", replica.name);
                    if self.world.history.record_failure(&replica.name, &replica.revision, why.clone(), now) {
                        let name = &replica.name;
                        self.timeline.warning(Some(&name.service), &name.short(), Reason::Vanished, why);
                    }
                }
            }
            Err(error) => self.engine_unreachable(error.to_string()),
        }
    }

    fn on_resolved(
        &mut self,
        service: ServiceName,
        template: &Template,
        result: Result<String, RuntimeError>,
    ) {
        let Some(known) = self.resolutions.get_mut(&service).filter(|known| known.template == *template)
        else {
            return; // The template has changed meanwhile; its own resolution is under way.
        };
        known.running = false;
        match result {
            Ok(content_id) => {
                let revision = revision_of(template, &content_id);
                known.failures = 0;
                // `always` means a pull for each new revision, not one every few seconds.
                let again = template.pull_policy != PullPolicy::Always;
                known.again_at = again.then(|| Instant::now() + RESYNC_PERIOD);
                let before = known.resolved.replace((revision.clone(), content_id));
                if before.is_some_and(|(before, _)| before != revision) {
                    let message = format!("what the template runs has changed: revision {revision}");
                    self.timeline.normal(Some(&service), "service", Reason::Rebuilt, message);
                }
                self.world.revisions.insert(service, Ok(revision));
            }
            Err(error) => {
                known.failures += 1;
                known.again_at = Some(Instant::now() + retry_delay(known.failures));
                match &known.resolved {
                    // What was resolved before still stands: an engine in trouble, or a tag that was removed,
                    // must not take away what runs or keep it from being healed.
                    Some((revision, _)) => {
                        let message = format!("{error}; going on with revision {revision}");
                        self.timeline.warning(Some(&service), "service", Reason::TemplateUnresolved, message);
                    }
                    None => drop(self.world.revisions.insert(service, Err(error.to_string()))),
                }
            }
        }
    }

    fn on_created(
        &mut self,
        name: &ReplicaName,
        revision: &Revision,
        result: Result<RuntimeReplica, RuntimeError>,
    ) {
        figures::acted("create", result.is_ok());
        match result {
            Ok(replica) => {
                self.creates_max = (self.creates_max * 2).min(CREATES_MAX);
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
                self.world.ended(name);
                self.spans.not_created(name);
                self.listing.want();
                self.timeline.warning(
                    Some(&name.service),
                    &name.short(),
                    Reason::CreateFailed,
                    error.to_string(),
                );
                // A name that is taken by ours shows in the list; if it is foreign, the next attempt has another.
                // The first failure in a row costs no wait, so that neither delays anything.
                let now = self.clock.now();
                self.world.history.record_failure(name, revision, error.to_string(), now);
                match error.kind {
                    ErrorKind::Engine | ErrorKind::Unreachable => self.creates_max = 1,
                    ErrorKind::Conflict | ErrorKind::ImageMissing => {
                        if let Some(known) = self.resolutions.get_mut(&name.service) {
                            known.again_at = Some(Instant::now());
                        }
                    }
                    ErrorKind::NotFound | ErrorKind::Invalid => {}
                }
            }
        }
    }

    fn on_action_failed(&mut self, name: &ReplicaName, error: &RuntimeError) {
        self.timeline.warning(Some(&name.service), &name.short(), Reason::ActionFailed, error.to_string());
        let failures = self.failures.entry(name.clone()).or_default();
        *failures += 1;
        let retry_at = self.clock.now().after(retry_delay(*failures));
        self.world.failed(name, retry_at);
        self.listing.want();
    }

    pub(super) fn on_command(&mut self, command: Command) {
        let runtime = Arc::clone(&self.runtime);
        match command {
            Command::Logs { service, ordinal, previous, lines, reply } => {
                let found = self
                    .find(&service, ordinal, |state| matches!(state, ReplicaState::Exited(_)) == previous);
                let found =
                    found.or_else(|| if previous { None } else { self.find(&service, ordinal, |_| true) });
                let missing = || {
                    let which = if previous { "no ended replica" } else { "no replica" };
                    format!("{service}-{ordinal}: there is {which} to show the output of")
                };
                let found = found.ok_or_else(missing);
                self.tasks.spawn(async move {
                    let answer = match found {
                        Ok((_, id)) => runtime.logs(&id, lines).await.map_err(|error| error.to_string()),
                        Err(missing) => Err(missing),
                    };
                    // Whoever asked may have left: that is no error of ours.
                    drop(reply.send(answer));
                    Done::Replied
                });
            }
            Command::Fault { service, ordinal, signal, reply } => {
                let found = self.find(&service, ordinal, |state| matches!(state, ReplicaState::Running));
                let found = found.ok_or_else(|| format!("{service}-{ordinal}: no such replica runs"));
                if let Ok((name, _)) = &found {
                    let message = format!("{signal} sent to {name} as asked");
                    self.timeline.warning(Some(&service), &name.short(), Reason::FaultInjected, message);
                }
                self.tasks.spawn(async move {
                    let answer = match found {
                        Ok((name, id)) => match runtime.signal(&id, signal).await {
                            Ok(()) => Ok(name.to_string()),
                            Err(error) => Err(error.to_string()),
                        },
                        Err(missing) => Err(missing),
                    };
                    drop(reply.send(answer));
                    Done::Replied
                });
            }
        }
    }

    /// The newest replica of a place in a state that fits.
    fn find(
        &self,
        service: &ServiceName,
        ordinal: Ordinal,
        fits: impl Fn(&ReplicaState) -> bool,
    ) -> Option<(ReplicaName, RuntimeId)> {
        let mine =
            |r: &&RuntimeReplica| r.name.service == *service && r.name.ordinal == ordinal && fits(&r.state);
        let newest = self.world.replicas().filter(mine).max_by_key(|r| r.name.attempt)?;
        Some((newest.name.clone(), newest.id.clone()))
    }
}

/// Whether somebody still has to mend it.
fn is_whole(replica: &RuntimeReplica) -> bool {
    replica.state == ReplicaState::Running
        && replica.address.is_some()
        && replica.engine_name == replica.name.to_string()
}

/// What runs, as one short hash: the template and the content that it resolved to.
fn revision_of(template: &Template, content_id: &str) -> Revision {
    // When to pull is not what to run.
    let template = Template { pull_policy: PullPolicy::default(), ..template.clone() };
    let text = serde_json::to_string(&template).expect("a template has only string keys");
    let hash = xxh3_64(format!("{text}\n{content_id}").as_bytes());
    Revision(format!("{hash:016x}")[..10].to_owned())
}

fn retry_delay(failures: u32) -> Duration {
    RETRY_BASE.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(RETRY_MAX)
}
