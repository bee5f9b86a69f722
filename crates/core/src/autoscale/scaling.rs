//! All services whose count follows their load: what is heard of each, when it is decided about, and which count is being
//! set.

use std::collections::BTreeMap;

use super::{AutoscaleStatus, Autoscaler, CpuSample, DECIDE_EVERY, Facts, Sample};
use crate::Timestamp;
use crate::desired::{Desired, DesiredService};
use crate::ids::{ReplicaName, ServiceName};
use crate::plan::{Plan, RemoveReason};
use crate::snapshot::Report;
use crate::status::ServiceStatus;
use crate::world::retry_delay;

/// What is remembered of all of them.
#[derive(Debug, Clone, Default)]
pub struct Scaling {
    services: BTreeMap<ServiceName, Service>,
    stale: bool,
}

#[derive(Debug, Clone, Default)]
struct Service {
    scaler: Autoscaler,
    status: Option<AutoscaleStatus>,
    decided_at: Option<Timestamp>,
    wake_at: Option<Timestamp>,
    /// A count is being written.
    scaling: bool,
    failures: u32,
    /// Until then no count is set: the last one could not be written.
    not_before: Option<Timestamp>,
}

/// What was decided about a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// Which one.
    pub service: ServiceName,
    /// How many replicas it has.
    pub from: u32,
    /// What was decided the last time.
    pub before: Option<AutoscaleStatus>,
    /// What was decided now.
    pub now: AutoscaleStatus,
    /// The count is to be set, and told with [`Scaling::scaled`]: until then no other is.
    pub is_to_set: bool,
}

/// How setting a count has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetCount {
    /// It is so.
    Done,
    /// The service has changed meanwhile: the next decision is about what it is now.
    Overtaken,
    /// It could not be written, and is tried again after a wait that grows.
    Failed,
}

impl Scaling {
    /// Takes note of what the data plane reports.
    pub fn hear(&mut self, report: &Report, desired: &Desired, now: Timestamp) {
        self.stale = report.stale;
        for (name, told) in &report.services {
            let autoscaled = desired.services.get(name).is_some_and(|s| s.spec.autoscale.is_some());
            if !autoscaled {
                continue;
            }
            let in_flight = report.endpoints.iter().filter(|(replica, _)| replica.service == *name);
            let sample = Sample {
                at: now,
                epoch: report.epoch,
                in_flight: in_flight.map(|(_, endpoint)| endpoint.in_flight).sum(),
                waiting: told.waiting,
                responses: told.responses,
                hottest_permille: told.hottest_permille,
            };
            self.services.entry(name.clone()).or_default().scaler.observe(sample);
        }
    }

    /// Takes note of the processor time that the replicas of a service have used.
    pub fn observe_cpu(&mut self, name: &ServiceName, sample: CpuSample) {
        if let Some(own) = self.services.get_mut(name) {
            own.scaler.observe_cpu(sample);
        }
    }

    /// When the next decision is due although nothing is heard.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.services.values().filter_map(|service| service.wake_at).min()
    }

    /// Adds what was decided to what is told of services.
    pub fn tell(&self, statuses: &mut BTreeMap<ServiceName, ServiceStatus>) {
        for (name, status) in statuses {
            status.autoscale = self.services.get(name).and_then(|service| service.status.clone());
        }
    }

    /// Decides about every service for which it is time.
    pub fn decide(&mut self, desired: &Desired, plan: &Plan, now: Timestamp) -> Vec<Decided> {
        let is_scaled = |service: &DesiredService| service.spec.autoscale.is_some() && !service.deleting;
        self.services.retain(|name, _| desired.services.get(name).is_some_and(is_scaled));
        let scaled = desired.services.iter().filter(|(_, service)| is_scaled(service));
        scaled.filter_map(|(name, service)| self.decide_one(name, service, plan, now)).collect()
    }

    fn decide_one(
        &mut self,
        name: &ServiceName,
        service: &DesiredService,
        plan: &Plan,
        now: Timestamp,
    ) -> Option<Decided> {
        let spec = service.spec.autoscale.as_ref()?;
        let own = self.services.entry(name.clone()).or_default();
        let taken_out = |(replica, reason): (&ReplicaName, &RemoveReason)| {
            replica.service == *name && *reason == RemoveReason::ScaledDown
        };
        let balancing = &service.spec.balancing;
        let facts = Facts {
            now,
            current: service.members.len() as u32,
            ready: plan.serving.get(name).map_or(0, BTreeMap::len) as u32,
            draining: plan.draining.iter().any(taken_out),
            stale: self.stale,
            has_affinity: balancing.policy.hashes() && balancing.bounded_load.is_none(),
        };
        own.wake_at = own.scaler.again_at(spec, &facts);
        let is_due = own.decided_at.is_none_or(|at| now.since(at) >= DECIDE_EVERY) || facts.current == 0;
        if !is_due {
            return None;
        }
        let decision = own.scaler.decide(spec, &facts);
        own.decided_at = Some(now);
        let before = own.status.replace(decision.clone());
        let may_set = !own.scaling && own.not_before.is_none_or(|at| at <= now);
        let is_to_set = decision.wanted != facts.current && may_set;
        own.scaling |= is_to_set;
        Some(Decided { service: name.clone(), from: facts.current, before, now: decision, is_to_set })
    }

    /// A count was set, or could not be.
    pub fn scaled(&mut self, name: &ServiceName, from: u32, to: u32, outcome: SetCount, now: Timestamp) {
        let Some(own) = self.services.get_mut(name) else { return };
        own.scaling = false;
        match outcome {
            SetCount::Done => {
                own.failures = 0;
                own.scaler.scaled(now, from, to);
            }
            SetCount::Overtaken => own.decided_at = None,
            SetCount::Failed => {
                own.failures += 1;
                own.not_before = Some(now.after(retry_delay(own.failures)));
            }
        }
    }
}
