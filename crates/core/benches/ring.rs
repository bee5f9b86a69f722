//! The figures of the ring, beside the peers' crates in one run: `cargo bench -p ringmaster-core --bench ring`.
//!
//! Criterion measures the lookups; the table that is printed at the end puts its times beside what is counted
//! exactly. A lookup is from the key's bytes to the member, 24-byte keys (16,384 of them, hot), each crate with
//! its own hash. `maglev` is given the capacity 65537, because its default one grows with the members.
//! `cargo bench -- table` prints the table alone, measured by itself in half a minute.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use ringmaster_core::Ordinal;
use ringmaster_core::ring::allocation::Allocation;
use ringmaster_core::ring::slot_table::SlotTable;
use ringmaster_core::ring::state::fresh;
use ringmaster_core::ring::stats::Spread;
use ringmaster_core::ring::{Ring, RingMember, RingState, rehash};
use ringmaster_core::spec::{AssignmentSpec, Balancing, Policy};

const SIZES: [u16; 4] = [3, 10, 100, 1_000];
const KEYS: usize = 16_384;
const PASSES: usize = 15;
/// A pass over a table takes a fifth of a millisecond, so there may be many.
const TABLE_PASSES: usize = 150;

/// Formulas for the requests of `assignment`: what they are, and H.
const FORMULAS: [(&str, &str); 4] = [
    ("its own H", "i^2 + 2*i + 17"),
    ("H of degree 6", "i^6 + 3*i^2 + 1"),
    ("H with divisions", "i % 1009 * 7 + i / 13"),
    ("H that mixes bits", MIXING),
];

/// A 32-bit avalanche, as the golden vectors have it: twice `x = ((x >> 16) ^ x) * 0x45d9f3b`, then `(x >> 16) ^ x`.
/// Equal parts are computed once.
const MIXING: &str = "\
    ((((i >> 16 xor i) * 0x45d9f3b & 0xffffffff) >> 16 xor ((i >> 16 xor i) * 0x45d9f3b & 0xffffffff)) \
        * 0x45d9f3b & 0xffffffff) >> 16 \
    xor \
    ((((i >> 16 xor i) * 0x45d9f3b & 0xffffffff) >> 16 xor ((i >> 16 xor i) * 0x45d9f3b & 0xffffffff)) \
        * 0x45d9f3b & 0xffffffff)";

type Lookup = Box<dyn Fn(&[u8]) -> usize>;

fn keys() -> Vec<[u8; 24]> {
    let key = |n: usize| {
        let text = format!("session-{:016x}", rehash(n as u64, 1));
        text.as_bytes().try_into().expect("24 bytes")
    };
    (0..KEYS).map(key).collect()
}

fn six_digits() -> Vec<[u8; 6]> {
    let key = |n: usize| {
        let number = 100_000 + rehash(n as u64, 1) % 900_000;
        number.to_string().as_bytes().try_into().expect("six digits")
    };
    (0..KEYS).map(key).collect()
}

fn members(count: u16) -> Vec<RingMember> {
    let member = |n: u16| RingMember { ordinal: Ordinal(n), name: format!("web-{n}:5000"), weight: 1 };
    (0..count).map(member).collect()
}

fn ring(policy: Policy, count: u16) -> Ring {
    ring_of(&Balancing { policy, ..Balancing::default() }, count)
}

fn ring_of(balancing: &Balancing, count: u16) -> Ring {
    fresh(balancing, 0x9e37_79b9_7f4a_7c15, &members(count)).expect("they make a ring")
}

fn names(count: u16) -> Vec<String> {
    members(count).into_iter().map(|member| member.name).collect()
}

/// Our policies, from a key to an ordinal.
fn own(policy: Policy, count: u16) -> Lookup {
    lookup(ring(policy, count))
}

fn lookup(ring: Ring) -> Lookup {
    Box::new(move |key| ring.owner(ring.hash(key)).map_or(0, Ordinal::index))
}

/// The policy `assignment` with another H.
fn assignment(request_hash: &str, count: u16) -> Lookup {
    let spec = AssignmentSpec { request_hash: Some(request_hash.to_owned()), ..AssignmentSpec::default() };
    let balancing = Balancing { policy: Policy::Assignment, assignment: Some(spec), ..Balancing::default() };
    lookup(ring_of(&balancing, count))
}

/// The peers that can be built with so many members in reasonable time.
fn peers(count: u16) -> Vec<(&'static str, Lookup)> {
    let mut peers: Vec<(&'static str, Lookup)> = Vec::new();
    let address = |n: u16| SocketAddr::from(([10, 0, (n / 200) as u8, (n % 200) as u8], 5_000));
    let buckets: Vec<_> = (0..count).map(|n| pingora_ketama::Bucket::new(address(n), 1)).collect();
    let ketama = pingora_ketama::Continuum::new(&buckets);
    peers.push((
        "pingora-ketama",
        Box::new(move |key| ketama.node(key).map_or(0, |node| usize::from(node.port()))),
    ));
    let mut hashring = hashring::HashRing::new();
    for (n, _) in names(count).iter().enumerate() {
        hashring.batch_add((0..160_u32).map(|point| (n, point)).collect());
    }
    peers.push(("hashring", Box::new(move |key| hashring.get(&key).map_or(0, |node| node.0))));
    if count <= 100 {
        // It needs the members' number times its capacity in memory to be built.
        use maglev::ConsistentHasher as _;
        let table = maglev::Maglev::with_capacity(names(count), 65_537);
        peers.push(("maglev", Box::new(move |key| table.get(&key).map_or(0, String::len))));
    }
    let drawing = hrw_hash::HrwNodes::new(names(count));
    peers.push(("hrw-hash", Box::new(move |key| drawing.sorted(&key).next().map_or(0, String::len))));
    peers.push((
        "jump-consistent-hash",
        Box::new(move |key| {
            jump_consistent_hash::hash(ringmaster_core::ring::hash_key(0, key), usize::from(count)) as usize
        }),
    ));
    peers
}

/// Nanoseconds of one lookup: the fastest of some passes over the keys, so that what else the machine does is
/// left out.
fn fastest<const N: usize>(keys: &[[u8; N]], lookup: &dyn Fn(&[u8]) -> usize) -> f64 {
    let pass = |keys: &[[u8; N]]| {
        let start = Instant::now();
        for key in keys {
            black_box(lookup(black_box(key)));
        }
        start.elapsed()
    };
    // What takes long for one key is measured with fewer: ten milliseconds for a pass.
    let probe = pass(&keys[..64]);
    let keys = &keys[..(640_000_000 / probe.as_nanos().max(1) as usize).clamp(64, KEYS)];
    let best = (0..PASSES).map(|_| pass(keys)).min().unwrap_or(Duration::ZERO);
    best.as_nanos() as f64 / keys.len() as f64
}

/// As [`fastest`] for each of some tables, for a lookup that the compiler sees: first one independent of the others,
/// then each waiting for the one before. A pass over one table is followed by one over the next, so that
/// what else the machine does falls on all alike.
fn table_lookups(tables: &[Arc<SlotTable>], keys: &[[u8; 24]]) -> Vec<[f64; 2]> {
    let mut best = vec![[f64::MAX; 2]; tables.len()];
    let per_key = |start: Instant| start.elapsed().as_nanos() as f64 / KEYS as f64;
    // What came out before decides which key is next, but is made 0: keys that lie farther apart the more members
    // there are would measure the memory of the keys.
    let none = black_box(0_usize);
    for _ in 0..TABLE_PASSES {
        for (table, [independent, dependent]) in tables.iter().zip(&mut best) {
            let start = Instant::now();
            let mut sum = 0_u64;
            for key in keys {
                sum += table.owner(table.hash(key)).map_or(0, |owner| u64::from(owner.0));
            }
            black_box(sum);
            *independent = independent.min(per_key(start));
            let start = Instant::now();
            let mut last = 0_usize;
            for index in 0..KEYS {
                let key = &keys[(index + (last & none)) % KEYS];
                last = table.owner(table.hash(key)).map_or(0, Ordinal::index);
            }
            black_box(last);
            *dependent = dependent.min(per_key(start));
        }
    }
    best
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The median time of some changes by one member, of building, and of making the table to publish.
fn changes(count: u16) -> [Duration; 3] {
    let weights = |count: u16| -> BTreeMap<Ordinal, u32> { (0..count).map(|n| (Ordinal(n), 1)).collect() };
    let time = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    let (full, less) = (weights(count), weights(count - 1));
    let mut allocation = Allocation::new(1);
    allocation.rebalance(&full);
    let update = |round: usize| {
        let next = if round.is_multiple_of(2) { &less } else { &full };
        time(&mut || {
            black_box(allocation.rebalance(next));
        })
    };
    let update = median((0..400).map(update).collect());
    let build = |_| {
        time(&mut || {
            let mut allocation = Allocation::new(1);
            allocation.rebalance(&full);
            black_box(allocation.table());
        })
    };
    let build = median((0..20).map(build).collect());
    let table = allocation.table();
    let publish = |_| time(&mut || drop(black_box(Arc::new(table.clone()))));
    [update, build, median((0..200).map(publish).collect())]
}

/// Whether every one of many random changes moved `Σ max(0, current − quota)` slots and not one more, and left
/// every share within a slot of its quota.
fn exact_moves(operations: u32) -> (u32, f64) {
    let mut weights: BTreeMap<Ordinal, u32> = (0..40).map(|n| (Ordinal(n), 1)).collect();
    let mut allocation = Allocation::new(1);
    allocation.rebalance(&weights);
    let mut held: BTreeMap<Ordinal, usize> = allocation.table().shares().into_iter().collect();
    let (mut exact, mut worst) = (0, 0.0_f64);
    for k in 0..operations {
        let random = rehash(u64::from(k), 7);
        let ordinal = Ordinal((random % 60) as u16);
        match (random >> 32) % 3 {
            0 => drop(weights.insert(ordinal, 1)),
            1 => drop(weights.remove(&ordinal)),
            _ => drop(weights.insert(ordinal, (random >> 40) as u32 % 8 + 1)),
        }
        if weights.is_empty() {
            weights.insert(ordinal, 1);
        }
        let moved = allocation.rebalance(&weights);
        let now: BTreeMap<Ordinal, usize> = allocation.table().shares().into_iter().collect();
        let surplus =
            |(o, before): (&Ordinal, &usize)| before.saturating_sub(now.get(o).copied().unwrap_or(0));
        exact += u32::from(moved == held.iter().map(surplus).sum::<usize>());
        let total: u64 = weights.values().map(|weight| u64::from(*weight)).sum();
        for (ordinal, slots) in &now {
            let quota = 65_536.0 * f64::from(weights[ordinal]) / total as f64;
            worst = worst.max((*slots as f64 - quota).abs());
        }
        held = now;
    }
    (exact, worst)
}

/// The table of figures, measured here.
fn table() -> String {
    let (keys, ids) = (keys(), six_digits());
    let mut out = String::new();
    let mut line = |text: String| writeln!(out, "{text}").expect("a string takes all");
    line(format!("{:<34}{:>10}{:>10}{:>10}{:>10}", "ns per lookup, 24-byte key, N =", 3, 10, 100, 1_000));
    let row = |name: &str, cells: [String; 4]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>10}")).collect();
        format!("{name:<34}{cells}")
    };
    let tables: Vec<Arc<SlotTable>> = SIZES
        .into_iter()
        .filter_map(|count| match ring(Policy::SlotTable, count) {
            Ring::SlotTable(table) => Some(table),
            _ => None,
        })
        .collect();
    let lookups = table_lookups(&tables, &keys);
    let independent: Vec<f64> = lookups.iter().map(|lookup| lookup[0]).collect();
    for (index, what) in ["independent (≤ 5)", "dependent (≤ 20)"].into_iter().enumerate() {
        let times: Vec<f64> = lookups.iter().map(|lookup| lookup[index]).collect();
        let (least, most) = times.iter().fold((f64::MAX, 0.0_f64), |(a, b), ns| (a.min(*ns), b.max(*ns)));
        let cells = std::array::from_fn(|size| format!("{:.1}", times[size]));
        let cells = row(&format!("slot-table, {what}"), cells);
        line(format!("{cells}   most/least {:.2} (≤ 1.10)", most / least));
    }
    for policy in [Policy::SlotTable, Policy::Maglev, Policy::Ring, Policy::Rendezvous] {
        let cells = SIZES.map(|count| format!("{:.1}", fastest(&keys, &own(policy, count))));
        line(row(&format!("{policy}, as one of all rings"), cells));
    }
    for (name, formula) in FORMULAS {
        let [a, b, c] = [3, 10, 56].map(|count| format!("{:.1}", fastest(&ids, &assignment(formula, count))));
        line(row(&format!("assignment, {name} (≤ 25)"), [a, b, format!("{c} N=56"), "-".to_owned()]));
    }
    let peers_of: Vec<Vec<(&str, Lookup)>> = SIZES.into_iter().map(peers).collect();
    for (name, _) in &peers_of[0] {
        let mut ratio = Vec::new();
        let mut cells: Vec<String> = Vec::new();
        for (size, peers) in peers_of.iter().enumerate() {
            match peers.iter().find(|peer| peer.0 == *name) {
                Some((_, lookup)) => {
                    let ns = fastest(&keys, lookup.as_ref());
                    cells.push(format!("{ns:.1}"));
                    ratio.push(format!("{:.0}x", ns / independent[size]));
                }
                None => cells.push("-".to_owned()),
            }
        }
        let cells: [String; 4] = cells.try_into().expect("four sizes");
        line(format!("{}   slot-table is faster {}", row(name, cells), ratio.join(" ")));
    }
    for (what, index) in [("update p50 (≤ 150 µs)", 0), ("build (≤ 1 ms)", 1), ("publish copy (≤ 20 µs)", 2)]
    {
        line(row(what, SIZES.map(|count| format!("{:.1?}", changes(count)[index]))));
    }
    let spreads = SIZES
        .map(|count| format!("{:.5}", Spread::of(&ring(Policy::SlotTable, count).shares()).max_over_mean));
    line(row("slot-table, max/mean of shares", spreads));
    for policy in [Policy::Maglev, Policy::Ring] {
        let spreads =
            SIZES.map(|count| format!("{:.4}", Spread::of(&ring(policy, count).shares()).max_over_mean));
        line(row(&format!("{policy}, max/mean of shares"), spreads));
    }
    for policy in [Policy::SlotTable, Policy::Maglev, Policy::Ring, Policy::Rendezvous] {
        let moved = SIZES.map(|count| {
            let balancing = Balancing { policy, ..Balancing::default() };
            let mut state = RingState::new(&balancing, 1).expect("a policy without settings");
            let mut members = members(count);
            state.update(&balancing, &members).expect("they fit");
            members.remove(usize::from(count / 2));
            let moved = state.update(&balancing, &members).expect("they fit").share;
            format!("{:.2}", moved * f64::from(count))
        });
        line(row(&format!("{policy}, moved/least, one leaves"), moved));
    }
    let (exact, worst) = exact_moves(10_000);
    line(format!(
        "moved exactly Σ max(0, current − quota) in {exact} of 10000 random changes; worst share off by {worst:.3} slots (< 1)"
    ));
    out
}

fn lookups(criterion: &mut Criterion) {
    let keys = keys();
    for count in [100, 1_000] {
        let mut group = criterion.benchmark_group(format!("lookup/{count}"));
        group.sample_size(20).warm_up_time(Duration::from_millis(200));
        group.measurement_time(Duration::from_millis(500));
        let own = [Policy::SlotTable, Policy::Maglev, Policy::Ring, Policy::Rendezvous]
            .map(|policy| (policy.name(), own(policy, count)));
        for (name, lookup) in own.into_iter().chain(peers(count)) {
            let mut next = 0;
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter(|| {
                    next = (next + 1) % KEYS;
                    lookup(black_box(&keys[next]))
                });
            });
        }
        group.finish();
    }
}

fn main() {
    let alone = std::env::args().any(|argument| argument == "table");
    if !alone {
        let mut criterion = Criterion::default().configure_from_args();
        lookups(&mut criterion);
        criterion.final_summary();
    }
    // `cargo test` runs benches too, to see that they run; figures of a debug build say nothing.
    if !std::env::args().any(|argument| argument == "--test") {
        println!("{}", table());
    }
}
