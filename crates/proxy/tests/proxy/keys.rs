use std::collections::BTreeSet;

use ringmaster_core::spec::{HashKeys, HashOn};

use crate::client::Client;
use crate::origin::Origin;
use crate::world::{World, hashing, service};

const NAMES: [&str; 3] = ["0", "1", "2"];

async fn origins() -> Vec<Origin> {
    let mut origins = Vec::new();
    for name in NAMES {
        origins.push(Origin::named(name).await);
    }
    origins
}

/// Sends 40 requests with different keys and checks that each goes to its owner in the table, twice.
async fn check(hash_on: HashOn, request: impl Fn(&str) -> (String, String)) {
    let origins = origins().await;
    let routing = hashing(hash_on, &origins.iter().map(|o| o.address).collect::<Vec<_>>());
    let world = World::start([routing.clone()]).await;
    let mut client = world.client().await;
    let mut owners = BTreeSet::new();
    for key in (0..40).map(|n| format!("k{n}")) {
        let (path, fields) = request(&key);
        let hashed = if path == format!("/{key}") { path.clone() } else { key };
        let owner = routing.ring.candidates(hashed.as_bytes()).next().unwrap().to_string();
        for _ in 0..2 {
            assert_eq!(client.get(&path, &fields).await.text(), owner, "{hashed}");
        }
        owners.insert(owner);
    }
    assert_eq!(owners.len(), NAMES.len());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_source_of_keys_leads_to_the_owner() {
    check(HashOn::RequestId, |key| ("/".into(), format!("x-request-id: {key}\r\n"))).await;
    check(HashOn::Path, |key| (format!("/{key}"), String::new())).await;
    check(HashOn::Header("X-User".into()), |key| ("/".into(), format!("x-user: {key}\r\n"))).await;
    check(HashOn::Cookie("sid".into()), |key| ("/".into(), format!("Cookie: a=b; sid={key}\r\n"))).await;
    check(HashOn::Query("u".into()), |key| (format!("/?a=b&u={key}"), String::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_address_leads_to_its_owner() {
    let origins = origins().await;
    let routing = hashing(HashOn::ClientIp, &origins.iter().map(|o| o.address).collect::<Vec<_>>());
    let owner = routing.ring.candidates(b"127.0.0.1").next().unwrap().to_string();
    let world = World::start([routing]).await;
    for _ in 0..5 {
        assert_eq!(world.client().await.get("/", "").await.text(), owner);
    }
    world.stop().await;
}

async fn spread(client: &mut Client) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..60 {
        seen.insert(client.get("/", "").await.text().to_owned());
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_a_value_or_without_affinity_spread_evenly() {
    let origins = origins().await;
    let addresses: Vec<_> = origins.iter().map(|o| o.address).collect();
    let mut none = hashing(HashOn::Path, &addresses);
    none.balancing.hash_on = HashKeys::default();
    for routing in
        [hashing(HashOn::RequestId, &addresses), hashing(HashOn::Cookie("sid".into()), &addresses), none]
    {
        let world = World::start([routing]).await;
        assert_eq!(spread(&mut world.client().await).await.len(), 3);
        world.stop().await;
    }
    // The less loaded of two, ties to the one that served fewer: two thirds of the requests were of that kind.
    let counts: Vec<usize> = origins.iter().map(|o| o.counts().requests).collect();
    assert!(counts.iter().all(|&count| (40..=80).contains(&count)), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_missing_members_keys_move_and_they_come_home() {
    let origins = origins().await;
    let addresses: Vec<_> = origins.iter().map(|o| o.address).collect();
    let full = hashing(HashOn::Path, &addresses);
    let mut without_0 = full.clone();
    without_0.endpoints.pop_first();
    let mut world = World::start([full.clone()]).await;
    let mut client = world.client().await;
    let mut homes = Vec::new();
    for n in 0..60 {
        homes.push(client.get(&format!("/{n}"), "").await.text().to_owned());
    }
    world.publish([without_0]).await;
    for (n, home) in homes.iter().enumerate() {
        let path = format!("/{n}");
        let second = full.ring.candidates(path.as_bytes()).nth(1).unwrap().to_string();
        let expected = if home == "0" { &second } else { home };
        assert_eq!(client.get(&path, "").await.text(), expected);
    }
    world.publish([full]).await;
    for (n, home) in homes.iter().enumerate() {
        assert_eq!(client.get(&format!("/{n}"), "").await.text(), home);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn less_loaded_means_fewer_in_flight() {
    let slow = Origin::script(|mut conn| async move {
        while conn.request().await.is_some() {
            std::future::pending::<()>().await;
        }
    });
    let (mut slow, fast) = (slow.await, Origin::named("fast").await);
    let mut world = World::start([service("web", 2, &[(0, 0, slow.address)])]).await;
    let mut busy = world.client().await;
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    slow.requests(1).await;
    let both = service("web", 2, &[(0, 0, slow.address), (1, 0, fast.address)]);
    world.publish([both.clone()]).await;
    let mut client = world.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/", "").await.text(), "fast");
    }
    drop(busy);
    world.stop().await;
}
