//! Who asked, as the origin is told. There are no trusted proxies here: whatever a client claims is overwritten.

use std::net::{IpAddr, Ipv6Addr};

use crate::case::{Case, Observed, request, run, scenario};
use crate::check::ensure;
use crate::origin::{Conn, Origin};
use crate::world::World;

const SECTION: &str = "RFC 7239 4, 8.1";

fn get(name: impl Into<String>, fields: &str) -> Case {
    let bytes = format!("GET / HTTP/1.1\r\nHost: a.example:81\r\n{fields}\r\n");
    request(name, SECTION, bytes).passed().claim(tells_the_truth)
}

/// Forwarding fields tell of this client alone.
fn tells_the_truth(observed: &Observed) -> Result<(), String> {
    let request = &observed.seen.requests[0];
    let said = |name, value: &str| {
        let got = request.get(name);
        ensure(got.as_deref() == Some(value), || format!("the origin saw {name}: {got:?}"))
    };
    said("x-forwarded-for", "127.0.0.1")?;
    said("x-forwarded-proto", "http")?;
    said("x-forwarded-host", "a.example:81")?;
    let real = request.get("x-real-ip");
    ensure(real.as_deref().is_none_or(|ip| ip == "127.0.0.1"), || format!("X-Real-IP: {real:?}"))?;
    let port = request.get("x-forwarded-port");
    ensure(port.as_deref().is_none_or(|port| port != "666"), || format!("X-Forwarded-Port: {port:?}"))?;
    let forwarded = request.get("forwarded");
    ensure(forwarded.as_deref().is_none_or(is_ours), || format!("Forwarded: {forwarded:?}"))
}

/// One element, of this client; a host with a port is quoted (RFC 7239 4).
fn is_ours(forwarded: &str) -> bool {
    let mut parts = forwarded.split(';').map(|part| part.trim().to_ascii_lowercase());
    let fine = |part: &String| match part.split_once('=') {
        Some(("for", value)) => ["127.0.0.1", "\"127.0.0.1\""].contains(&value),
        Some(("host", value)) => value == "\"a.example:81\"",
        Some(("proto", value)) => value == "http",
        Some(("by", value)) => !value.is_empty(),
        _ => false,
    };
    parts.clone().any(|part| part.starts_with("for=")) && parts.all(|part| fine(&part))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_claims_of_itself_does_not_count() {
    let claims = [
        "X-Forwarded-For: 6.6.6.6\r\n",
        "x-forwarded-for: 6.6.6.6\r\n",
        "X-FORWARDED-FOR: 6.6.6.6, 7.7.7.7\r\n",
        "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\n",
        "X-Forwarded-For:\r\n",
        "X-Forwarded-For: 127.0.0.1, 6.6.6.6\r\n",
        "X-Forwarded-Proto: https\r\n",
        "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n",
        "X-Forwarded-Host: evil\r\n",
        "X-Forwarded-Host: evil\r\nX-Forwarded-Host: evil\r\n",
        "X-Forwarded-Port: 666\r\n",
        "X-Real-IP: 6.6.6.6\r\n",
        "x-real-ip: 6.6.6.6\r\nX-Real-Ip: 7.7.7.7\r\n",
        "Forwarded: for=6.6.6.6\r\n",
        "Forwarded: for=6.6.6.6;host=evil;proto=https, for=7.7.7.7\r\n",
        "Forwarded: for=\"\r\n",
        "Forwarded: for=6.6.6.6\r\nforwarded: for=7.7.7.7\r\n",
        "Connection: x-forwarded-for\r\nX-Forwarded-For: 6.6.6.6\r\n",
        "Connection: x-real-ip, forwarded, x-forwarded-proto\r\nX-Real-IP: 6.6.6.6\r\n",
        "",
    ];
    run(claims.map(|fields| get(format!("the claim {fields:?}"), fields))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_spellings_say_the_same() {
    let present = get("X-Real-IP and Forwarded are set", "").claim(|observed| {
        let request = &observed.seen.requests[0];
        let (real, forwarded) = (request.get("x-real-ip"), request.get("forwarded"));
        ensure(real.is_some() && forwarded.is_some(), || format!("{real:?}, {forwarded:?}"))
    });
    let absolute = "GET http://b:82/x HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: evil\r\n\r\n";
    let absolute = request("the host of an absolute target", SECTION, absolute).passed();
    let old = request("no Host at all", SECTION, "GET / HTTP/1.0\r\nX-Forwarded-Host: evil\r\n\r\n").passed();
    let old = old.claim(|observed| {
        let host = observed.seen.requests[0].get("x-forwarded-host");
        ensure(host.as_deref() != Some("evil"), || format!("X-Forwarded-Host: {host:?}"))
    });
    let trailer = "POST / HTTP/1.1\r\nHost: a.example:81\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\nhi\r\n0\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\r\n";
    let trailer =
        request("claims in trailers", SECTION, trailer).passed().claim(tells_the_truth).claim(|observed| {
            let trailers = &observed.seen.requests[0].trailers;
            ensure(trailers.is_empty(), || format!("{trailers:?}"))
        });
    let post =
        "POST / HTTP/1.1\r\nHost: a.example:81\r\nX-Forwarded-For: 6.6.6.6\r\nContent-Length: 2\r\n\r\nhi";
    let post = request("claims with a body", SECTION, post).passed().claim(tells_the_truth).sees_body("hi");
    let six = scenario("a client by IPv6", "RFC 7239 6", async {
        let origin = Origin::start(|mut conn: Conn| async move {
            conn.request().await?;
            conn.ok("ok").await;
            Some(conn)
        })
        .await;
        let world = World::start_at(IpAddr::V6(Ipv6Addr::LOCALHOST), origin.address, |_| {}).await;
        let mut client = world.client().await;
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.answer("GET").await.map_err(|trouble| format!("{trouble:?}"))?;
        drop(client);
        world.stop().await;
        let seen = origin.end().await;
        let (by, forwarded) = (seen.requests[0].get("x-forwarded-for"), seen.requests[0].get("forwarded"));
        ensure(by.as_deref() == Some("::1"), || format!("X-Forwarded-For: {by:?}"))?;
        let quoted = forwarded.as_deref().is_none_or(|f| f.to_ascii_lowercase().contains("for=\"[::1]\""));
        ensure(quoted, || format!("Forwarded: {forwarded:?}"))
    });
    run([six, present, absolute.sees("x-forwarded-host", "b:82"), old, trailer.broken(&[400]), post]).await;
}
