//! Connections to an origin: used again where that is safe, and an end that nobody announced is nobody's 502.

use std::time::Duration;

use tokio::sync::watch;

use crate::case::{Case, Checked, run, scenario};
use crate::check::ensure;
use crate::client::Client;
use crate::message::Message;
use crate::origin::{Conn, Origin, Seen};
use crate::world::World;

const SECTION: &str = "RFC 9112 9.3.1, 9.5";

async fn ask(client: &mut Client, method: &'static str, path: &str, body: &str) -> Checked<Message> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    client.say(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n{body}")).await;
    client.answer(method).await.map_err(|trouble| format!("{method} {path}: {trouble:?}"))
}

/// Two requests behind each other, the first one answered with `first`. How many connections that takes.
fn twice(name: &str, section: &'static str, first: &'static str, closes: bool, connections: usize) -> Case {
    scenario(format!("pool: {name}"), section, async move {
        let origin = Origin::start(move |mut conn: Conn| async move {
            while let Some(request) = conn.request().await {
                if request.start.contains("/first") {
                    conn.write(first).await;
                    if closes {
                        conn.finish().await;
                        break;
                    }
                } else {
                    conn.ok("second").await;
                }
            }
            Some(conn)
        })
        .await;
        let world = World::start(origin.address).await;
        let mut client = world.client().await;
        let answer = ask(&mut client, "GET", "/first", "").await?;
        ensure(answer.body == b"ok", || format!("the first got {answer:?}"))?;
        let answer = match ask(&mut client, "GET", "/second", "").await {
            Ok(answer) => answer,
            // A body up to the end may have ended this connection as well.
            Err(_) if closes => ask(&mut world.client().await, "GET", "/second", "").await?,
            Err(why) => return Err(why),
        };
        ensure(answer.body == b"second", || format!("the second got {answer:?}"))?;
        drop(client);
        world.stop().await;
        let used = origin.used();
        origin.end().await;
        ensure(used == connections, || format!("{used} connections were used"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_used_again_where_that_is_safe() {
    const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    const TRAILER: &str =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n";
    const CLOSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
    const CLOSE_LIST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nok";
    const OLD: &str = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const END: &str = "HTTP/1.1 200 OK\r\n\r\nok";
    const EXTRA: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokEXTRA";
    const EVIL: &str =
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    const HINTS: &str = "HTTP/1.1 103 X\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const SPILL: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nEXTRA";
    let cases = [
        twice("behind a length", "RFC 9112 9.3", PLAIN, false, 1),
        twice("behind chunks", "RFC 9112 9.3", CHUNKED, false, 1),
        twice("behind a trailer", "RFC 9112 9.3", TRAILER, false, 1),
        twice("behind 103", "RFC 9112 9.3", HINTS, false, 1),
        twice("not behind close", "RFC 9112 9.6", CLOSE, false, 2),
        twice("not behind close in a list", "RFC 9112 9.6", CLOSE_LIST, false, 2),
        twice("not behind HTTP/1.0", "RFC 9112 9.3", OLD, false, 2),
        twice("not behind the end", "RFC 9112 9.3", END, true, 2),
        twice("not behind bytes too many", "RFC 9112 6.3", EXTRA, false, 2),
        twice("not behind an answer too many", "RFC 9112 6.3", EVIL, false, 2),
        twice("not behind bytes too many behind chunks", "RFC 9112 6.3", SPILL, false, 2),
    ];
    run(cases).await;
}

/// What an origin does with a connection once it has answered the first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Ends it, which the proxy can know before it sends the next request.
    EndIdle,
    ResetIdle,
    /// Sends these bytes, then ends it.
    TalkIdle(&'static str),
    /// Takes the next request and ends it.
    EndUsed,
    ResetUsed,
}

/// Two requests, between or in the second of which the first connection ends. The second is answered, or 502 with
/// `refusable`; the origin sees it whole at most `most` times.
fn ended(method: &'static str, then: Then, refusable: bool, most: usize) -> Case {
    scenario(format!("pool: {then:?} and {method}"), SECTION, async move {
        let (ended, mut idle_over) = watch::channel(false);
        let origin = Origin::start(move |conn: Conn| first_then(conn, then, ended.clone())).await;
        let world = World::start(origin.address).await;
        let mut client = world.client().await;
        let body = if ["POST", "PUT", "PATCH"].contains(&method) { "hello" } else { "" };
        let answer = ask(&mut client, method, "/first", body).await?;
        ensure(answer.status() == 200, || format!("the first got {answer:?}"))?;
        if !matches!(then, Then::EndUsed | Then::ResetUsed) {
            // A proxy that watches its idle connections closes its side now; one that does not has to find out when
            // it uses it, and had as long to hear of it.
            let waited =
                tokio::time::timeout(Duration::from_millis(500), idle_over.wait_for(|over| *over)).await;
            ensure(waited.is_ok() || refusable || body.is_empty(), || {
                "an ended idle connection is kept".to_owned()
            })?;
        }
        let answer = ask(&mut client, method, "/second", body).await?;
        let fine = answer.status() == 200 || (refusable && answer.status() == 502);
        ensure(fine, || format!("the second got {answer:?}"))?;
        drop(client);
        world.stop().await;
        let seen: Seen = origin.end().await;
        ensure(seen.invalid.is_empty(), || format!("the origin saw {:?}", seen.invalid))?;
        let count = seen.requests.iter().filter(|request| request.start.contains("/second")).count();
        ensure(count <= most, || format!("the origin saw it {count} times"))
    })
}

async fn first_then(mut conn: Conn, then: Then, ended: watch::Sender<bool>) -> Option<Conn> {
    let answer = |request: &Message| {
        let body = if request.start.starts_with("HEAD ") { "" } else { "ok" };
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}")
    };
    while let Some(request) = conn.request().await {
        conn.write(answer(&request)).await;
        if conn.index > 0 {
            continue;
        }
        match then {
            Then::EndIdle => conn.finish().await,
            Then::TalkIdle(bytes) => {
                conn.write(bytes).await;
                conn.finish().await;
            }
            Then::ResetIdle => {
                conn.reset();
                ended.send_replace(true);
                return None;
            }
            Then::EndUsed => {
                conn.request().await?;
                conn.finish().await;
            }
            Then::ResetUsed => {
                conn.request().await?;
                conn.reset();
                return None;
            }
        }
        conn.ended().await;
        ended.send_replace(true);
        return Some(conn);
    }
    Some(conn)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ended_is_nobodys_failure() {
    const LATE: &str = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let idle = [
        Then::EndIdle,
        Then::ResetIdle,
        Then::TalkIdle(LATE),
        Then::TalkIdle("GARBAGE"),
        Then::TalkIdle(EVIL),
    ];
    let idle = idle.into_iter().flat_map(|then| {
        ["GET", "HEAD", "PUT", "DELETE", "POST", "PATCH"].map(|method| ended(method, then, false, 1))
    });
    // Sent again where that does no harm (RFC 9110 9.2.2), and never else.
    let used = [Then::EndUsed, Then::ResetUsed].into_iter().flat_map(|then| {
        let safe = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"].map(|method| ended(method, then, false, 2));
        let unsafe_ones = ["POST", "PATCH", "FOO"].map(|method| ended(method, then, true, 1));
        safe.into_iter().chain(unsafe_ones)
    });
    run(idle.chain(used)).await;
}

/// A client that leaves in the middle; the next one gets its own answer.
fn left(name: &str, sent: &'static str, answer: &'static str, resets: bool) -> Case {
    scenario(format!("pool: a client that leaves {name}"), "RFC 9112 9.5", async move {
        let (came, mut waiting) = watch::channel(false);
        let origin = Origin::start(move |mut conn: Conn| {
            let came = came.clone();
            async move {
                let head = conn.head().await?;
                if head.contains("/leave") {
                    conn.write(answer).await;
                    came.send_replace(true);
                    if !head.starts_with("GET ") || !answer.ends_with("whole") {
                        return Some(conn);
                    }
                } else {
                    conn.ok("mine").await;
                }
                while conn.request().await.is_some() {
                    conn.ok("mine").await;
                }
                Some(conn)
            }
        })
        .await;
        let world = World::start(origin.address).await;
        let mut client = world.client().await;
        client.say(sent).await;
        let reached =
            tokio::time::timeout(Duration::from_secs(2), waiting.wait_for(|came| *came)).await.is_ok();
        ensure(reached, || "the request did not reach the origin".to_owned())?;
        if resets {
            client.reset().await;
        } else {
            drop(client);
        }
        let mut other = world.client().await;
        let next = ask(&mut other, "GET", "/next", "").await?;
        ensure(next.body == b"mine", || format!("the next client got {next:?}"))?;
        drop(other);
        world.stop().await;
        let seen = origin.end().await;
        ensure(seen.invalid.is_empty(), || format!("the origin saw {:?}", seen.invalid))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_answer_along() {
    const GET: &str = "GET /leave HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &str = "POST /leave HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhello";
    const CHUNKS: &str =
        "POST /leave HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole";
    let cases = [false, true].into_iter().flat_map(|resets| {
        let how = if resets { "by a reset" } else { "in order" };
        [
            left(&format!("before an answer, {how}"), GET, "", resets),
            left(&format!("in an answer, {how}"), GET, HALF, resets),
            left(&format!("behind an answer, {how}"), GET, WHOLE, resets),
            left(&format!("in its body, {how}"), POST, "", resets),
            left(&format!("in its chunks, {how}"), CHUNKS, "", resets),
            left(&format!("in its body with an answer, {how}"), POST, WHOLE, resets),
        ]
    });
    run(cases).await;
}
