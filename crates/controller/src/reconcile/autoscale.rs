//! Counts that follow the load: what is measured goes to [`Autoscaler`], what it decides goes to the store.
//!
//! Deliberately absent: the decision (`core/autoscale.rs`), and replicas. A count is set as `scale` sets it, and the next
//! pass sees it as a change of the desired state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::autoscale::{AutoscaleStatus, Autoscaler, CpuSample, DECIDE_EVERY, Facts, Sample};
use ringmaster_core::desired::{Desired, DesiredService};
use ringmaster_core::observed::RuntimeId;
use ringmaster_core::plan::{Plan, RemoveReason};
use ringmaster_core::snapshot::Report;
use ringmaster_core::status::ServiceStatus;
use ringmaster_core::world::retry_delay;
use ringmaster_core::{Generation, Reason, ReplicaName, ServiceName, Timestamp};
use ringmaster_runtime::RuntimeError;
use tracing::Instrument;

use super::Reconciler;
use super::tasks::Done;
use crate::store::StoreError;

/// Processor time is asked for this often, of services with a target for it.
const CPU_EVERY: Duration = Duration::from_secs(2);

/// All autoscaled services.
#[derive(Debug, Default)]
pub(super) struct Scaling {
    services: BTreeMap<ServiceName, Service>,
    epoch: u64,
    stale: bool,
}

#[derive(Debug, Default)]
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
    cpu: Cpu,
}

#[derive(Debug, Default)]
struct Cpu {
    running: bool,
    asked_at: Option<Timestamp>,
    /// It could not be told, and people know.
    failed: bool,
}

/// A count was set, or could not be.
pub(super) struct Scaled {
    service: ServiceName,
    from: u32,
    decision: AutoscaleStatus,
    result: Result<Option<Generation>, StoreError>,
}

impl Scaling {
    /// Takes note of what the data plane reports.
    pub(super) fn hear(&mut self, report: &Report, desired: &Desired, now: Timestamp) {
        (self.epoch, self.stale) = (report.epoch, report.stale);
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

    /// When the next decision is due although nothing is heard.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.services.values().filter_map(|service| service.wake_at).min()
    }

    /// Adds what was decided to what is told of services.
    pub(super) fn tell(&self, statuses: &mut BTreeMap<ServiceName, ServiceStatus>) {
        for (name, status) in statuses {
            status.autoscale = self.services.get(name).and_then(|service| service.status.clone());
        }
    }
}

impl Reconciler {
    /// Decides about every autoscaled service for which it is time.
    pub(super) fn autoscale(&mut self, desired: &Desired, plan: &Plan, now: Timestamp) {
        let is_scaled = |service: &DesiredService| service.spec.autoscale.is_some() && !service.deleting;
        self.scaling.services.retain(|name, _| desired.services.get(name).is_some_and(is_scaled));
        for (name, service) in desired.services.iter().filter(|(_, service)| is_scaled(service)) {
            self.ask_for_cpu(name, service, now);
            self.decide(name, service, plan, now);
        }
    }

    fn decide(&mut self, name: &ServiceName, service: &DesiredService, plan: &Plan, now: Timestamp) {
        let Some(spec) = &service.spec.autoscale else { return };
        let stale = self.scaling.stale;
        let own = self.scaling.services.entry(name.clone()).or_default();
        let taken_out = |(replica, reason): (&ReplicaName, &RemoveReason)| {
            replica.service == *name && *reason == RemoveReason::ScaledDown
        };
        let balancing = &service.spec.balancing;
        let facts = Facts {
            now,
            current: service.members.len() as u32,
            ready: plan.serving.get(name).map_or(0, BTreeMap::len) as u32,
            draining: plan.draining.iter().any(taken_out),
            stale,
            has_affinity: balancing.policy.hashes() && balancing.bounded_load.is_none(),
        };
        own.wake_at = own.scaler.again_at(spec, &facts);
        let is_due = own.decided_at.is_none_or(|at| now.since(at) >= DECIDE_EVERY) || facts.current == 0;
        if !is_due {
            return;
        }
        let decision = own.scaler.decide(spec, &facts);
        own.decided_at = Some(now);
        let before = own.status.replace(decision.clone());
        let may_set = !own.scaling && own.not_before.is_none_or(|at| at <= now);
        if decision.wanted != facts.current && may_set {
            own.scaling = true;
            self.set_count(name.clone(), facts.current, decision.clone());
        }
        self.tell_people(name, before.as_ref(), &decision);
    }

    /// What people should know before they look, once.
    fn tell_people(&self, name: &ServiceName, before: Option<&AutoscaleStatus>, now: &AutoscaleStatus) {
        let is_news = before.is_none_or(|before| before.reason != now.reason);
        // A start, and the first second of a count, have no figures yet: that is no news.
        let had_figures = before.is_some_and(|before| !before.metrics.is_empty());
        let matters = match now.reason {
            Reason::TooManyReplicas => true,
            Reason::FailedGetMetrics => had_figures,
            _ => false,
        };
        if is_news && matters {
            self.timeline.warning(Some(name), "service", now.reason, now.message.clone());
        }
        if let (Some(hot), true) = (&now.hot_key, before.is_none_or(|before| before.hot_key.is_none())) {
            self.timeline.warning(Some(name), "service", Reason::HotKey, hot.clone());
        }
    }

    /// Sets a count beside the loop: it waits for the disk.
    fn set_count(&mut self, service: ServiceName, from: u32, decision: AutoscaleStatus) {
        let store = Arc::clone(&self.store);
        let span = tracing::info_span!(
            parent: None, "autoscale", %service, from, to = decision.wanted, reason = decision.reason.as_str()
        );
        self.tasks.spawn_blocking(move || {
            let result = span.in_scope(|| store.autoscale(&service, from, decision.wanted));
            Done::Scaled(Box::new(Scaled { service, from, decision, result }))
        });
    }

    pub(super) fn on_scaled(&mut self, scaled: Scaled) {
        let Scaled { service, from, decision, result } = scaled;
        let now = self.clock.now();
        let Some(own) = self.scaling.services.get_mut(&service) else { return };
        own.scaling = false;
        match result {
            Ok(Some(_)) => {
                own.failures = 0;
                own.scaler.scaled(now, from, decision.wanted);
                let message = format!("from {from} to {} replicas: {}", decision.wanted, decision.message);
                let reason = match decision.reason {
                    known @ (Reason::ScaledToZero | Reason::Woken) => known,
                    _ => Reason::SuccessfulRescale,
                };
                self.timeline.normal(Some(&service), "service", reason, message);
            }
            // It has changed meanwhile: the next decision is about what it is now.
            Ok(None) => own.decided_at = None,
            Err(error) => {
                own.failures += 1;
                own.not_before = Some(now.after(retry_delay(own.failures)));
                self.timeline.warning(Some(&service), "state", Reason::StateNotWritten, error.to_string());
            }
        }
    }

    /// Asks the runtime for the processor time of a service's replicas, if it is a target and time to.
    fn ask_for_cpu(&mut self, name: &ServiceName, service: &DesiredService, now: Timestamp) {
        let wanted = service.spec.autoscale.as_ref().is_some_and(|spec| spec.target_cpu.is_some());
        let replicas: Vec<(ReplicaName, RuntimeId)> = self
            .world
            .running()
            .filter(|replica| replica.name.service == *name)
            .map(|replica| (replica.name.clone(), replica.id.clone()))
            .collect();
        let cpu = &mut self.scaling.services.entry(name.clone()).or_default().cpu;
        let is_due = cpu.asked_at.is_none_or(|at| now.since(at) >= CPU_EVERY);
        if !wanted || cpu.running || !is_due || replicas.is_empty() {
            return;
        }
        (cpu.running, cpu.asked_at) = (true, Some(now));
        let (runtime, clock, service) = (Arc::clone(&self.runtime), self.clock, name.clone());
        let ask = async move {
            let mut used = BTreeMap::new();
            let mut failed = None;
            for (replica, id) in replicas {
                match runtime.cpu_used(&id).await {
                    Ok(Some(time)) => drop(used.insert(replica, time)),
                    Ok(None) => {}
                    Err(error) => failed = Some(error),
                }
            }
            let result = match failed {
                Some(error) => Err(error),
                None => Ok(CpuSample { at: clock.now(), used }),
            };
            Done::CpuUsed { service, result }
        };
        self.tasks.spawn(ask.in_current_span());
    }

    pub(super) fn on_cpu_used(&mut self, service: &ServiceName, result: Result<CpuSample, RuntimeError>) {
        let Some(own) = self.scaling.services.get_mut(service) else { return };
        own.cpu.running = false;
        match result {
            Ok(sample) => {
                own.cpu.failed = false;
                own.scaler.observe_cpu(sample);
            }
            Err(error) => {
                // Said once, until it works again.
                if !std::mem::replace(&mut own.cpu.failed, true) {
                    let message = format!("{error}; the count is not lowered meanwhile");
                    self.timeline.warning(Some(service), "service", Reason::FailedGetMetrics, message);
                }
            }
        }
    }
}
