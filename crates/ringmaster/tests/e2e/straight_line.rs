//! The main job: a manifest becomes healthy replicas that answer requests, by hand of a person with a shell.

use std::collections::BTreeSet;

use ringmaster_core::status::Phase;

use crate::common::{Daemon, On, docker_or_skip, eventually, shared};
use crate::load::Load;

/// Everything that the README shows, on either runtime.
async fn straight_line(on: On) {
    let daemon = Daemon::start(on).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, daemon.manifest(&daemon.web, 3, "  balancing: { hashOn: requestId }\n")).unwrap();

    let (code, out, err) = daemon.cli(&["apply", "-f", path]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let web = &daemon.web;
    assert!(
        out.contains(&format!("service/{web} created")) && out.ends_with("3 of 3 replicas ready\n"),
        "{out}"
    );
    let mut answers = BTreeSet::new();
    for _ in 0..60 {
        answers.insert(daemon.get("/home").await);
    }
    let hello = |id: u32| (200, format!(r#"{{"message":"Hello from Server: {id}","status":"successful"}}"#));
    assert_eq!(answers, (1..=3).map(hello).collect());

    std::fs::write(&file, daemon.manifest(&daemon.web, 5, "  balancing: { hashOn: requestId }\n")).unwrap();
    let (code, out, _) = daemon.cli(&["diff", "-f", path]).await;
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("-  replicas: 3\n+  replicas: 5\n") && out.contains("40.0 % of the keys move"),
        "{out}"
    );
    let (code, out, err) = daemon.cli(&["apply", "-f", path]).await;
    assert_eq!((code, out.ends_with("5 of 5 replicas ready\n")), (Some(0), true), "{out}{err}");
    let (code, out, _) = daemon.cli(&["diff", "-f", path]).await;
    assert_eq!((code, out.as_str()), (Some(0), ""));

    let before = daemon.replica(&daemon.web, 1).await.engine_name;
    let (code, out, err) = daemon.cli(&["kill", &format!("{web}-1")]).await;
    assert_eq!((code, out.as_str()), (Some(0), format!("SIGKILL sent to {web}-1-0\n").as_str()), "{err}");
    let next = format!("{web}-1-1");
    daemon
        .until(&daemon.web, "replaced", |status| {
            status.ready == 5 && status.members.iter().any(|m| m.engine_name.as_deref() == Some(&next))
        })
        .await;
    assert_ne!(daemon.replica(&daemon.web, 1).await.engine_name, before);
    let (_, out, _) = daemon.cli(&["get", "replicas", "-o", "name"]).await;
    assert_eq!(out.lines().collect::<BTreeSet<_>>().len(), 5, "{out}");
    // Its signal is known before its end is: the replacement may be ready before the engine tells of the death.
    daemon.event("Failed", "exit code 137").await;
    let (_, out, _) = daemon.cli(&["describe", &daemon.web]).await;
    assert!(out.contains("exit code 137") && out.contains(&format!("{next} gets traffic")), "{out}");
    let (code, out, _) = daemon.cli(&["logs", &format!("{web}-1"), "--previous"]).await;
    assert_eq!(code, Some(0), "{out}");

    let (code, out, err) = daemon.cli(&["delete", "--all"]).await;
    assert_eq!((code, out.as_str()), (Some(0), format!("service/{web} deleted\n").as_str()), "{err}");
    assert_eq!(daemon.get("/home").await.0, 404, "no service, no route");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_works_with_processes() {
    let _shared = shared().await;
    straight_line(On::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_works_with_docker() {
    let _shared = shared().await;
    let Some(on) = docker_or_skip("the_readme_works_with_docker").await else { return };
    straight_line(on).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_wins_until_the_next_apply_and_diff_shows_the_drift() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let three = daemon.manifest("web", 3, "");
    daemon.apply_and_converge("web", &three).await;
    let (code, _, err) = daemon.cli(&["scale", "web", "--replicas", "1"]).await;
    assert_eq!(code, Some(0), "{err}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yaml");
    std::fs::write(&file, &three).unwrap();
    let (code, out, _) = daemon.cli(&["diff", "-f", file.to_str().unwrap()]).await;
    assert_eq!(code, Some(1));
    assert!(out.contains("-  replicas: 1\n+  replicas: 3\n"), "{out}");
    // A file that does not name the count leaves it as it lives.
    let unnamed = three.replace("  replicas: 3\n", "");
    assert!(!daemon.apply(&unnamed).await.changes());
    assert_eq!(daemon.apply_and_converge("web", &three).await.replicas, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_a_file_no_longer_names_go_only_with_prune() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let web = daemon.manifest("web", 1, "  route: { pathPrefix: / }\n");
    let api = daemon.manifest("api", 1, "  route: { hosts: [api.localhost] }\n");
    daemon.apply_and_converge("api", &format!("{web}---\n{api}")).await;
    daemon.apply(&web).await;
    assert!(daemon.status("api").await.is_some(), "an apply without --prune deletes nothing");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yaml");
    std::fs::write(&file, &web).unwrap();
    let (code, out, err) = daemon.cli(&["apply", "--prune", "-f", file.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("service/api deleted") && daemon.status("api").await.is_none(), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_services_are_routed_by_host_and_path() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let web = daemon.manifest("web", 1, "");
    let api = daemon.manifest("api", 2, "  route: { hosts: [api.localhost], pathPrefix: / }\n");
    daemon.apply_and_converge("web", &format!("{web}---\n{api}")).await;
    daemon.until("api", "ready", |status| status.ready == 2).await;
    let client = reqwest::Client::new();
    for _ in 0..10 {
        let request =
            client.get(format!("http://{}/home", daemon.setup.listen)).header("host", "api.localhost");
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let requests = |status: &ringmaster_core::status::ServiceStatus| {
        status.members.iter().map(|m| m.requests).sum::<u64>()
    };
    daemon.until("api", "counted", |status| requests(status) == 10).await;
    daemon.until("web", "untouched", |status| requests(status) == 0).await;
    let refused = daemon.try_apply(&daemon.manifest("other", 1, "")).await.unwrap_err().to_string();
    assert!(
        refused.contains("`other`") && refused.contains("`web`") && refused.contains("both claim"),
        "{refused}"
    );
}

/// A changed template replaces one replica at a time, new one ready first.
async fn rollout(on: On) {
    let daemon = Daemon::start(on).await;
    daemon.apply_and_converge(&daemon.web, &daemon.manifest(&daemon.web, 3, "")).await;
    let mut load = Load::start(daemon.setup.listen, 200);
    load.more(50).await;
    let changed = daemon
        .manifest(&daemon.web, 3, "")
        .replace("    resources:", "    env: { GREETING: changed }\n    resources:");
    let status = daemon.apply_and_converge(&daemon.web, &changed).await;
    load.more(50).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, [], "of {} requests", outcome.total);
    let names: Vec<_> =
        status.members.iter().filter(|m| m.phase == Phase::Ready).map(|m| m.engine_name.clone()).collect();
    assert_eq!(names, [0, 1, 2].map(|ordinal| Some(format!("{}-{ordinal}-1", daemon.web))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_template_fails_no_request_with_processes() {
    let _shared = shared().await;
    rollout(On::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_template_fails_no_request_with_docker() {
    let _shared = shared().await;
    let Some(on) = docker_or_skip("a_changed_template_fails_no_request_with_docker").await else { return };
    rollout(on).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_exits_at_once_backs_off_and_says_why() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let good = daemon.manifest("web", 2, "");
    daemon.apply_and_converge("web", &good).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yaml");
    std::fs::write(&file, good.replace("[ringmaster, replica]", "[sh, -c, 'echo no luck; exit 3']")).unwrap();
    let (code, _, err) = daemon.cli(&["apply", "-f", file.to_str().unwrap()]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("CrashLoopBackOff: web-0: failed") && err.contains("exit code 3"), "{err}");
    let status = daemon.status("web").await.unwrap();
    assert_eq!(status.ready, 2, "the old revision serves on");
    let output = eventually("its output", || async {
        let (_, out, _) = daemon.cli(&["logs", "web-0", "--previous"]).await;
        out.contains("no luck").then_some(out)
    });
    output.await;
    daemon.apply_and_converge("web", &good).await;
}
