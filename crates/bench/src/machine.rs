//! Where it is measured: cores, limits, and what a reader has to know of the machine.

use std::fs;
use std::process::Command;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Which core does what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cores {
    proxy: usize,
    load: usize,
}

/// Of the machine and the source, for a reader.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) commit: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) load_average: String,
    /// Neither packet filters nor other traffic of the machine are in the way.
    pub(crate) has_own_network: bool,
}

impl Cores {
    /// The first two that this process may use; on a machine with one, everything shares it.
    pub(crate) fn of_this_process() -> anyhow::Result<Cores> {
        let allowed = sched_getaffinity(None).context("cannot tell which cores may be used")?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let proxy = usable.next().context("no core may be used")?;
        Ok(Cores { proxy, load: usable.next().unwrap_or(proxy) })
    }

    pub(crate) fn pin_to_load(self) -> anyhow::Result<()> {
        pin(&[self.load])
    }

    /// What this thread starts from now on runs where a proxy of so many workers does, until
    /// [`Cores::pin_to_load`].
    pub(crate) fn pin_to_proxy(self, threads: usize) -> anyhow::Result<()> {
        if threads == 1 { pin(&[self.proxy]) } else { pin(&[self.proxy, self.load]) }
    }
}

fn pin(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    sched_setaffinity(None, &set).with_context(|| format!("cannot stay on the cores {cores:?}"))
}

/// Thousands of connections take as many descriptors, here and in the proxies, which inherit the limit.
pub(crate) fn raise_open_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum.map(|most| most.min(32_768)).or(Some(32_768)), ..limit };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit on open files: see `ulimit -Hn`")
}

/// What a reader has to know.
pub(crate) fn describe() -> Machine {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processor = file("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()));
    let averages = file("/proc/loadavg");
    Machine {
        commit: commit(),
        processor: processor.unwrap_or_else(|| "an unnamed processor".to_owned()),
        cores: std::thread::available_parallelism().map_or(1, usize::from).max(cores_online()),
        kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_average: averages.split(' ').take(3).collect::<Vec<_>>().join(" "),
        has_own_network: has_own_network(),
    }
}

/// Whether there is no interface but the loopback: nothing else of the machine goes by here.
fn has_own_network() -> bool {
    let interfaces = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    // Two lines of headings.
    let mut names = interfaces.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim()));
    names.next() == Some("lo") && names.next().is_none()
}

fn cores_online() -> usize {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count()
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match (git(&["rev-parse", "--short=10", "HEAD"]), git(&["status", "--porcelain", "--untracked-files=no"]))
    {
        (Some(commit), Some(changes)) if changes.is_empty() => commit,
        (Some(commit), _) => format!("{commit} with changes"),
        (None, _) => "unknown".to_owned(),
    }
}
