//! Rollouts: what fails goes back by itself, and people hold, resume, promote and restart them.

use bollard::models::ContainerConfig;
use ringmaster_core::rollout::Stage;
use ringmaster_core::status::{Phase, ServiceStatus};
use ringmaster_docker::testing::engine_or_skip;
use rustix::process::Signal;

use crate::common::{Daemon, On, Setup, docker_or_skip, eventually, name, service_yaml, shared};
use crate::images::{self, MovingTag};
use crate::load::Load;

/// A manifest whose template has these variables, with more under `spec.strategy`.
pub(crate) fn release(daemon: &Daemon, replicas: u32, env: &str, strategy: &str) -> String {
    let more = format!("  strategy: {{ drain: 5s, {strategy} }}\n");
    let env = format!("    env: {{ {env} }}\n    resources:");
    daemon.manifest(&daemon.web, replicas, &more).replace("    resources:", &env)
}

/// A replica that cannot listen there ends at once.
const BROKEN: &str = "VERSION: two, HOST: nowhere";

async fn runs(daemon: &Daemon) -> String {
    daemon.client.service(&name(&daemon.web)).await.unwrap().spec.template.env["VERSION"].clone()
}

/// Waits until the service went back and is whole again.
async fn went_back(daemon: &Daemon) -> ServiceStatus {
    let back = |status: &ServiceStatus| status.rollout.failed.is_some() && status.is_converged();
    daemon.until(&daemon.web, "back", back).await
}

async fn a_release_that_fails_goes_back(on: On) {
    let mut daemon = Daemon::start(on).await;
    let web = daemon.web.clone();
    let good = release(&daemon, 3, "VERSION: one", "");
    let bad = release(&daemon, 3, BROKEN, "");
    let first = daemon.apply_and_converge(&web, &good).await;
    let mut load = Load::start(daemon.setup.listen, 100);
    load.more(20).await;
    daemon.apply(&bad).await;
    let (code, out, err) = daemon.cli(&["rollout", "status", &web]).await;
    assert!(code == Some(1) && err.contains("rolled back to revision 1"), "{code:?} {out}{err}");
    let status = went_back(&daemon).await;
    load.more(20).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
    assert_eq!((runs(&daemon).await.as_str(), &status.revision), ("one", &first.revision));
    let same: Vec<_> = first.members.iter().map(|member| &member.id).collect();
    let after: Vec<_> = status.members.iter().filter(|m| m.updated).map(|member| &member.id).collect();
    assert_eq!(same, after, "nobody of the old release was touched");
    daemon.event("RolledBack", "failed 3 times in a row").await;
    let tried: Vec<_> = daemon.client.events(0).await.unwrap().events;
    let tried = tried.iter().filter(|e| e.reason.as_str() == "Failed").map(|e| e.object.clone());
    assert_eq!(tried.collect::<std::collections::BTreeSet<_>>().len(), 1, "it stopped at the first replica");

    // It is remembered, over the daemon's end too; the same again has to be insisted on.
    daemon.end(Signal::KILL).await;
    daemon.restart().await;
    let before = daemon.client.overview().await.unwrap().generation;
    let refused = daemon.try_apply(&bad).await.unwrap_err().to_string();
    assert!(refused.contains("given up when it was revision 2") && refused.contains("--force"), "{refused}");
    let (code, _, err) = daemon.cli(&["rollout", "undo", &web, "--to-revision", "2"]).await;
    assert!(code == Some(1) && err.contains("was never ready as a whole"), "{err}");
    let (code, _, err) = daemon.cli(&["rollout", "undo", &web]).await;
    assert!(code == Some(1) && err.contains("nothing to go back to"), "{err}");
    assert_eq!(daemon.client.overview().await.unwrap().generation, before);
    let (_, out, _) = daemon.cli(&["rollout", "history", &web]).await;
    assert!(out.contains("never ready"), "{out}");

    // Another count of what works is not the failed template again.
    let more = release(&daemon, 4, "VERSION: one", "");
    let status = daemon.apply_and_converge(&web, &more).await;
    assert_eq!(status.ready, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_fails_goes_back_by_itself() {
    let _shared = shared().await;
    a_release_that_fails_goes_back(On::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_containers_that_fails_goes_back_by_itself() {
    let _shared = shared().await;
    let Some(on) = docker_or_skip("a_release_of_containers_that_fails_goes_back_by_itself").await else {
        return;
    };
    a_release_that_fails_goes_back(on).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_does_not_become_ready_goes_back_at_its_deadline() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let strategy = "progressDeadline: 1s";
    daemon.apply_and_converge("web", &release(&daemon, 2, "VERSION: one", strategy)).await;
    let silent =
        release(&daemon, 2, "VERSION: two", strategy).replace("[ringmaster, replica]", "[sleep, '1000']");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), silent).unwrap();
    let (code, _, err) = daemon.cli(&["apply", "-f", file.path().to_str().unwrap()]).await;
    assert!(code == Some(1) && err.contains("no progress for 1s"), "{err}");
    let status = went_back(&daemon).await;
    assert_eq!((status.ready, runs(&daemon).await.as_str()), (2, "one"));

    // Told not to, it stays.
    let never = "progressDeadline: 1s, rollback: never";
    let silent =
        release(&daemon, 2, "VERSION: three", never).replace("[ringmaster, replica]", "[sleep, '1000']");
    daemon.apply(&silent).await;
    daemon.event("ProgressDeadlineExceeded", "no progress for 1s").await;
    let (code, _, err) = daemon.cli(&["rollout", "status", "web"]).await;
    assert!(code == Some(1) && err.contains("ProgressDeadlineExceeded"), "{err}");
    assert_eq!(runs(&daemon).await, "three");
    let (code, out, err) = daemon.cli(&["rollout", "undo", "web"]).await;
    assert!(code == Some(0) && out.contains("back to revision"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_pause_resume_and_restart_a_rollout() {
    let _shared = shared().await;
    let mut daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &release(&daemon, 3, "VERSION: one", "")).await;
    let before: Vec<_> = daemon.status("web").await.unwrap().members;
    let mut load = Load::start(daemon.setup.listen, 100);
    let (code, out, err) = daemon.cli(&["rollout", "restart", "web"]).await;
    assert!(code == Some(0) && out.contains("service/web restarted"), "{out}{err}");
    let status = daemon.status("web").await.unwrap();
    let others = status.members.iter().filter(|m| before.iter().all(|b| b.id != m.id));
    assert_eq!((others.count(), status.ready), (3, 3), "{status:#?}");

    let (code, _, err) = daemon.cli(&["rollout", "pause", "web"]).await;
    assert_eq!(code, Some(0), "{err}");
    let generation = daemon.apply(&release(&daemon, 3, "VERSION: two", "")).await.generation;
    let paused = |s: &ServiceStatus| s.observed_generation >= generation && s.rollout.stage == Stage::Paused;
    daemon.until("web", "paused", paused).await;
    daemon.end(Signal::KILL).await;
    daemon.restart().await;
    let status = daemon.until("web", "paused again", |s| paused(s) && s.ready == 3).await;
    assert_eq!((status.rollout.updated, status.ready), (0, 3), "a pause outlives the daemon");
    for (verb, why) in [("pause", "paused already"), ("restart", "are paused"), ("promote", "no canary")] {
        let (code, _, err) = daemon.cli(&["rollout", verb, "web"]).await;
        assert!(code == Some(1) && err.contains(why), "{verb}: {err}");
    }
    let third = release(&daemon, 3, "VERSION: three", "");
    let refused = daemon.try_apply(&third).await.unwrap_err().to_string();
    assert!(refused.contains("a rollout of `web` is under way"), "{refused}");
    assert_eq!(runs(&daemon).await, "two");
    let (code, out, err) = daemon.cli(&["rollout", "resume", "web"]).await;
    assert!(code == Some(0) && out.contains("resumed"), "{out}{err}");
    let (code, out, _) = daemon.cli(&["rollout", "status", "web"]).await;
    assert!(code == Some(0) && out.contains("complete: 3 of 3 updated"), "{out}");
    let (code, _, err) = daemon.cli(&["rollout", "resume", "web"]).await;
    assert!(code == Some(1) && err.contains("nothing to resume"), "{err}");
    load.more(20).await;
    drop(load.stop().await);
    daemon.apply_and_converge("web", &third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_waits_until_it_is_promoted() {
    let _shared = shared().await;
    let mut daemon = Daemon::start(On::Process).await;
    let canary = "canary: 10%, maxSurge: 2";
    daemon.apply_and_converge("web", &release(&daemon, 4, "VERSION: one", canary)).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), release(&daemon, 4, "VERSION: two", canary)).unwrap();
    let (code, out, err) = daemon.cli(&["apply", "-f", file.path().to_str().unwrap()]).await;
    assert!(code == Some(0) && out.contains("canary ready, 1 of 4 replicas updated"), "{out}{err}");
    daemon.end(Signal::KILL).await;
    daemon.restart().await;
    let waits = |s: &ServiceStatus| s.rollout.stage == Stage::AwaitingPromotion && s.ready == 4;
    let status = daemon.until("web", "waiting", waits).await;
    assert_eq!((status.updated, status.rollout.limit), (1, 1));

    // An old replica that is lost meanwhile comes back as what it was.
    let old = daemon.replica("web", 3).await;
    let id = old.id.clone();
    daemon.client.fault("web-3", "KILL").await.unwrap();
    let healed = daemon
        .until("web", "healed", |s| {
            waits(s) && s.members.iter().any(|m| m.ordinal.0 == 3 && m.phase == Phase::Ready && m.id != id)
        })
        .await;
    let now = healed.members.iter().find(|m| m.ordinal.0 == 3 && m.phase == Phase::Ready).unwrap();
    assert_eq!(now.revision, old.revision);

    let (code, out, err) = daemon.cli(&["rollout", "promote", "web"]).await;
    assert!(code == Some(0) && out.contains("promoted"), "{out}{err}");
    let status = daemon.status("web").await.unwrap();
    assert_eq!((status.updated, status.rollout.stage), (4, Stage::Complete));
    let (code, _, err) = daemon.cli(&["rollout", "promote", "web"]).await;
    assert!(code == Some(1) && err.contains("no canary"), "{err}");
    // And back: that waits for nobody.
    let (code, out, err) = daemon.cli(&["rollout", "undo", "web"]).await;
    assert_eq!((code, runs(&daemon).await.as_str()), (Some(0), "one"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn recreate_never_runs_two_releases_at_once() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let recreate = "type: recreate";
    daemon.apply_and_converge("web", &release(&daemon, 3, "VERSION: one", recreate)).await;
    daemon.apply_and_converge("web", &release(&daemon, 3, "VERSION: two", recreate)).await;
    let events = daemon.client.events(0).await.unwrap().events;
    let of = |reason: &'static str| {
        events.iter().filter(move |e| e.reason.as_str() == reason).map(|e| e.sequence).collect::<Vec<_>>()
    };
    let (stopped, created, withdrawn) = (of("Removing"), of("Creating"), of("Withdrawn"));
    assert_eq!((stopped.len(), created.len()), (3, 6), "{}", daemon.events_text().await);
    assert!(
        withdrawn.iter().max() < stopped.iter().min() && stopped.iter().max() < created[3..].iter().min()
    );
    // A release that fails goes back the same way.
    daemon.apply(&release(&daemon, 3, BROKEN.replace("two", "three").as_str(), recreate)).await;
    let status = went_back(&daemon).await;
    assert_eq!((status.ready, runs(&daemon).await.as_str()), (3, "two"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_missing_is_stopped_first() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let strategy = "maxSurge: 0, maxUnavailable: 1, minReady: 200ms";
    daemon.apply_and_converge("web", &release(&daemon, 3, "VERSION: one", strategy)).await;
    let mut load = Load::start(daemon.setup.listen, 100);
    let generation = daemon.apply(&release(&daemon, 3, "VERSION: two", strategy)).await.generation;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let status = daemon.status("web").await.unwrap();
        // One that has ended is shown as terminating until it is removed: the planner's own tests count those.
        let runs = |phase: Phase| !matches!(phase, Phase::Exited | Phase::Terminating);
        let live = status.members.iter().filter(|m| m.id.is_some() && runs(m.phase)).count();
        assert!(live <= 3 && status.ready >= 2, "{live} {}: {}", status.ready, daemon.events_text().await);
        if status.observed_generation >= generation && status.is_converged() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{status:#?}");
    }
    load.more(20).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_was_rebuilt_broken_is_given_up_and_the_one_before_heals() {
    let _shared = shared().await;
    let test = "an_image_that_was_rebuilt_broken_is_given_up_and_the_one_before_heals";
    let Some(docker) = engine_or_skip(test).await else { return };
    let Some(on) = docker_or_skip(test).await else { return };
    let daemon = Daemon::start(on).await;
    let tag = MovingTag::of(&docker, &daemon).await;
    let good = daemon.apply_and_converge(&daemon.web, &tag.manifest(&daemon, 2)).await.revision;
    // The same image, but what it runs cannot listen there.
    let commit = async |env: &str| {
        let config = ContainerConfig { env: Some(vec![env.to_owned()]), ..ContainerConfig::default() };
        tag.commit(&format!("{}-0-0", daemon.web), config).await
    };
    let (broken, mended) = (commit("HOST=nowhere").await, commit("GREETING=Mended").await);
    tag.to(&broken).await;
    daemon.event("RolledBack", "failed 3 times in a row").await;
    let back = went_back(&daemon).await;
    assert_eq!((back.ready, &back.revision), (2, &good));
    daemon.client.fault(&format!("{}-1", daemon.web), "KILL").await.unwrap();
    let healed = |s: &ServiceStatus| {
        s.is_converged()
            && s.members.iter().any(|m| m.ordinal.0 == 1 && m.restarts > 0 && m.phase == Phase::Ready)
    };
    let status = daemon.until(&daemon.web, "healed with what was stable", healed).await;
    assert_eq!(status.revision, good);
    // Built once more, it is taken up.
    tag.to(&mended).await;
    daemon.until(&daemon.web, "mended", |s| s.is_converged() && s.revision != good).await;
    assert!(daemon.get("/home").await.1.contains("Mended"));
    drop(daemon);
    for id in [broken, mended] {
        images::remove(&docker, &id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_file_waits_for_the_rollout_under_way() {
    let _shared = shared().await;
    let (setup, folder) = Setup::new(On::Process);
    let file = folder.path().join("web.yaml");
    let yaml = |version: &str| {
        let run = format!("process: {{ command: [ringmaster, replica] }}\n    env: {{ VERSION: {version} }}");
        service_yaml("web", 3, &run, "  strategy: { minReady: 500ms }\n")
    };
    std::fs::write(&file, yaml("one")).unwrap();
    let daemon = Daemon::with(setup.with(&["--watch", "--manifest", file.to_str().unwrap()])).await;
    daemon.until("web", "ready", |status| status.is_converged() && status.ready == 3).await;
    std::fs::write(&file, yaml("two")).unwrap();
    daemon.event("RolloutStarted", "from revision").await;
    std::fs::write(&file, yaml("three")).unwrap();
    daemon.event("ManifestRefused", "a rollout of `web` is under way").await;
    eventually("the third version is wanted", || async { (runs(&daemon).await == "three").then_some(()) })
        .await;
    let status = daemon.until("web", "complete", |s| s.is_converged() && s.updated == 3).await;
    assert_eq!(status.rollout.stage, Stage::Complete);
}
