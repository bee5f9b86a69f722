//! `top` against a real daemon under load: once, and on a terminal.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Daemon, On, cli, eventually, free_address, shared};
use crate::load::Load;

#[tokio::test(flavor = "multi_thread")]
async fn top_shows_once_what_goes_through() {
    let _shared = shared().await;
    let daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 3, "")).await;
    daemon.client.fault("web-2", "KILL").await.unwrap();
    daemon.until("web", "replaced", |s| s.ready == 3 && s.members.iter().any(|m| m.restarts == 1)).await;
    let mut load = Load::start(daemon.setup.listen, 200);
    load.more(100).await;
    let (code, out, err) = daemon.cli(&["top", "--once"]).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.lines().all(|line| line.chars().count() <= 80), "{out}");
    assert!(
        out.contains("3 of 3 ready") && out.contains("  REPLICA") && out.contains("web-2 Failed"),
        "{out}"
    );
    // Standard output is no terminal here.
    let (code, out, err) = daemon.cli(&["top", "--interval", "2s", "-o", "json"]).await;
    assert_eq!(code, Some(0), "{err}");
    let view: Value = serde_json::from_str(&out).unwrap();
    load.stop().await;
    let rate = view["total"]["requestsPerSecond"].as_f64().unwrap();
    assert!((150.0..250.0).contains(&rate), "{rate} of 200 requests per second: {out}");
    let service = &view["services"][0];
    let (p50, p99) =
        (service["traffic"]["p50Ms"].as_f64().unwrap(), service["traffic"]["p99Ms"].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p99, "{out}");
    let replicas: Vec<&Value> =
        service["replicas"].as_array().unwrap().iter().filter(|r| r["phase"] == "Ready").collect();
    let sum = |field: &str| replicas.iter().map(|replica| replica[field].as_f64().unwrap()).sum::<f64>();
    assert_eq!(replicas.len(), 3, "{out}");
    assert!((sum("share") - 1.0).abs() < 1e-9 && (sum("expected") - 1.0).abs() < 1e-9, "{out}");
    assert!((sum("requestsPerSecond") - rate).abs() < 40.0, "{out}");
    assert!(replicas.iter().any(|replica| replica["restarts"] == 1), "{out}");
    let nobody = free_address();
    let (code, _, err) = cli(nobody, &["top"]).await;
    assert!(code == Some(3) && err.contains(&nobody.to_string()), "{code:?} {err}");
}

/// A program on a terminal of its own, which `script` makes.
struct Terminal {
    child: std::process::Child,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(arguments: &str) -> Terminal {
        let command = format!("stty rows 24 cols 80; exec {} {arguments}", env!("CARGO_BIN_EXE_ringmaster"));
        let mut child = Command::new("script")
            .args(["-qefc", &command, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (seen, mut stdout) = (Arc::new(Mutex::new(String::new())), child.stdout.take().unwrap());
        let sink = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read) = stdout.read(&mut buffer) {
                if read == 0 {
                    return;
                }
                sink.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        });
        Terminal { child, seen }
    }

    /// Awaits a text after what was awaited before.
    async fn shows(&self, text: &str) {
        eventually(text, || async {
            let mut seen = self.seen.lock().unwrap();
            let at = seen.find(text)?;
            seen.drain(..at + text.len());
            Some(())
        })
        .await;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn top_goes_on_when_the_daemon_is_back_and_ends_with_q() {
    let _shared = shared().await;
    let mut daemon = Daemon::start(On::Process).await;
    daemon.apply_and_converge("web", &daemon.manifest("web", 2, "")).await;
    let mut top = Terminal::start(&format!("top --interval 100ms --admin http://{}", daemon.setup.admin));
    top.shows("\u{1b}[?1049h").await;
    top.shows("2 of 2 ready").await;
    top.shows("web-1 ").await;
    daemon.end(Signal::TERM).await;
    top.shows("! these are the last figures: no daemon answers at").await;
    daemon.restart().await;
    daemon.client.scale(&crate::common::name("web"), 3).await.unwrap();
    top.shows("3 of 3 ready").await;
    assert!(top.child.try_wait().unwrap().is_none());
    top.child.stdin.as_mut().unwrap().write_all(b"q").unwrap();
    top.shows("\u{1b}[?25h\u{1b}[?1049l").await;
    let code = eventually("its end", || {
        let ended = top.child.try_wait().unwrap();
        async move { ended }
    });
    assert!(tokio::time::timeout(Duration::from_secs(10), code).await.unwrap().success());
}
