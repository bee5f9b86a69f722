//! What `/proc` says about a process and its children: processor time and memory.

use std::fs;
use std::time::Duration;

/// Processor time since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// All of it: exact where the kernel tells nanoseconds.
    pub(crate) total: Duration,
    /// In units of the kernel's ticks: enough to tell the two apart.
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

/// A process and all below it.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let (mut found, mut open) = (Vec::new(), vec![pid]);
    while let Some(pid) = open.pop() {
        found.push(pid);
        for thread in threads(pid) {
            let children =
                fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).unwrap_or_default();
            open.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    found
}

/// The threads of a process.
pub(crate) fn threads(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The processor time of a process and all below it.
pub(crate) fn cpu(pid: u32) -> Cpu {
    let mut sum = Cpu::default();
    for pid in tree(pid) {
        let (user, system) = stat(pid).unwrap_or_default();
        sum.user += user;
        sum.system += system;
        sum.total += exact(pid).unwrap_or(user + system);
    }
    sum
}

/// Resident memory of a process and all below it, in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let of = |pid| -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    };
    tree(pid).into_iter().filter_map(of).sum()
}

fn stat(pid: u32) -> Option<(Duration, Duration)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    let time =
        |field: usize| Some(Duration::from_secs_f64(fields.get(field)?.parse::<f64>().ok()? / per_second));
    // Fields 14 and 15 of proc(5), counted from 1; three precede the split.
    Some((time(11)?, time(12)?))
}

/// Out of the scheduler's own account, per thread; none where the kernel keeps none.
fn exact(pid: u32) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for thread in threads(pid) {
        let account = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")).ok()?;
        sum += Duration::from_nanos(account.split(' ').next()?.parse().ok()?);
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_own_cost() {
        let pid = std::process::id();
        let before = cpu(pid);
        let mut sum = 0_u64;
        // The account of a thread ends with it, and other tests have threads, too.
        while cpu(pid).total.saturating_sub(before.total) < Duration::from_millis(30) {
            sum = (0..100_000).fold(sum, |sum: u64, n| sum.rotate_left(3) ^ n);
        }
        std::hint::black_box(sum);
        let after = cpu(pid);
        assert!(after.user + after.system > before.user + before.system);
        assert!(resident(pid) > 1 << 19 && tree(pid).contains(&pid) && !threads(pid).is_empty());
    }
}
