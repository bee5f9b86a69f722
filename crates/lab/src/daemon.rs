//! The daemon that an experiment talks to: the one that runs, or one brought up for it and ended after it.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringmaster_client::{Client, ClientError};
use ringmaster_core::ServiceName;
use ringmaster_core::api::{ApplyRequest, ManifestFile};
use ringmaster_core::status::ConditionKind;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::error::LabError;
use crate::options::Options;

/// What a daemon of our own serves: the manifest that `make up` applies.
const MANIFEST: &str = include_str!("../../../manifests/replicas.yaml");
/// How long a new daemon may take until it answers, and until its replicas are ready.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long it may take to end by itself.
const END_DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Lines of the daemon's log that an error shows.
const LOG_LINES: usize = 3;

/// A daemon that was started for an experiment.
#[derive(Debug)]
pub(crate) struct OwnDaemon {
    child: Child,
    client: Client,
    service: ServiceName,
    /// Its state and its log; removed last.
    folder: TempDir,
}

/// The daemon that answers at `--admin`, or one of our own if nobody asked for that one.
pub(crate) async fn find(
    options: &Options,
    say: impl Fn(&str),
    cancel: &CancellationToken,
) -> Result<(Client, Option<OwnDaemon>), LabError> {
    let client = Client::new(&options.admin, options.token.clone())?;
    match client.version().await {
        Ok(_) => return Ok((client, None)),
        Err(error @ ClientError::Unreachable { .. }) if options.admin_given => return Err(error.into()),
        Err(ClientError::Unreachable { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    say("no daemon runs: starting one for this experiment");
    let docker = OwnDaemon::start(options, "auto", cancel).await;
    let (reason, on_docker) = match docker {
        Ok(own) => return Ok((own.client.clone(), Some(own))),
        Err((reason @ (LabError::Interrupted(_) | LabError::Input(_)), _)) => return Err(reason),
        Err((reason, on_docker)) => (reason, on_docker),
    };
    if !on_docker {
        return Err(reason);
    }
    say(&format!("docker does not run the service ({reason}): taking processes instead"));
    let own = OwnDaemon::start(options, "process", cancel).await.map_err(|(reason, _)| reason)?;
    Ok((own.client.clone(), Some(own)))
}

impl OwnDaemon {
    /// Starts one and waits until its service is ready. A failure says whether it ran on Docker.
    async fn start(
        options: &Options,
        runtime: &str,
        cancel: &CancellationToken,
    ) -> Result<OwnDaemon, (LabError, bool)> {
        let mut own = OwnDaemon::spawn(options, runtime).map_err(|error| (error, false))?;
        let ready = tokio::select! {
            () = cancel.cancelled() => Err(LabError::Interrupted(options.out.display().to_string())),
            ready = own.serve(options) => ready,
        };
        if let Err(error) = ready {
            let on_docker = own.client.version().await.is_ok_and(|info| info.runtime == "docker");
            own.end().await;
            return Err((error, on_docker));
        }
        Ok(own)
    }

    fn spawn(options: &Options, runtime: &str) -> Result<OwnDaemon, LabError> {
        let folder =
            TempDir::with_prefix("ringmaster-lab-").map_err(LabError::io("make a folder for a daemon"))?;
        let log =
            File::create(folder.path().join("daemon.log")).map_err(LabError::io("make a daemon's log"))?;
        let errors = log.try_clone().map_err(LabError::io("make a daemon's log"))?;
        let (listen, admin) = (free_address()?, free_address()?);
        let child = Command::new(&options.program)
            .env_remove("RINGMASTER_MANIFEST")
            .env_remove("RINGMASTER_ADMIN_TOKEN_FILE")
            .args(["serve", "--allow-faults", "--log-format", "json", "--runtime", runtime])
            .args(["--listen", &listen.to_string(), "--admin", &admin.to_string()])
            .args(["--instance", &format!("lab-{}", admin.port()), "--state-dir"])
            .arg(folder.path().join("state"))
            // Ctrl-C is for the experiment, which ends the daemon when its replicas are gone.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(LabError::io(format!("start {}", options.program.display())))?;
        let client = Client::new(&format!("http://{admin}"), None)?;
        Ok(OwnDaemon { child, client, service: options.service.clone(), folder })
    }

    /// Waits until it answers, gives it the manifest, and waits until the service is as it should be.
    async fn serve(&mut self, options: &Options) -> Result<(), LabError> {
        let deadline = Instant::now() + START_DEADLINE;
        while self.client.version().await.is_err() {
            let ended = self.child.try_wait().map_err(LabError::io("wait for the daemon"))?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(LabError::Failed(format!("the daemon does not start: {}", self.last_words())));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let text = options.manifest.clone().unwrap_or_else(|| MANIFEST.to_owned());
        let files = vec![ManifestFile { file: "the lab's manifest".to_owned(), text }];
        self.client.apply(&ApplyRequest { files, ..ApplyRequest::default() }).await?;
        loop {
            let view = self.client.service(&self.service).await?;
            if let Some(status) = view.status.filter(|status| status.observed_generation >= view.generation) {
                if status.is_converged() {
                    return Ok(());
                }
                let degraded = status.condition(ConditionKind::Degraded).filter(|degraded| degraded.status);
                if let Some(degraded) = degraded {
                    return Err(LabError::Failed(degraded.message.clone()));
                }
            }
            if Instant::now() > deadline {
                return Err(LabError::Failed("its replicas are not ready after a minute".to_owned()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Removes its replicas, which would outlive it, and ends it.
    pub(crate) async fn end(mut self) {
        let deadline = Instant::now() + END_DEADLINE;
        if self.client.delete(&self.service).await.is_ok() {
            while self.client.service(&self.service).await.is_ok() && Instant::now() < deadline {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        // It may have ended by itself: then there is nothing to signal.
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap_or_default();
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A loopback address with a port that was free a moment ago.
fn free_address() -> Result<SocketAddr, LabError> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(LabError::io("find a free port on 127.0.0.1"))
}
