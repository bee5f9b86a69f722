//! a3, failure: all endpoints, then faults under a steady open-loop load through the daemon's own fault command:
//! kill -9, SIGSTOP, stop, two at once, all.

mod endpoints;
mod view;

use serde::{Deserialize, Serialize};

pub use endpoints::EndpointCheck;

use crate::error::LabError;
use crate::fault::{self, Fault, FaultReport, Start};
use crate::machine::Provenance;
use crate::measure::{Check, Verdict};
use crate::output::Folder;
use crate::session::{Session, say};

/// The load unless another rate is asked for: about a tenth of what two cores can do.
const RATE_DEFAULT: f64 = 1_000.0;
/// How long after its death a replica may be chosen.
const CHOSEN_AFTER_DEATH_MS_MAX: f64 = 100.0;
/// A replacement may take as many times one start.
const STARTS_MAX: f64 = 1.3;
/// Or so long, where a start takes less.
const REPLACED_MS_MAX: f64 = 100.0;
/// How often one start is measured.
const STARTS: usize = 3;
/// Two of three and all of three need three.
const REPLICAS_MIN: u32 = 3;
/// In the template's environment: makes a new revision, so that replicas that were killed before are no crash loop.
const ROUND: &str = "RINGMASTER_LAB_ROUND";

/// The best published results of this assignment (yatindra7: respawn 440/450/470/470/500 ms and 99.43/99.23/98.5/
/// 99.3/99.9 % of requests answered, N = 2 … 6; self-reported).
pub const BEST_PUBLISHED: &str = "440–500 ms to respawn, 98.5–99.9 % of requests answered";

/// What a3 found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct A3 {
    /// Where and with what.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Whether the promises held.
    pub verdict: Verdict,
    /// The promises.
    pub checks: Vec<Check>,
    /// Replicas of the service.
    pub replicas: u32,
    /// Every endpoint of the assignment.
    pub endpoints: Vec<EndpointCheck>,
    /// One start of a replica under the same load.
    pub start: Option<Start>,
    /// The faults.
    pub faults: Vec<FaultReport>,
}

/// Measures; after each fault what is known until then is kept.
pub(crate) async fn run(session: &Session, folder: &Folder) -> Result<A3, LabError> {
    if !session.daemon.faults_allowed {
        let what = "the daemon does not allow faults: start it with `ringmaster serve --allow-faults`";
        return Err(LabError::Input(what.to_owned()));
    }
    let mut replicas = session.status().await?.replicas;
    if replicas < REPLICAS_MIN {
        say(&format!("a3 needs {REPLICAS_MIN} replicas: {} has {replicas} and is scaled", session.service()));
        session.scale(REPLICAS_MIN).await?;
        replicas = REPLICAS_MIN;
    }
    let mut found = A3 {
        provenance: session.provenance.clone(),
        verdict: Verdict::Incomplete,
        checks: Vec::new(),
        replicas,
        endpoints: endpoints::check(session).await?,
        start: None,
        faults: Vec::new(),
    };
    let result = faults(session, folder, &mut found).await;
    found.judge(result.is_ok());
    folder.keep(&found)?;
    result.map(|()| found)
}

async fn faults(session: &Session, folder: &Folder, found: &mut A3) -> Result<(), LabError> {
    let rate = session.options.rate.unwrap_or(RATE_DEFAULT);
    let (seed, requests) = (session.options.seed, session.options.requests);
    // Replicas whose death is answered at once: nobody killed them lately.
    forget_failures(session, "0").await?;
    found.start = Some(fault::one_start(session, seed, rate, STARTS).await?);
    for (index, fault) in plan(found.replicas).iter().enumerate() {
        if fault.victims.len() > 1 {
            forget_failures(session, &index.to_string()).await?;
        }
        let report = fault::inject(session, fault, seed + 1 + index as u64, requests, rate).await?;
        found.faults.push(report);
        found.judge(false);
        folder.keep(found)?;
    }
    Ok(())
}

/// A member that is killed again within a minute has to wait, as a crash loop has. A new revision starts afresh.
async fn forget_failures(session: &Session, round: &str) -> Result<(), LabError> {
    let status = session.status().await?;
    let name = format!("{}-{round}", std::process::id());
    if status.members.iter().all(|member| member.restarts == 0) {
        return Ok(());
    }
    session.change(|spec| drop(spec.template.env.insert(ROUND.to_owned(), name))).await?;
    Ok(())
}

/// The faults, each on replicas that the ones before left alone, as far as there are enough.
fn plan(replicas: u32) -> Vec<Fault> {
    let fault = |name: &str, signal, victims: Vec<u16>, kills| Fault {
        name: name.to_owned(),
        signal,
        survivable: (victims.len() as u32) < replicas,
        victims,
        kills,
    };
    let all: Vec<u16> = (0..replicas as u16).collect();
    vec![
        fault("kill -9 of one replica", "KILL", vec![0], true),
        fault("SIGSTOP of one replica", "STOP", vec![1], false),
        fault("stop (SIGTERM) of one replica", "TERM", vec![2], true),
        fault(&format!("kill -9 of two of {replicas} at once"), "KILL", vec![0, 1], true),
        fault(&format!("kill -9 of all {replicas}"), "KILL", all, true),
    ]
}

impl A3 {
    /// Against one start, where that takes long. A process starts in some milliseconds: then noticing its death is
    /// what takes the time.
    fn replaced(&self, fault: &str, took_ms: f64, start_ms: f64) -> Check {
        if start_ms * STARTS_MAX < REPLACED_MS_MAX {
            let what = format!("replaced and ready (one start takes {start_ms:.0} ms), {fault}");
            return Check::at_most(what, took_ms, REPLACED_MS_MAX, 0, " ms");
        }
        let what = format!("replaced and ready against one start ({start_ms:.0} ms), {fault}");
        Check::at_most(what, took_ms / start_ms, STARTS_MAX, 2, "×")
    }

    fn judge(&mut self, complete: bool) {
        let wrong = self.endpoints.iter().filter(|endpoint| !endpoint.pass).count() as f64;
        let what = format!("endpoints that answer wrongly, of {}", self.endpoints.len());
        let mut checks = vec![Check::at_most(what, wrong, 0.0, 0, "")];
        for fault in &self.faults {
            let single = fault.victims.len() == 1;
            if single || fault.survivable {
                checks.push(Check::none_failed(
                    format!("failed requests, {}", fault.name),
                    fault.failed,
                    fault.requests,
                ));
            }
            let longest =
                |of: fn(&fault::Victim) -> Option<f64>| fault.victims.iter().filter_map(of).reduce(f64::max);
            if let Some(chosen) = longest(|victim| victim.chosen_after_death_ms).filter(|_| single) {
                let what = format!("chosen after its death, {}", fault.name);
                checks.push(Check::at_most(what, chosen, CHOSEN_AFTER_DEATH_MS_MAX, 0, " ms"));
            }
            let replacement = longest(|victim| victim.replacement_ms);
            if let (Some(start), Some(took), "KILL", true) =
                (&self.start, replacement, fault.signal.as_str(), single)
            {
                checks.push(self.replaced(&fault.name, took, start.milliseconds));
            }
            let recovered = Check {
                what: format!("all replicas ready again, {}", fault.name),
                measured: fault.recovered_ms.map_or("no".to_owned(), |ms| format!("after {ms:.0} ms")),
                limit: "yes".to_owned(),
                pass: fault.recovered_ms.is_some(),
            };
            checks.push(recovered);
        }
        self.verdict = Verdict::of(&checks, complete);
        self.checks = checks;
    }
}
