//! What every experiment works with: the daemon, the service, the load, and the promise to leave the service as it
//! was found.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use ringmaster_client::{Client, ClientError};
use ringmaster_core::api::{ApplyRequest, DaemonInfo, ManifestFile, ServiceView};
use ringmaster_core::spec::{API_VERSION, Balancing, ServiceSpec};
use ringmaster_core::status::{ConditionKind, ServiceStatus};
use ringmaster_core::{Generation, ServiceName};
use tokio_util::sync::CancellationToken;

use crate::daemon::{self, OwnDaemon};
use crate::error::LabError;
use crate::load::{self, Outcome, Pace, Plan, Target};
use crate::machine::Provenance;
use crate::options::Options;

/// How long a change of the service may take.
const CONVERGE_DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks at a status.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// After this long a request has failed: longer than a frozen replica's requests wait for its end.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A running experiment.
pub(crate) struct Session {
    pub(crate) options: Options,
    pub(crate) client: Client,
    pub(crate) daemon: DaemonInfo,
    pub(crate) provenance: Provenance,
    pub(crate) cancel: CancellationToken,
    /// The service as it was found.
    pub(crate) found: ServiceView,
    own: Option<OwnDaemon>,
    changed: Cell<bool>,
}

impl Session {
    /// Finds or starts a daemon, and the service.
    pub(crate) async fn open(options: Options, cancel: CancellationToken) -> Result<Session, LabError> {
        let (client, own) = daemon::find(&options, say, &cancel).await?;
        let look = async {
            let daemon = client.version().await?;
            let found = client.service(&options.service).await?;
            Ok::<_, ClientError>((daemon, found))
        };
        let (daemon, found) = match look.await {
            Ok(seen) => seen,
            Err(error) => {
                if let Some(own) = own {
                    own.end().await;
                }
                return Err(error.into());
            }
        };
        let provenance = Provenance::now(&options, &daemon);
        Ok(Session { options, client, daemon, provenance, cancel, found, own, changed: Cell::new(false) })
    }

    pub(crate) fn service(&self) -> &ServiceName {
        &self.options.service
    }

    /// Gives up waiting for something when the experiment is cancelled.
    pub(crate) async fn unless_cancelled<T>(
        &self,
        work: impl Future<Output = Result<T, LabError>>,
    ) -> Result<T, LabError> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(self.interrupted()),
            result = work => result,
        }
    }

    /// An error once the experiment is cancelled.
    pub(crate) fn check(&self) -> Result<(), LabError> {
        if self.cancel.is_cancelled() { Err(self.interrupted()) } else { Ok(()) }
    }

    pub(crate) fn interrupted(&self) -> LabError {
        LabError::Interrupted(self.options.out.display().to_string())
    }

    /// The service as it is now.
    pub(crate) async fn view(&self) -> Result<ServiceView, LabError> {
        Ok(self.client.service(self.service()).await?)
    }

    /// Its status as it is now.
    pub(crate) async fn status(&self) -> Result<ServiceStatus, LabError> {
        self.view().await?.status.ok_or_else(|| LabError::Failed("the daemon has not looked yet".to_owned()))
    }

    /// Changes the service's spec and waits until it is so; returns the service and how long it took.
    pub(crate) async fn change(
        &self,
        edit: impl FnOnce(&mut ServiceSpec),
    ) -> Result<(ServiceView, Duration), LabError> {
        let began = Instant::now();
        let mut spec = self.view().await?.spec;
        edit(&mut spec);
        self.changed.set(true);
        let generation = self.apply(&spec).await?;
        let view = self.unless_cancelled(self.converged(generation)).await?;
        Ok((view, began.elapsed()))
    }

    /// As [`Session::change`], of the balancing alone.
    pub(crate) async fn balance(&self, balancing: &Balancing) -> Result<ServiceView, LabError> {
        let (view, _) = self.change(|spec| spec.balancing = balancing.clone()).await?;
        Ok(view)
    }

    /// As [`Session::change`], of the number of replicas.
    pub(crate) async fn scale(&self, replicas: u32) -> Result<(ServiceView, Duration), LabError> {
        self.change(|spec| spec.replicas = Some(replicas)).await
    }

    async fn apply(&self, spec: &ServiceSpec) -> Result<Generation, LabError> {
        // JSON is YAML.
        let manifest = serde_json::json!({
            "apiVersion": API_VERSION, "kind": "Service", "metadata": { "name": self.service() }, "spec": spec,
        });
        let files = vec![ManifestFile { file: "the lab's edit".to_owned(), text: manifest.to_string() }];
        Ok(self.client.apply(&ApplyRequest { files, ..ApplyRequest::default() }).await?.generation)
    }

    /// Waits until the service is as it should be.
    pub(crate) async fn converged(&self, generation: Generation) -> Result<ServiceView, LabError> {
        let deadline = Instant::now() + CONVERGE_DEADLINE;
        loop {
            let view = self.view().await?;
            let status = view.status.as_ref();
            if status.is_some_and(|status| status.observed_generation >= generation && status.is_converged())
            {
                return Ok(view);
            }
            if Instant::now() > deadline {
                let degraded = status.and_then(|status| status.condition(ConditionKind::Degraded));
                let why = degraded.map_or(String::new(), |degraded| format!(": {}", degraded.message));
                let seconds = CONVERGE_DEADLINE.as_secs();
                let what = format!("service {} is not as asked after {seconds} s{why}", self.service());
                return Err(LabError::Failed(what));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The service as it was found.
    pub(crate) async fn restore(&self) -> Result<(), LabError> {
        if self.changed.get() {
            let generation = self.apply(&self.found.spec).await?;
            self.converged(generation).await?;
        }
        Ok(())
    }

    /// The service as it was found, and our own daemon ended. A second interrupt leaves things as they are.
    pub(crate) async fn close(mut self) -> Result<(), LabError> {
        if let Some(own) = self.own.take() {
            own.end().await;
            return Ok(());
        }
        self.restore().await
    }

    /// Where requests of the service go.
    pub(crate) fn target(&self, view: &ServiceView) -> Result<Target, LabError> {
        let address = match &self.options.target {
            Some(target) => resolve(target)?,
            None => self.listener()?,
        };
        let route = &view.spec.route;
        let host = route.hosts.iter().find(|host| *host != "*");
        let path = if route.path_prefix == "/" { "/home".to_owned() } else { route.path_prefix.clone() };
        Ok(Target {
            address,
            host: host.cloned().unwrap_or_else(|| address.to_string()),
            path,
            keys: view.spec.balancing.hash_on.0.clone(),
        })
    }

    /// The data plane's first listener, by loopback where it listens everywhere.
    fn listener(&self) -> Result<SocketAddr, LabError> {
        let first = self.daemon.listeners.first().map(String::as_str).unwrap_or_default();
        let mut address: SocketAddr = first.parse().map_err(|_| {
            let what = format!(
                "the daemon's data plane does not listen ({first:?}): name its address with --target"
            );
            LabError::Failed(what)
        })?;
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
        }
        Ok(address)
    }

    /// The way to send in words.
    pub(crate) fn sent(&self) -> String {
        match self.options.rate {
            Some(rate) => format!("as an open loop at {rate}/s"),
            None => format!("{} at a time", self.options.concurrency),
        }
    }

    /// The way to send that the options ask for.
    pub(crate) fn pace(&self) -> Pace {
        match self.options.rate {
            Some(per_second) => {
                let stop = CancellationToken::new();
                stop.cancel();
                Pace::Open { per_second, stop }
            }
            None => Pace::Waves { concurrency: self.options.concurrency },
        }
    }

    /// Sends a load and waits for its end, or until the experiment is cancelled: then what has ended is the
    /// outcome, and the caller keeps it before it asks [`Session::check`].
    pub(crate) async fn load(
        &self,
        what: &str,
        target: Target,
        seed: u64,
        requests: usize,
        pace: Pace,
    ) -> Result<Outcome, LabError> {
        let plan = Plan { target, seed, requests, pace, timeout: REQUEST_TIMEOUT };
        let bar = progress(what, requests as u64);
        let outcome = load::run(plan, bar.clone(), self.cancel.clone()).await?;
        bar.finish_and_clear();
        if outcome.unnamed > 0 {
            return Err(LabError::Failed(format!(
                "{} answers do not say which replica they are from: let the proxy say it with \
                 `route: {{ replicaHeader: true }}` in the manifest of {}",
                outcome.unnamed,
                self.service()
            )));
        }
        Ok(outcome)
    }
}

/// A line for people, above the progress bars.
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// A bar with rate and time left; hidden where nobody watches.
pub(crate) fn progress(what: &str, total: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg:32} {bar:30} {pos:>7}/{len:7} {per_sec:>12} {eta:>4} left")
            .expect("the template is valid");
    ProgressBar::new(total).with_style(style).with_message(what.to_owned())
}

/// `http://host:port` or `host:port`.
fn resolve(target: &str) -> Result<SocketAddr, LabError> {
    let authority = target.strip_prefix("http://").unwrap_or(target).trim_end_matches('/');
    let found = authority.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    found.ok_or_else(|| {
        LabError::Input(format!("--target {target}: not an address such as http://127.0.0.1:5000"))
    })
}
