//! The counters in the Prometheus text format (version 0.0.4), read from the registry when asked for.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use ringmaster_core::{Ordinal, ServiceName};

use crate::registry::{Registry, ServiceEntry, Shared};
use crate::stats::{MemberStats, UpstreamError};

/// Renders all counters. Series of services and members that are no longer published are left out.
pub(crate) fn render(shared: &Shared) -> String {
    shared.with_latest(|registry, _| {
        let mut text = String::new();
        members(&mut text, registry);
        services(&mut text, registry);
        text
    })
}

fn members(text: &mut String, registry: &Registry) {
    let all = || {
        registry.services.iter().flat_map(|(name, service)| {
            service.members.iter().map(move |(ordinal, stats)| (name, *ordinal, &**stats))
        })
    };
    family(text, "requests_total", "counter", "Tries that chose this server.");
    for (service, ordinal, stats) in all() {
        server(text, "requests_total", service, ordinal, "", stats.requests.load(Ordering::Relaxed));
    }
    family(
        text,
        "requests_in_flight",
        "gauge",
        "Requests that have not ended, over all replicas of this server.",
    );
    for (service, ordinal, _) in all() {
        server(text, "requests_in_flight", service, ordinal, "", in_flight(registry, service, ordinal));
    }
    family(text, "upstream_errors_total", "counter", "Tries that this server failed, by reason.");
    for (service, ordinal, stats) in all() {
        errors(text, service, ordinal, stats);
    }
    family(text, "ejections_total", "counter", "How often this server was taken out of the choice.");
    for (service, ordinal, stats) in all() {
        server(text, "ejections_total", service, ordinal, "", stats.ejections.load(Ordering::Relaxed));
    }
    family(
        text,
        "server_ejected",
        "gauge",
        "1 while the published replica of this server is out of the choice.",
    );
    for (replica, entry) in registry.endpoints.iter().filter(|(_, entry)| entry.stats.is_published()) {
        let ejected = u8::from(entry.health.is_ejected());
        server(text, "server_ejected", &replica.service, replica.ordinal, "", ejected);
    }
}

fn errors(text: &mut String, service: &ServiceName, ordinal: Ordinal, stats: &MemberStats) {
    for (error, reason) in UpstreamError::ALL {
        let label = format!(",reason=\"{reason}\"");
        server(text, "upstream_errors_total", service, ordinal, &label, stats.errors(error));
    }
}

fn services(text: &mut String, registry: &Registry) {
    family(text, "replays_total", "counter", "Tries after the first.");
    for (name, ServiceEntry { stats, .. }) in &registry.services {
        let replays = stats.replays.load(Ordering::Relaxed);
        line(text, format_args!("ringmaster_proxy_replays_total{{service=\"{name}\"}} {replays}"));
    }
    family(text, "responses_total", "counter", "Responses to clients, by class of status.");
    for (name, ServiceEntry { stats, .. }) in &registry.services {
        for (class, count) in (1..).zip(stats.responses()) {
            let labels = format_args!("service=\"{name}\",code=\"{class}xx\"");
            line(text, format_args!("ringmaster_proxy_responses_total{{{labels}}} {count}"));
        }
    }
}

fn in_flight(registry: &Registry, service: &ServiceName, ordinal: Ordinal) -> u32 {
    let of_server = registry.endpoints.iter().filter(|(r, _)| r.service == *service && r.ordinal == ordinal);
    of_server.map(|(_, entry)| entry.stats.in_flight()).sum()
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    line(text, format_args!("# HELP ringmaster_proxy_{name} {help}"));
    line(text, format_args!("# TYPE ringmaster_proxy_{name} {kind}"));
}

/// One series of a server. Names of services and reasons need no escaping.
fn server(
    text: &mut String,
    name: &str,
    service: &ServiceName,
    ordinal: Ordinal,
    label: &str,
    value: impl Display,
) {
    let labels = format_args!("service=\"{service}\",server=\"{ordinal}\"{label}");
    line(text, format_args!("ringmaster_proxy_{name}{{{labels}}} {value}"));
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes all that is written to it");
}
