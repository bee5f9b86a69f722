//! Back to an earlier template: what changes, what stays, and what is refused with nothing changed.

use ringmaster_core::Generation;
use ringmaster_core::api::RevisionList;
use ringmaster_core::spec::Policy;
use rustix::process::Signal;

use crate::common::{Daemon, On, docker_or_skip, name, shared};
use crate::load::Load;

/// A manifest whose template says which version it is.
fn version(daemon: &Daemon, version: &str, more: &str) -> String {
    let env = format!("    env: {{ VERSION: {version} }}\n    resources:");
    daemon.manifest(&daemon.web, 2, more).replace("    resources:", &env)
}

async fn runs(daemon: &Daemon) -> String {
    daemon.client.service(&name(&daemon.web)).await.unwrap().spec.template.env["VERSION"].clone()
}

async fn history(daemon: &Daemon) -> RevisionList {
    daemon.client.revisions(&name(&daemon.web)).await.unwrap()
}

async fn undo_brings_back_the_template(on: On) {
    let mut daemon = Daemon::start(on).await;
    let web = daemon.web.clone();
    daemon.apply_and_converge(&web, &version(&daemon, "one", "")).await;
    let more = "  balancing: { policy: maglev, hashOn: { header: X-Key } }\n";
    daemon.apply_and_converge(&web, &version(&daemon, "two", more)).await;
    let (code, _, err) = daemon.cli(&["scale", &web, "--replicas", "3"]).await;
    assert_eq!(code, Some(0), "{err}");
    let listed = history(&daemon).await;
    let current: Vec<bool> = listed.revisions.iter().map(|revision| revision.current).collect();
    assert_eq!((current.as_slice(), listed.previous), (&[false, true][..], Some(Generation(1))));
    let (code, out, err) = daemon.cli(&["rollout", "history", &web]).await;
    assert!(code == Some(0) && out.contains("undo goes here") && out.contains("current"), "{out}{err}");

    let mut load = Load::start(daemon.setup.listen, 100);
    load.more(20).await;
    let (code, out, err) = daemon.cli(&["rollout", "undo", &web]).await;
    assert!(code == Some(0) && out.contains("back to revision 1"), "{out}{err}");
    load.more(20).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
    let service = daemon.client.service(&name(&web)).await.unwrap();
    assert_eq!(service.spec.template.env["VERSION"], "one");
    assert_eq!((service.spec.replicas, service.spec.balancing.policy), (Some(3), Policy::Maglev));
    let status = service.status.unwrap();
    assert!(status.members.iter().all(|member| member.updated) && status.ready == 3, "{status:#?}");
    daemon.event("RolledBack", "revision 1").await;

    // Going back is a change like any other: it survives a restart, and can be gone back from.
    daemon.end(Signal::KILL).await;
    daemon.restart().await;
    assert_eq!((runs(&daemon).await.as_str(), history(&daemon).await.previous), ("one", Some(Generation(2))));
    let (code, _, err) = daemon.cli(&["rollout", "undo", &web, "--to-revision", "2"]).await;
    assert_eq!((code, runs(&daemon).await.as_str()), (Some(0), "two"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_brings_back_the_template_and_nothing_else() {
    let _shared = shared().await;
    undo_brings_back_the_template(On::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_brings_back_the_template_of_containers() {
    let _shared = shared().await;
    let Some(on) = docker_or_skip("undo_brings_back_the_template_of_containers").await else { return };
    undo_brings_back_the_template(on).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_nowhere_is_refused_and_changes_nothing() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let other = daemon.manifest("other", 0, "  route: { pathPrefix: /other }\n");
    daemon.apply(&other).await;
    let refused = async |arguments: &[&str], told: &str| {
        let before = daemon.client.overview().await.unwrap().generation;
        let (code, out, err) = daemon.cli(arguments).await;
        assert!(code == Some(1) && err.contains(told), "{arguments:?}: {code:?} {out}{err}");
        assert_eq!(daemon.client.overview().await.unwrap().generation, before, "{arguments:?}");
    };
    refused(&["rollout", "undo", "web"], "there is no service `web`").await;
    refused(&["rollout", "history", "web"], "there is no service `web`").await;
    daemon.apply_and_converge("web", &version(&daemon, "one", "")).await;
    refused(&["rollout", "undo", "web"], "there is nothing to go back to").await;
    daemon.apply_and_converge("web", &version(&daemon, "two", "")).await;
    daemon.apply_and_converge("web", &version(&daemon, "three", "")).await;
    refused(&["rollout", "undo", "web", "--to-revision", "99"], "revision 99 is not there").await;
    refused(&["rollout", "undo", "web", "--to-revision", "0"], "revision 0 is not there").await;
    refused(&["rollout", "undo", "web", "--to-revision", "1"], "revision 1 has no service `web`").await;
    refused(&["rollout", "undo", "web", "--to-revision", "4"], "runs the template of revision 4").await;

    // What is lost may be what it ran last: that is a person's decision.
    let lost = daemon.setup.state.join("revisions/rev-3");
    let whole = std::fs::read(&lost).unwrap();
    std::fs::remove_file(&lost).unwrap();
    refused(&["rollout", "undo", "web"], "revision 3 is not there, and may hold what `web` ran before").await;
    refused(&["rollout", "undo", "web", "--to-revision", "3"], "revision 3 is not there").await;
    std::fs::write(&lost, &whole[..whole.len() / 2]).unwrap();
    refused(&["rollout", "undo", "web"], "revision 3 is").await;
    let (_, out, _) = daemon.cli(&["rollout", "history", "web"]).await;
    assert!(out.contains("warning: revision 3 is") && out.lines().count() == 4, "{out}");
    assert_eq!(runs(&daemon).await, "three");
    let (code, _, err) = daemon.cli(&["rollout", "undo", "web", "--to-revision", "2"]).await;
    assert_eq!((code, runs(&daemon).await.as_str()), (Some(0), "one"), "{err}");
}
