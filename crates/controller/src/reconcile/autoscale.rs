//! Counts that follow the load: what is measured goes to [`Scaling`](ringmaster_core::autoscale::Scaling), what it decides
//! goes to the store.
//!
//! Deliberately absent: the decision (`core/autoscale.rs`), and replicas. A count is set as `scale` sets it, and the next
//! pass sees it as a change of the desired state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::autoscale::{AutoscaleStatus, CpuSample, Decided, SetCount};
use ringmaster_core::desired::{Desired, DesiredService};
use ringmaster_core::observed::RuntimeId;
use ringmaster_core::plan::Plan;
use ringmaster_core::{Generation, Reason, ReplicaName, ServiceName, Timestamp};
use ringmaster_runtime::RuntimeError;
use tracing::Instrument;

use super::Reconciler;
use super::tasks::Done;
use crate::store::StoreError;

/// Processor time is asked for this often, of services with a target for it.
const CPU_EVERY: Duration = Duration::from_secs(2);

/// The questions for the processor time of each service that has a target for it.
pub(super) type Cpus = BTreeMap<ServiceName, Cpu>;

#[derive(Debug, Default)]
pub(super) struct Cpu {
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

impl Reconciler {
    /// Decides about every autoscaled service for which it is time.
    pub(super) fn autoscale(&mut self, desired: &Desired, plan: &Plan, now: Timestamp) {
        let is_scaled = |service: &DesiredService| service.spec.autoscale.is_some() && !service.deleting;
        self.cpus.retain(|name, _| desired.services.get(name).is_some_and(is_scaled));
        for (name, service) in desired.services.iter().filter(|(_, service)| is_scaled(service)) {
            self.ask_for_cpu(name, service, now);
        }
        for Decided { service, from, before, now, is_to_set } in self.scaling.decide(desired, plan, now) {
            self.tell_people(&service, before.as_ref(), &now);
            if is_to_set {
                self.set_count(service, from, now);
            }
        }
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
        let outcome = match &result {
            Ok(Some(_)) => SetCount::Done,
            Ok(None) => SetCount::Overtaken,
            Err(_) => SetCount::Failed,
        };
        self.scaling.scaled(&service, from, decision.wanted, outcome, now);
        match result {
            Ok(Some(_)) => {
                let message = format!("from {from} to {} replicas: {}", decision.wanted, decision.message);
                let reason = match decision.reason {
                    known @ (Reason::ScaledToZero | Reason::Woken) => known,
                    _ => Reason::SuccessfulRescale,
                };
                self.timeline.normal(Some(&service), "service", reason, message);
            }
            Ok(None) => {}
            Err(error) => {
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
        let cpu = self.cpus.entry(name.clone()).or_default();
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
        let Some(cpu) = self.cpus.get_mut(service) else { return };
        cpu.running = false;
        match result {
            Ok(sample) => {
                cpu.failed = false;
                self.scaling.observe_cpu(service, sample);
            }
            Err(error) => {
                // Said once, until it works again.
                if !std::mem::replace(&mut cpu.failed, true) {
                    let message = format!("{error}; the count is not lowered meanwhile");
                    self.timeline.warning(Some(service), "service", Reason::FailedGetMetrics, message);
                }
            }
        }
    }
}
