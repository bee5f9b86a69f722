//! The rules of routes, within one service and between services.
//!
//! Routes are compared by their meaning and not by their spelling: [`normal_host`] and [`normal_prefix`] are
//! for everyone who compares or matches them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::check::Rules;
use crate::ids::ServiceName;
use crate::spec::RouteSpec;

const HOST_BYTES_MAX: usize = 253;
const HOST_LABEL_BYTES_MAX: usize = 63;

/// Two services that claim the same requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConflict {
    /// The one that came first.
    pub first: ServiceName,
    /// The one that came second.
    pub second: ServiceName,
    /// The host that both claim, as [`normal_host`] spells it.
    pub host: String,
    /// The path prefix that both claim, as [`normal_prefix`] spells it.
    pub prefix: String,
    /// Which of the second one's hosts it is.
    pub host_index: usize,
}

impl fmt::Display for RouteConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RouteConflict { first, second, host, prefix, .. } = self;
        write!(
            f,
            "the services `{first}` and `{second}` both claim the host `{host}` with the path prefix `{prefix}`"
        )
    }
}

/// Every host and prefix that two services claim, in the order in which the services are given.
pub fn route_conflicts<'a>(
    routes: impl IntoIterator<Item = (&'a ServiceName, &'a RouteSpec)>,
) -> Vec<RouteConflict> {
    let mut claims: BTreeMap<(String, &str), &ServiceName> = BTreeMap::new();
    let mut conflicts = Vec::new();
    for (second, route) in routes {
        let prefix = normal_prefix(&route.path_prefix);
        for (host_index, host) in route.hosts.iter().enumerate() {
            let host = normal_host(host);
            match claims.get(&(host.clone(), prefix)) {
                Some(&first) if first != second => conflicts.push(RouteConflict {
                    first: first.clone(),
                    second: second.clone(),
                    host,
                    prefix: prefix.to_owned(),
                    host_index,
                }),
                Some(_) => {}
                None => drop(claims.insert((host, prefix), second)),
            }
        }
    }
    conflicts
}

/// A host in the spelling by which routes are compared: lower case (RFC 9110 section 4.2.3), without the dot of
/// the root.
pub fn normal_host(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// A path prefix in the spelling by which routes are compared: `/api/` is `/api`, since whole segments match.
pub fn normal_prefix(prefix: &str) -> &str {
    match prefix.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    }
}

pub(super) fn route(rules: &mut Rules, route: &RouteSpec) {
    rules.require("hosts", !route.hosts.is_empty(), || "`hosts` names no host; `*` is any".to_owned());
    let mut seen = BTreeSet::new();
    rules.each("hosts", &route.hosts, |rules, host| {
        if let Err((message, suggestion)) = host_form(host) {
            rules.broken(message, suggestion);
        } else if !seen.insert(normal_host(host)) {
            rules.broken(format!("`{host}` is named twice"), Some("remove one of the two"));
        }
    });
    let prefix = route.path_prefix.as_str();
    let plain = prefix.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#'));
    let whole = !prefix.contains("//") && !prefix.split('/').any(|segment| matches!(segment, "." | ".."));
    rules.require("pathPrefix", prefix.starts_with('/') && plain && whole, || {
        format!(
            "`{prefix}` is not a path prefix: it starts with `/` and has no spaces, `?`, `#`, `//` or `..`"
        )
    });
}

fn host_form(host: &str) -> Result<(), (String, Option<&'static str>)> {
    let label = |label: &str| {
        (1..=HOST_LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    if host == "*" || (name.len() <= HOST_BYTES_MAX && name.split('.').all(label)) {
        return Ok(());
    }
    let suggestion = match host {
        _ if host.contains("//") => Some("write the name alone, without scheme and path"),
        _ if host.contains(':') => Some("write the name without the port"),
        _ if host.contains('*') => Some("`*` stands alone, for any host"),
        _ => None,
    };
    Err((format!("`{host}` is not a host name"), suggestion))
}
