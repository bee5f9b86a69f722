//! The command line: every verb, option and default, with help that has examples.

mod lab;
mod proxy;
mod rollout;
mod serve;
mod simulate;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringmaster_core::quantity::Span;

pub(crate) use lab::{Lab, LabExperiment};
pub(crate) use proxy::ProxyArgs;
pub(crate) use rollout::{Rollout, RolloutOf, Top, Undo};
pub(crate) use serve::{DataPlaneMode, RuntimeChoice, Serve};
pub(crate) use simulate::{Faults, Simulate};

/// Keeps N healthy replicas running on Docker and balances HTTP over them with consistent hashing.
#[derive(Debug, Parser)]
#[command(
    name = "ringmaster",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 it did not work out (or `diff` found a difference), 2 the input is wrong \
                  and nothing was applied, 3 no daemon answers.\n\n\
                  Examples:\n  \
                  ringmaster apply -f manifests/replicas.yaml\n  \
                  ringmaster get replicas -w\n  \
                  ringmaster diff -f manifests/replicas.yaml\n  \
                  ringmaster kill web-1"
)]
pub(crate) struct Cli {
    /// The daemon's admin API: where it is, or for `serve` where it listens (off loopback it needs a token).
    #[arg(
        long,
        global = true,
        env = "RINGMASTER_ADMIN",
        default_value = "http://127.0.0.1:5001",
        value_name = "URL|ADDR"
    )]
    pub(crate) admin: String,
    /// A file with the admin API's token, where it needs one.
    #[arg(long, global = true, env = "RINGMASTER_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the daemon: the controller and the data plane.
    Serve(Box<Serve>),
    /// Run the data plane alone: over fixed upstreams, or following a controller.
    Proxy(Box<ProxyArgs>),
    /// Make the desired state what a manifest says, and wait until it is so.
    #[command(after_help = "Examples:\n  ringmaster apply -f manifests/replicas.yaml\n  \
                            ringmaster apply -f web.yaml -f api.yaml --prune\n  ringmaster apply -f web.yaml --max-move 25%\n  \
                            cat web.yaml | ringmaster apply -f -")]
    Apply(Apply),
    /// Show what `apply` would change; exits 1 when something would.
    #[command(after_help = "Example:\n  ringmaster diff -f manifests/replicas.yaml")]
    Diff(Diff),
    /// List services or replicas.
    #[command(
        after_help = "Examples:\n  ringmaster get replicas -o wide\n  ringmaster get services web -o yaml\n  \
                            ringmaster get replicas -w"
    )]
    Get(Get),
    /// Show one service in full: conditions, replicas, events.
    #[command(after_help = "Example:\n  ringmaster describe web")]
    Describe {
        /// The service.
        service: String,
    },
    /// Set the number of replicas until the next `apply` that names it.
    #[command(after_help = "Example:\n  ringmaster scale web --replicas 5")]
    Scale(Scale),
    /// Delete services and their replicas.
    #[command(
        after_help = "Examples:\n  ringmaster delete web\n  ringmaster delete --all\n  ringmaster delete --force web"
    )]
    Delete(Delete),
    /// Show the output of a replica.
    #[command(
        after_help = "Examples:\n  ringmaster logs web-1\n  ringmaster logs web-1 --previous --lines 20"
    )]
    Logs(Logs),
    /// Show which replica owns which share of the keys.
    #[command(
        after_help = "Examples:\n  ringmaster ring web\n  ringmaster ring -f manifests/assignment.yaml --replicas 6"
    )]
    Ring(RingOf),
    /// Show why a key goes to its replica, who is passed over, and who comes next.
    #[command(after_help = "Examples:\n  ringmaster explain web --key user-42\n  \
                            ringmaster explain -f manifests/assignment.yaml --key 132574")]
    Explain {
        #[command(flatten)]
        of: RingOf,
        /// The key: what the service hashes, such as a user's name or a request id.
        #[arg(long)]
        key: String,
    },
    /// Show what happened, and why.
    #[command(after_help = "Example:\n  ringmaster events -w")]
    Events {
        /// Go on showing new events.
        #[arg(short, long)]
        watch: bool,
        /// How to print them.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Show the services, their replicas and their traffic as they change; q ends it.
    #[command(after_help = "Examples:\n  ringmaster top\n  ringmaster top --interval 500ms\n  \
                            ringmaster top --once -o json\n\n\
                            Rates are over the last interval. Where standard output is no terminal it prints one table and \
                            ends, as with --once.")]
    Top(Top),
    /// Follow a service's rollouts, hold them, promote a canary, and go back to an earlier template.
    #[command(subcommand)]
    Rollout(Rollout),
    /// Show what the daemon logs, or make it log something else until it ends.
    #[command(after_help = "Examples:\n  ringmaster log-level\n  ringmaster log-level debug\n  \
                            ringmaster log-level info,ringmaster_proxy=debug")]
    LogLevel {
        /// A level (off, error, warn, info, debug, trace), or `target=level` with commas between.
        filter: Option<String>,
    },
    /// Inject a fault: send a signal to a replica's process (the daemon needs --allow-faults).
    #[command(after_help = "Examples:\n  ringmaster kill web-1\n  ringmaster kill web-1 --signal STOP")]
    Kill {
        /// The replica, as `<service>-<ordinal>`: `web-1` is ordinal 1.
        replica: String,
        /// The signal.
        #[arg(long, value_enum, default_value_t = SignalName::Kill, ignore_case = true)]
        signal: SignalName,
    },
    /// Run an experiment on a service: distribution, scaling, failures, hash functions.
    #[command(after_help = "Examples:\n  ringmaster lab a1 --runs 20\n  ringmaster lab a3 --out results\n  \
                            ringmaster lab a4 --request-hash '11*i + 5' --server-hash 'i*i + 57*j'\n\n\
                            Results are written to the folder of --out: aN.json, aN.csv, charts as SVG and PNG, and \
                            report.html.\nExit codes: 0 every promise held, 4 one did not, 1 it did not work out, 2 wrong \
                            input, 3 no daemon, 130 interrupted.")]
    Lab(Box<Lab>),
    /// Check manifests without a daemon.
    #[command(after_help = "Example:\n  ringmaster validate -f manifests/replicas.yaml")]
    Validate {
        /// A manifest; `-` is standard input.
        #[arg(short, long = "file", required = true, value_name = "FILE|-")]
        files: Vec<String>,
    },
    /// Try the controller's promises on manifests, in a simulated world of faults, without a daemon.
    #[command(after_help = "Examples:\n  ringmaster simulate -f manifests/replicas.yaml\n  \
                            ringmaster simulate --faults killed,engine-away,controller-killed --seeds 5000\n  \
                            ringmaster simulate -f manifests/replicas.yaml --seed 42\n\n\
                            The decisions are the real ones; the engine, the data plane, people and time are modelled. The \
                            same seed is the same run.\nExit codes: 0 every promise held, 4 one did not, 2 wrong input.")]
    Simulate(Simulate),
    /// Print the JSON Schema of manifests.
    Schema,
    /// Run the demo server (PORT and SERVER_ID from the environment).
    Replica,
    /// Say whether a daemon, or a data plane apart with --metrics-listen, is there: exits 0 or 3.
    #[command(
        after_help = "Examples:\n  ringmaster health\n  ringmaster health --admin http://127.0.0.1:5002"
    )]
    Health,
    /// Print the versions of this program and of the daemon.
    Version,
    /// Print a shell completion script.
    #[command(after_help = "Example:\n  ringmaster completions bash > /etc/bash_completion.d/ringmaster")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people on a terminal, else JSON.
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Whether to wait, and how long.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Do not wait until it is so.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// How long to wait.
    #[arg(long, default_value = "5m", value_parser = span, value_name = "TIME")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// A manifest; `-` is standard input. May be given several times.
    #[arg(short, long = "file", required = true, value_name = "FILE|-")]
    pub(crate) files: Vec<String>,
    /// Delete services that the files do not name.
    #[arg(long)]
    pub(crate) prune: bool,
    /// Refuse a change by which more than this share of a service's keys moves to another replica.
    #[arg(long, value_parser = share, value_name = "PERCENT")]
    pub(crate) max_move: Option<f64>,
    /// Take up another template even while a rollout is under way, and one that has failed before.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// A manifest; `-` is standard input. May be given several times.
    #[arg(short, long = "file", required = true, value_name = "FILE|-")]
    pub(crate) files: Vec<String>,
    /// Show services that the files do not name as deleted.
    #[arg(long)]
    pub(crate) prune: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// What to list.
    #[arg(value_enum)]
    pub(crate) what: Listed,
    /// Only this one.
    pub(crate) name: Option<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Go on showing changes.
    #[arg(short, long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listed {
    /// Services.
    #[value(alias = "service", alias = "svc")]
    Services,
    /// Replicas.
    #[value(alias = "replica", alias = "pods")]
    Replicas,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Names alone.
    Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SignalName {
    Kill,
    Term,
    Stop,
    Cont,
}

#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// The service.
    pub(crate) service: String,
    /// How many replicas.
    #[arg(long)]
    pub(crate) replicas: u32,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct RingOf {
    /// A service of the daemon.
    #[arg(required_unless_present = "file")]
    pub(crate) service: Option<String>,
    /// A manifest instead, without a daemon; `-` is standard input. The service is named where it has several.
    #[arg(short, long, value_name = "FILE|-")]
    pub(crate) file: Option<String>,
    /// As if there were so many replicas.
    #[arg(long)]
    pub(crate) replicas: Option<u32>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The services.
    #[arg(required_unless_present = "all")]
    pub(crate) services: Vec<String>,
    /// All services.
    #[arg(long, conflicts_with = "services")]
    pub(crate) all: bool,
    /// Do not wait until the data plane has let go of the replicas: for one that is gone for good. Requests that are in
    /// flight fail.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The replica, as `<service>-<ordinal>`.
    pub(crate) replica: String,
    /// How many lines.
    #[arg(long, default_value_t = 100)]
    pub(crate) lines: usize,
    /// Of the replica that ended before.
    #[arg(long)]
    pub(crate) previous: bool,
}

/// `25%` or `0.25`.
fn share(text: &str) -> Result<f64, String> {
    let number = |text: &str, whole: f64| text.trim().parse::<f64>().ok().map(|number| number / whole);
    let share = match text.strip_suffix('%') {
        Some(percent) => number(percent, 100.0),
        None => number(text, 1.0),
    };
    let share = share.filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a share is written as `25%`, from 0% to 100%, or as `0.25`".to_owned())
}

fn span(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(|span| span.0).map_err(|error| error.to_string())
}
