//! Waiting until what was asked for is so, with progress; or until it is clear that it will not be.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::bail;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use ringmaster_client::Client;
use ringmaster_core::api::{Overview, ServiceView};
use ringmaster_core::rollout::Stage;
use ringmaster_core::spec::Rollback;
use ringmaster_core::status::{ConditionKind, FailedStatus, Phase};
use ringmaster_core::{Generation, Reason, ServiceName};
use tokio::time::Instant;

/// A crash loop that lasts longer is reported as a failure.
const CRASH_LOOP_PATIENCE: Duration = Duration::from_secs(10);

/// What waiting has come to.
enum Progress {
    Done,
    Waiting(String),
    Failed(String),
}

/// Waits until these services are as the desired state of `generation` says.
pub(crate) async fn until_converged(
    client: &Client,
    services: &[ServiceName],
    generation: Generation,
    timeout: Duration,
) -> anyhow::Result<()> {
    watch(client, timeout, |overview| {
        let mut waiting = Vec::new();
        for name in services {
            let Some(service) = overview.services.iter().find(|service| service.name == *name) else {
                return Progress::Failed(format!("service/{name} was deleted meanwhile"));
            };
            match progress(service, overview, generation) {
                Progress::Done => {}
                Progress::Waiting(text) => waiting.push(text),
                failed @ Progress::Failed(_) => return failed,
            }
        }
        if waiting.is_empty() { Progress::Done } else { Progress::Waiting(waiting.join("; ")) }
    })
    .await
}

/// Waits until the rollout of a service is complete, or its canary waits for promotion.
pub(crate) async fn until_rolled_out(
    client: &Client,
    name: &ServiceName,
    timeout: Duration,
) -> anyhow::Result<()> {
    // Whoever names no service of ours is told so at once.
    let asked = client.service(name).await?;
    watch(client, timeout, |overview| {
        let Some(service) = overview.services.iter().find(|service| service.name == *name) else {
            return Progress::Failed(format!("service/{name} was deleted meanwhile"));
        };
        let stage = service.status.as_ref().map(|status| status.rollout.stage);
        match progress(service, overview, asked.generation) {
            // Somebody may let it go on.
            Progress::Done if stage == Some(Stage::Paused) => {
                Progress::Waiting(held(service).unwrap_or_default())
            }
            seen => seen,
        }
    })
    .await
}

/// What a service's rollout waits for, if only a person can let it go on; begins with the service's name.
pub(crate) fn held(service: &ServiceView) -> Option<String> {
    let (name, status) = (&service.name, service.status.as_ref()?);
    let counts = format!("{} of {} replicas updated", status.rollout.available, status.replicas);
    match status.rollout.stage {
        Stage::Paused => {
            Some(format!("{name} paused with {counts}: `ringmaster rollout resume {name}` goes on"))
        }
        Stage::AwaitingPromotion => Some(format!(
            "{name} canary ready, {counts}: `ringmaster rollout promote {name}` goes on, `ringmaster rollout undo {name}` \
             goes back"
        )),
        Stage::Complete | Stage::Progressing | Stage::Unknown => None,
    }
}

/// That a release was given up, and why.
pub(crate) fn rolled_back(name: &ServiceName, failed: &FailedStatus) -> String {
    let FailedStatus { generation, back_to, why, .. } = failed;
    format!("service/{name}: revision {generation} was rolled back to revision {back_to}: {why}")
}

/// Waits until these services are gone.
pub(crate) async fn until_gone(
    client: &Client,
    services: &[ServiceName],
    timeout: Duration,
) -> anyhow::Result<()> {
    watch(client, timeout, |overview| {
        let left: Vec<String> = overview
            .services
            .iter()
            .filter(|service| services.contains(&service.name))
            .map(|service| {
                let status = service.status.as_ref();
                let replicas = status.map_or(0, |status| status.members.len());
                let degraded = status.and_then(|status| status.condition(ConditionKind::Degraded));
                // The seconds that it has lasted are left to `describe`: each would be a line of its own.
                let silent = degraded.is_some_and(|c| c.status && c.reason == Reason::DataPlaneSilent);
                let why = match silent {
                    true => format!(
                        " (the data plane does not answer; if it is gone for good, `ringmaster delete --force {}` does \
                         not wait for it)",
                        service.name
                    ),
                    false => String::new(),
                };
                format!("{}: {replicas} replicas left{why}", service.name)
            })
            .collect();
        let engine = overview.daemon.engine_error.as_deref().map(|error| format!(" ({error})"));
        match left.is_empty() {
            true => Progress::Done,
            false => Progress::Waiting(left.join("; ") + &engine.unwrap_or_default()),
        }
    })
    .await
}

fn progress(service: &ServiceView, overview: &Overview, generation: Generation) -> Progress {
    let name = &service.name;
    let Some(status) = service.status.as_ref().filter(|status| status.observed_generation >= generation)
    else {
        let engine = overview.daemon.engine_error.as_deref().map(|error| format!(" ({error})"));
        return Progress::Waiting(format!(
            "{name}: waiting for the controller{}",
            engine.unwrap_or_default()
        ));
    };
    // What was asked for, or what it was followed by, was given up.
    if let Some(failed) = status.rollout.failed.as_ref().filter(|failed| failed.given_up_in >= generation) {
        return Progress::Failed(rolled_back(name, failed));
    }
    if status.is_converged() || (status.rollout.stage.is_held() && status.ready == status.replicas) {
        return Progress::Done;
    }
    let degraded = status.condition(ConditionKind::Degraded).filter(|condition| condition.status);
    if let Some(condition) = degraded {
        // An engine that is away may come back, and a replica may need a few tries until what it depends on is
        // there; a missing image or a loop that goes on will not mend without somebody.
        let stable = status.rollout.stable.as_ref().map(|stable| &stable.revision);
        let goes_back = service.spec.strategy.rollback == Rollback::Auto
            && stable.is_some_and(|stable| status.revision.as_ref() != Some(stable));
        let lasting = match condition.reason {
            // It is about to be rolled back, and that tells more.
            Reason::ProgressDeadlineExceeded | Reason::CrashLoopBackOff if goes_back => false,
            Reason::TemplateUnresolved | Reason::ProgressDeadlineExceeded => true,
            Reason::CrashLoopBackOff => overview.now.since(condition.since) >= CRASH_LOOP_PATIENCE,
            _ => false,
        };
        if lasting {
            return Progress::Failed(format!("service/{name}: {}: {}", condition.reason, condition.message));
        }
    }
    let (ready, updated, replicas) = (status.ready, status.updated, status.replicas);
    let draining =
        status.members.iter().filter(|m| matches!(m.phase, Phase::Draining | Phase::Terminating)).count();
    let mut text = format!("{name}: {ready} of {replicas} ready");
    if updated < ready {
        text += &format!(", {updated} updated");
    }
    if draining > 0 {
        text += &format!(", {draining} draining");
    }
    if let Some(condition) = degraded {
        text += &format!(" ({}: {})", condition.reason, condition.message);
    }
    Progress::Waiting(text)
}

/// Looks at every change, and at least once a second, until it is done, has failed, or time is up.
async fn watch(
    client: &Client,
    timeout: Duration,
    mut look: impl FnMut(&Overview) -> Progress,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    let bar = bar();
    let mut changes = client.changes().await?.boxed();
    let (mut shown, mut following) = (String::new(), true);
    loop {
        match look(&client.overview().await?) {
            Progress::Done => {
                bar.finish_and_clear();
                return Ok(());
            }
            Progress::Failed(why) => {
                bar.finish_and_clear();
                bail!("{why}");
            }
            Progress::Waiting(text) if text != shown => {
                show(&bar, &text);
                shown = text;
            }
            Progress::Waiting(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {
                bar.finish_and_clear();
                bail!("not done after {}s: {shown}. It goes on; `ringmaster describe` and `ringmaster events` tell more", timeout.as_secs());
            }
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            change = changes.next(), if following => following = change.is_some(),
        }
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// On a terminal the line changes in place; elsewhere each state is a line of its own.
fn show(bar: &ProgressBar, text: &str) {
    if std::io::stderr().is_terminal() {
        bar.set_message(text.to_owned());
    } else {
        eprintln!("{text}");
    }
}
