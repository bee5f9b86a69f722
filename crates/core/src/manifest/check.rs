//! The rules that types cannot express: ranges, forms of text, and what excludes what.
//!
//! They work on the types alone, so that a spec that came as JSON meets the same rules; [`Violation::path`]
//! says where, and the parser finds the line for it. Deliberately absent: what is live, and what an engine will say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::autoscale::autoscale;
use super::balancing::balancing;
use super::probes::{lifecycle, probes};
use super::route::{normal_prefix, route};
use crate::quantity::Span;
use crate::spec::{
    Ejection, GatewaySpec, HedgeAfter, REPLICAS_MAX, SecurityProfile, ServiceSpec, Strategy, StrategyKind,
    Template, Volume,
};

const LOG_FILES_MAX: u32 = 100;
const RETRIES_MAX: u32 = 10;
/// The engine refuses less.
const MEMORY_BYTES_MIN: u64 = 6 << 20;
/// Set by Ringmaster in every replica.
const ENV_RESERVED: [&str; 3] = ["SERVER_ID", "HOSTNAME", "PORT"];

/// A step on the way from a spec to one of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A field of a type.
    Field(&'static str),
    /// A key of a map whose keys are free, such as `env`.
    Key(String),
    /// An item of a list, counted from 0.
    Item(usize),
}

/// A rule that a spec breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The way to the field; begins with `spec`.
    pub path: Vec<Step>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub suggestion: Option<String>,
    /// The byte within the field's text at which it is wrong, if it is not wrong as a whole.
    pub offset: Option<usize>,
}

impl From<&'static str> for Step {
    fn from(field: &'static str) -> Step {
        Step::Field(field)
    }
}

impl From<usize> for Step {
    fn from(item: usize) -> Step {
        Step::Item(item)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", path_text(&self.path), self.message)?;
        if let Some(offset) = self.offset {
            write!(f, ", at byte {offset}")?;
        }
        self.suggestion.as_ref().map_or(Ok(()), |suggestion| write!(f, " ({suggestion})"))
    }
}

/// A path as people write it: `spec.template.volumes[0].target`.
pub(super) fn path_text(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) => text = super::tree::join(&text, name),
            Step::Key(name) => text = super::tree::join(&text, name),
            Step::Item(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// All rules that a service's spec breaks.
pub fn service_violations(spec: &ServiceSpec) -> Vec<Violation> {
    let mut rules = Rules { at: vec!["spec".into()], broken: Vec::new() };
    if let Some(replicas) = spec.replicas {
        rules.require("replicas", replicas <= REPLICAS_MAX, || {
            format!("{replicas} replicas are more than the most of {REPLICAS_MAX}")
        });
    }
    if let Some(scale) = &spec.autoscale {
        autoscale(&mut rules, scale, spec.replicas);
    }
    rules.within("template", |rules| template(rules, &spec.template));
    rules.within("probes", |rules| probes(rules, &spec.probes));
    rules.within("strategy", |rules| strategy(rules, &spec.strategy));
    rules.within("balancing", |rules| balancing(rules, &spec.balancing, spec.replicas));
    rules.within("resilience", |rules| {
        let resilience = &spec.resilience;
        rules.require("retries", resilience.retries <= RETRIES_MAX, || {
            format!("{} retries are more than the most of {RETRIES_MAX}", resilience.retries)
        });
        rules.not_zero("connectTimeout", resilience.connect_timeout);
        rules.not_zero("responseTimeout", resilience.response_timeout);
        rules.not_zero("queueTimeout", resilience.queue_timeout);
        let most = resilience.max_in_flight;
        rules.require("maxInFlight", (1..=1_000_000).contains(&most), || {
            format!("{most} is not between 1 and 1000000")
        });
        let most = resilience.max_queued;
        rules.require("maxQueued", most <= 100_000, || format!("{most} is more than the most of 100000"));
        if let HedgeAfter::After(after) = resilience.hedge_after {
            rules.not_zero("hedgeAfter", after);
        }
        rules.within("ejection", |rules| ejection(rules, &resilience.ejection));
    });
    rules.within("route", |rules| route(rules, &spec.route));
    rules.broken
}

/// All rules that a gateway's spec breaks.
pub fn gateway_violations(spec: &GatewaySpec) -> Vec<Violation> {
    let mut rules = Rules { at: vec!["spec".into()], broken: Vec::new() };
    let (mut names, mut ports) = (BTreeSet::new(), BTreeSet::new());
    rules.each("listeners", &spec.listeners, |rules, listener| {
        rules.port(listener.port);
        rules.require("name", names.insert(&listener.name), || {
            format!("another listener has the name `{}`", listener.name)
        });
        rules.require("port", ports.insert(listener.port), || {
            format!("another listener has the port {}", listener.port)
        });
    });
    rules.within("limits", |rules| {
        rules.not_zero("headerTimeout", spec.limits.header_timeout);
        rules.not_zero("idleTimeout", spec.limits.idle_timeout);
        rules.not_zero("stallTimeout", spec.limits.stall_timeout);
        let connections = spec.limits.connections_per_client;
        rules.require("connectionsPerClient", connections != Some(0), || "0 would let nobody in".to_owned());
    });
    rules.broken
}

fn ejection(rules: &mut Rules, spec: &Ejection) {
    for (field, count) in [("consecutiveErrors", spec.consecutive_errors), ("hedgeLosses", spec.hedge_losses)]
    {
        rules.require(field, count <= 1_000, || format!("{count} is more than the most of 1000"));
    }
    rules.not_zero("time", spec.time);
    rules.require("maxTime", spec.max_time >= spec.time, || {
        format!("`maxTime` of {} is less than `time` of {}", spec.max_time, spec.time)
    });
}

/// Collects violations on the way through a spec.
pub(super) struct Rules {
    at: Vec<Step>,
    broken: Vec<Violation>,
}

impl Rules {
    pub(super) fn within(&mut self, step: impl Into<Step>, rules: impl FnOnce(&mut Rules)) {
        self.within_if(Some(step.into()), rules);
    }

    pub(super) fn within_if(&mut self, step: Option<Step>, rules: impl FnOnce(&mut Rules)) {
        let depth = self.at.len();
        self.at.extend(step);
        rules(self);
        self.at.truncate(depth);
    }

    pub(super) fn each<'a, T>(
        &mut self,
        list: &'static str,
        items: &'a [T],
        mut rules: impl FnMut(&mut Rules, &'a T),
    ) {
        self.within(list, |at_list| {
            for (index, item) in items.iter().enumerate() {
                at_list.within(index, |at_item| rules(at_item, item));
            }
        });
    }

    pub(super) fn broken(&mut self, message: impl Into<String>, suggestion: Option<&str>) {
        self.broken.push(Violation {
            path: self.at.clone(),
            message: message.into(),
            suggestion: suggestion.map(str::to_owned),
            offset: None,
        });
    }

    /// The last rule that was broken, is broken at this byte of the field's text.
    pub(super) fn point_into(&mut self, offset: usize) {
        if let Some(last) = self.broken.last_mut() {
            last.offset = Some(offset);
        }
    }

    pub(super) fn require(&mut self, step: impl Into<Step>, holds: bool, message: impl FnOnce() -> String) {
        if !holds {
            self.within(step, |rules| rules.broken(message(), None));
        }
    }

    fn port(&mut self, port: u16) {
        self.require("port", port > 0, || "a port is a number from 1 to 65535, got `0`".to_owned());
    }

    pub(super) fn not_zero(&mut self, field: &'static str, span: Span) {
        self.require(field, !span.0.is_zero(), || format!("`{field}` must be longer than 0"));
    }

    pub(super) fn at_least_one(&mut self, field: &'static str, count: u32) {
        self.require(field, count > 0, || format!("`{field}` must be at least 1"));
    }

    /// Arguments and values end at a NUL for every program that reads them.
    pub(super) fn no_nul(&mut self, step: impl Into<Step>, text: &str) {
        self.require(step, !text.contains('\0'), || "a NUL character cannot be passed on".to_owned());
    }

    pub(super) fn words(&mut self, field: &'static str, words: &[String]) {
        self.within(field, |rules| {
            for (index, word) in words.iter().enumerate() {
                rules.no_nul(index, word);
            }
        });
    }
}

fn template(rules: &mut Rules, template: &Template) {
    match (&template.image, &template.process) {
        (None, None) => rules.broken(
            "nothing to run: neither `image` nor `process` is given",
            Some("write `image: <name>` for docker, `process: { command: [<program>] }` for processes, or both"),
        ),
        (Some(image), _) => {
            let valid = !image.is_empty() && !image.contains(|c: char| c.is_whitespace() || c.is_control());
            rules.require("image", valid, || format!("`{image}` is not the name of an image"));
        }
        (None, Some(_)) => {}
    }
    if let Some(process) = &template.process {
        rules.within("process", |rules| {
            let program = process.command.first().is_some_and(|program| !program.is_empty());
            rules.require("command", program, || "`command` must begin with a program".to_owned());
            rules.words("command", &process.command);
        });
    }
    rules.port(template.port);
    rules.within("env", |rules| env(rules, &template.env));
    rules.words("command", &template.command);
    rules.words("args", &template.args);
    if let Some(folder) = &template.working_dir {
        rules.require("workingDir", is_absolute(folder), || format!("`{folder}` is not an absolute path"));
    }
    let mut targets = BTreeSet::new();
    rules.each("volumes", &template.volumes, |rules, mount| {
        volume(rules, mount);
        rules.require("target", targets.insert(mount.target.trim_end_matches('/')), || {
            format!("another volume is mounted at `{}`", mount.target)
        });
    });
    rules.within("resources", |rules| {
        let memory = template.resources.memory;
        rules.require("memory", memory.bytes >= MEMORY_BYTES_MIN, || {
            format!("`{memory}` is less memory than the least of 6Mi")
        });
        rules.at_least_one("pids", template.resources.pids);
    });
    user(rules, template);
    rules.within("logs", |rules| {
        rules.require("maxFiles", (1..=LOG_FILES_MAX).contains(&template.logs.max_files), || {
            format!("`maxFiles` is a number from 1 to {LOG_FILES_MAX}")
        });
    });
    rules.within("lifecycle", |rules| lifecycle(rules, &template.lifecycle));
}

fn user(rules: &mut Rules, template: &Template) {
    let Some(user) = &template.user else { return };
    let name = user.split(':').next().unwrap_or_default();
    let root = name == "root" || name.parse() == Ok(0_u32);
    rules.within("user", |rules| {
        if name.is_empty() || user.contains(|c: char| c.is_whitespace() || c.is_control()) {
            rules.broken(format!("`{user}` is not a user: write `uid`, `uid:gid` or a name"), None);
        } else if root && template.security_context.profile == SecurityProfile::Restricted {
            rules.broken(
                format!("the profile `restricted` does not run as root, got `{user}`"),
                Some("name another user, or choose the profile `baseline`"),
            );
        }
    });
}

fn env(rules: &mut Rules, env: &BTreeMap<String, String>) {
    for (name, value) in env {
        rules.within(Step::Key(name.clone()), |rules| {
            if name.is_empty() || name.contains(['=', '\0']) {
                rules.broken("the name of a variable is not empty and has neither `=` nor NUL in it", None);
            } else if ENV_RESERVED.contains(&name.as_str()) {
                rules.broken(format!("`{name}` is set by Ringmaster"), Some("remove the line"));
            } else if value.contains('\0') {
                rules.broken("a NUL character cannot be passed on", None);
            }
        });
    }
}

fn volume(rules: &mut Rules, volume: &Volume) {
    let source = volume.source.as_str();
    let named = source.starts_with(|c: char| c.is_ascii_alphanumeric())
        && source.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    rules.require("source", is_absolute(source) || named, || {
        format!("`{source}` is neither an absolute path nor the name of a volume")
    });
    let target = volume.target.as_str();
    rules.require("target", is_absolute(target) && normal_prefix(target) != "/", || {
        format!("`{target}` is not an absolute path below `/`")
    });
}

fn is_absolute(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0')
}

fn strategy(rules: &mut Rules, strategy: &Strategy) {
    rules.not_zero("progressDeadline", strategy.progress_deadline);
    let (min_ready, deadline) = (strategy.min_ready, strategy.progress_deadline);
    rules.require("minReady", min_ready.0.is_zero() || min_ready < deadline, || {
        format!("`minReady` of {min_ready} must be shorter than `progressDeadline` of {deadline}")
    });
    rules.require("canary", strategy.canary.is_none_or(|share| (1..=99).contains(&share.0)), || {
        "a canary is a share from 1% to 99%".to_owned()
    });
    if strategy.kind == StrategyKind::Recreate {
        let default = Strategy::default();
        let given = [
            ("maxSurge", strategy.max_surge != default.max_surge),
            ("maxUnavailable", strategy.max_unavailable != default.max_unavailable),
            ("canary", strategy.canary.is_some()),
        ];
        for (field, _) in given.into_iter().filter(|(_, given)| *given) {
            rules.within(field, |rules| {
                let message = format!("`recreate` stops all replicas at once: it has no `{field}`");
                rules.broken(message, Some("remove the line, or choose the type `rollingUpdate`"));
            });
        }
    } else if strategy.max_surge.is_zero() && strategy.max_unavailable.is_zero() {
        rules.within("maxUnavailable", |rules| {
            let message = "`maxSurge` and `maxUnavailable` are both 0: nothing could ever be replaced";
            rules.broken(message, Some("let at least one of them be 1"));
        });
    }
}
