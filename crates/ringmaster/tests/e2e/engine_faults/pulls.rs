//! Registries that hang, refuse, fail or talk nonsense: the old release serves on, and what is wrong is told. And replicas that
//! need more memory than they may have.

use std::net::SocketAddr;

use ringmaster_core::Reason;
use ringmaster_core::status::{ConditionKind, ServiceStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::bed::Bed;
use crate::common::{Daemon, On, docker_or_skip, shared};

/// A registry on loopback that does to every image what its name says.
struct Registry {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Registry {
    async fn start() -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // The engine may go away whenever it likes: what it tells is looked at.
                tokio::spawn(async move { drop(answer(stream).await) });
            }
        });
        Registry { address, task }
    }

    fn image(&self, manner: &str) -> String {
        format!("{}/{manner}:dev", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers one request after the other as the name of the image asks for. Loopback registries are first asked by TLS, which
/// this one does not speak, and then without.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut seen = Vec::new();
    loop {
        let mut buffer = [0; 4_096];
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        seen.extend_from_slice(&buffer[..count]);
        if seen[0] == 0x16 {
            return stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
        if !seen.ends_with(b"\r\n\r\n") {
            continue;
        }
        let head = String::from_utf8_lossy(&std::mem::take(&mut seen)).into_owned();
        let says = |status: &str, body: &str| {
            let length = body.len();
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
        };
        let path = head.split(' ').nth(1).unwrap_or_default();
        let text = match path.trim_start_matches("/v2/").split('/').next().unwrap_or_default() {
            "" => says("200 OK", "{}"),
            "hangs" => return std::future::pending().await,
            "closed" => {
                says("401 Unauthorized", r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#)
            }
            "absent" => {
                says("404 Not Found", r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag"}]}"#)
            }
            "broken" => says("500 Internal Server Error", "it burns"),
            _ => "200 OK, or so they say\r\n\r\n".to_owned(),
        };
        stream.write_all(text.as_bytes()).await?;
    }
}

/// A manifest with another image.
fn with_image(daemon: &Daemon, service: &str, image: &str, strategy: &str) -> String {
    let On::Docker(good) = &daemon.setup.on else { unreachable!("started on docker") };
    let yaml = daemon.manifest(service, 2, &format!("  strategy: {{ {strategy} }}\n"));
    yaml.replace(&format!("image: {good}"), &format!("image: {image}"))
}

fn degraded(status: &ServiceStatus, reason: Reason, text: &str) -> bool {
    let degraded = status.condition(ConditionKind::Degraded).filter(|condition| condition.status);
    degraded.is_some_and(|condition| condition.reason == reason && condition.message.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_pulled_is_told_with_the_reason_and_the_old_release_serves_on() {
    let _shared = shared().await;
    let test = "an_image_that_cannot_be_pulled_is_told_with_the_reason_and_the_old_release_serves_on";
    let Some(mut bed) = Bed::start(test, 2).await else { return };
    let registry = Registry::start().await;
    let before = bed.running().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    for (manner, why) in [
        ("closed", "unauthorized"),
        ("absent", "no such tag"),
        ("broken", "500 Internal Server Error"),
        ("garbage", "malformed HTTP"),
    ] {
        let image = registry.image(manner);
        std::fs::write(file.path(), with_image(&bed.daemon, &bed.daemon.web, &image, "")).unwrap();
        // Waiting ends as soon as it is clear that it leads to nothing.
        let (code, _, err) = bed.daemon.cli(&["apply", "--force", "-f", file.path().to_str().unwrap()]).await;
        assert_eq!(code, Some(1), "{manner}: {err}");
        assert!(err.contains(&image) && err.contains(why), "{manner}: {err}");
        let status = bed.daemon.status(&bed.daemon.web).await.unwrap();
        assert!(degraded(&status, Reason::TemplateUnresolved, why), "{manner}: {status:#?}");
        assert_eq!(status.ready, 2, "{manner}");
        bed.serve().await;
    }
    bed.daemon.event("TemplateUnresolved", "malformed HTTP").await;
    bed.scale(2).await;
    assert_eq!(bed.settled("back to what there is").await, before, "nobody was touched");
    bed.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_never_ends_holds_up_no_other_service_and_is_given_up_at_the_deadline() {
    let _shared = shared().await;
    let test = "a_pull_that_never_ends_holds_up_no_other_service_and_is_given_up_at_the_deadline";
    let Some(mut bed) = Bed::start(test, 2).await else { return };
    let registry = Registry::start().await;
    let before = bed.running().await;
    let (web, other) = (bed.daemon.web.clone(), format!("{}x", bed.daemon.web));
    let hangs = with_image(&bed.daemon, &web, &registry.image("hangs"), "progressDeadline: 5s");
    bed.daemon.apply(&hangs).await;
    let pulls = |status: &ServiceStatus| {
        let progress = status.condition(ConditionKind::Progressing).unwrap();
        progress.status && progress.message.contains("still being looked up, or pulled")
    };
    bed.daemon.until(&web, "told that it is pulled", pulls).await;
    // Another service is made and changed meanwhile.
    let route = "  route: { pathPrefix: /other }\n";
    bed.daemon.apply_and_converge(&other, &bed.daemon.manifest(&other, 1, route)).await;
    bed.serve().await;
    bed.daemon
        .event("RolledBack", "no progress for 5s; what its template names is still being looked up")
        .await;
    bed.daemon.until(&web, "back", |s| s.is_converged() && s.rollout.failed.is_some()).await;
    bed.daemon.client.delete(&crate::common::name(&other)).await.unwrap();
    bed.daemon.until_gone(&other).await;
    assert_eq!(bed.settled("back").await, before, "nobody was touched");
    bed.over().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_needs_more_memory_than_its_limit_is_told_with_the_limit() {
    let _shared = shared().await;
    let test = "a_replica_that_needs_more_memory_than_its_limit_is_told_with_the_limit";
    let Some(on) = docker_or_skip(test).await else { return };
    let daemon = Daemon::start(on).await;
    let yaml = daemon.manifest(&daemon.web, 1, "").replace("memory: 64Mi", "memory: 16Mi");
    daemon.apply_and_converge(&daemon.web, &yaml).await;
    // Heads of requests that never end are kept in memory, up to 400 KiB each.
    let address = daemon.replica(&daemon.web, 0).await.address.unwrap();
    let mut held = Vec::new();
    for _ in 0..200 {
        let Ok(mut stream) = TcpStream::connect(&address).await else { break };
        let mut head = b"GET /home HTTP/1.1\r\nx: ".to_vec();
        head.resize(300 << 10, b'x');
        if stream.write_all(&head).await.is_err() {
            break; // It has ended.
        }
        held.push(stream);
    }
    let why =
        "exit code 137, out of memory, it needs more than its limit of 16Mi (template.resources.memory)";
    daemon.event("Failed", why).await;
    let replaced = |s: &ServiceStatus| {
        s.ready == 1 && s.members.iter().any(|m| m.failure.as_ref().is_some_and(|f| f.why == why))
    };
    let status = daemon.until(&daemon.web, "replaced", replaced).await;
    let failure = status.members.iter().find_map(|member| member.failure.as_ref()).unwrap();
    assert_eq!(failure.exit_code, Some(137));
    let (_, out, _) = daemon.cli(&["describe", &daemon.web]).await;
    assert!(out.contains(why), "{out}");
}
