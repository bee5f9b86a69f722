//! The simulation: the real decisions of the controller in a modelled world, single-threaded, from a seed.
//!
//! Real: what the loop knows between passes, the planner, the history, the handshake, the snapshot, the status, the
//! members, the rings, what probes say in a row, rollouts and autoscaling (`ringmaster_core`). Modelled: the engine, its
//! containers and its hints, the disk, the data plane and its load, the probes' answers, people, and time. The same seed is
//! the same run, to the last step.
//!
//! A run has a part in which faults strike (every promise S is looked at after every step), and a part without any, in
//! which the promises L must come true. [`run`] is one run, [`campaign`] many, [`sieve`] all runs with one fault of
//! three patterns (a crash after every action, a stale list at every list, each hint lost; after Sun et al., OSDI
//! 2022), [`shrink`] makes a failing run small.
//!
//! Deliberately absent: tasks, sockets and files. What becomes of them is tested where they are.

mod calls;
mod controller;
mod engine;
mod event;
mod fault;
mod liveness;
mod load;
mod plane;
mod planted;
mod probes;
mod promise;
mod random;
mod report;
mod rollouts;
mod safety;
mod shrink;
mod sieve;
mod simulation;
mod store;
mod strike;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringmaster_core::ServiceName;
use ringmaster_core::manifest::{self, Manifest, Source};
use ringmaster_core::ring::{RingError, RingState};
use ringmaster_core::spec::ServiceSpec;
use thiserror::Error;

pub use fault::{Boundary, Fault, Site};
#[cfg(feature = "planted")]
pub use planted::Bug;
pub use promise::{Broken, Promise};
pub use report::Tally;
pub use shrink::shrink;
pub use sieve::sieve;

use fault::Faults;
use simulation::{Setting, Simulation};

/// A manifest that cannot be simulated.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SimError {
    /// It declares nothing to keep running.
    #[error("the manifest declares no service: there is nothing to simulate")]
    NoService,
    /// Runs of so many replicas would take too long to say anything.
    #[error(
        "{0} replicas are too many to simulate: at most {REPLICAS_MAX} in all; lower `replicas` in a copy"
    )]
    TooMany(u32),
    /// Its balancing makes no ring.
    #[error("service `{0}`: balancing: {1}")]
    Ring(ServiceName, RingError),
}

/// Most replicas of a simulated manifest.
pub const REPLICAS_MAX: u32 = 64;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Config {
    services: BTreeMap<ServiceName, ServiceSpec>,
    rings: Arc<BTreeMap<ServiceName, RingState>>,
    /// The faults that may strike.
    pub faults: Vec<Fault>,
    #[cfg(feature = "planted")]
    bug: Option<Bug>,
}

impl Config {
    /// The services of a manifest, with every fault.
    ///
    /// # Errors
    /// [`SimError`] if there is nothing to simulate, or too much.
    pub fn of(manifest: &Manifest) -> Result<Config, SimError> {
        let mut services = BTreeMap::new();
        for (name, declared) in &manifest.services {
            let mut spec = declared.spec.clone();
            spec.template.env.insert("SIM_SECRET".to_owned(), safety::SECRET.to_owned());
            spec.replicas.get_or_insert(1);
            services.insert(name.clone(), spec);
        }
        let most =
            |spec: &ServiceSpec| spec.autoscale.as_ref().map(|scale| scale.max_replicas).or(spec.replicas);
        let replicas = services.values().filter_map(most).sum();
        if services.is_empty() {
            return Err(SimError::NoService);
        }
        if replicas > REPLICAS_MAX {
            return Err(SimError::TooMany(replicas));
        }
        let mut rings = BTreeMap::new();
        for (name, spec) in &services {
            let ring =
                RingState::new(&spec.balancing, 1).map_err(|error| SimError::Ring(name.clone(), error))?;
            rings.insert(name.clone(), ring);
        }
        Ok(Config {
            services,
            rings: Arc::new(rings),
            faults: Fault::ALL.to_vec(),
            #[cfg(feature = "planted")]
            bug: None,
        })
    }

    /// The same with a bug on purpose.
    #[cfg(feature = "planted")]
    #[must_use]
    pub fn with_bug(self, bug: Bug) -> Config {
        Config { bug: Some(bug), ..self }
    }

    /// Two small services, with every fault.
    pub fn standard() -> Config {
        let source = Source { file: "standard.yaml", text: include_str!("standard.yaml") };
        let manifest = manifest::parse(&[source]).expect("the standard manifest is checked by every test");
        Config::of(&manifest).expect("the standard manifest is small")
    }
}

/// How a run went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// How many events it had.
    pub steps: u64,
    /// The first promise that was broken.
    pub broken: Option<Broken>,
    /// What struck, where.
    pub sites: Vec<(Site, Fault)>,
    /// What happened, if it was asked for.
    pub trace: Vec<String>,
    premises: [u64; Promise::ALL.len()],
    struck: BTreeMap<(Fault, Boundary), u64>,
    /// How often each boundary was reached while faults could strike.
    reached: [u32; Boundary::ALL.len()],
}

/// One run: the faults of a seed, or only those at some sites; `traced` keeps what happened.
pub fn run(config: &Config, seed: u64, only: Option<&BTreeSet<Site>>, traced: bool) -> Outcome {
    let faults = Faults::of(seed, &config.faults, only.cloned());
    run_with(config, seed, faults, traced)
}

pub(crate) fn run_with(config: &Config, seed: u64, faults: Faults, traced: bool) -> Outcome {
    let mut choice = random::Random::new(random::scatter([seed, 2, 0]));
    let setting = Setting {
        services: &config.services,
        rings: &config.rings,
        seed,
        faulty_for: if faults.is_scripted { 20_000 } else { choice.between(8_000, 40_000) },
        faults,
        traced,
        #[cfg(feature = "planted")]
        bug: config.bug,
    };
    let mut sim = Simulation::new(setting);
    if sim.faults.is_scripted {
        sim.follow_script();
    }
    sim.run_for(sim.setting.faulty_for);
    let reached = sim.faults.reached;
    if sim.checks.broken.is_none() {
        sim.heal();
        let cursed = choice.chance(125) && sim.curse();
        // Two minutes of rest are most of a run's time, and every seventh run says enough about it.
        sim.converge(choice.chance(140));
        // Somebody's copies may come to be ours on the way, as they wear our labels.
        let is_plain = !cursed && !sim.had.contains("impostor");
        if is_plain && sim.checks.broken.is_none() && choice.chance(150) {
            sim.there_and_back();
        }
    }
    Outcome {
        seed,
        steps: sim.steps,
        broken: sim.checks.broken.take(),
        sites: sim.faults.struck.clone(),
        trace: std::mem::take(&mut sim.trace),
        premises: sim.checks.premises,
        struck: std::mem::take(&mut sim.struck),
        reached,
    }
}

/// Many runs, on as many threads as are given, until so many have failed. Every run is its own: the result does not
/// depend on the threads.
pub fn campaign(config: &Config, seeds: std::ops::Range<u64>, threads: usize, failures_max: usize) -> Tally {
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    let failures = std::sync::atomic::AtomicUsize::new(0);
    let work = || {
        let mut tally = Tally::default();
        while failures.load(std::sync::atomic::Ordering::Relaxed) < failures_max {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let outcome = run(config, seed, None, false);
            if outcome.broken.is_some() {
                failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            tally.add(outcome);
        }
        tally
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let mut all = Tally::default();
        for worker in workers {
            match worker.join() {
                Ok(tally) => all.merge(tally),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    })
}
