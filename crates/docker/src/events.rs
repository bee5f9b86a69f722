//! Hints from the engine's event stream, which ends whenever the engine restarts.
//!
//! Deliberately absent: what the events say. They only wake the loop, which lists again. Events of networks
//! carry no labels of ours, so that a detached replica is found by the loop's periodic list.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::errors::Error as EngineError;
use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptionsBuilder, InspectContainerOptions};
use futures_util::stream::{self, BoxStream, StreamExt};
use ringmaster_core::observed::RuntimeId;
use ringmaster_core::spec::StopSignal;
use ringmaster_runtime::{Wake, labels};
use tokio::time::Instant;

use crate::engine::{Engine, READ_MAX, failed};
use crate::limits::Audit;

/// Starts are not among them: the daemon knows of its own, and a list for each would slow a scale-up down.
const ACTIONS: [&str; 8] = ["die", "oom", "kill", "destroy", "pause", "unpause", "rename", "update"];
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A stream that has lived this long was a good one: its end is not a reason to wait longer than the least.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// Hints about the containers that `audit` looks at, for ever.
pub(crate) fn wakes(audit: Audit) -> BoxStream<'static, Wake> {
    let all = audit.clone().all();
    let watch = Watch {
        engine: audit.engine.clone(),
        audit,
        source: Source::Lost { told: false },
        backoff: Duration::ZERO,
        unlisted: None,
    };
    let told = stream::unfold(watch, |mut watch| async move {
        let wake = watch.next().await;
        Some((wake, watch))
    });
    stream::select(told, all).boxed()
}

struct Watch {
    engine: Engine,
    audit: Audit,
    source: Source,
    /// How long to wait before the next try.
    backoff: Duration,
    /// What was told at once, and may not show in a list yet.
    unlisted: Option<EventMessage>,
}

enum Source {
    /// Hints arrive.
    Live { events: BoxStream<'static, Result<EventMessage, EngineError>>, since: Instant },
    /// They do not; `told` says whether the reader knows.
    Lost { told: bool },
}

impl Watch {
    async fn next(&mut self) -> Wake {
        if let Some(event) = self.unlisted.take() {
            wait_for_the_list(&self.engine, &event).await;
            return Wake::Changed;
        }
        loop {
            match &mut self.source {
                Source::Live { events, since } => {
                    let since = *since;
                    let reason = match events.next().await {
                        Some(Ok(event)) => {
                            note_lag(&event);
                            // A death is told twice: at once, for whoever can look elsewhere, and when a list
                            // shows it.
                            let action = event.action.as_deref();
                            if action == Some("kill")
                                && let Some(id) = ends(&self.engine, &event).await
                            {
                                return Wake::Stopping(RuntimeId(id));
                            }
                            if action == Some("update") {
                                match changed_limits(&self.audit, &event).await {
                                    Some(wake) => return wake,
                                    None => continue,
                                }
                            }
                            self.unlisted = (action == Some("die")).then_some(event);
                            return Wake::Changed;
                        }
                        Some(Err(error)) => self.reason(&error),
                        None => "the engine ended the event stream".to_owned(),
                    };
                    self.source = Source::Lost { told: true };
                    self.wait_longer(since.elapsed() > GOOD_AFTER);
                    return Wake::Disconnected(reason);
                }
                Source::Lost { told } => {
                    let told = *told;
                    tokio::time::sleep(self.backoff).await;
                    // Events are asked for from before the ping on, so that none is lost in between.
                    let since = SystemTime::now();
                    match self.engine.call("ping the engine", READ_MAX, self.engine.docker.ping()).await {
                        Ok(_) => {
                            let events = self.subscribe(since);
                            self.source = Source::Live { events, since: Instant::now() };
                            self.audit.back.notify_one();
                            return Wake::Reconnected;
                        }
                        Err(error) => {
                            self.wait_longer(false);
                            self.source = Source::Lost { told: true };
                            if !told {
                                return Wake::Disconnected(error.message);
                            }
                        }
                    }
                }
            }
        }
    }

    fn wait_longer(&mut self, start_over: bool) {
        self.backoff =
            if start_over { BACKOFF_MIN } else { (self.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX) };
    }

    fn reason(&self, error: &EngineError) -> String {
        failed(String::new(), &self.engine.socket, error).message
    }

    fn subscribe(&self, since: SystemTime) -> BoxStream<'static, Result<EventMessage, EngineError>> {
        let owner = format!("{}={}", labels::OWNER_KEY, labels::OWNER);
        let instance = format!("{}={}", labels::INSTANCE, self.audit.instance);
        let filters = HashMap::from([
            ("type", vec!["container"]),
            ("label", vec![owner.as_str(), instance.as_str()]),
            ("event", ACTIONS.to_vec()),
        ]);
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
        self.engine.docker.events(Some(options)).boxed()
    }
}

/// The container that a signal is to end: SIGKILL and SIGTERM end all, others only whom they are the stop signal of.
async fn ends(engine: &Engine, event: &EventMessage) -> Option<String> {
    let actor = event.actor.as_ref()?;
    let id = actor.id.clone()?;
    let signal = StopSignal::parse(actor.attributes.as_ref()?.get("signal")?)?;
    if matches!(signal, StopSignal::Kill | StopSignal::Term) {
        return Some(id);
    }
    let call = engine.docker.inspect_container(&id, None::<InspectContainerOptions>);
    match engine.call("inspect a container that was sent a signal", READ_MAX, call).await {
        Ok(found) => {
            let wanted = found.config?.stop_signal?;
            (StopSignal::parse(&wanted) == Some(signal)).then_some(id)
        }
        Err(error) => {
            tracing::debug!(%error, "whether the signal ends it is not known; its end will show");
            None
        }
    }
}

/// An update that leaves the limits as they should be, as ours does, is nobody's concern.
async fn changed_limits(audit: &Audit, event: &EventMessage) -> Option<Wake> {
    let id = event.actor.as_ref()?.id.as_deref()?;
    audit.one(id).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "what was updated is looked at again later");
        None
    })
}

/// How long an event took to arrive; nothing where the clocks of engine and daemon disagree.
fn note_lag(event: &EventMessage) {
    let sent = event.time_nano.and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Some(lag) = sent.and_then(|sent| now.checked_sub(sent)) {
        metrics::histogram!("ringmaster_engine_event_lag_seconds").record(lag);
    }
}

/// Engines send `die` before their list shows the end (by the time it takes to unmount), and nothing
/// after it: whoever lists at once sees a running container and is not woken again. An inspection waits
/// for the container's lock, which is held until the list is right.
async fn wait_for_the_list(engine: &Engine, event: &EventMessage) {
    let Some(id) = event.actor.as_ref().and_then(|actor| actor.id.as_deref()) else { return };
    let call = engine.docker.inspect_container(id, None::<InspectContainerOptions>);
    if let Err(error) = engine.call("inspect an ended container", READ_MAX, call).await {
        // It is removed already, or the engine is going away, which the stream will tell.
        tracing::debug!(%error, "a container ended");
    }
}
