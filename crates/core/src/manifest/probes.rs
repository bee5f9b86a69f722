//! The rules of probes and of how a replica ends.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::{Rules, Step};
use crate::spec::{Exec, HttpGet, Lifecycle, PreStop, Probe, Probes};

/// Asking more often costs more than it tells.
const PERIOD_MIN: Duration = Duration::from_millis(10);
const THRESHOLD_MAX: u32 = 1_000;
const HEADERS_MAX: usize = 32;
/// Longest text that an answer's body is searched for, and longest value of a header field, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;
/// Fields that say how the request itself is framed.
const HEADERS_RESERVED: [&str; 4] = ["connection", "content-length", "transfer-encoding", "upgrade"];

pub(super) fn probes(rules: &mut Rules, probes: &Probes) {
    let all = [
        ("startup", probes.startup.as_ref()),
        ("readiness", Some(&probes.readiness)),
        ("liveness", probes.liveness.as_ref()),
    ];
    for (field, spec) in all {
        let Some(spec) = spec else { continue };
        rules.within(field, |rules| {
            probe(rules, spec);
            let once = field == "readiness" || spec.success_threshold <= 1;
            rules.require("successThreshold", once, || {
                format!("one success is enough for `{field}`: `successThreshold` is for `readiness` alone")
            });
        });
    }
}

pub(super) fn lifecycle(rules: &mut Rules, lifecycle: &Lifecycle) {
    rules.within("preStop", |rules| match &lifecycle.pre_stop {
        Some(PreStop::Exec(command)) => exec(rules, command),
        Some(PreStop::HttpGet(get)) => http_get(rules, get),
        None => {}
    });
}

fn probe(rules: &mut Rules, probe: &Probe) {
    let kinds = [
        ("httpGet", probe.http_get.is_some()),
        ("tcpSocket", probe.tcp_socket.is_some()),
        ("exec", probe.exec.is_some()),
    ];
    let given: Vec<&'static str> =
        kinds.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name).collect();
    for extra in given.iter().skip(1) {
        rules.within(*extra, |rules| {
            let message = format!("a probe is either `{}` or `{extra}`", given[0]);
            rules.broken(message, Some("remove one of the two"));
        });
    }
    if let Some(get) = &probe.http_get {
        http_get(rules, get);
    }
    if let Some(command) = &probe.exec {
        exec(rules, command);
    }
    rules.not_zero("period", probe.period);
    rules.require("period", probe.period.0.is_zero() || probe.period.0 >= PERIOD_MIN, || {
        format!("`period` of {} is shorter than the least of 10ms", probe.period)
    });
    rules.not_zero("timeout", probe.timeout);
    for (field, count) in
        [("failureThreshold", probe.failure_threshold), ("successThreshold", probe.success_threshold)]
    {
        rules.at_least_one(field, count);
        rules.require(field, count <= THRESHOLD_MAX, || {
            format!("`{field}` of {count} is more than the most of {THRESHOLD_MAX}")
        });
    }
}

fn http_get(rules: &mut Rules, get: &HttpGet) {
    rules.within("httpGet", |rules| {
        let path = get.path.as_str();
        let printable = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        rules.require("path", path.starts_with('/') && printable, || {
            format!("`{path}` is not a path: it starts with `/` and has no spaces")
        });
        rules.within("headers", |rules| headers(rules, &get.headers));
        if let Some(text) = &get.body_contains {
            rules.require("bodyContains", (1..=TEXT_BYTES_MAX).contains(&text.len()), || {
                format!("`bodyContains` is a text of 1 to {TEXT_BYTES_MAX} bytes, got {}", text.len())
            });
        }
    });
}

fn headers(rules: &mut Rules, headers: &BTreeMap<String, String>) {
    if headers.len() > HEADERS_MAX {
        rules.broken(format!("{} fields are more than the most of {HEADERS_MAX}", headers.len()), None);
    }
    for (name, value) in headers {
        rules.within(Step::Key(name.clone()), |rules| {
            if !is_token(name) {
                rules.broken(format!("`{name}` is not the name of a header field"), None);
            } else if HEADERS_RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
                rules.broken(format!("`{name}` is set by Ringmaster"), Some("remove the line"));
            } else if value.len() > TEXT_BYTES_MAX || !value.bytes().all(|b| matches!(b, b' '..=b'~')) {
                let message = format!("a value is at most {TEXT_BYTES_MAX} printable ASCII characters");
                rules.broken(message, None);
            }
        });
    }
}

/// RFC 9110 section 5.6.2; a cookie's name is a token too (RFC 6265 section 4.1.1).
pub(super) fn is_token(text: &str) -> bool {
    let is_special = |b: u8| b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || is_special(b))
}

fn exec(rules: &mut Rules, exec: &Exec) {
    rules.within("exec", |rules| {
        let program = exec.command.first().is_some_and(|program| !program.is_empty());
        rules.require("command", program, || "`command` must begin with a program".to_owned());
        rules.words("command", &exec.command);
    });
}
