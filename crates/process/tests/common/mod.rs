//! A folder of its own for each test; what runs in it is ended when the test ends.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringmaster_core::ServiceName;
use ringmaster_core::spec::{ProcessTemplate, Template};
use ringmaster_process::{ProcessConfig, ProcessRuntime};
use ringmaster_runtime::ErrorKind;
use ringmaster_runtime::conformance::Fixture;
use rustix::process::{Pid, Signal, kill_process_group};

/// What a test of the process runtime needs.
pub(crate) struct Bench {
    pub(crate) config: ProcessConfig,
    pub(crate) runtime: ProcessRuntime,
    pub(crate) fixture: Fixture,
    pub(crate) folder: Folder,
}

impl Bench {
    pub(crate) async fn open() -> Bench {
        let folder = Folder::new();
        let config = ProcessConfig {
            dir: folder.0.join("replicas"),
            daemon: replica_binary(),
            instance: "test".to_owned(),
        };
        let runtime = ProcessRuntime::open(config.clone()).await.unwrap();
        let fixture = fixture(&folder.0);
        Bench { config, runtime, fixture, folder }
    }
}

/// A folder under the system's temporary one; dropping it ends every process that is recorded below it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringmaster-process-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.0.join("replicas")).into_iter().flatten().flatten() {
            let Ok(text) = fs::read(entry.path()) else { continue };
            let Ok(record) = serde_json::from_slice::<serde_json::Value>(&text) else { continue };
            let running = record["exit"].is_null();
            let pid = record["process"]["pid"].as_i64().and_then(|pid| Pid::from_raw(pid as i32));
            if let (true, Some(pid)) = (running, pid)
                && let Err(error) = kill_process_group(pid, Signal::KILL)
            {
                eprintln!("a replica had ended: {error}");
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("the test left {} behind: {error}", self.0.display());
        }
    }
}

/// The demo replica's binary, in the folder that the running test was built into.
pub(crate) fn replica_binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let binary = test.parent().and_then(Path::parent).unwrap().join("ringmaster-replica");
    assert!(binary.is_file(), "{} is missing: run `cargo build -p ringmaster-replica`", binary.display());
    binary
}

/// A template that runs a command.
pub(crate) fn template(command: &[&str]) -> Template {
    let mut template: Template = serde_json::from_str("{}").unwrap();
    template.process =
        Some(ProcessTemplate { command: command.iter().map(|&word| word.to_owned()).collect() });
    template
}

/// A file that looks like a program and cannot be started.
fn broken_program(folder: &Path) -> PathBuf {
    let path = folder.join("broken");
    fs::write(&path, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn fixture(folder: &Path) -> Fixture {
    Fixture {
        service: ServiceName::new("web").unwrap(),
        runs: template(&["ringmaster"]),
        exits: template(&["ringmaster", "--no-such-argument"]),
        cannot_start: template(&[broken_program(folder).to_str().unwrap()]),
        missing: template(&["no-such-program-anywhere"]),
        missing_kind: ErrorKind::Invalid,
        asks: ["ringmaster", "check"].map(str::to_owned).to_vec(),
        fails: ["ringmaster", "--no-such-argument"].map(str::to_owned).to_vec(),
        sees_signals: false,
        deadline: Duration::from_secs(30),
    }
}
