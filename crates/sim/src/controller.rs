//! The controller in the model: the real decisions ([`World`]), and in place of tasks and sockets, events.
//!
//! It follows `controller::reconcile` step by step: list if one is due, resolve, pass, publish, act.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::autoscale::Scaling;
use ringmaster_core::desired::Desired;
use ringmaster_core::observed::{Pending, RuntimeReplica};
use ringmaster_core::plan::{Action, Plan};
use ringmaster_core::snapshot::Snapshot;
use ringmaster_core::spec::Template;
use ringmaster_core::status::{ServiceStatus, status};
use ringmaster_core::world::{Outlook, World};
use ringmaster_core::{Generation, Ordinal, Reason, ReplicaName, Revision, ServiceName, Timestamp};

use crate::event::{Call, Event, Step};
use crate::fault::{Boundary, Fault};
use crate::planted::has;
use crate::probes::Watched;
use crate::rollouts::Flaw;
use crate::simulation::{Killed, Simulation};
use crate::store::Edit;

/// How long the first snapshot may wait for verdicts where the data plane lives apart.
const SETTLE: Duration = Duration::from_secs(2);

/// One run of the controller.
#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) world: World,
    pub(crate) desired: Arc<Desired>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) statuses: BTreeMap<ServiceName, ServiceStatus>,
    pub(crate) plan: Plan,
    pub(crate) probes: BTreeMap<ReplicaName, Watched>,
    /// The last verdict on each replica, and where it was asked.
    pub(crate) verdicts: BTreeMap<ReplicaName, (SocketAddr, bool)>,
    outlook: Outlook,
    /// Added to the time of the run: its wall clock was read once.
    offset: u64,
    wake_at: Option<Timestamp>,
    timer_at: Option<u64>,
    pub(crate) reports_seen: u64,
    pub(crate) finishing: bool,
    /// Services whose release is being given up.
    pub(crate) giving_up: BTreeSet<ServiceName>,
    pub(crate) scaling: Scaling,
    /// When the count of each service was last raised.
    pub(crate) raised_at: BTreeMap<ServiceName, Timestamp>,
    /// What was ready is being written.
    pub(crate) ready_writing: bool,
    /// The last list has succeeded.
    pub(crate) sees: bool,
    pub(crate) names_used: BTreeSet<ReplicaName>,
    pub(crate) creates: BTreeMap<(ServiceName, Ordinal, Revision), Vec<u64>>,
    /// The generation within which creations are counted.
    pub(crate) counted_at: Generation,
    pub(crate) passes: u64,
}

impl Controller {
    pub(crate) fn clock(&self, now: u64) -> Timestamp {
        Timestamp(now + self.offset)
    }
}

impl Simulation<'_> {
    pub(crate) fn start_controller(&mut self) {
        if self.controller.is_some() {
            return;
        }
        self.run += 1;
        let first = self.store.reserve();
        let first = if has!(self, FirstGenerationLow) { 1 } else { first };
        let settle = if self.plane.is_apart { SETTLE } else { Duration::ZERO };
        let mut c = Controller {
            world: World::default(),
            desired: Arc::clone(&self.store.desired),
            snapshot: Arc::default(),
            statuses: BTreeMap::new(),
            plan: Plan::default(),
            probes: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            outlook: Outlook { first_generation: Generation(first), settle },
            offset: self.clock_offset,
            wake_at: None,
            timer_at: None,
            reports_seen: 0,
            finishing: false,
            giving_up: BTreeSet::new(),
            scaling: Scaling::default(),
            raised_at: BTreeMap::new(),
            ready_writing: false,
            sees: false,
            names_used: BTreeSet::new(),
            creates: BTreeMap::new(),
            counted_at: Generation(0),
            passes: 0,
        };
        self.stable_at_start(&mut c);
        self.controller = Some(c);
        let run = self.run;
        self.note(|| format!("the controller starts, run {run}"));
        self.report_soon();
        self.wake(run);
    }

    /// The controller is killed; it is started again after a while.
    pub(crate) fn controller_ends(&mut self, killed: Killed) {
        if self.controller.take().is_none() {
            return;
        }
        self.had.insert("crash");
        self.note(|| format!("the controller is killed: {killed:?}"));
        if !self.plane.is_apart {
            self.plane.die();
            self.plane.waiting = None;
            self.plane.snapshot = Arc::default();
        }
        match killed {
            Killed::Process => {}
            Killed::Machine => self.clock_offset = self.jitter(0, 7_200_000),
            Killed::StateLost => {
                self.store.lose();
                self.numbering_lost = true;
            }
        }
        let before = Arc::clone(&self.store.desired);
        self.store.reload(killed == Killed::Machine);
        if killed != Killed::Machine && killed != Killed::StateLost {
            self.check_reload(&before);
        }
        if killed == Killed::StateLost {
            self.apply_manifest();
            self.killed = None; // A write that is torn has nobody to kill.
            self.store.reload(false);
        }
        let delay = self.jitter(100, 3_000);
        self.after(delay, Event::Start);
    }

    pub(crate) fn on_timer(&mut self, run: u32) {
        let now = self.now;
        let is_mine = run == self.run; // A timer of the run before may be due at the very same time.
        if let Some(c) = self.controller.as_mut().filter(|c| is_mine && c.timer_at == Some(now)) {
            c.timer_at = None;
            self.wake(run);
        }
    }

    /// One turn of the loop. The controller is taken out meanwhile: whatever strikes then cannot reach into it, only
    /// kill it.
    pub(crate) fn wake(&mut self, run: u32) {
        if run != self.run {
            return;
        }
        let Some(mut c) = self.controller.take() else { return };
        c.desired = Arc::clone(&self.store.desired);
        self.start_list(&mut c);
        self.start_resolutions(&mut c);
        self.pass(&mut c);
        self.arm(&mut c);
        self.controller = Some(c);
    }

    fn arm(&mut self, c: &mut Controller) {
        let due = [c.wake_at, c.world.due_at()].into_iter().flatten().min();
        let Some(due) = due.map(|at| at.0.saturating_sub(c.offset).max(self.now + 1)) else { return };
        if c.timer_at.is_none_or(|at| at > due || at <= self.now) {
            c.timer_at = Some(due);
            let run = self.run;
            self.after(due - self.now, Event::Timer { run });
        }
    }

    // --- lists and resolutions ------------------------------------------------------------------------------

    fn start_list(&mut self, c: &mut Controller) {
        let now = c.clock(self.now);
        if c.world.listing.due_at().is_none_or(|at| at > now) || self.killed.is_some() {
            return;
        }
        if has!(self, NeverListsAgain) && c.sees {
            return;
        }
        let number = c.world.begin_list();
        self.lists += 1;
        let fault = self.come_to(Boundary::List);
        let (run, began) = (self.run, self.now);
        let mut delay = self.jitter(2, 25);
        let away = !self.engine.answers(self.now);
        let refused = |why: &str| Some(Err(why.to_owned()));
        let result = match fault {
            Some(Fault::Refused) => refused("500: the engine refused"),
            Some(Fault::Unreachable) => refused("connection refused"),
            _ if away => refused("connection refused"),
            Some(Fault::StaleList) => {
                self.had.insert("stale");
                Some(Ok(self.engine.stale_list()))
            }
            Some(Fault::Slow) => {
                delay = 30_000;
                Some(Ok(self.engine.list()))
            }
            // What it shows is as of its beginning, or of its end.
            _ if self.random.chance(500) => Some(Ok(self.engine.list())),
            _ => None,
        };
        self.after(delay, Event::Listed { run, number, began, result });
    }

    pub(crate) fn on_listed(
        &mut self,
        run: u32,
        number: u64,
        began: u64,
        result: Option<Result<Vec<RuntimeReplica>, String>>,
    ) {
        if run != self.run || self.controller.is_none() {
            return;
        }
        let result = result.unwrap_or_else(|| {
            if self.engine.answers(self.now) { Ok(self.engine.list()) } else { Err("cut off".to_owned()) }
        });
        let result = if has!(self, FailedListIsEmpty) { Ok(result.unwrap_or_default()) } else { result };
        let number = if has!(self, ListOverrulesActions) { u64::MAX } else { number };
        let (now, took) = (self.now, Duration::from_millis(self.now - began));
        let Some(c) = &mut self.controller else { return };
        let at = c.clock(now);
        c.sees = result.is_ok();
        match result {
            Ok(list) => {
                let news = c.world.listed(number, list, took, at);
                for news in news.into_iter().filter(|news| news.reason == Reason::Vanished) {
                    self.check_vanished(&news.name);
                }
            }
            Err(why) => c.world.not_listed(why, took, at),
        }
        self.come_to(Boundary::Listed);
        self.wake(run);
    }

    fn start_resolutions(&mut self, c: &mut Controller) {
        let now = c.clock(self.now);
        if self.killed.is_some() {
            return;
        }
        for (service, template) in c.world.begin_resolutions(&c.desired, now) {
            let fault = self.come_to(Boundary::Resolve);
            let refused = match fault {
                Some(Fault::Refused) => Some("500: the engine refused"),
                Some(Fault::ImageMissing) => Some("no such image"),
                Some(Fault::Unreachable) => Some("connection refused"),
                _ if Flaw::of(&template) == Some(Flaw::Missing) => Some("no such image"),
                _ if !self.engine.answers(self.now) => Some("connection refused"),
                _ => None,
            };
            let refused = refused.map(ToOwned::to_owned);
            let delay = if fault == Some(Fault::Slow) { 30_000 } else { self.jitter(1, 15) };
            let (run, template) = (self.run, Box::new(template));
            self.after(delay, Event::Resolved { run, service, template, refused });
        }
    }

    pub(crate) fn on_resolved(
        &mut self,
        run: u32,
        service: &ServiceName,
        template: &Template,
        refused: Option<String>,
    ) {
        if run != self.run {
            return;
        }
        let content = format!("{}@{}", template.runs(), self.engine.tags_moved);
        let now = self.now;
        let Some(c) = &mut self.controller else { return };
        let at = c.clock(now);
        c.world.resolved(service, template, refused.map_or(Ok(content), Err), at);
        self.wake(run);
    }

    // --- the pass -------------------------------------------------------------------------------------------

    fn pass(&mut self, c: &mut Controller) {
        let now = c.clock(self.now);
        if self.killed.is_some() {
            return;
        }
        if has!(self, ForgetsFailures) {
            c.world.history = ringmaster_core::history::History::default();
        }
        if has!(self, AcknowledgesItself) {
            let report = ringmaster_core::snapshot::Report {
                acknowledged: Generation(u64::MAX),
                ..Default::default()
            };
            c.world.handshake.report(report, now);
        }
        let Some(mut pass) = c.world.pass(&c.desired, &c.snapshot, c.outlook, now) else { return };
        c.passes += 1;
        c.wake_at = pass.wake_at;
        #[cfg(feature = "planted")]
        crate::planted::distort(self.setting.bug, &c.desired, &mut pass);
        self.check_pass(c, &pass);
        if pass.settling_until.is_some() {
            return self.sync_probes(c);
        }
        if let Some(next) = pass.snapshot.take() {
            c.snapshot = Arc::new(next);
            self.publish(c);
        }
        self.sync_probes(c);
        self.note_ready(c, &mut pass.observed, &pass.plan);
        let decide_at = self.autoscale(c, &pass.observed, &pass.plan, now);
        let mut statuses = status(&c.desired, &pass.observed, &pass.plan, &c.statuses);
        #[cfg(feature = "planted")]
        crate::planted::distort_statuses(self.setting.bug, &c.desired, &mut statuses);
        self.check_statuses(c, &statuses, now);
        let look_at = self.judge_rollouts(c, &pass.observed, &statuses);
        self.promote_canaries(&statuses);
        c.wake_at = c.wake_at.into_iter().chain(look_at).chain(decide_at).min();
        c.statuses = std::mem::take(&mut statuses);
        c.plan = pass.plan;
        if self.killed.is_some() {
            return;
        }
        if !c.plan.finished.is_empty() && !c.finishing {
            c.finishing = true;
            let finished = c.plan.finished.clone();
            let delay = self.jitter(2, 40);
            self.after(delay, Event::Edit(Edit::Finish(finished)));
        }
        c.finishing &= !c.plan.finished.is_empty();
        let actions = std::mem::take(&mut c.plan.actions);
        for action in &actions {
            // Whoever is killed between two actions does not begin the second.
            if self.killed.is_some() {
                return;
            }
            self.start_action(c, action, now);
        }
        c.plan.actions = actions;
    }

    fn publish(&mut self, c: &Controller) {
        let (run, snapshot) = (self.run, Arc::clone(&c.snapshot));
        self.note(|| {
            let names: Vec<String> = snapshot.endpoints().map(|e| e.replica.to_string()).collect();
            format!("published {}: {}", snapshot.generation, names.join(" "))
        });
        self.plane.waiting = Some((run, snapshot));
        let delay = self.jitter(1, 40);
        self.after(delay, Event::Swap);
        self.come_to(Boundary::Publish);
    }

    fn start_action(&mut self, c: &mut Controller, action: &Action, now: Timestamp) {
        let run = self.run;
        let (name, step) = match action.clone() {
            Action::Create { name, host, revision, .. } => {
                let Some(service) = c.desired.services.get(&name.service) else { return };
                let Some((template, _)) = c.world.content(&name.service, service, &revision) else { return };
                let template = Box::new(template.clone());
                if !c.world.may_create(&name.service) {
                    return;
                }
                let mut name = name;
                if has!(self, ReusesNames) {
                    name.attempt = ringmaster_core::Attempt(name.attempt.0 % 2);
                }
                self.check_create(c, &name, &revision);
                c.world.begin_create(&name, &revision, host.clone(), now);
                (name, Step::Create { revision, host, template })
            }
            Action::Remove { id, name, grace, .. } => {
                c.world.begin_action(&name, Pending::Remove, now);
                (name, Step::Inspect { id, grace })
            }
            Action::Repair { id, name, .. } => {
                c.world.begin_action(&name, Pending::Repair, now);
                (name, Step::Repair { id })
            }
        };
        match step {
            Step::Repair { .. } if c.world.is_unrepaired(&name) => self.retries += 1,
            _ => self.mutations += 1,
        }
        self.note(|| format!("act: {action:?}"));
        self.begin_call(Call { run, name, step, answer_lost: false, start_refused: false });
    }
}
