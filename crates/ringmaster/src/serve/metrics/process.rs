//! The process's own figures, under the names that every Prometheus client gives them. From `/proc`: what cannot be
//! read is left out.

use std::fs;

use ringmaster_core::exposition::{Exposition, Kind};

/// What `/proc` tells of us.
struct Figures {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    start_seconds: f64,
}

/// Writes the families down.
pub(super) fn render(out: &mut Exposition) {
    if let Some(figures) = read() {
        out.family(
            "process_cpu_seconds_total",
            Kind::Counter,
            "Processor time that the process used, of user and system.",
        );
        out.sample(&[], figures.cpu_seconds);
        out.family("process_resident_memory_bytes", Kind::Gauge, "Memory of the process in RAM.");
        out.sample(&[], figures.resident_bytes);
        out.family("process_virtual_memory_bytes", Kind::Gauge, "Address space of the process.");
        out.sample(&[], figures.virtual_bytes);
        out.family("process_threads", Kind::Gauge, "Threads of the process.");
        out.sample(&[], figures.threads);
        out.family(
            "process_start_time_seconds",
            Kind::Gauge,
            "When the process started, in seconds since 1970.",
        );
        out.sample(&[], figures.start_seconds);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        out.family("process_open_fds", Kind::Gauge, "Open file descriptors.");
        // One of them is the folder that is being read.
        out.sample(&[], descriptors.count().saturating_sub(1));
    }
    if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        out.family("process_max_fds", Kind::Gauge, "Most file descriptors that may be open.");
        out.sample(&[], limit);
    }
}

fn read() -> Option<Figures> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    // The name may hold anything; after its closing bracket come numbers, of which `state` is the third field.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Figures {
        cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
        threads: field(20)?,
        start_seconds: boot + field(22)? as f64 / ticks,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * rustix::param::page_size() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_described() {
        let figures = read().expect("/proc is there");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((0.0..3_600.0).contains(&(now - figures.start_seconds)), "{}", figures.start_seconds);
        assert!(figures.resident_bytes > 100_000 && figures.threads >= 1);
    }
}
