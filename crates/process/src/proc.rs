//! What `/proc` says: whether a pid still is the process that it was.
//!
//! A pid alone names nothing for long; pid, start time and boot together name one process for ever.

use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::Pid;

use crate::record::ProcessId;

/// The environment variable by which a process is known as a replica, even if the daemon died before it could
/// write down the pid. Its value is the replica's id.
pub(crate) const MARKER: &str = "RINGMASTER_REPLICA";

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    group: i32,
    /// Processor time of it and of those of its children that have ended, in clock ticks.
    used_ticks: u64,
    /// When it started, in clock ticks since boot.
    start_ticks: u64,
}

/// When a process started, in clock ticks since boot; none if there is no such process.
pub(crate) fn start_ticks(pid: Pid) -> Option<u64> {
    Some(stat(pid)?.start_ticks)
}

fn stat(pid: Pid) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
}

fn parse(text: &str) -> Option<Stat> {
    // The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    // What follows it is field 3; the group is field 5, the start time field 22.
    let group = fields.nth(2)?.parse().ok()?;
    // Fields 14 to 17 are the times of the user and the system, of itself and of its children.
    let times: Vec<u64> = fields.by_ref().skip(8).take(4).filter_map(|time| time.parse().ok()).collect();
    let start_ticks = fields.nth(4)?.parse().ok()?;
    Some(Stat { group, used_ticks: times.iter().sum(), start_ticks })
}

/// The processor time that a process has used, and its children that have ended; none if it is not that one any more.
pub(crate) fn cpu_used(process: &ProcessId) -> Option<Duration> {
    let stat = stat(Pid::from_raw(process.pid)?).filter(|stat| stat.start_ticks == process.start_ticks)?;
    let seconds = stat.used_ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64;
    Some(Duration::from_secs_f64(seconds))
}

/// Tells this boot of the machine from all others.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The process that carries the marker with this id, the first of its group.
pub(crate) fn marked(id: &str) -> Option<(Pid, u64)> {
    let wanted = format!("{MARKER}={id}");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        // Its children inherit the marker; the leader of the group is the replica.
        let stat = stat(pid).filter(|stat| stat.group == pid.as_raw_nonzero().get())?;
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let found = environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes());
        found.then_some((pid, stat.start_ticks))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_may_hold_anything() {
        let fields = "S 1 7 7 0 -1 4194560 99 0 0 0 5 6 7 8 20 0 1 0 12345 1000";
        for name in ["cat", "a b", "x) Z (y", ""] {
            assert_eq!(
                parse(&format!("7 ({name}) {fields}")),
                Some(Stat { group: 7, used_ticks: 26, start_ticks: 12345 }),
                "{name}"
            );
        }
        assert_eq!(parse("7 (cat) S 1"), None);
    }

    #[test]
    fn this_test_is_a_running_process() {
        assert!(start_ticks(rustix::process::getpid()).unwrap() > 0);
    }
}
