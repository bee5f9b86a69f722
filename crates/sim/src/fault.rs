//! The faults, the places where they strike, and which of them strike in one run.
//!
//! A place (a [`Site`]) is the n-th time that a run comes to a [`Boundary`]. Whether something strikes there follows
//! from the seed and the site alone, so that taking one fault away leaves the others where they are: that is how a
//! failing run is made small.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::random::{Random, scatter};

macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])* $variant:ident => $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The name as it is written.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }

            /// What it is, in a sentence.
            pub fn about(self) -> &'static str {
                match self { $($name::$variant => concat!($($doc),*).trim_ascii()),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}
pub(crate) use named;

named! {
    /// What can go wrong.
    Fault {
        /// A call is refused by the engine (500, 503), without effect.
        Refused => "refused",
        /// A call does not reach the engine: socket gone, permission, connection refused.
        Unreachable => "unreachable",
        /// A call has its effect, and its answer is lost.
        AnswerLost => "answer-lost",
        /// A call takes half a minute.
        Slow => "slow",
        /// A call is refused because of the state of its object (409), without effect.
        Conflict => "conflict",
        /// The object of a call vanishes just before it.
        VanishedBefore => "vanished-before",
        /// The image is not there.
        ImageMissing => "image-missing",
        /// What was created does not start: a port in use, a bad command.
        StartRefused => "start-refused",
        /// A list answers what an earlier one did.
        StaleList => "stale-list",
        /// A hint of the engine is lost.
        EventLost => "event-lost",
        /// A hint arrives twice.
        EventTwice => "event-twice",
        /// A hint arrives late.
        EventLate => "event-late",
        /// The stream of hints is silent for a minute.
        EventsSilent => "events-silent",
        /// The engine stops, and its containers with it.
        EngineStops => "engine-stops",
        /// The engine is away for a while; its containers go on.
        EngineAway => "engine-away",
        /// A replica is killed.
        Killed => "killed",
        /// A replica uses too much memory.
        OutOfMemory => "out-of-memory",
        /// Somebody pauses a replica.
        Paused => "paused",
        /// Somebody stops a replica.
        Stopped => "stopped",
        /// Somebody starts a replica that had ended.
        Restarted => "restarted",
        /// Somebody renames a replica.
        Renamed => "renamed",
        /// Somebody removes a replica.
        Removed => "removed",
        /// Somebody detaches a replica from the network.
        Detached => "detached",
        /// A replica comes back at an address that was another's.
        AddressReused => "address-reused",
        /// Somebody's container wears the labels of a replica of ours.
        Impostor => "impostor",
        /// Somebody's container has the name that comes next.
        NameTaken => "name-taken",
        /// A replica lives and answers no probe.
        Unhealthy => "unhealthy",
        /// A replica fails its probes and recovers, again and again.
        Flapping => "flapping",
        /// What is created ends after a moment, for a while.
        CrashLoop => "crash-loop",
        /// What is created takes 90 s to become ready, for a while.
        SlowStart => "slow-start",
        /// The controller is killed.
        ControllerKilled => "controller-killed",
        /// The controller is killed, and the wall clock jumps by an hour before it is back.
        ClockJump => "clock-jump",
        /// The controller is killed, and its state folder lost; the manifest is applied again.
        StateLost => "state-lost",
        /// A change cannot be written: the disk is full.
        DiskFull => "disk-full",
        /// The controller is killed half-way through writing a change.
        DiskTorn => "disk-torn",
        /// A change is written, and the sync fails: it may be lost if the controller is killed now.
        SyncFails => "sync-fails",
        /// A manifest is applied that was written half.
        ManifestHalf => "manifest-half",
        /// The manifest is empty.
        ManifestEmpty => "manifest-empty",
        /// Another number of replicas is asked for.
        Scaled => "scaled",
        /// Another template is asked for.
        TemplateChanged => "template-changed",
        /// A template is asked for that fails for good: it ends, hangs, has no image, or ends soon after it was ready.
        TemplateBad => "template-bad",
        /// A service is deleted, and applied again.
        Deleted => "deleted",
        /// The tag stands for another image.
        TagMoved => "tag-moved",
        /// The data plane takes no snapshot for a while.
        PlaneStalls => "plane-stalls",
        /// The data plane is killed.
        PlaneKilled => "plane-killed",
        /// A request takes very long.
        LongRequest => "long-request",
    }
}

named! {
    /// A point in the run at which faults may strike.
    Boundary {
        /// Now and then, whatever happens.
        Idle => "idle",
        /// A list is asked for.
        List => "list",
        /// A list has been taken up.
        Listed => "listed",
        /// A template is resolved.
        Resolve => "resolve",
        /// A creation begins.
        Create => "create",
        /// A creation has ended.
        Created => "created",
        /// A removal looks at its object.
        Inspect => "inspect",
        /// A stop begins.
        Stop => "stop",
        /// A removal begins.
        Remove => "remove",
        /// A removal has ended.
        Gone => "gone",
        /// A repair begins.
        Repair => "repair",
        /// A snapshot is published.
        Publish => "publish",
        /// A report of the data plane is taken up.
        Report => "report",
        /// A change is written.
        Save => "save",
        /// The engine hints at something.
        Event => "event",
    }
}

impl Boundary {
    /// Whether it is a call to the engine, whose answer may be a fault.
    pub(crate) fn is_call(self) -> bool {
        use Boundary::{Create, Inspect, List, Remove, Repair, Resolve, Stop};
        matches!(self, List | Resolve | Create | Inspect | Stop | Remove | Repair)
    }
}

impl Fault {
    /// Whether it is a fault of what comes to the boundary, and not of something else meanwhile.
    pub(crate) fn is_of_calls(self) -> bool {
        use Fault::*;
        matches!(
            self,
            Refused
                | Unreachable
                | AnswerLost
                | Slow
                | Conflict
                | VanishedBefore
                | ImageMissing
                | StartRefused
                | StaleList
                | EventLost
                | EventTwice
                | EventLate
                | DiskFull
                | DiskTorn
                | SyncFails
        )
    }

    /// Whether what it strikes is often not there, or leads to what others seldom lead to.
    fn strikes_seldom(self) -> bool {
        matches!(
            self,
            Fault::Restarted | Fault::PlaneKilled | Fault::AddressReused | Fault::Paused | Fault::Renamed
        )
    }

    /// Whether it can strike at a boundary.
    pub fn fits(self, boundary: Boundary) -> bool {
        use Boundary as B;
        match self {
            Fault::Refused | Fault::Unreachable | Fault::Slow => boundary.is_call(),
            Fault::AnswerLost => boundary.is_call() && !matches!(boundary, B::List | B::Resolve | B::Inspect),
            Fault::Conflict => matches!(boundary, B::Create | B::Stop | B::Remove | B::Repair),
            Fault::VanishedBefore => matches!(boundary, B::Inspect | B::Stop | B::Remove | B::Repair),
            Fault::ImageMissing => matches!(boundary, B::Resolve | B::Create),
            Fault::StartRefused => boundary == B::Create,
            Fault::StaleList => boundary == B::List,
            Fault::EventLost | Fault::EventTwice | Fault::EventLate => boundary == B::Event,
            Fault::DiskFull | Fault::DiskTorn | Fault::SyncFails => boundary == B::Save,
            // A change of the desired state within the writing of another cannot be: one writes at a time.
            _ => !matches!(boundary, B::Event | B::Save),
        }
    }
}

impl FromStr for Fault {
    type Err = String;
    fn from_str(text: &str) -> Result<Fault, String> {
        Fault::ALL.iter().copied().find(|fault| fault.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
            format!("`{text}` is no fault; there are: {}", names.join(", "))
        })
    }
}

/// A place where a fault may strike: the n-th time at a boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// Which boundary.
    pub boundary: Boundary,
    /// The how-manieth time, from 0.
    pub number: u32,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.boundary, self.number)
    }
}

impl FromStr for Site {
    type Err = String;
    /// Reads `list#3`; the fault that may follow after a colon follows from the seed.
    fn from_str(text: &str) -> Result<Site, String> {
        let bad = || format!("`{text}` is no site: copy it from behind SITES=, such as `list#3`");
        let site = text.split(':').next().unwrap_or_default();
        let (name, number) = site.split_once('#').ok_or_else(bad)?;
        let boundary =
            Boundary::ALL.iter().copied().find(|boundary| boundary.name() == name).ok_or_else(bad)?;
        Ok(Site { boundary, number: number.parse().map_err(|_| bad())? })
    }
}

/// So many kinds of faults are few enough to strike together.
const FEW: usize = 8;

/// What strikes may cause more places to strike at: so many strikes are enough for one run.
const STRIKES_MAX: usize = 300;

/// Which faults strike where.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    seed: u64,
    /// The kinds of this run.
    kinds: Vec<Fault>,
    /// Only these sites, when a failing run is made small.
    only: Option<BTreeSet<Site>>,
    /// One fault that is told where to strike, instead of chance.
    told: Option<(Site, Fault)>,
    /// The run follows a script of changes, instead of chance.
    pub(crate) is_scripted: bool,
    pub(crate) reached: [u32; Boundary::ALL.len()],
    /// What has struck.
    pub(crate) struck: Vec<(Site, Fault)>,
    healed: bool,
}

impl Faults {
    /// The faults of a seed, out of those that are allowed.
    pub(crate) fn of(seed: u64, allowed: &[Fault], only: Option<BTreeSet<Site>>) -> Faults {
        let mut random = Random::new(scatter([seed, 1, 0]));
        // Few kinds at a time show what each does; every eighth run has them all, and so has one of whom few are asked.
        let share = if random.chance(125) { 1_000 } else { random.between(60, 400) };
        let share = if allowed.len() <= FEW { 1_000 } else { share };
        let mut kinds: Vec<Fault> = allowed.iter().copied().filter(|_| random.chance(share)).collect();
        // These often find nothing to strike, so they are tried more often.
        let seldom: Vec<Fault> = kinds.iter().copied().filter(|fault| fault.strikes_seldom()).collect();
        kinds.extend(seldom.repeat(2));
        let reached = [0; Boundary::ALL.len()];
        Faults {
            seed,
            kinds,
            only,
            told: None,
            is_scripted: false,
            reached,
            struck: Vec::new(),
            healed: false,
        }
    }

    /// No faults but one, or none, in a run that follows the script.
    pub(crate) fn told(seed: u64, told: Option<(Site, Fault)>) -> Faults {
        Faults { told, is_scripted: true, ..Faults::of(seed, &[], None) }
    }

    /// From now on nothing strikes.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
    }

    /// What strikes at a boundary, this time, and a number that decides its particulars.
    pub(crate) fn at(&mut self, boundary: Boundary) -> Option<(Fault, u64)> {
        let number = self.reached[boundary as usize];
        self.reached[boundary as usize] += 1;
        if self.healed || self.struck.len() >= STRIKES_MAX {
            return None;
        }
        let site = Site { boundary, number };
        let hash = scatter([self.seed, boundary as u64 + 2, u64::from(number)]);
        let mut random = Random::new(hash);
        let fault = match self.told {
            Some((at, fault)) => (at == site).then_some(fault)?,
            None => {
                if self.only.as_ref().is_some_and(|only| !only.contains(&site))
                    || !random.chance(rate(boundary))
                {
                    return None;
                }
                let fitting = self.kinds.iter().filter(|fault| fault.fits(boundary));
                let count = fitting.clone().count() as u64;
                *fitting.clone().nth(random.below(count.max(1)) as usize)?
            }
        };
        self.struck.push((site, fault));
        Some((fault, random.next()))
    }
}

/// How often something strikes at a boundary, in thousandths: more where runs seldom come.
fn rate(boundary: Boundary) -> u64 {
    match boundary {
        Boundary::Idle | Boundary::List | Boundary::Listed | Boundary::Report => 60,
        Boundary::Publish | Boundary::Resolve => 100,
        Boundary::Create | Boundary::Created => 130,
        Boundary::Gone | Boundary::Event => 150,
        Boundary::Inspect => 220,
        Boundary::Stop | Boundary::Remove => 350,
        Boundary::Repair => 900,
        Boundary::Save => 200,
    }
}
