//! What the loop keeps of statuses for the next run of the daemon, and takes up from the one before.

use std::sync::Arc;

use ringmaster_core::desired::Desired;
use ringmaster_core::observed::Observed;
use ringmaster_core::plan::Plan;
use ringmaster_core::status::{Recollection, Remembered, ServiceStatus};
use ringmaster_core::{Reason, ServiceName};

use super::Reconciler;
use super::tasks::{Done, Finishing};
use crate::state::{StateError, Statuses};
use crate::store::Store;

/// What is remembered of statuses.
pub(super) struct Memory {
    /// What earlier runs knew, while this one finds out.
    pub(super) recollection: Recollection,
    kept: Statuses,
    unwritten: bool,
    writing: Finishing,
}

impl Memory {
    pub(super) fn new(store: &Store) -> Memory {
        let kept = store.statuses_before().clone();
        Memory {
            recollection: Recollection::of(kept.clone(), &store.desired()),
            kept,
            unwritten: false,
            writing: Finishing::default(),
        }
    }

    /// Takes up the statuses of a pass. What is still being found out stays as it was.
    pub(super) fn take_up<'a>(
        &mut self,
        statuses: impl Iterator<Item = (&'a ServiceName, &'a ServiceStatus)>,
        desired: &Desired,
        observed: &Observed,
        plan: &Plan,
    ) {
        self.recollection.settle(desired, observed, plan);
        let keep = |(name, status): (&ServiceName, &ServiceStatus)| {
            let before = self.kept.get(name).filter(|_| self.recollection.get(name).is_some());
            (name.clone(), before.cloned().unwrap_or_else(|| Remembered::of(status)))
        };
        let kept: Statuses = statuses.map(keep).collect();
        if kept != self.kept {
            (self.kept, self.unwritten) = (kept, true);
        }
    }

    /// When a write that has failed may be tried again.
    pub(super) fn due_in(&self) -> Option<std::time::Duration> {
        self.writing.due_in()
    }
}

impl Reconciler {
    /// Writes what is remembered, beside the loop: it waits for the disk.
    pub(super) fn write_memory(&mut self) {
        if !self.memory.unwritten || !self.memory.writing.begin() {
            return;
        }
        self.memory.unwritten = false;
        let (store, kept) = (Arc::clone(&self.store), self.memory.kept.clone());
        self.tasks.spawn_blocking(move || Done::Remembered(store.save_statuses(&kept)));
    }

    pub(super) fn on_remembered(&mut self, result: Result<(), StateError>) {
        self.memory.writing.ended(result.is_ok());
        if let Err(error) = result {
            self.memory.unwritten = true;
            self.timeline.warning(None, "state", Reason::StateNotWritten, error.to_string());
        }
    }

    /// Writes the last of it at the end of the loop.
    pub(super) async fn write_memory_at_the_end(&mut self) {
        if !self.memory.unwritten && !self.memory.writing.is_running() {
            return;
        }
        let (store, kept) = (Arc::clone(&self.store), self.memory.kept.clone());
        let written = tokio::task::spawn_blocking(move || store.save_statuses(&kept)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "times of conditions are not kept over the restart");
        }
    }
}
