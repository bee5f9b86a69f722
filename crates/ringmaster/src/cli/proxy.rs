//! The options of `proxy`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ringmaster_core::spec::{HashKeys, Policy};
use ringmaster_link::Address;

use super::LogFormat;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ringmaster proxy --listen 127.0.0.1:8080 --upstream 127.0.0.1:9001,127.0.0.1:9002\n  \
                        ringmaster proxy --listen 127.0.0.1:8080 --upstream a.example:80,b.example:80 --policy maglev \
                        --hash-on '{ header: X-User-Id }'\n  \
                        ringmaster proxy --listen 127.0.0.1:8080 --config manifests/two-services.yaml \
                        --upstream web=127.0.0.1:9001,127.0.0.1:9002 --upstream api=127.0.0.1:9003\n  ringmaster proxy --controller unix:/run/ringmaster/link.sock --state-dir /var/lib/ringmaster-proxy\n\n\
                        With --controller it needs no engine: snapshots come from there, the last one is kept, and while the \
                        controller is away requests are served on.\n\
                        Fixed upstreams are the ordinals 0, 1, … in the order in which they are named; names of hosts are \
                        looked up once. The same order gives every key to the same upstream in every such proxy."
)]
pub(crate) struct ProxyArgs {
    /// Where to listen; a Gateway in --config may name other ports.
    #[arg(long, env = "RINGMASTER_LISTEN", default_value = "0.0.0.0:5000", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// Threads that serve requests [default: one per core].
    #[arg(long, visible_alias = "workers", env = "RINGMASTER_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// The controller to follow: unix:PATH, or HOST:PORT with a token (`serve --link-listen` says where).
    #[arg(
        long,
        value_name = "unix:PATH|HOST:PORT",
        conflicts_with_all = ["upstreams", "policy", "hash_on", "config"],
        required_unless_present = "upstreams"
    )]
    pub(crate) controller: Option<Address>,
    /// A file with the controller's token, where it wants one.
    #[arg(long, env = "RINGMASTER_LINK_TOKEN_FILE", value_name = "FILE")]
    pub(crate) link_token_file: Option<PathBuf>,
    /// Where the last good snapshot is kept, to start from without it (with --controller) [default: nowhere].
    #[arg(long, env = "RINGMASTER_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// This data plane's name: several that follow one controller need different ones [default: proxy-PORT].
    #[arg(long, value_name = "NAME", requires = "controller")]
    pub(crate) name: Option<String>,
    /// Where requests go: HOST:PORT, separated by commas, after NAME= for a service of --config. May be given several times.
    #[arg(long = "upstream", value_name = "[NAME=]HOST:PORT,…")]
    pub(crate) upstreams: Vec<String>,
    /// Which upstream a request goes to [default: slot-table].
    #[arg(long, value_parser = policy, value_name = "POLICY", conflicts_with = "config")]
    pub(crate) policy: Option<Policy>,
    /// What is hashed, as in manifests: requestId, path, clientIp, '{ header: NAME }' and so on [default: nothing, so the
    /// less loaded of two].
    #[arg(long, value_parser = hash_keys, value_name = "KEY", conflicts_with = "config")]
    pub(crate) hash_on: Option<HashKeys>,
    /// A manifest: the balancing, resilience and route of its services, and the ports of its Gateway. What it says of
    /// templates and replicas is left aside.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where /metrics, /healthz and /readyz of this data plane are served [default: nowhere].
    #[arg(long, env = "RINGMASTER_METRICS_LISTEN", value_name = "ADDR")]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// How long requests in flight may take to end after SIGTERM.
    #[arg(long, default_value = "5s", value_parser = super::span, value_name = "TIME")]
    pub(crate) grace: Duration,
    /// How log lines look.
    #[arg(long, env = "RINGMASTER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Auto)]
    pub(crate) log_format: LogFormat,
}

fn policy(text: &str) -> Result<Policy, String> {
    let found = Policy::ALL.into_iter().find(|policy| policy.name() == text);
    found.ok_or_else(|| {
        let names: Vec<&str> = Policy::ALL.iter().map(|policy| policy.name()).collect();
        format!("use one of {}", names.join(", "))
    })
}

fn hash_keys(text: &str) -> Result<HashKeys, String> {
    let parsed = serde_saphyr::from_str::<HashKeys>(text);
    parsed.map_err(|_| {
        "use requestId, path, clientIp, '{ header: NAME }', '{ cookie: NAME }', '{ setCookie: NAME }', \
         '{ query: NAME }', or a list of them in brackets"
            .to_owned()
    })
}
