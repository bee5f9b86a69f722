//! a4, hash functions: the load of a1 and a2 under every policy and under several formulas for the assignment's ring,
//! ranked, with the reason.

mod formulas;
mod view;

use ringmaster_core::spec::{AssignmentSpec, Balancing, HashKeys, HashOn, Policy};
use serde::{Deserialize, Serialize};

use crate::a2::REPLICAS;
use crate::error::LabError;
use crate::machine::Provenance;
use crate::measure::{Check, Counted, Verdict};
use crate::output::Folder;
use crate::predict::moved_by_step;
use crate::session::Session;
use crate::stats::average;

/// What a4 found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct A4 {
    /// Where and with what.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Whether the promises held.
    pub verdict: Verdict,
    /// The promises.
    pub checks: Vec<Check>,
    /// Requests of each load.
    pub requests: u64,
    /// How they were sent.
    pub sent: String,
    /// The most even first.
    pub ranking: Vec<Contender>,
}

/// A policy, or formulas for the assignment's ring.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contender {
    /// Its name.
    pub name: String,
    /// The policy's name.
    pub policy: String,
    /// H and Φ, for formulas.
    pub formulas: Option<(String, String)>,
    /// Why it comes out as it does, with three replicas.
    pub reason: String,
    /// max/mean, averaged over all numbers of replicas.
    pub mean_max_over_mean: f64,
    /// Keys moved by the steps, by 1/N, on average: 1 is the fewest of an even ring; an uneven one moves less where
    /// the new replica gets less. None where nothing is hashed.
    pub moved_over_even: Option<f64>,
    /// One for each number of replicas.
    pub points: Vec<Point>,
}

/// One number of replicas.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// How many.
    pub replicas: u32,
    /// The load.
    pub counted: Counted,
    /// The share of all keys that the step from one replica fewer moves.
    pub moved: Option<f64>,
}

/// What is measured.
struct Candidate {
    name: String,
    balancing: Balancing,
    points: Vec<Point>,
}

/// Measures; whatever ends it, what is known until then is kept.
pub(crate) async fn run(session: &Session, folder: &Folder) -> Result<A4, LabError> {
    let mut candidates = candidates(session)?;
    let result = loads(session, &mut candidates).await;
    let found = A4::of(session, &candidates, result.is_ok());
    if !found.ranking.is_empty() {
        folder.keep(&found)?;
    }
    result.map(|()| found)
}

async fn loads(session: &Session, candidates: &mut [Candidate]) -> Result<(), LabError> {
    for replicas in REPLICAS {
        session.scale(replicas).await?;
        for candidate in candidates.iter_mut() {
            let view = session.balance(&candidate.balancing).await?;
            let what = format!("a4: N = {replicas}, {}", candidate.name);
            let measured = session.measure(&what, &view, session.options.seed).await?;
            // Each load begins with a ring of its own: what a step moves is asked of a ring that takes it.
            let step = || moved_by_step(&candidate.balancing, session.service(), replicas as usize);
            let moved = if replicas > *REPLICAS.start() { step()? } else { None };
            candidate.points.push(Point { replicas, counted: measured.counted, moved });
            session.check()?;
        }
    }
    Ok(())
}

/// Every policy, on request ids where it hashes; then formulas.
fn candidates(session: &Session) -> Result<Vec<Candidate>, LabError> {
    let candidate = |name: String, balancing: Balancing| Candidate { name, balancing, points: Vec::new() };
    let policy = |policy: Policy| {
        let hash_on = if policy.hashes() { HashKeys::from(HashOn::RequestId) } else { HashKeys::default() };
        candidate(policy.name().to_owned(), Balancing { policy, hash_on, ..Balancing::default() })
    };
    let mut all: Vec<Candidate> = Policy::ALL.into_iter().map(policy).collect();
    let formulas = |name: &str, spec: AssignmentSpec| {
        let assignment = Some(spec);
        candidate(
            name.to_owned(),
            Balancing { policy: Policy::Assignment, assignment, ..Balancing::default() },
        )
    };
    all.extend(formulas::published().into_iter().map(|(name, spec)| formulas(name, spec)));
    if let Some(own) = &session.options.formulas {
        all.push(formulas("yours", own.clone()));
    }
    if let Some(text) = &session.options.manifest {
        all.push(candidate("your manifest".to_owned(), formulas::of_manifest(text, session.service())?));
    }
    Ok(all)
}

impl A4 {
    fn of(session: &Session, candidates: &[Candidate], complete: bool) -> A4 {
        let measured = candidates.iter().filter(|candidate| !candidate.points.is_empty());
        let mut ranking: Vec<Contender> = measured.map(Contender::of).collect();
        ranking.sort_by(|a, b| a.mean_max_over_mean.total_cmp(&b.mean_max_over_mean));
        let checks = checks(&ranking);
        A4 {
            provenance: session.provenance.clone(),
            verdict: Verdict::of(&checks, complete),
            checks,
            requests: session.options.requests as u64,
            sent: session.sent(),
            ranking,
        }
    }
}

fn checks(ranking: &[Contender]) -> Vec<Check> {
    let points = || ranking.iter().flat_map(|contender| &contender.points);
    let failed = points().map(|point| point.counted.failed).sum();
    let sent = points().map(|point| point.counted.requests).sum();
    let mut checks =
        vec![Check::none_failed(format!("failed requests of all {} loads", points().count()), failed, sent)];
    // What is not hashed follows the replicas' speed, not shares.
    let hashed =
        |contender: &&Contender| contender.points.iter().all(|point| point.counted.hash_on != "nothing");
    for contender in ranking.iter().filter(hashed) {
        // One of many chances to be unlucky: the smallest of them all.
        let p = contender.points.iter().map(|point| point.counted.p).fold(1.0, f64::min);
        let what = format!("smallest χ² probability against the exact shares, {}", contender.name);
        checks.push(Check::likely(what, p));
    }
    checks
}

impl Contender {
    fn of(candidate: &Candidate) -> Contender {
        let all: Vec<f64> = candidate.points.iter().map(|point| point.counted.max_over_mean).collect();
        let moved: Vec<f64> = candidate
            .points
            .iter()
            .filter_map(|point| Some(point.moved? * f64::from(point.replicas)))
            .collect();
        let three = candidate.points.iter().find(|point| point.replicas == 3).or(candidate.points.first());
        let formulas = (candidate.balancing.policy == Policy::Assignment).then(|| {
            let spec = candidate.balancing.assignment.clone().unwrap_or_default();
            (spec.request_hash().to_owned(), spec.virtual_server_hash().to_owned())
        });
        Contender {
            name: candidate.name.clone(),
            policy: candidate.balancing.policy.name().to_owned(),
            formulas,
            reason: three.map_or(String::new(), |point| point.counted.reason.clone()),
            mean_max_over_mean: average(&all),
            moved_over_even: (!moved.is_empty()).then(|| average(&moved)),
            points: candidate.points.clone(),
        }
    }
}
