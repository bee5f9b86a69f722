//! What strikes from outside: people, processes, machines, and changed minds.

use ringmaster_core::manifest::{self, Source};
use ringmaster_core::observed::ReplicaState;
use ringmaster_core::{Attempt, ReplicaName, Revision, ServiceName, Timestamp};

use crate::engine::{Ailment, Container, Owner};
use crate::event::Event;
use crate::fault::Fault;
use crate::planted::has;
use crate::random::Random;
use crate::rollouts::{ENDS_WITHIN, Flaw};
use crate::simulation::{Killed, Simulation};
use crate::store::Edit;

/// What is deleted for a moment is applied again within so many milliseconds.
pub(crate) const DELETED_FOR_MAX: u64 = 9_000;

/// A request that takes very long takes so many milliseconds at most.
pub(crate) const LONG_REQUEST_MAX: u64 = 90_000;

impl Simulation<'_> {
    /// Lets a fault strike. False if there is nothing for it to strike.
    pub(crate) fn strike(&mut self, fault: Fault, particulars: u64) -> bool {
        let random = &mut Random::new(particulars);
        match fault {
            Fault::EventsSilent => self.silence_events(self.now + 60_000),
            Fault::EngineStops => {
                self.engine.away_until = self.now + random.between(200, 8_000);
                for number in self.alive() {
                    self.engine.exit(number, 137, false);
                    self.touched(number);
                }
            }
            Fault::EngineAway => self.engine.away_until = self.now + random.between(200, 20_000),
            Fault::CrashLoop => self.crash_loop_until = self.now + random.between(1_000, 40_000),
            Fault::SlowStart => self.slow_start_until = self.now + random.between(1_000, 10_000),
            Fault::ControllerKilled => return self.kill(Killed::Process),
            Fault::ClockJump => return self.kill(Killed::Machine),
            Fault::StateLost => return self.kill(Killed::StateLost),
            Fault::PlaneStalls => self.plane.stalled_until = self.now + random.between(1_000, 15_000),
            Fault::PlaneKilled => {
                if !self.plane.is_apart || !self.plane.is_up(self.now) {
                    return false;
                }
                self.plane.die();
                let delay = random.between(100, 8_000);
                self.plane.down_until = self.now + delay;
                self.after(delay, Event::PlaneBack);
            }
            Fault::LongRequest => {
                let key = random.next().to_le_bytes();
                let Some(name) = self.plane.choose(random.below(8) as usize, &key) else { return false };
                self.request_for(name, random.between(10_000, LONG_REQUEST_MAX));
            }
            Fault::TagMoved => self.engine.tags_moved += 1,
            Fault::NameTaken => return self.take_name(random),
            Fault::Impostor => return self.add_impostor(random),
            Fault::ManifestHalf | Fault::ManifestEmpty => return self.apply_text(fault, random),
            Fault::Scaled | Fault::TemplateChanged | Fault::TemplateBad | Fault::Deleted => {
                return self.change_mind(fault, random);
            }
            _ => return self.hurt(fault, random),
        }
        true
    }

    fn kill(&mut self, killed: Killed) -> bool {
        let kills = self.killed.is_none();
        self.killed.get_or_insert(killed);
        kills
    }

    fn alive(&self) -> Vec<u64> {
        self.engine.ours().filter(|(_, container)| container.is_alive()).map(|(number, _)| number).collect()
    }

    /// Something happens to one container.
    fn hurt(&mut self, fault: Fault, random: &mut Random) -> bool {
        let wanted = |container: &Container| match fault {
            Fault::Restarted => matches!(container.state, ReplicaState::Exited(_)),
            Fault::Renamed | Fault::Removed => true,
            Fault::Paused | Fault::Detached | Fault::AddressReused => {
                container.state == ReplicaState::Running
            }
            _ => container.is_alive(),
        };
        let victims: Vec<u64> =
            self.engine.ours().filter(|(_, container)| wanted(container)).map(|(number, _)| number).collect();
        if victims.is_empty() {
            return false;
        }
        let number = victims[random.below(victims.len() as u64) as usize];
        let now = self.now;
        let address = self.engine.fresh_address();
        let name = self.engine.containers.get(&number).and_then(|container| container.name.clone());
        self.note(|| {
            format!("it strikes c{number} ({})", name.map_or(String::new(), |name| name.to_string()))
        });
        match fault {
            Fault::Killed => self.engine.exit(number, 137, false),
            Fault::OutOfMemory => self.engine.exit(number, 137, true),
            Fault::Stopped => self.engine.exit(number, 0, false),
            Fault::Removed => {
                self.engine.exit(number, 137, false);
                self.touched(number);
                self.engine.containers.remove(&number);
                return true;
            }
            Fault::AddressReused => return self.swap_addresses(number, &victims, random),
            _ => {}
        }
        let Some(container) = self.engine.containers.get_mut(&number) else { return false };
        match fault {
            Fault::Paused => container.state = ReplicaState::Paused,
            Fault::Restarted => {
                container.state = ReplicaState::Running;
                container.address = Some(address);
                container.ready_at = container.ready_at.map(|_| now + 200);
            }
            Fault::Renamed => container.engine_name = format!("somebodys-{number}"),
            Fault::Detached => container.address = None,
            Fault::Unhealthy => container.ailment = Ailment::Hangs,
            Fault::Flapping => container.ailment = Ailment::Until(now + random.between(200, 9_000)),
            _ => {}
        }
        let flaw = container.template.as_deref().and_then(Flaw::of);
        if fault == Fault::Restarted && matches!(flaw, Some(Flaw::Crashes | Flaw::EndsSoon)) {
            self.after(random.between(50, ENDS_WITHIN), Event::Exits(number));
        }
        self.touched(number);
        true
    }

    /// Two containers come back with each other's addresses, as after a restart of the engine.
    fn swap_addresses(&mut self, number: u64, victims: &[u64], random: &mut Random) -> bool {
        let other = victims[random.below(victims.len() as u64) as usize];
        let address = |number| self.engine.containers.get(&number).and_then(|container| container.address);
        let (one, two) = (address(number), address(other));
        if other == number || one.is_none() || two.is_none() {
            return false;
        }
        for (number, address) in [(number, two), (other, one)] {
            if let Some(container) = self.engine.containers.get_mut(&number) {
                container.address = address;
            }
            self.touched(number);
        }
        true
    }

    /// Somebody's container has the name that the next replica would have.
    fn take_name(&mut self, random: &mut Random) -> bool {
        let places: Vec<(ServiceName, ringmaster_core::Ordinal)> = self
            .store
            .desired
            .services
            .iter()
            .flat_map(|(name, service)| service.members.iter().map(|member| (name.clone(), member.ordinal)))
            .collect();
        if places.is_empty() {
            return false;
        }
        let (service, ordinal) = places[random.below(places.len() as u64) as usize].clone();
        let used = self.engine.ours().filter_map(|(_, container)| container.name.as_ref());
        let highest =
            used.filter(|n| n.service == service && n.ordinal == ordinal).map(|n| n.attempt.0).max();
        let attempt = Attempt(highest.map_or(0, |highest| highest + 1));
        let engine_name = ReplicaName { service, ordinal, attempt }.to_string();
        self.foreign(Owner::Foreign, None, engine_name, "none")
    }

    /// Somebody's container wears the labels of one of ours.
    fn add_impostor(&mut self, random: &mut Random) -> bool {
        let ours: Vec<(ReplicaName, Revision)> = self
            .engine
            .ours()
            .filter_map(|(_, container)| Some((container.name.clone()?, container.revision.clone())))
            .collect();
        if ours.is_empty() {
            return false;
        }
        let (mut name, revision) = ours[random.below(ours.len() as u64) as usize].clone();
        if random.chance(500) {
            name.attempt = Attempt(name.attempt.0 + random.between(1, 3) as u32);
        }
        let engine_name = format!("copy-{}-{}", name, random.below(1_000));
        self.had.insert("impostor");
        self.foreign(Owner::Impostor, Some(name), engine_name, &revision.0)
    }

    fn foreign(
        &mut self,
        owner: Owner,
        name: Option<ReplicaName>,
        engine_name: String,
        revision: &str,
    ) -> bool {
        let container = Container {
            owner,
            name,
            engine_name,
            revision: Revision(revision.to_owned()),
            template: None,
            host: None,
            state: ReplicaState::Running,
            address: None,
            created_at: Timestamp(self.now),
            ready_at: Some(self.now + 100),
            ailment: Ailment::None,
        };
        let Some(number) = self.engine.create(container) else { return false };
        self.touched(number);
        true
    }

    /// A manifest that is not whole is applied: it is refused whole.
    fn apply_text(&mut self, fault: Fault, random: &mut Random) -> bool {
        const TEXT: &str = "apiVersion: ringmaster/v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  template:\n    image: ";
        let cut =
            if fault == Fault::ManifestEmpty { 0 } else { random.between(1, TEXT.len() as u64) as usize };
        let parsed = manifest::parse(&[Source { file: "manifest.yaml", text: &TEXT[..cut] }]);
        self.had.insert("bad manifest");
        match parsed {
            Ok(manifest) => {
                for (name, declared) in manifest.services {
                    self.after(1, Event::Edit(Edit::put(name, declared.spec)));
                }
            }
            Err(_) if has!(self, AppliesWhatIsWrong) => {
                let names: Vec<ServiceName> = self.store.desired.services.keys().cloned().collect();
                for name in names {
                    self.save(&Edit::Delete(name), crate::store::Saving::Good);
                }
            }
            Err(_) => {}
        }
        true
    }

    /// Somebody asks for something else.
    fn change_mind(&mut self, fault: Fault, random: &mut Random) -> bool {
        let mut names: Vec<ServiceName> = self.setting.services.keys().cloned().collect();
        if fault == Fault::Scaled {
            // Where the count follows the load, this is refused, which says little.
            let is_plain = |name: &ServiceName| self.setting.services[name].autoscale.is_none();
            let plain = names.iter().filter(|name| is_plain(name)).cloned().collect();
            names = if names.iter().any(is_plain) { plain } else { names };
        }
        let name = names[random.below(names.len() as u64) as usize].clone();
        let mut spec = self.spec_of(&name);
        match fault {
            Fault::Scaled => {
                let count = u64::from(spec.replicas.unwrap_or(1));
                let edit = Edit::Scale(name, random.between(0, count + 2) as usize);
                self.after(1, Event::Edit(edit));
                return true;
            }
            Fault::Deleted => {
                self.after(1, Event::Edit(Edit::Delete(name.clone())));
                let delay = random.between(2, DELETED_FOR_MAX);
                self.after(delay, Event::Edit(Edit::put(name, spec)));
                return true;
            }
            Fault::TemplateBad => {
                let flaw = Flaw::ALL[random.below(Flaw::ALL.len() as u64) as usize];
                let flaw = if flaw.shows(&spec.strategy) { flaw } else { Flaw::Crashes };
                flaw.put_into(&mut spec.template);
            }
            _ => {
                let version = random.below(3);
                spec.template.env.insert("SIM_VERSION".to_owned(), version.to_string());
            }
        }
        // Whoever changes a template leaves the live number of replicas as it is.
        spec.replicas = None;
        let put = if random.chance(500) { Edit::force(name, spec) } else { Edit::put(name, spec) };
        self.after(1, Event::Edit(put));
        true
    }

    /// What people do in the runs of `sieve`: up, another template, down, a replica killed, deleted, and back.
    pub(crate) fn follow_script(&mut self) {
        let Some((name, spec)) = self.setting.services.iter().next() else { return };
        let (name, count) = (name.clone(), spec.replicas.unwrap_or(1) as usize);
        let mut changed = spec.clone();
        changed.replicas = None;
        changed.template.env.insert("SIM_VERSION".to_owned(), "scripted".to_owned());
        let back = spec.clone();
        self.after(2_000, Event::Edit(Edit::Scale(name.clone(), count + 1)));
        self.after(4_000, Event::Edit(Edit::force(name.clone(), changed)));
        self.after(4_500, Event::Exits(1));
        self.after(9_000, Event::Edit(Edit::Scale(name.clone(), count)));
        self.after(11_000, Event::Edit(Edit::Delete(name.clone())));
        self.after(14_000, Event::Edit(Edit::put(name, back)));
    }

    /// A service as its manifest declares it.
    pub(crate) fn spec_of(&self, name: &ServiceName) -> ringmaster_core::spec::ServiceSpec {
        self.setting.services[name].clone()
    }
}
