//! What `/proc` says: whether a pid still is the process that it was.
//!
//! A pid alone names nothing for long; pid, start time and boot together name one process for ever.

use std::fs;
use std::io;

use rustix::process::Pid;

/// The environment variable by which a process is known as a replica, even if the daemon died before it could
/// write down the pid. Its value is the replica's id.
pub(crate) const MARKER: &str = "RINGMASTER_REPLICA";

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    group: i32,
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
    let start_ticks = fields.nth(16)?.parse().ok()?;
    Some(Stat { group, start_ticks })
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
        let fields = "S 1 7 7 0 -1 4194560 99 0 0 0 0 0 0 0 20 0 1 0 12345 1000";
        for name in ["cat", "a b", "x) Z (y", ""] {
            assert_eq!(
                parse(&format!("7 ({name}) {fields}")),
                Some(Stat { group: 7, start_ticks: 12345 }),
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
