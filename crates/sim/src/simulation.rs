//! One run: virtual time, the events in its order, and what strikes in between.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use ringmaster_core::spec::ServiceSpec;
use ringmaster_core::{ReplicaName, Revision, ServiceName};

use crate::controller::Controller;
use crate::engine::Engine;
use crate::event::{Due, Event};
use crate::fault::{Boundary, Fault, Faults, Site};
use crate::load::LOAD_PERIOD;
use crate::plane::Plane;
use crate::promise::{Checks, Promise};
use crate::random::{Random, scatter};
use crate::store::{Edit, Saving, Store};

/// Virtual time of the first event, so that a clock may jump back.
pub(crate) const BASE: u64 = 100_000_000;
/// More events than a run ever has.
const STEPS_MAX: u64 = 200_000;
/// Time between two requests, and between two points at which anything may happen.
const REQUEST_PERIOD: u64 = 700;
const IDLE_PERIOD: u64 = 2_500;

/// How the controller was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Killed {
    Process,
    /// With the machine: the wall clock jumps, and what was not synced is lost.
    Machine,
    /// And its state folder is lost.
    StateLost,
}

/// What a run is of.
#[derive(Debug, Clone)]
pub(crate) struct Setting<'a> {
    pub(crate) services: &'a BTreeMap<ServiceName, ServiceSpec>,
    pub(crate) rings: &'a Arc<BTreeMap<ServiceName, ringmaster_core::ring::RingState>>,
    pub(crate) faults: Faults,
    pub(crate) seed: u64,
    /// For how long faults strike, in milliseconds.
    pub(crate) faulty_for: u64,
    pub(crate) traced: bool,
    #[cfg(feature = "planted")]
    pub(crate) bug: Option<crate::planted::Bug>,
}

pub(crate) struct Simulation<'a> {
    pub(crate) setting: Setting<'a>,
    pub(crate) now: u64,
    sequence: u64,
    heap: BinaryHeap<Reverse<Due>>,
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) checks: Checks,
    pub(crate) engine: Engine,
    pub(crate) plane: Plane,
    pub(crate) store: Store,
    pub(crate) controller: Option<Controller>,
    pub(crate) run: u32,
    pub(crate) killed: Option<Killed>,
    pub(crate) clock_offset: u64,
    pub(crate) numbering_lost: bool,
    hint_due: bool,
    silent_until: u64,
    pub(crate) crash_loop_until: u64,
    pub(crate) slow_start_until: u64,
    /// This place fails for good.
    pub(crate) cursed: Option<(ServiceName, u16)>,
    /// What was changed on the engine by the controller, and what was listed, since the run began.
    pub(crate) mutations: u64,
    /// Of repairs that have failed, how many were tried again.
    pub(crate) retries: u64,
    pub(crate) lists: u64,
    pub(crate) steps: u64,
    pub(crate) struck: BTreeMap<(Fault, Boundary), u64>,
    pub(crate) healed_at: Option<u64>,
    /// Services whose count follows their load have any.
    pub(crate) is_loaded: bool,
    /// How many requests at a time each of them has.
    pub(crate) levels: BTreeMap<ServiceName, u32>,
    /// Every release that was seen to be ready as a whole.
    pub(crate) ready_releases: BTreeSet<(ServiceName, Revision)>,
    /// Services that must go back to what was ready, by themselves.
    pub(crate) must_go_back: Vec<ServiceName>,
    /// Services whose canary somebody is about to promote.
    pub(crate) promoting: BTreeSet<ServiceName>,
    pub(crate) had: BTreeSet<&'static str>,
    pub(crate) trace: Vec<String>,
}

impl<'a> Simulation<'a> {
    pub(crate) fn new(setting: Setting<'a>) -> Simulation<'a> {
        let mut random = Random::new(scatter([setting.seed, 0, 0]));
        let plane = Plane { is_apart: random.chance(500), ..Plane::default() };
        let mut sim = Simulation {
            now: BASE,
            sequence: 0,
            heap: BinaryHeap::new(),
            random,
            faults: setting.faults.clone(),
            checks: Checks::default(),
            engine: Engine::default(),
            plane,
            store: Store::new(Arc::clone(setting.rings)),
            controller: None,
            run: 0,
            killed: None,
            clock_offset: 0,
            numbering_lost: false,
            hint_due: false,
            silent_until: 0,
            crash_loop_until: 0,
            slow_start_until: 0,
            cursed: None,
            mutations: 0,
            retries: 0,
            lists: 0,
            steps: 0,
            struck: BTreeMap::new(),
            healed_at: None,
            is_loaded: false,
            levels: BTreeMap::new(),
            ready_releases: BTreeSet::new(),
            must_go_back: Vec::new(),
            promoting: BTreeSet::new(),
            had: BTreeSet::new(),
            trace: Vec::new(),
            setting,
        };
        sim.apply_manifest();
        sim.after(1, Event::Start);
        sim.after(IDLE_PERIOD, Event::Idle);
        sim.after(REQUEST_PERIOD, Event::Request);
        if sim.setting.services.values().any(|spec| spec.autoscale.is_some()) {
            sim.is_loaded = sim.random.chance(450);
            sim.after(LOAD_PERIOD, Event::Load);
        }
        sim
    }

    /// Notes something for the trace of a failing run.
    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        if self.setting.traced {
            let line = format!("{:>8} {}", self.now - BASE, what());
            self.trace.push(line);
        }
    }

    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse(Due { at: self.now + delay, sequence: self.sequence, event }));
    }

    pub(crate) fn jitter(&mut self, low: u64, high: u64) -> u64 {
        self.random.between(low, high)
    }

    /// Takes the next event. False if there is none before `until`.
    pub(crate) fn step(&mut self, until: u64) -> bool {
        if self.heap.peek().is_none_or(|Reverse(due)| due.at > until) {
            self.now = until;
            return false;
        }
        let Some(Reverse(Due { at, event, .. })) = self.heap.pop() else { return false };
        self.now = at;
        self.checks.now = at - BASE;
        self.steps += 1;
        if self.steps > STEPS_MAX {
            self.checks.expect(Promise::S13, false, || format!("{STEPS_MAX} events, and no end: {event:?}"));
        }
        self.take(event);
        if let Some(killed) = self.killed.take() {
            self.controller_ends(killed);
        }
        true
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Idle => {
                self.come_to(Boundary::Idle);
                if self.healed_at.is_none() {
                    self.after(IDLE_PERIOD, Event::Idle);
                }
            }
            Event::Start => self.start_controller(),
            Event::Wake { run } => self.wake(run),
            Event::Timer { run } => self.on_timer(run),
            Event::Listed { run, number, began, result } => self.on_listed(run, number, began, result),
            Event::Resolved { run, service, template, refused } => {
                self.on_resolved(run, &service, &template, refused);
            }
            Event::Call(call) => self.on_call(*call),
            Event::Done(call, result) => self.on_done(&call, result),
            Event::Hint => self.on_hint(),
            Event::Probe { run, name } => self.on_probe(run, &name),
            Event::Exits(number) => {
                self.engine.exit(number, 1, false);
                self.touched(number);
            }
            Event::Swap => self.on_swap(),
            Event::Report { number } => self.on_report(number),
            Event::PlaneBack => self.plane_back(),
            Event::Request => self.on_request(),
            Event::RequestEnds { life, name, count } => {
                // All of them: the last may be one that somebody waits for.
                let ended = |plane: &mut Plane| (0..count).fold(false, |last, _| plane.end(&name) | last);
                let is_news = life == self.plane.life && ended(&mut self.plane);
                if is_news || self.plane.follows(&name.service) {
                    self.report_soon();
                }
            }
            Event::Load => self.on_load(),
            Event::HoldEnds { number } => self.on_hold_ends(number),
            Event::SetCount { run, decided } => self.on_set_count(run, &decided),
            Event::WriteReady { run } => self.on_write_ready(run),
            Event::GiveUp { run, name, failed } => self.on_give_up(run, name, failed),
            Event::Edit(edit) => {
                let saved = self.edit(&edit);
                if let Edit::Promote(name, _) = &edit {
                    self.promoting.remove(name);
                }
                if let (Edit::Finish(_), false) = (&edit, saved) {
                    self.after(1_000, Event::Edit(edit)); // As the controller does.
                } else if let (Edit::Finish(_), Some(c)) = (&edit, &mut self.controller) {
                    c.finishing = false;
                }
            }
        }
    }

    /// A boundary is reached: what strikes there now does so at once. A fault of the call itself is given back.
    pub(crate) fn come_to(&mut self, boundary: Boundary) -> Option<Fault> {
        let (fault, particulars) = self.faults.at(boundary)?;
        let is_of_the_call = fault.is_of_calls();
        let struck = is_of_the_call || self.strike(fault, particulars);
        if struck {
            *self.struck.entry((fault, boundary)).or_default() += 1;
            let site = Site { boundary, number: self.faults.reached[boundary as usize] - 1 };
            self.note(|| format!("FAULT {fault} at {site}"));
        }
        is_of_the_call.then_some(fault)
    }

    /// Something on the engine has changed: the controller may get a hint, and probes will see it.
    pub(crate) fn touched(&mut self, number: u64) {
        let container = self.engine.containers.get(&number);
        let ended = container.is_none_or(|container| !container.is_alive());
        if let Some(name) = container.and_then(|container| container.name.clone()) {
            if ended && self.plane.cut(&name) {
                self.report_soon();
            }
            let (run, delay) = (self.run, self.jitter(1, 400));
            self.after(delay, Event::Probe { run, name });
        }
        self.hint();
    }

    /// The engine hints at a change.
    pub(crate) fn hint(&mut self) {
        let delay = self.jitter(1, 30);
        match self.come_to(Boundary::Event) {
            _ if self.silent_until > self.now => {}
            Some(Fault::EventLost) => {}
            Some(Fault::EventLate) => self.after(delay + 5_000, Event::Hint),
            Some(Fault::EventTwice) => {
                self.after(delay, Event::Hint);
                self.after(delay + 40, Event::Hint);
            }
            _ if !self.hint_due => {
                self.hint_due = true;
                self.after(delay, Event::Hint);
            }
            _ => {}
        }
    }

    fn on_hint(&mut self) {
        self.hint_due = false;
        let run = self.run;
        let Some(controller) = &mut self.controller else { return };
        controller.world.listing.want();
        let names: Vec<ReplicaName> = controller.probes.keys().cloned().collect();
        for name in names {
            self.after(1, Event::Probe { run, name });
        }
        self.wake(run);
    }

    pub(crate) fn silence_events(&mut self, until: u64) {
        self.silent_until = until;
    }

    // --- the store ------------------------------------------------------------------------------------------

    /// Applies the manifest as it is given, as somebody does at the beginning and after the state was lost.
    pub(crate) fn apply_manifest(&mut self) {
        for (name, spec) in self.setting.services {
            self.edit(&Edit::put(name.clone(), spec.clone()));
        }
    }

    /// Something is about to be written: how that goes.
    pub(crate) fn come_to_save(&mut self) -> Saving {
        match self.come_to(Boundary::Save) {
            Some(Fault::DiskFull) => Saving::Full,
            Some(Fault::DiskTorn) => {
                self.killed.get_or_insert(Killed::Process);
                Saving::Torn
            }
            Some(Fault::SyncFails) => Saving::Unsynced,
            _ => Saving::Good,
        }
    }

    /// Makes a change as somebody asks for it; false if it was refused, or changes nothing.
    pub(crate) fn edit(&mut self, edit: &Edit) -> bool {
        let saving = self.come_to_save();
        let saved = self.save(edit, saving);
        if saved {
            self.store.mean(edit);
            if let (Edit::Finish(names), Some(c)) = (edit, &mut self.controller) {
                // A service that is made again begins anew, names and failures included.
                c.names_used.retain(|name| !names.contains(&name.service));
            }
            let generation = self.store.desired.generation;
            self.note(|| format!("desired is generation {generation}: {}", told(edit)));
            let run = self.run;
            self.after(1, Event::Wake { run });
        }
        saved
    }

    // --- the data plane -------------------------------------------------------------------------------------

    fn on_swap(&mut self) {
        if !self.plane.is_up(self.now) {
            return; // It is sent again when the data plane is back.
        }
        if self.plane.stalled_until > self.now {
            let delay = self.plane.stalled_until - self.now;
            return self.after(delay, Event::Swap);
        }
        if let Some((before, after)) = self.plane.swap(self.now, self.numbering_lost) {
            use crate::promise::Promise::S7;
            self.checks.expect(S7, after > before, || format!("generation {after} comes after {before}"));
        }
        self.release_held();
        self.report_soon();
    }

    fn plane_back(&mut self) {
        self.note(|| "the data plane is back".to_owned());
        if let Some(controller) = self.controller.as_ref().filter(|c| c.snapshot.generation.0 > 0) {
            self.plane.waiting = Some((self.run, Arc::clone(&controller.snapshot)));
        }
        self.on_swap();
    }

    pub(crate) fn report_soon(&mut self) {
        if std::mem::replace(&mut self.plane.is_report_due, true) {
            return; // It tells what is when it is taken up.
        }
        self.plane.reports += 1;
        let (number, delay) = (self.plane.reports, self.jitter(1, 15));
        self.after(delay, Event::Report { number });
    }

    fn on_request(&mut self) {
        if self.healed_at.is_none() {
            self.after(REQUEST_PERIOD, Event::Request);
        }
        if !self.plane.is_up(self.now) {
            return;
        }
        let key = self.random.next();
        let (service, key) = ((key >> 32) as usize, key.to_le_bytes());
        if let Some(name) = self.plane.choose(service, &key) {
            let takes = if self.random.chance(150) { self.jitter(1_000, 6_000) } else { self.jitter(2, 300) };
            self.request_for(name, takes);
        }
    }

    pub(crate) fn request_for(&mut self, name: ReplicaName, takes: u64) {
        let is_it = |c: &crate::engine::Container| c.is_alive() && c.name.as_ref() == Some(&name);
        if !self.engine.ours().any(|(_, container)| is_it(container)) {
            return; // Nobody is there: it fails at once.
        }
        self.plane.begin(&name);
        let life = self.plane.life;
        self.after(takes, Event::RequestEnds { life, name, count: 1 });
    }
}

fn told(edit: &Edit) -> String {
    match edit {
        Edit::Put(name, spec, _) => format!("{name} applied, {:?}", spec.template.env),
        Edit::GiveUp(name, failed) => format!("{name} back to {}", failed.1.revision),
        Edit::Scale(name, count) => format!("{name} scaled to {count}"),
        Edit::Autoscale(name, count) => format!("{name} scaled to {count} by its load"),
        Edit::Delete(name) => format!("{name} deleted"),
        Edit::Promote(name, revision) => format!("{name} promoted at {revision}"),
        Edit::Finish(names) => {
            format!("{} forgotten", names.iter().map(ToString::to_string).collect::<String>())
        }
    }
}
