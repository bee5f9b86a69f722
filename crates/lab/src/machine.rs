//! What a figure was measured with: the program, its source, the machine, the seed. A number without them is a
//! rumour.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use ringmaster_core::api::DaemonInfo;
use serde::{Deserialize, Serialize};

use crate::options::Options;

/// Where, when and with what an experiment was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// When it began, RFC 3339 in UTC.
    pub began_at: String,
    /// The seed of request ids and arrivals.
    pub seed: u64,
    /// The commit of the source, with `-dirty` if it was changed; `unknown` outside of its repository.
    pub commit: String,
    /// The version of this program.
    pub version: String,
    /// The version of the daemon.
    pub daemon_version: String,
    /// What runs the replicas.
    pub runtime: String,
    /// The machine.
    pub machine: Machine,
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// The processor's own name.
    pub processor: String,
    /// How many of them this program may use.
    pub cores: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The operating system's kernel.
    pub kernel: String,
}

impl Provenance {
    /// Of an experiment that begins now.
    pub fn now(options: &Options, daemon: &DaemonInfo) -> Provenance {
        Provenance {
            began_at: now_text(),
            seed: options.seed,
            commit: commit(&options.program).unwrap_or_else(|| "unknown".to_owned()),
            version: options.version.clone(),
            daemon_version: daemon.version.clone(),
            runtime: daemon.runtime.clone(),
            machine: Machine::this(),
        }
    }

    /// Label and value, for the report.
    pub fn rows(&self) -> Vec<(String, String)> {
        let row = |label: &str, value: String| (label.to_owned(), value);
        vec![
            row("Machine", format!("{} × {}", self.machine.cores, self.machine.processor)),
            row("Memory", format!("{:.1} GiB", self.machine.memory_mib as f64 / 1_024.0)),
            row("Kernel", self.machine.kernel.clone()),
            row("Runtime", self.runtime.clone()),
            row("Version", format!("{} (daemon {})", self.version, self.daemon_version)),
            row("Commit", self.commit.clone()),
            row("Seed", self.seed.to_string()),
        ]
    }
}

impl Machine {
    /// This one; what cannot be found out stays empty.
    pub fn this() -> Machine {
        let field = |file: &str, name: &str| -> Option<String> {
            let text = fs::read_to_string(file).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kib = field("/proc/meminfo", "MemTotal")
            .and_then(|value| value.trim_end_matches(" kB").parse::<u64>().ok());
        let system = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        Machine {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib.unwrap_or_default() / 1_024,
            kernel: format!("{} {}", text(system.sysname()), text(system.release())),
        }
    }
}

/// The time as RFC 3339 in UTC, to the second.
pub(crate) fn now_text() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    jiff::Timestamp::from_second(seconds as i64).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// The commit of the repository in which the program was built, if it still lies there.
fn commit(program: &Path) -> Option<String> {
    let folder = program.parent()?;
    let git = |arguments: &[&str]| -> Option<String> {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let hash = git(&["rev-parse", "--short=12", "HEAD"])?;
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    Some(if dirty { hash + "-dirty" } else { hash })
}
