//! Expect: 100-continue, from either side, and answers that come before the body.

use crate::case::{Case, Checked, request, run, scenario};
use crate::check::ensure;
use crate::client::{Client, Trouble};
use crate::message::Message;
use crate::origin::{Conn, Origin};
use crate::world::World;

const SECTION: &str = "RFC 9110 10.1.1";

/// Sends a head that expects, waits to be asked, then sends the body. An origin that was not asked to continue may
/// stay silent, and then a client sends it unasked.
async fn expecting(client: &mut Client, head: &str, body: &str) -> Checked<Message> {
    client.say(head).await;
    let told = |trouble| format!("{trouble:?}");
    match client.next("POST").await {
        Ok(interim) if interim.status() == 100 => {}
        Ok(answer) if answer.status() >= 200 => return Ok(answer),
        Ok(other) => return Err(format!("first came {}", other.start)),
        Err(Trouble::Silence(_)) => {}
        Err(trouble) => return Err(told(trouble)),
    }
    client.say(body).await;
    client.answer("POST").await.map_err(told)
}

/// A client that waits before an origin with this script, which gets the body in the end.
fn waits(name: &str, fields: &'static str, body: &'static str, script: fn(Conn) -> Script) -> Case {
    scenario(format!("Expect: {name}"), SECTION, async move {
        let origin = Origin::start(script).await;
        let world = World::start(origin.address).await;
        let mut client = world.client().await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let answer = expecting(&mut client, &head, body).await?;
        ensure(answer.status() == 200, || format!("the client got {}", answer.start))?;
        client.say("GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let next = client.answer("GET").await.map_err(|trouble| format!("the next request: {trouble:?}"))?;
        ensure(next.status() == 200, || format!("the next request got {}", next.start))?;
        drop(client);
        world.stop().await;
        let seen = origin.end().await;
        let bodies: Vec<_> = seen.requests.iter().map(|request| request.body.clone()).collect();
        ensure(bodies == [b"hello".to_vec(), Vec::new()], || format!("the origin saw {seen:?}"))
    })
}

type Script = std::pin::Pin<Box<dyn Future<Output = Option<Conn>> + Send>>;

/// Answers each request as a whole.
fn silent(mut conn: Conn) -> Script {
    Box::pin(async move {
        while conn.request().await.is_some() {
            conn.ok("ok").await;
        }
        Some(conn)
    })
}

/// Asks for the body if that is expected of it.
fn asking(mut conn: Conn) -> Script {
    Box::pin(async move {
        let head = conn.head().await?.to_ascii_lowercase();
        if head.contains("\r\nexpect: 100-continue\r\n") {
            conn.write("HTTP/1.1 100 Continue\r\n\r\n").await;
        }
        conn.until(b"hello").await?;
        if head.contains("chunked") {
            conn.until(b"0\r\n\r\n").await?;
        }
        conn.ok("ok").await;
        silent(conn).await
    })
}

/// Asks twice and hints between.
fn asking_twice(mut conn: Conn) -> Script {
    Box::pin(async move {
        conn.head().await?;
        conn.write(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
        )
        .await;
        conn.until(b"hello").await?;
        conn.ok("ok").await;
        silent(conn).await
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_asked() {
    const LENGTH: &str = "Content-Length: 5\r\nExpect: 100-continue\r\n";
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n";
    const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";
    let sent = |name: &str, fields: &str| {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\nhello");
        request(format!("Expect: {name}"), SECTION, bytes).methods(&["POST"]).passed().sees_body("hello")
    };
    let cases = [
        waits("a length", LENGTH, "hello", silent),
        waits("a length, an origin that asks", LENGTH, "hello", asking),
        waits("chunks", CHUNKED, CHUNKS, silent),
        waits("chunks, an origin that asks", CHUNKED, CHUNKS, asking),
        waits("capitals", "Content-Length: 5\r\nExpect: 100-CONTINUE\r\n", "hello", silent),
        waits("in small letters", "content-length: 5\r\nexpect: 100-continue\r\n", "hello", silent),
        waits("before the length", "Expect: 100-continue\r\nContent-Length: 5\r\n", "hello", silent),
        waits("an origin that asks twice", LENGTH, "hello", asking_twice),
        sent("a client that does not wait", LENGTH),
        sent("a client that does not wait, 100-Continue", "Content-Length: 5\r\nExpect: 100-Continue\r\n"),
        request("Expect: with no body", SECTION, "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n")
            .passed()
            .kept(),
        request(
            "Expect: with a body of no bytes",
            SECTION,
            format!("POST / HTTP/1.1\r\nHost: a\r\n{}\r\n", LENGTH.replace('5', "0")),
        )
        .passed()
        .kept(),
    ];
    run(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_not_asked_for() {
    let bad = [
        "Content-Length: x\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nHost: b\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Content-Length: 5\r\nX A: 1\r\n",
    ];
    let bad = bad.map(|fields| {
        let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{fields}\r\n");
        request(format!("Expect: with {fields:?}"), SECTION, bytes).refused(&[400, 501])
    });
    let others = ["foo", "100-continue, foo", "100-continued", "200-ok", "100-continue=x"].map(|value| {
        let bytes =
            format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: {value}\r\nContent-Length: 5\r\n\r\nhello");
        let case = request(format!("Expect: {value}"), SECTION, bytes).refused(&[417]).local(&[417]);
        case.passed().sees_body("hello")
    });
    let empty = "POST / HTTP/1.1\r\nHost: a\r\nExpect:\r\nContent-Length: 5\r\n\r\nhello";
    let empty = request("an empty Expect", SECTION, empty).refused(&[400, 417]).passed().sees_body("hello");
    run(bad.into_iter().chain(others).chain([empty])).await;
}

/// An answer that comes before the body, on a connection that then ends so.
fn early(
    name: &str,
    answer: &'static str,
    end: fn(Conn, usize) -> Script,
    expects: bool,
    length: usize,
) -> Case {
    scenario(format!("early: {name}"), "RFC 9112 9.3, 9.5", async move {
        let origin = Origin::start(move |mut conn: Conn| async move {
            let head = conn.head().await?;
            if !head.starts_with("POST ") {
                conn.ok("next").await;
                return silent(conn).await;
            }
            conn.write(answer).await;
            end(conn, length).await
        })
        .await;
        let world = World::start(origin.address).await;
        let mut client = world.client().await;
        let expect = if expects { "Expect: 100-continue\r\n" } else { "" };
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: {length}\r\n\r\n");
        let body = "x".repeat(length);
        let got = if expects {
            expecting(&mut client, &head, &body).await?
        } else {
            client.say(head + &body).await;
            client.answer("POST").await.map_err(|trouble| format!("{trouble:?}"))?
        };
        ensure(got.status() == 413 && got.body == b"no", || format!("the client got {got:?}"))?;
        drop(client);
        // What is left of the body must not become another client's request.
        let mut other = world.client().await;
        other.say("GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let next = other.answer("GET").await.map_err(|trouble| format!("the next client: {trouble:?}"))?;
        ensure(next.body == b"next" || next.body == b"ok", || format!("the next client got {next:?}"))?;
        drop(other);
        world.stop().await;
        let seen = origin.end().await;
        ensure(seen.invalid.is_empty(), || format!("the origin saw {:?}", seen.invalid))
    })
}

/// Takes the rest and goes on.
fn stays(mut conn: Conn, length: usize) -> Script {
    Box::pin(async move {
        conn.take(length).await?;
        silent(conn).await
    })
}

/// Ends, and reads what still comes.
fn ends(mut conn: Conn, _length: usize) -> Script {
    Box::pin(async move {
        conn.finish().await;
        Some(conn)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_come_before_the_body() {
    const CLOSE: &str = "HTTP/1.1 413 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    const KEEP: &str = "HTTP/1.1 413 X\r\nContent-Length: 2\r\n\r\nno";
    const CHUNKED: &str = "HTTP/1.1 413 X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n";
    const OLD: &str = "HTTP/1.0 413 X\r\n\r\nno";
    let cases = [
        early("a small body, closed", CLOSE, ends, false, 5),
        early("a small body, kept", KEEP, stays, false, 5),
        early("a small body that is expected", CLOSE, ends, true, 5),
        early("100 kB, closed", CLOSE, ends, false, 100_000),
        early("10 MB, closed", CLOSE, ends, false, 10_000_000),
        early("10 MB, kept", KEEP, stays, false, 10_000_000),
        early("10 MB, in chunks", CHUNKED, ends, false, 10_000_000),
        early("10 MB, up to the end", OLD, ends, false, 10_000_000),
        early("10 MB that are expected, closed", CLOSE, ends, true, 10_000_000),
        early("10 MB that are expected, kept", KEEP, stays, true, 10_000_000),
    ];
    run(cases).await;
}
