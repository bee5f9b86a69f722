//! Limits of a head, each with its status, and what just fits.

use std::time::Duration;

use crate::case::{request, run, scenario};
use crate::check::ensure;
use crate::origin::{Conn, Origin};
use crate::world::World;

fn line(target_bytes: usize) -> String {
    format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(target_bytes - 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_line_has_8_kib() {
    // RFC 9112 3 recommends to take at least 8,000 bytes.
    let fits = [1_000, 4_000, 7_980].map(|bytes| {
        request(format!("a target of {bytes} bytes"), "RFC 9112 3", line(bytes)).passed().kept()
    });
    let long = [8_193, 9_000, 16_384, 65_536, 100_000, 1_000_000].map(|bytes| {
        request(format!("a target of {bytes} bytes"), "RFC 9110 15.5.15", line(bytes)).refused(&[414])
    });
    let query = format!("GET /?{} HTTP/1.1\r\nHost: a\r\n\r\n", "q".repeat(20_000));
    let query = request("a query of 20,000 bytes", "RFC 9110 15.5.15", query).refused(&[414]);
    let absolute = format!("GET http://a/{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(20_000));
    let absolute =
        request("an absolute target of 20,000 bytes", "RFC 9110 15.5.15", absolute).refused(&[414]);
    let endless = "GET /".to_owned() + &"a".repeat(200_000);
    let endless = request("a line without an end", "RFC 9110 15.5.15", endless).refused(&[414]);
    let split =
        request("a long line in pieces", "RFC 9110 15.5.15", line(20_000)).split(1_000).refused(&[414]);
    let version = format!("GET / HTTP/1.1{}\r\nHost: a\r\n\r\n", "1".repeat(20_000));
    let version = request("a version of 20,000 bytes", "RFC 9112 3", version).refused(&[400, 414, 505]);
    run(fits.into_iter().chain(long).chain([query, absolute, endless, split, version])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_64_kib_and_100_fields() {
    let section = "RFC 6585 5";
    let fields = |count: usize| (0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let many = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", fields(count));
    let sized = |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "a".repeat(bytes));
    let parts = |count: usize, bytes: usize| {
        let fields: String = (0..count).map(|n| format!("X-{n}: {}\r\n", "a".repeat(bytes))).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    let name = format!("GET / HTTP/1.1\r\nHost: a\r\n{}: 1\r\n\r\n", "X".repeat(100_000));
    let endless = "GET / HTTP/1.1\r\nHost: a\r\n".to_owned() + &"X-A: 1\r\n".repeat(20_000);
    let value = "GET / HTTP/1.1\r\nHost: a\r\nX-A: ".to_owned() + &"a".repeat(200_000);
    let cookie = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "a=b; ".repeat(20_000));
    let last = format!("GET / HTTP/1.1\r\n{}Host: a\r\n\r\n", fields(150));
    let post = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n{}\r\nhello", fields(150));
    let host = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(100_000));
    let cases = [
        request("100 fields", section, many(99)).passed().kept(),
        request("101 fields", section, many(100)).refused(&[431]),
        request("150 fields", section, many(150)).refused(&[431]),
        request("5,000 fields", section, many(5_000)).refused(&[431]),
        request("a field of 30,000 bytes", section, sized(30_000))
            .passed()
            .sees("x-a", "a".repeat(30_000))
            .kept(),
        request("a field of 60,000 bytes", section, sized(60_000))
            .passed()
            .sees("x-a", "a".repeat(60_000))
            .kept(),
        request("a field of 65,536 bytes", section, sized(65_536)).refused(&[431]),
        request("a field of 70,000 bytes", section, sized(70_000)).refused(&[431]),
        request("a field of a million bytes", section, sized(1_000_000)).refused(&[431]),
        request("60 fields of 1,000 bytes", section, parts(60, 1_000)).passed().kept(),
        request("70 fields of 1,000 bytes", section, parts(70, 1_000)).refused(&[431]),
        request("70 fields of 1,000 bytes in pieces", section, parts(70, 1_000)).split(777).refused(&[431]),
        request("a name of 100,000 bytes", section, name).refused(&[400, 431]),
        request("fields without an end", section, endless).refused(&[431]),
        request("a value without an end", section, value).refused(&[431]),
        request("a Cookie of 100,000 bytes", section, cookie).refused(&[431]),
        request("too many fields before the Host", section, last).refused(&[400, 431]),
        request("too many fields before a body", section, post).refused(&[431]),
        request("a Host of 100,000 bytes", section, host).refused(&[400, 431]),
    ];
    run(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_has_10_seconds() {
    let slow = |name: &'static str, bytes: &'static str| {
        scenario(name, "RFC 9110 15.5.9", async move {
            let origin = Origin::start(|conn: Conn| async move { Some(conn) }).await;
            let world = World::start(origin.address).await;
            let mut client = world.client().await;
            client.patience = Duration::from_secs(13);
            client.say(bytes).await;
            let answer = client.answer("GET").await.map_err(|trouble| format!("{trouble:?}"))?;
            ensure(answer.status() == 408, || format!("the client got {}", answer.start))?;
            let rest = client.rest().await;
            ensure(rest.as_deref() == Some(&[]), || format!("behind it came {rest:?}"))?;
            drop(client);
            world.stop().await;
            let seen = origin.end().await;
            ensure(seen.requests.is_empty() && seen.partial.is_empty(), || format!("the origin saw {seen:?}"))
        })
    };
    let cases = [
        slow("a head that stops in a field", "GET / HTTP/1.1\r\nHost: a\r\nX-A"),
        slow("a head that stops in its first line", "GET"),
        slow("a head that stops before its last line", "GET / HTTP/1.1\r\nHost: a\r\n"),
    ];
    run(cases).await;
}
