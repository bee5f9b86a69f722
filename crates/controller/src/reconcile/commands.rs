//! What only the loop may do because it alone knows which object is which replica: logs and faults.

use std::sync::Arc;

use ringmaster_core::observed::{ReplicaState, RuntimeId, RuntimeReplica};
use ringmaster_core::{Ordinal, Reason, ReplicaName, ServiceName};

use super::tasks::Done;
use super::{Command, Reconciler};

impl Reconciler {
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
