//! What must hold after every step.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmaster_core::desired::{Desired, DesiredService};
use ringmaster_core::observed::{Observed, Replica, RuntimeId};
use ringmaster_core::plan::{Action, Plan, RemoveReason, plan};
use ringmaster_core::snapshot::Snapshot;
use ringmaster_core::spec::StrategyKind;
use ringmaster_core::status::ServiceStatus;
use ringmaster_core::world::Pass;
use ringmaster_core::{Ordinal, ReplicaName, Revision, ServiceName, Timestamp};

use crate::controller::Controller;
use crate::engine::Owner;
use crate::event::Call;
use crate::promise::Promise;
use crate::simulation::Simulation;
use crate::store::{Edit, Saving};

/// Most creations of one place at one revision within a minute: at 0, 0, 1, 3, 7, 15, 31 s, and one that was due.
const CREATES_PER_MINUTE: usize = 8;
/// A value that no status may show.
pub(crate) const SECRET: &str = "s3cr3t-of-the-simulation";

/// How many replicas a rollout leaves in service, if so many are ready.
fn at_least(service: &DesiredService) -> usize {
    let (count, strategy) = (service.members.len(), &service.spec.strategy);
    match strategy.kind {
        StrategyKind::Recreate => 0,
        StrategyKind::RollingUpdate => count.saturating_sub(strategy.limits(count as u32).1 as usize),
    }
}

impl Simulation<'_> {
    pub(crate) fn check_pass(&mut self, c: &Controller, pass: &Pass) {
        let observed = &pass.observed;
        if !pass.plan.actions.is_empty() || observed.list_error.is_some() {
            let blind = observed.list_error.is_some() || !c.world.is_known();
            self.checks.expect(Promise::S11, !blind || pass.plan.actions.is_empty(), || {
                format!("acts without a list: {:?}", pass.plan.actions)
            });
        }
        if let Some(next) = &pass.snapshot {
            self.check_snapshot(c, &c.snapshot, next, observed);
        }
        self.check_surge(&c.desired, observed, &pass.plan);
        self.check_intent(&pass.plan);
        if c.passes.is_multiple_of(64) {
            // What was published meanwhile counts already: both plans are made anew.
            let mut turned = observed.clone();
            turned.replicas.reverse();
            let same = self.planned(&c.desired, observed) == self.planned(&c.desired, &turned);
            self.checks
                .expect(Promise::S16, same, || "another order of the same makes another plan".to_owned());
        }
    }

    #[cfg(not(feature = "planted"))]
    fn planned(&self, desired: &Desired, observed: &Observed) -> Plan {
        plan(desired, observed)
    }

    #[cfg(feature = "planted")]
    fn planned(&self, desired: &Desired, observed: &Observed) -> Plan {
        let mut made = plan(desired, observed);
        crate::planted::distort_plan(self.setting.bug, desired, observed, &mut made);
        made
    }

    /// Who gets traffic, and who no longer does.
    fn check_snapshot(&mut self, c: &Controller, before: &Snapshot, next: &Snapshot, observed: &Observed) {
        if before.generation.0 > 0 {
            let (old, new) = (before.generation, next.generation);
            self.checks.expect(Promise::S7, new > old, || format!("generation {new} after {old}"));
        }
        for endpoint in next.endpoints() {
            let name = &endpoint.replica;
            let verdict = c.verdicts.get(name) == Some(&(endpoint.address, true));
            let known =
                observed.replicas.iter().any(|r| r.name == *name && r.address == Some(endpoint.address));
            self.checks
                .expect(Promise::S5, verdict && known, || format!("{name} gets traffic and is not ready"));
        }
        for (service, routing) in &before.services {
            let Some(wanted) = c.desired.services.get(service).filter(|service| !service.deleting) else {
                continue;
            };
            let serving = next.services.get(service).map(|routing| &routing.endpoints);
            let is_served = |ordinal: &Ordinal| serving.is_some_and(|serving| serving.contains_key(ordinal));
            let lost: Vec<&ReplicaName> = routing
                .endpoints
                .iter()
                .filter(|(ordinal, _)| !is_served(ordinal))
                .filter_map(|(ordinal, endpoint)| {
                    let member = wanted.members.iter().find(|member| member.ordinal == *ordinal)?;
                    let usable = |r: &&Replica| {
                        r.name == endpoint.replica
                            && r.is_ready()
                            && r.health.dead_since.is_none()
                            && r.host == member.host
                    };
                    observed.replicas.iter().find(usable).map(|replica| &replica.name)
                })
                .collect();
            let serving = serving.map_or(0, |serving| serving.len());
            let least = at_least(wanted).min(serving + lost.len());
            self.checks.expect(Promise::S2, serving >= least, || {
                format!("{lost:?} are ready and lose their traffic: {serving} serve")
            });
        }
        if !c.sees || observed.list_error.is_some() {
            self.check_unknown(c, before, next);
        }
    }

    /// While the engine does not answer, only verdicts and changed minds take traffic away.
    fn check_unknown(&mut self, c: &Controller, before: &Snapshot, next: &Snapshot) {
        for endpoint in before.endpoints() {
            let name = &endpoint.replica;
            let wanted =
                c.desired.services.get(&name.service).filter(|s| !s.deleting && s.has_member(name.ordinal));
            let served =
                next.services.get(&name.service).is_some_and(|s| s.endpoints.contains_key(&name.ordinal));
            let judged = c.probes.get(name).is_none_or(|watched| watched.health.ready_since.is_none());
            let removed = c.world.replicas().all(|replica| replica.name != *name) && c.sees;
            let holds = wanted.is_none() || served || judged || removed;
            self.checks
                .expect(Promise::S8, holds, || format!("{name} loses its traffic on an engine that is away"));
        }
    }

    /// Beside what serves no more replicas are begun than the strategy allows, whatever still drains counted.
    fn check_surge(&mut self, desired: &Desired, observed: &Observed, plan: &Plan) {
        for (name, service) in &desired.services {
            let of_place = |ordinal: Ordinal| {
                observed.replicas.iter().filter(move |r| r.name.service == *name && r.name.ordinal == ordinal)
            };
            let beside = plan.actions.iter().filter(|action| match action {
                Action::Create { name: made, .. } => {
                    made.service == *name && of_place(made.ordinal).any(Replica::is_ready)
                }
                Action::Remove { .. } | Action::Repair { .. } => false,
            });
            let beside = beside.count();
            if beside == 0 {
                continue;
            }
            let live = |ordinal| of_place(ordinal).filter(|replica| replica.is_live()).count();
            let extra: usize =
                service.members.iter().map(|member| live(member.ordinal).saturating_sub(1)).sum();
            let (surge, _) = service.spec.strategy.limits(service.members.len() as u32);
            self.checks.expect(Promise::S1, extra + beside <= surge as usize, || {
                format!(
                    "{name}: {beside} more beside what serves and {extra} already, with a surge of {surge}"
                )
            });
        }
    }

    /// What the saved state wants is not removed for not being wanted.
    fn check_intent(&mut self, plan: &Plan) {
        for action in &plan.actions {
            let Action::Remove { name, reason, .. } = action else { continue };
            if !matches!(reason, RemoveReason::Deleted | RemoveReason::ScaledDown) {
                continue;
            }
            let saved = self.store.saved().services.get(&name.service);
            let wanted = saved.is_some_and(|service| service.has_member(name.ordinal));
            let meant = self.store.meant(&name.service).is_some_and(|count| count > 0)
                && *reason == RemoveReason::Deleted;
            self.checks
                .expect(Promise::S10, !wanted && !meant, || format!("{name} is removed and still wanted"));
        }
    }

    pub(crate) fn check_create(&mut self, c: &mut Controller, name: &ReplicaName, revision: &Revision) {
        let fresh = c.names_used.insert(name.clone()) && c.world.replicas().all(|r| r.name != *name);
        self.checks.expect(Promise::S4, fresh, || format!("{name} is used twice"));
        // Whoever asks for something else wants it tried at once.
        if c.counted_at != c.desired.generation {
            c.counted_at = c.desired.generation;
            c.creates.clear();
        }
        let now = self.now;
        let place = (name.service.clone(), name.ordinal, revision.clone());
        let times = c.creates.entry(place).or_default();
        times.retain(|at| at + 60_000 > now);
        times.push(now);
        let count = times.len();
        if count > 2 {
            self.checks.expect(Promise::S14, count <= CREATES_PER_MINUTE, || {
                format!("{name}: {count} creations of one place within a minute")
            });
        }
    }

    /// Somebody has removed it, says the controller.
    pub(crate) fn check_vanished(&mut self, name: &ReplicaName) {
        if self.had.contains("stale") {
            return;
        }
        let is_it = |c: &crate::engine::Container| c.owner == Owner::Ours && c.name.as_ref() == Some(name);
        let there = self.engine.ours().any(|(_, c)| is_it(c) && c.is_alive());
        self.checks.expect(Promise::S9, !there, || format!("{name} is said to have been removed, and lives"));
    }

    /// A running replica is told to stop.
    pub(crate) fn check_stop(&mut self, call: &Call, id: &RuntimeId) {
        let name = &call.name;
        let is_alive = self.engine.get(id).is_some_and(|c| c.is_alive() && c.name.as_ref() == Some(name));
        if !is_alive || call.run != self.run {
            return;
        }
        // Of two that wear one name, the one that the data plane knows by its address is meant.
        let address = self.engine.get(id).and_then(|container| container.address);
        let routed =
            self.plane.snapshot.endpoints().any(|e| e.replica == *name && Some(e.address) == address);
        let in_flight = self.plane.in_flight.get(name).copied().unwrap_or_default();
        let drain = self.store.desired.services.get(&name.service).map(|s| s.spec.strategy.drain.0);
        let left_out = self.plane.left_out_at.get(name).copied();
        let expired = match (left_out, drain) {
            (Some(at), Some(drain)) => self.now >= at + drain.as_millis() as u64,
            _ => true,
        };
        let is_up = self.plane.is_up(self.now);
        self.checks
            .expect(Promise::S6, !(is_up && routed), || format!("{name} is stopped, and gets requests"));
        if in_flight > 0 && !routed && !self.had.contains("impostor") {
            self.checks.expect(Promise::S6, expired, || {
                format!("{name} is stopped with {in_flight} requests in flight before its drain time is over")
            });
        }
    }

    /// An object is changed by the controller.
    pub(crate) fn check_touch(&mut self, call: &Call, id: &RuntimeId) {
        let Some(container) = self.engine.get(id) else { return };
        let (owner, meant) = (container.owner, container.name.as_ref() == Some(&call.name));
        if self.engine.containers.values().any(|container| container.owner == Owner::Foreign) {
            self.checks.expect(Promise::S3, owner != Owner::Foreign, || format!("{} is touched", id.0));
        }
        self.checks.expect(Promise::S18, meant, || format!("{} is not {}", id.0, call.name));
    }

    /// An object is removed: it has ended by then.
    pub(crate) fn check_remove(&mut self, call: &Call, id: &RuntimeId) {
        let Some(container) = self.engine.get(id) else { return };
        let runs = container.is_alive() && !self.had.contains("restarted-late");
        // Somebody may start it between the second look and the removal; that moment is the engine's.
        let raced = self.struck.keys().any(|(fault, _)| *fault == crate::fault::Fault::Restarted);
        self.checks
            .expect(Promise::S18, !runs || raced, || format!("{} is removed while it runs", call.name));
    }

    pub(crate) fn check_statuses(
        &mut self,
        c: &Controller,
        statuses: &BTreeMap<ServiceName, ServiceStatus>,
        now: Timestamp,
    ) {
        let saved = self.store.saved().generation;
        for (name, next) in statuses {
            let newer = next.observed_generation;
            let before = c.statuses.get(name).map_or(newer, |before| before.observed_generation);
            self.checks.expect(Promise::S9, newer <= saved && newer >= before, || {
                format!("{name}: observed generation {newer} after {before}, saved is {saved}")
            });
            if !next.is_converged() {
                continue;
            }
            let served = c.snapshot.services.get(name).map_or(0, |routing| routing.endpoints.len());
            let members = c.desired.services.get(name).map_or(0, |service| service.members.len());
            let in_force = c.world.handshake.is_in_force(now);
            self.checks.expect(Promise::S9, served == members && in_force, || {
                format!("{name} is said to be as desired, with {served} of {members} endpoints")
            });
        }
        if c.passes.is_multiple_of(64) {
            let shown = format!("{statuses:?}").contains(SECRET);
            self.checks.expect(Promise::S17, !shown, || "a status shows an environment variable".to_owned());
        }
    }

    /// What a restart finds is what was accepted.
    pub(crate) fn check_reload(&mut self, before: &Arc<Desired>) {
        let same = self.store.desired == *before;
        self.checks
            .expect(Promise::S10, same, || "a restart finds another state than was accepted".to_owned());
    }

    pub(crate) fn save(&mut self, edit: &Edit, saving: Saving) -> bool {
        #[cfg(feature = "planted")]
        let saving = crate::planted::distort_saving(self.setting.bug, saving);
        self.store.apply(edit, saving)
    }
}
