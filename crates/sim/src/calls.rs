//! Calls on their way to the engine, what they do there, and their answers.

use ringmaster_core::Timestamp;
use ringmaster_core::observed::{ReplicaState, RuntimeReplica};
use ringmaster_core::world::{ErrorKind, Removal};

use crate::engine::{Ailment, Container, Owner, id_of};
use crate::event::{Call, Event, Failure, Step};
use crate::fault::{Boundary, Fault};
use crate::planted::has;
use crate::rollouts::{ENDS_WITHIN, Flaw};
use crate::simulation::Simulation;

type Answer = Result<Option<RuntimeReplica>, Failure>;

fn failure(kind: ErrorKind, why: &str) -> Failure {
    Failure { kind, why: why.to_owned() }
}

impl Simulation<'_> {
    /// A call sets out.
    pub(crate) fn begin_call(&mut self, mut call: Call) {
        let fault = self.come_to(call.step.boundary());
        let mut delay = self.jitter(1, 20);
        let refused = match fault {
            Some(Fault::Refused) => Some(failure(ErrorKind::Engine, "500: the engine refused")),
            Some(Fault::Unreachable) => Some(failure(ErrorKind::Unreachable, "connection refused")),
            Some(Fault::Conflict) => Some(failure(ErrorKind::Conflict, "409: conflict")),
            Some(Fault::ImageMissing) => Some(failure(ErrorKind::ImageMissing, "no such image")),
            _ => None,
        };
        if let Some(refused) = refused {
            return self.after(delay, Event::Done(Box::new(call), Err(refused)));
        }
        match fault {
            Some(Fault::Slow) => delay = 30_000,
            Some(Fault::AnswerLost) => call.answer_lost = true,
            Some(Fault::StartRefused) => call.start_refused = true,
            Some(Fault::VanishedBefore) => {
                if let Some(id) = call.step.id() {
                    self.engine.remove(id);
                }
            }
            _ => {}
        }
        if let Step::Stop { id, grace } = &call.step {
            self.check_stop(&call, id);
            // Most end at once when they are told to, some only by SIGKILL.
            let grace = grace.as_millis() as u64;
            let id = id.clone();
            delay += if self.random.chance(100) { grace } else { self.jitter(0, grace.min(300)) };
            self.had.insert("stop");
            self.note(|| format!("stop of {} is under way", id.0));
        }
        self.after(delay, Event::Call(Box::new(call)));
    }

    /// A call has its effect.
    pub(crate) fn on_call(&mut self, call: Call) {
        // Between two steps of a removal the controller decides: a dead one begins no more of them.
        if !self.engine.answers(self.now) {
            let gone = failure(ErrorKind::Unreachable, "connection refused");
            return self.after(1, Event::Done(Box::new(call), Err(gone)));
        }
        let mut answer = self.perform(&call);
        if call.answer_lost {
            answer = Err(failure(ErrorKind::Unreachable, "the answer was lost"));
        }
        let delay = self.jitter(1, 10);
        self.after(delay, Event::Done(Box::new(call), answer));
    }

    fn perform(&mut self, call: &Call) -> Answer {
        match &call.step {
            Step::Create { revision, host, template } => {
                let flaw = Flaw::of(template);
                let crashes = matches!(flaw, Some(Flaw::Crashes | Flaw::EndsSoon))
                    || self.crash_loop_until > self.now
                    || self.is_cursed(call);
                let slow = self.slow_start_until > self.now;
                let starts_in = if slow { 90_000 } else { self.jitter(20, 900) };
                let refused = call.start_refused;
                let container = Container {
                    owner: Owner::Ours,
                    name: Some(call.name.clone()),
                    engine_name: call.name.to_string(),
                    revision: revision.clone(),
                    template: Some(template.clone()),
                    host: host.clone(),
                    state: if refused { ReplicaState::Created } else { ReplicaState::Running },
                    address: None,
                    created_at: Timestamp(self.now),
                    ready_at: flaw.is_none_or(Flaw::answers).then_some(self.now + starts_in),
                    ailment: Ailment::None,
                };
                let Some(number) = self.engine.create(container) else {
                    if has!(self, RemovesWhatIsInTheWay) {
                        let name = call.name.to_string();
                        let found = self.engine.containers.iter().find(|(_, c)| c.engine_name == name);
                        if let Some(id) = found.map(|(number, _)| id_of(*number)) {
                            self.check_touch(call, &id);
                            self.engine.remove(&id);
                        }
                    }
                    return Err(failure(ErrorKind::Conflict, "the name is taken"));
                };
                self.note(|| format!("{} is made as {}", call.name, id_of(number).0));
                if crashes {
                    let delay = self.jitter(50, ENDS_WITHIN);
                    self.after(delay, Event::Exits(number));
                }
                self.hint();
                if refused {
                    return Err(failure(ErrorKind::Invalid, "port is already allocated"));
                }
                Ok(self.engine.inspect(&id_of(number)))
            }
            Step::Inspect { id, .. } => Ok(self.engine.inspect(id)),
            Step::Stop { id, .. } => {
                self.check_touch(call, id);
                let number =
                    id.0.strip_prefix('c').and_then(|number| number.parse().ok()).unwrap_or_default();
                self.engine.exit(number, 143, false);
                self.touched(number);
                Ok(None)
            }
            Step::Remove { id } => {
                self.check_touch(call, id);
                self.check_remove(call, id);
                self.engine.remove(id);
                self.hint();
                Ok(None)
            }
            Step::Repair { id } => {
                self.check_touch(call, id);
                let number = id.0.strip_prefix('c').and_then(|n| n.parse().ok());
                match self.engine.repair(id) {
                    None => return Err(failure(ErrorKind::NotFound, "no such container")),
                    Some(false) => return Err(failure(ErrorKind::Conflict, "the name is taken")),
                    Some(true) => {}
                }
                self.touched(number.unwrap_or_default());
                Ok(None)
            }
        }
    }

    fn is_cursed(&self, call: &Call) -> bool {
        let place = (&call.name.service, call.name.ordinal.0);
        self.cursed.as_ref().is_some_and(|(service, ordinal)| (service, *ordinal) == place)
    }

    /// A call's answer has come.
    pub(crate) fn on_done(&mut self, call: &Call, answer: Answer) {
        let now = self.now;
        if call.run != self.run || self.controller.is_none() {
            return; // Whoever asked is dead.
        }
        if let Err(failed) = &answer {
            self.note(|| format!("{:?} of {}: {}", call.step.boundary(), call.name, failed.why));
        }
        let Some(c) = &mut self.controller else { return };
        let at = c.clock(now);
        let next = |step: Step| Call { step, answer_lost: false, ..call.clone() };
        match (&call.step, answer) {
            (Step::Create { .. }, Ok(Some(made))) => c.world.created(made),
            (Step::Create { .. }, Ok(None)) => {}
            (Step::Create { revision, .. }, Err(failed)) => {
                c.world.create_failed(&call.name, revision, failed.why, failed.kind, at);
            }
            (Step::Inspect { id, grace }, Ok(found)) => {
                let id = id.clone();
                let removal = Removal::of(found.as_ref(), &call.name, *grace);
                let removal = if has!(self, NoSecondLook) { Removal::Remove } else { removal };
                match removal {
                    Removal::Done => c.world.removed(&call.name, &id),
                    Removal::Stop(grace) => return self.begin_call(next(Step::Stop { id, grace })),
                    Removal::Remove => return self.begin_call(next(Step::Remove { id })),
                    Removal::Refused(_) => c.world.action_failed(&call.name, at),
                }
            }
            (Step::Stop { id, .. }, Ok(_)) => {
                return self.begin_call(next(Step::Remove { id: id.clone() }));
            }
            (Step::Remove { id }, Ok(_)) => c.world.removed(&call.name, id),
            (Step::Repair { .. }, Ok(_)) => c.world.repaired(&call.name, at),
            (Step::Repair { .. }, Err(failed)) => _ = c.world.repair_failed(&call.name, failed.why, at),
            (_, Err(_)) => c.world.action_failed(&call.name, at),
        }
        self.come_to(match call.step {
            Step::Create { .. } => Boundary::Created,
            _ => Boundary::Gone,
        });
        self.wake(call.run);
    }
}

impl Step {
    /// The object that it is about.
    pub(crate) fn id(&self) -> Option<&ringmaster_core::observed::RuntimeId> {
        match self {
            Step::Create { .. } => None,
            Step::Inspect { id, .. } | Step::Stop { id, .. } | Step::Remove { id } | Step::Repair { id } => {
                Some(id)
            }
        }
    }
}
