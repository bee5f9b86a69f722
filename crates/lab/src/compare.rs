//! compare: the same load through haproxy and nginx where they are installed, with a consistent hash on the same
//! key: distribution, latency, and what a kill -9 costs their users.
//!
//! They get the replicas' addresses of the moment, in a configuration written to a temporary folder, and are ended
//! with it. They cannot follow a replacement to another address; what is compared is the moment of the death.

mod peers;
mod view;

use std::collections::BTreeMap;
use std::time::Duration;

use ringmaster_core::Ordinal;
use ringmaster_core::status::Phase;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::LabError;
use crate::load::{self, Latency, Outcome, Pace, Plan, Target};
use crate::machine::Provenance;
use crate::measure::{Check, Counted, Verdict, count};
use crate::output::Folder;
use crate::predict::Prediction;
use crate::session::{Session, progress, say};
use peers::{Backend, Peer};

/// The open loop that measures latencies and failures.
const RATE: f64 = 1_000.0;
const STEADY_REQUESTS: usize = 3_000;
/// How many requests before the kill, and after it.
const BEFORE_KILL: u64 = 1_000;
const AFTER_KILL: u64 = 3_000;
/// After this long a request has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What compare found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compare {
    /// Where and with what.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Whether the promises held.
    pub verdict: Verdict,
    /// The promises.
    pub checks: Vec<Check>,
    /// Requests of each counting load.
    pub requests: u64,
    /// How they were sent.
    pub sent: String,
    /// Ringmaster first.
    pub balancers: Vec<Balancer>,
    /// Peers that are not installed here.
    pub missing: Vec<String>,
}

/// One balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Balancer {
    /// Its name.
    pub name: String,
    /// Its version, as it says itself.
    pub version: String,
    /// The counting load.
    pub counted: Counted,
    /// Latencies at a steady rate.
    pub steady: Under,
    /// A kill -9 of one replica at that rate.
    pub kill: Option<Under>,
}

/// An open loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Under {
    /// Requests per second.
    pub rate: f64,
    /// How many.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// Each cause, and how often.
    pub causes: BTreeMap<String, u64>,
    /// Latencies of the others.
    pub latency: Latency,
}

/// Measures; after each balancer what is known until then is kept.
pub(crate) async fn run(session: &Session, folder: &Folder) -> Result<Compare, LabError> {
    let (installed, missing): (Vec<Peer>, Vec<Peer>) =
        Peer::ALL.into_iter().partition(|peer| peer.version().is_some());
    for peer in &missing {
        say(&format!("{} is not installed: left out", peer.name()));
    }
    let mut found = Compare {
        provenance: session.provenance.clone(),
        verdict: Verdict::Incomplete,
        checks: Vec::new(),
        requests: session.options.requests as u64,
        sent: session.sent(),
        balancers: Vec::new(),
        missing: missing.iter().map(|peer| peer.name().to_owned()).collect(),
    };
    let own = session.target(&session.view().await?)?;
    let version = session.daemon.version.clone();
    found.balancers.push(balancer(session, "ringmaster", version, own, 0).await?);
    folder.keep(&found)?;
    session.check()?;
    for (victim, peer) in (1..).zip(installed) {
        let backends = backends(session).await?;
        let running = peer.start(&backends).await?;
        let target = Target {
            address: running.address,
            host: running.address.to_string(),
            path: "/home".to_owned(),
            keys: Vec::new(),
        };
        let version = peer.version().unwrap_or_default();
        let measured = balancer(session, peer.name(), version, target, victim % backends.len() as u16).await;
        running.end().await;
        found.balancers.push(measured?);
        folder.keep(&found)?;
        session.check()?;
    }
    found.checks = checks(&found);
    found.verdict = Verdict::of(&found.checks, true);
    folder.keep(&found)?;
    Ok(found)
}

fn checks(found: &Compare) -> Vec<Check> {
    let Some(own) = found.balancers.first() else { return Vec::new() };
    let mut checks = vec![
        Check::none_failed(
            "failed requests of the counting load, ringmaster",
            own.counted.failed,
            own.counted.requests,
        ),
        Check::none_failed(
            "failed requests at a steady rate, ringmaster",
            own.steady.failed,
            own.steady.requests,
        ),
    ];
    if let Some(kill) = &own.kill {
        checks.push(Check::none_failed(
            "failed requests through kill -9, ringmaster",
            kill.failed,
            kill.requests,
        ));
    }
    checks
}

async fn balancer(
    session: &Session,
    name: &str,
    version: String,
    target: Target,
    victim: u16,
) -> Result<Balancer, LabError> {
    let (options, seed) = (&session.options, session.options.seed);
    let what = format!("compare: {name}");
    let prediction = if name == "ringmaster" {
        let ids = crate::random::request_ids(seed, options.requests);
        Prediction::of(&session.client, &session.view().await?, &target, &ids).await?
    } else {
        let ordinals: Vec<Ordinal> = backends(session).await?.iter().map(|backend| backend.ordinal).collect();
        Prediction::even(&ordinals, "consistent hash on X-Request-Id")
    };
    let outcome = session.load(&what, target.clone(), seed, options.requests, session.pace()).await?;
    let mut counted = count(session.service().as_str(), &prediction, &outcome);
    if name != "ringmaster" {
        counted.policy = name.to_owned();
        "header X-Request-Id".clone_into(&mut counted.hash_on);
        counted.reason.clone_from(&counted.description);
    }
    session.check()?;
    let stop = CancellationToken::new();
    stop.cancel();
    let rate = options.rate.unwrap_or(RATE);
    let pace = Pace::Open { per_second: rate, stop };
    let requests = STEADY_REQUESTS.min(options.requests);
    let steady = session.load(&format!("{what}, {rate}/s"), target.clone(), seed, requests, pace).await?;
    session.check()?;
    let kill = if session.daemon.faults_allowed {
        Some(kill(session, &what, target, rate, victim).await?)
    } else {
        None
    };
    Ok(Balancer { name: name.to_owned(), version, counted, steady: Under::of(rate, &steady), kill })
}

/// kill -9 of one replica under an open loop, until Ringmaster has replaced it and some more.
async fn kill(
    session: &Session,
    what: &str,
    target: Target,
    rate: f64,
    victim: u16,
) -> Result<Under, LabError> {
    let stop = CancellationToken::new();
    let pace = Pace::Open { per_second: rate, stop: stop.clone() };
    let seed = session.options.seed + 1;
    let plan = Plan { target, seed, requests: BEFORE_KILL as usize, pace, timeout: REQUEST_TIMEOUT };
    let bar = progress(&format!("{what}, kill -9"), BEFORE_KILL + AFTER_KILL);
    let running = tokio::spawn(load::run(plan, bar.clone(), session.cancel.clone()));
    reached(session, &bar, BEFORE_KILL).await?;
    let name = format!("{}-{victim}", session.service());
    let sent = session.client.fault(&name, "KILL").await;
    let replaced = async {
        sent?;
        reached(session, &bar, BEFORE_KILL + AFTER_KILL).await?;
        let generation = session.view().await?.generation;
        session.unless_cancelled(session.converged(generation)).await
    }
    .await;
    stop.cancel();
    let outcome =
        running.await.map_err(|error| LabError::Failed(format!("the load has ended: {error}")))??;
    bar.finish_and_clear();
    replaced?;
    Ok(Under::of(rate, &outcome))
}

async fn reached(session: &Session, bar: &indicatif::ProgressBar, count: u64) -> Result<(), LabError> {
    while bar.position() < count {
        session.check()?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Where the replicas answer now.
async fn backends(session: &Session) -> Result<Vec<Backend>, LabError> {
    let status = session.status().await?;
    let ready = status.members.iter().filter(|member| member.phase == Phase::Ready);
    let backends: Vec<Backend> = ready
        .filter_map(|member| Some(Backend { ordinal: member.ordinal, address: member.address.clone()? }))
        .collect();
    if backends.is_empty() {
        return Err(LabError::Failed(format!("no replica of {} is ready", session.service())));
    }
    Ok(backends)
}

impl Under {
    fn of(rate: f64, outcome: &Outcome) -> Under {
        let mut causes = BTreeMap::new();
        for failure in &outcome.failures {
            *causes.entry(failure.cause.clone()).or_default() += 1;
        }
        Under {
            rate,
            requests: outcome.samples.len() as u64,
            failed: outcome.samples.iter().filter(|sample| sample.failed).count() as u64,
            causes,
            latency: outcome.latency,
        }
    }
}
