//! Wrong input: one error that names the place, the right exit code, and nothing applied.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::common::{Daemon, On, Setup, cli, free_address, shared};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_manifest_is_refused_with_its_line_and_nothing_is_applied() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 1, "")).await;
    let before = daemon.client.overview().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.yaml");
    let good = daemon.manifest("web", 2, "");
    for (wrong, expected) in [
        (good.replace("replicas: 2", "replcas: 2"), "did you mean `replicas`?"),
        (good.replace("replicas: 2", "replicas: two"), "`two`"),
        (good.replace("replicas: 2", "replicas: 1001"), "1000"),
        (good.replace("memory: 64Mi", "memory: 64mb"), "64mb"),
        (format!("{good}---\n{good}"), "web"),
    ] {
        std::fs::write(&file, &wrong).unwrap();
        for verb in ["apply", "diff", "validate"] {
            let (code, out, err) = daemon.cli(&[verb, "-f", file.to_str().unwrap()]).await;
            assert_eq!(code, Some(2), "{verb}: {out}{err}");
            assert!(err.contains(expected) && err.contains("web.yaml:"), "{verb}: {err}");
        }
        assert!(daemon.try_apply(&wrong).await.is_err(), "the daemon checks for itself");
    }
    let after = daemon.client.overview().await.unwrap();
    assert_eq!((after.generation, &after.services[0].spec), (before.generation, &before.services[0].spec));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_one_line_with_the_cause_and_what_to_do() {
    let _shared = shared().await;
    let nobody = free_address();
    let (code, _, err) = cli(nobody, &["get", "services"]).await;
    assert_eq!((code, err.lines().count()), (Some(3), 1), "{err}");
    assert!(err.contains(&nobody.to_string()) && err.contains("make up"), "{err}");
    let daemon = Daemon::start(On::Process).await;
    for (arguments, expected) in [
        (&["describe", "nothing"][..], "no service `nothing`"),
        (&["scale", "nothing", "--replicas", "2"], "no service `nothing`"),
        (&["logs", "web-7"], "no replica"),
        (&["kill", "web-7"], "no such replica runs"),
        (&["kill", "nonsense"], "<service>-<ordinal>"),
    ] {
        let (code, out, err) = daemon.cli(arguments).await;
        assert!(
            code == Some(1) && err.contains(expected) && err.lines().count() == 1,
            "{arguments:?}: {code:?} {out}{err}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_injected_only_where_they_are_allowed() {
    let _shared = shared().await;
    let (mut setup, _folder) = Setup::new(On::Process);
    setup.faults = false;
    let daemon = Daemon::with(setup).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 1, "")).await;
    let (code, _, err) = daemon.cli(&["kill", "web-0"]).await;
    assert!(code == Some(1) && err.contains("--allow-faults"), "{code:?} {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let _shared = shared().await;
    let (setup, _folder) = Setup::new(On::Process);
    let _taken = TcpListener::bind(setup.listen).unwrap();
    let (code, err) = setup.refused();
    assert!(
        code == Some(1) && err.contains(&setup.listen.to_string()) && err.contains("in use"),
        "{code:?} {err}"
    );
    let (setup, _folder) = Setup::new(On::Process);
    let _taken = TcpListener::bind(setup.admin).unwrap();
    let (code, err) = setup.refused();
    assert!(
        code == Some(1) && err.contains(&setup.admin.to_string()) && err.contains("in use"),
        "{code:?} {err}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metrics_port_in_use_is_named_before_anything_is_touched() {
    let _shared = shared().await;
    let (setup, _folder) = Setup::new(On::Process);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let state = setup.state.clone();
    let (code, err) = setup.with(&["--metrics-listen", &address]).refused();
    assert!(
        code == Some(1)
            && err.contains(&address)
            && err.contains("--metrics-listen")
            && err.contains("in use"),
        "{code:?} {err}"
    );
    assert!(!state.exists(), "a daemon that cannot serve leaves its state alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_api_off_loopback_needs_a_token() {
    let _shared = shared().await;
    let (mut setup, folder) = Setup::new(On::Process);
    setup.admin.set_ip([0, 0, 0, 0].into());
    let (code, err) = setup.refused();
    assert!(code == Some(1) && err.contains("--admin-token-file"), "{code:?} {err}");
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    let (setup, _folder) = Setup::new(On::Process);
    let setup = setup.with(&["--admin-token-file", token.to_str().unwrap()]);
    let admin = setup.admin;
    let mut daemon = setup.command().spawn().unwrap();
    let ask = |token: Option<&'static str>| async move {
        let request = reqwest::Client::new().get(format!("http://{admin}/api/v1/services"));
        let request = token.map_or(request.try_clone().unwrap(), |token| request.bearer_auth(token));
        request.send().await.ok().map(|response| response.status().as_u16())
    };
    let refused = crate::common::eventually("an answer", || ask(None)).await;
    let wrong = ask(Some("0123456789abcdef0123456789abcdeX")).await;
    let right = ask(Some("0123456789abcdef0123456789abcdef")).await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert_eq!((refused, wrong, right), (401, Some(401), Some(200)));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_in_a_browser_are_refused_by_the_admin_api() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    let url = format!("http://{}/api/v1/services", daemon.setup.admin);
    let client = reqwest::Client::new();
    let status = |request: reqwest::RequestBuilder| async { request.send().await.unwrap().status().as_u16() };
    assert_eq!(status(client.get(&url)).await, 200);
    assert_eq!(status(client.get(&url).header("host", "evil.example")).await, 403, "DNS rebinding");
    assert_eq!(status(client.get(&url).header("origin", "http://evil.example")).await, 403, "another page");
    let apply = format!("http://{}/api/v1/apply", daemon.setup.admin);
    let form = client.post(&apply).header("content-type", "text/plain").body("{}");
    assert_eq!(status(form).await, 415, "a form that needs no permission to be sent across sites");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_that_cannot_be_written_is_named() {
    let _shared = shared().await;
    let (mut setup, folder) = Setup::new(On::Process);
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    setup.state = file.join("state");
    let (code, err) = setup.refused();
    assert!(code == Some(1) && err.contains(setup.state.to_str().unwrap()), "{code:?} {err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_be_saved_is_refused_whole() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 1, "")).await;
    // Root may write anywhere, so the folder is taken away instead of its permissions.
    let revisions = daemon.setup.state.join("revisions");
    let aside = daemon.setup.state.join("aside");
    std::fs::rename(&revisions, &aside).unwrap();
    let (code, _, err) = daemon.cli(&["scale", "web", "--replicas", "3"]).await;
    assert!(code == Some(1) && err.contains("nothing was applied"), "{code:?} {err}");
    std::fs::rename(&aside, &revisions).unwrap();
    assert_eq!(std::fs::metadata(&revisions).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(daemon.status("web").await.unwrap().replicas, 1);
    let (code, _, err) = daemon.cli(&["scale", "web", "--replicas", "2"]).await;
    assert_eq!(code, Some(0), "{err}");
}
