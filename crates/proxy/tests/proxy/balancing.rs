//! What modifies the choice: weights, slow start, and what the proxy adds to an answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringmaster_core::quantity::{Factor, Span};
use ringmaster_core::ring::{bounded, fresh};
use ringmaster_core::snapshot::{Report, ServiceRouting};
use ringmaster_core::spec::{HashKeys, HashOn, Policy};
use ringmaster_core::{Ordinal, Timestamp};

use crate::client::Client;
use crate::origin::Origin;
use crate::world::{World, hashing, replica, ring_members};

async fn origins(count: usize) -> (Vec<Origin>, Vec<SocketAddr>) {
    let mut origins = Vec::new();
    for name in ["0", "1", "2", "3"].into_iter().take(count) {
        origins.push(Origin::named(name).await);
    }
    let addresses = origins.iter().map(|origin| origin.address).collect();
    (origins, addresses)
}

async fn counts(client: &mut Client, requests: u32) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for n in 0..requests {
        *counts.entry(client.get(&format!("/{n}"), "").await.text().to_owned()).or_default() += 1;
    }
    counts
}

/// The service under a policy and weights, its ring made for them.
fn weighted(policy: Policy, weights: &[u32], addresses: &[SocketAddr]) -> ServiceRouting {
    let mut routing = hashing(HashOn::Path, addresses);
    routing.balancing.policy = policy;
    routing.balancing.weights = weights.to_vec();
    if !policy.hashes() {
        routing.balancing.hash_on = HashKeys::default();
    }
    let mut members = ring_members(addresses.len() as u16);
    for member in &mut members {
        member.weight = routing.balancing.weight(member.ordinal);
    }
    routing.ring = fresh(&routing.balancing, 7, &members).unwrap();
    for (ordinal, endpoint) in &mut routing.endpoints {
        endpoint.weight = routing.balancing.weight(*ordinal);
    }
    routing
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_decide_the_shares_under_every_policy() {
    let (_origins, addresses) = origins(3).await;
    for (policy, tolerance) in [
        (Policy::SlotTable, 45),
        (Policy::Maglev, 45),
        (Policy::Ring, 90),
        (Policy::Rendezvous, 45),
        (Policy::RoundRobin, 1),
    ] {
        let world = World::start([weighted(policy, &[3, 1, 0], &addresses)]).await;
        let counts = counts(&mut world.client().await, 600).await;
        let (heavy, light) = (counts["0"], counts["1"]);
        assert!(heavy.abs_diff(450) <= tolerance && heavy + light == 600, "{policy}: {counts:?}");
        world.stop().await;
    }
}

/// A service whose member 2 has served for half of a slow start that outlasts the test by far.
fn half_grown(policy: Policy, addresses: &[SocketAddr]) -> ServiceRouting {
    let mut routing = weighted(policy, &[], addresses);
    let (start, half) = (Duration::from_secs(20 * 3_600), Duration::from_secs(10 * 3_600));
    routing.balancing.slow_start = Some(Span(start));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - half;
    let new = routing.endpoints.get_mut(&Ordinal(2)).unwrap();
    new.new_since = Some(Timestamp(since.as_millis() as u64));
    routing
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_start_holds_back_the_keys_that_an_explanation_names() {
    let (_origins, addresses) = origins(3).await;
    let routing = half_grown(Policy::SlotTable, &addresses);
    let world = World::start([routing.clone()]).await;
    let mut client = world.client().await;
    let now = || Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64);
    let (mut held_back, mut own) = (0, 0);
    for n in 0..900 {
        let path = format!("/{n}");
        let explain = |at| routing.explain(path.as_bytes(), &Report::default(), at);
        let (explained, later) = (explain(now()), explain(now().after(Duration::from_secs(60))));
        if explained.serves() != later.serves() {
            continue; // Its moment is now: the answer could be either.
        }
        let body = client.get(&path, "").await.text().to_owned();
        assert_eq!(body, explained.serves().unwrap().to_string(), "{explained:?}");
        own += u32::from(explained.owner == Some(Ordinal(2)));
        held_back += u32::from(explained.owner == Some(Ordinal(2)) && body != "2");
    }
    assert!((own * 2 / 5..own * 3 / 5).contains(&held_back), "{held_back} of {own} waited at half time");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_a_slow_start_is_drawn() {
    let (_origins, addresses) = origins(3).await;
    for policy in [Policy::RoundRobin, Policy::P2c, Policy::LeastRequest] {
        let world = World::start([half_grown(policy, &addresses)]).await;
        let counts = counts(&mut world.client().await, 600).await;
        assert!((60..=150).contains(&counts["2"]), "{policy}: {counts:?}");
        world.stop().await;
    }
    // Alone it serves all.
    let mut alone = half_grown(Policy::RoundRobin, &addresses);
    alone.endpoints.retain(|ordinal, _| *ordinal == Ordinal(2));
    let world = World::start([alone]).await;
    assert_eq!(counts(&mut world.client().await, 20).await["2"], 20);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_is_not_given_every_request_until_it_has_caught_up() {
    let (_origins, addresses) = origins(3).await;
    let mut routing = weighted(Policy::P2c, &[], &addresses);
    let mut world = World::start([routing.clone()]).await;
    counts(&mut world.client().await, 900).await;
    let replaced = routing.endpoints.get_mut(&Ordinal(1)).unwrap();
    replaced.replica = replica("web", 1, 1);
    world.publish([routing]).await;
    let after = counts(&mut world.client().await, 150).await;
    assert!(after.values().all(|count| count.abs_diff(50) <= 10), "{after:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_by_key_does_not_count_as_a_turn() {
    let (_origins, addresses) = origins(3).await;
    let mut routing = hashing(HashOn::Header("X-Key".into()), &addresses);
    routing.balancing.weights.clear();
    let world = World::start([routing]).await;
    let mut client = world.client().await;
    for _ in 0..300 {
        client.get("/", "X-Key: hot\r\n").await;
    }
    let after = counts(&mut client, 150).await;
    assert!(after.values().all(|count| count.abs_diff(50) <= 10), "{after:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_goes_by_weights() {
    let (_origins, addresses) = origins(2).await;
    let mut routing = weighted(Policy::SlotTable, &[9, 1], &addresses);
    routing.balancing.bounded_load = Some(Factor { thousandths: 1_000 });
    let world = World::start([routing]).await;
    // One request at a time: ⌈1 · 1 · w / 10⌉ = 1 of each, so every key stays with its owner.
    let counts = counts(&mut world.client().await, 300).await;
    assert!((240..=295).contains(&counts["0"]), "{counts:?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hot_key_never_breaks_the_bound() {
    const REQUESTS: u64 = 60;
    let mut held = Vec::new();
    for _ in 0..3 {
        // Nobody is answered before the end: what arrives is in flight.
        held.push(
            Origin::script(|mut conn| async move {
                while conn.request().await.is_some() {
                    std::future::pending::<()>().await;
                }
            })
            .await,
        );
    }
    let addresses: Vec<SocketAddr> = held.iter().map(|origin| origin.address).collect();
    let mut routing = weighted(Policy::SlotTable, &[], &addresses);
    let bound = Factor { thousandths: 1_250 };
    routing.balancing.bounded_load = Some(bound);
    let mut world = World::start([routing.clone()]).await;
    let mut clients = Vec::new();
    for _ in 0..REQUESTS {
        clients.push(world.client().await);
    }
    // All at once, over both workers.
    let sending = clients.iter_mut().map(|client| client.send("GET /hot HTTP/1.1\r\nHost: a\r\n\r\n"));
    futures_util::future::join_all(sending).await;
    let in_flight = |report: &Report| -> Vec<u64> {
        routing.endpoints.values().map(|e| u64::from(report.endpoints[&e.replica].in_flight)).collect()
    };
    let report = world.report(|report| in_flight(report).iter().sum::<u64>() == REQUESTS).await;
    let cap = bounded::cap(bound, REQUESTS - 1, 1, 3);
    let order: Vec<usize> = routing.ring.candidates(b"/hot").map(Ordinal::index).collect();
    let of = in_flight(&report);
    // The owner and the one that comes next are full, the rest is the third one's.
    assert_eq!([of[order[0]], of[order[1]], of[order[2]]], [cap, cap, REQUESTS - 2 * cap], "{of:?}");
    drop(clients);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_is_set_keeps_its_client_on_one_replica() {
    let (_origins, addresses) = origins(3).await;
    let routing = hashing(HashOn::SetCookie("sid".into()), &addresses);
    let world = World::start([routing.clone()]).await;
    let mut client = world.client().await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..30 {
        let first = client.get("/", "").await;
        let set = first.headers["set-cookie"].clone();
        let (pair, attributes) = set.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        let value = pair.strip_prefix("sid=").unwrap();
        let owner = routing.ring.candidates(value.as_bytes()).next().unwrap().to_string();
        assert_eq!(first.text(), owner);
        for _ in 0..3 {
            let again = client.get("/", &format!("Cookie: a=b; {pair}\r\n")).await;
            assert_eq!(again.text(), owner);
            assert!(!again.headers.contains_key("set-cookie"), "{:?}", again.headers);
        }
        seen.insert(owner);
    }
    assert_eq!(seen.len(), 3);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_names_its_replica_where_that_is_asked_for() {
    let (_origins, addresses) = origins(3).await;
    for asked in [true, false] {
        let mut routing = hashing(HashOn::Path, &addresses);
        routing.route.replica_header = asked;
        let world = World::start([routing]).await;
        let answer = world.client().await.get("/x", "").await;
        let named = answer.headers.get("x-ringmaster-replica").cloned();
        assert_eq!(named, asked.then(|| format!("web-{}", answer.text())));
        world.stop().await;
    }
}
