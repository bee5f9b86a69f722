//! The rounds: every work on every proxy, one after the other, with what it cost.

use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, setpriority_process};

use crate::client::Script;
use crate::load::{self, Outcome};
use crate::origin::{Origins, Seen};
use crate::peer::{Kind, Peer, Starter};
use crate::process::{self, Cpu};
use crate::work::Work;

/// Before what is measured, so that connections stand and code is warm.
const WARM_UP: Duration = Duration::from_millis(150);
/// At a fixed rate wake-ups are what is measured: whatever else runs must not delay them.
const NICE: i32 = -10;

/// A work at a fixed rate lasts this many times as long, so that the requests that open its connections are less than the
/// hundredth part that its p99 leaves out.
const AT_A_RATE: u32 = 4;

/// What is measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    /// How long one work lasts on one proxy; one at a fixed rate four times as long.
    pub(crate) slot: Duration,
    pub(crate) works: Vec<Work>,
}

/// One work on one proxy in one round.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) round: u32,
    pub(crate) work: &'static str,
    pub(crate) kind: Kind,
    pub(crate) requests: u64,
    pub(crate) cpu_us: f64,
    pub(crate) user_us: f64,
    pub(crate) system_us: f64,
    /// The share of its cores that the proxy took: one that has to wait for the load pays for falling asleep, too.
    pub(crate) busy: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Requests that origins saw beyond those that clients sent: replays and hedges.
    pub(crate) extra: u64,
    pub(crate) wrong: Option<String>,
}

/// All of them.
pub(crate) struct Measured {
    pub(crate) slots: Vec<Slot>,
    /// Bytes in memory of each proxy with one worker after all rounds.
    pub(crate) resident: Vec<(Kind, u64)>,
}

/// Runs all rounds.
pub(crate) async fn measure(
    starter: &Starter,
    origins: &Origins,
    kinds: &[Kind],
    plan: &Plan,
) -> anyhow::Result<Measured> {
    let mut peers = Vec::new();
    for threads in [1, 2] {
        let works: Vec<&Work> = plan.works.iter().filter(|work| work.threads == threads).collect();
        for kind in kinds.iter().filter(|kind| works.iter().any(|work| fits(**kind, work))) {
            peers.push((threads, starter.start(*kind, threads).await?));
        }
    }
    let mut slots = Vec::new();
    for round in 1..=plan.rounds {
        for work in &plan.works {
            let script = Rc::new(Script::new(*work));
            let lasts = if work.rate.is_some() { AT_A_RATE * plan.slot } else { plan.slot };
            for (_, peer) in
                peers.iter().filter(|(threads, peer)| *threads == work.threads && fits(peer.kind, work))
            {
                let slot = slot(origins, peer, &script, round, lasts).await?;
                if let Some(wrong) = &slot.wrong {
                    eprintln!("round {round}, {}, {}: {wrong}", work.name, peer.kind.name());
                }
                slots.push(slot);
            }
        }
        eprintln!("round {round} of {} is done", plan.rounds);
    }
    let of_one_worker = peers.iter().filter(|(threads, _)| *threads == 1);
    let resident = of_one_worker.map(|(_, peer)| (peer.kind, process::resident(peer.pid()))).collect();
    for (_, peer) in peers {
        peer.end().await;
    }
    Ok(Measured { slots, resident })
}

/// Tuned peers are there for long bodies only.
fn fits(kind: Kind, work: &Work) -> bool {
    !kind.is_for_long_bodies() || work.response_bytes > 64 << 10
}

async fn slot(
    origins: &Origins,
    peer: &Peer,
    script: &Rc<Script>,
    round: u32,
    lasts: Duration,
) -> anyhow::Result<Slot> {
    let work = script.work;
    let warm = load::run(script, peer.address, WARM_UP).await?;
    drop(origins.take_reason());
    prefer(peer, work.rate.is_some());
    let repeats = peer.repeats().await?;
    let (seen, before, began) = (origins.seen(), process::cpu(peer.pid()), Instant::now());
    let outcome = load::run(script, peer.address, lasts).await?;
    let (after, took) = (process::cpu(peer.pid()), began.elapsed());
    prefer(peer, false);
    let repeats = peer.repeats().await? - repeats;
    let wrong =
        warm.wrong.or_else(|| check(&work, &outcome, (seen, origins.seen()), repeats, origins.take_reason()));
    let per_request = |cost: fn(&Cpu) -> Duration| {
        (cost(&after).saturating_sub(cost(&before))).as_secs_f64() * 1e6 / outcome.answered.max(1) as f64
    };
    Ok(Slot {
        round,
        work: work.name,
        kind: peer.kind,
        requests: outcome.answered,
        cpu_us: per_request(|cpu| cpu.total),
        user_us: per_request(|cpu| cpu.user),
        system_us: per_request(|cpu| cpu.system),
        busy: (after.total.saturating_sub(before.total)).as_secs_f64()
            / took.as_secs_f64()
            / work.threads as f64,
        p50: outcome.percentile(0.5),
        p99: outcome.percentile(0.99),
        extra: (origins.seen().requests - seen.requests).saturating_sub(outcome.answered),
        wrong,
    })
}

/// What is wrong with a slot: at a client, at an origin, or between them. What origins see beyond the answers must be what the
/// proxy says that it sent again.
fn check(
    work: &Work,
    outcome: &Outcome,
    (before, after): (Seen, Seen),
    repeats: u64,
    reason: Option<String>,
) -> Option<String> {
    let (requests, bytes) = (after.requests - before.requests, after.body_bytes - before.body_bytes);
    if let Some(wrong) = &outcome.wrong {
        return Some(wrong.clone());
    }
    if after.wrong > before.wrong {
        return Some(reason.unwrap_or_else(|| "an origin got a wrong request".to_owned()));
    }
    let agree = (outcome.answered..=outcome.answered + repeats).contains(&requests);
    if outcome.answered == 0 || !agree || bytes != requests * work.request_bytes as u64 {
        return Some(format!(
            "clients got {} answers, and origins saw {requests} requests with {bytes} bytes; {repeats} were sent again",
            outcome.answered
        ));
    }
    None
}

/// Puts the proxy and this process before others, where that is allowed, or back among them.
fn prefer(peer: &Peer, is_preferred: bool) {
    let nice = if is_preferred { NICE } else { 0 };
    let ours = process::threads(std::process::id());
    let theirs = process::tree(peer.pid()).into_iter().flat_map(process::threads);
    for thread in theirs.chain(ours) {
        let Some(pid) = Pid::from_raw(thread as i32) else { continue };
        if setpriority_process(Some(pid), nice).is_err() {
            // Without the right to it everybody is measured as they are.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::ALL;

    #[test]
    fn counters_on_both_sides_must_agree() {
        let outcome = |answered| Outcome { answered, ..Outcome::default() };
        let seen = |requests, body_bytes| Seen { requests, body_bytes, connections: 0, wrong: 0 };
        let post = ALL.iter().find(|work| work.request_bytes > 0).unwrap();
        let length = post.request_bytes as u64;
        let check = |answered, after| check(post, &outcome(answered), (seen(5, 5 * length), after), 10, None);
        assert_eq!(check(1_000, seen(1_005, 1_005 * length)), None);
        assert_eq!(check(1_000, seen(1_015, 1_015 * length)), None, "hedges");
        for (answered, after) in [
            (1_000, seen(1_004, 1_004 * length)),
            (1_000, seen(1_016, 1_016 * length)),
            (1_000, seen(1_005, 1_004 * length)),
            (0, seen(5, 5 * length)),
        ] {
            assert!(check(answered, after).is_some(), "{answered}, {after:?}");
        }
        let broken = Outcome { wrong: Some("x".to_owned()), ..outcome(1_000) };
        assert!(super::check(post, &broken, (seen(0, 0), seen(1_000, 1_000 * length)), 0, None).is_some());
    }
}
