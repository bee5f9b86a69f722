//! Interim answers: passed on, bounded, and never mistaken for the final one; and switches of protocol.

use crate::case::{Case, answer, request, run, scenario};
use crate::check::{RAW, ensure};
use crate::client::Trouble;
use crate::message::Message;
use crate::origin::{Conn, Origin};
use crate::world::World;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn before(name: impl Into<String>, interim: &str) -> Case {
    answer(name, "RFC 9110 15.2", format!("{interim}{OK}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_pass_before_the_final_one() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nLink: </b>\r\n\r\n";
    let hop = "HTTP/1.1 103 X\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\nX-A: 1\r\n\r\n";
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    let cases = [
        before("103", hints).passed().interim(&[103]).gets_no("link").gets_body("ok").kept().claim(
            |observed| {
                let link = observed.interim[0].get("link");
                ensure(link.as_deref() == Some("</a>; rel=preload|</b>"), || format!("Link: {link:?}"))
            },
        ),
        before("103 byte by byte", hints).answer_split(1).passed().interim(&[103]).gets_body("ok").kept(),
        before("two 103s", &hints.repeat(2)).passed().interim(&[103, 103]).gets_body("ok").kept(),
        before("102", "HTTP/1.1 102 Processing\r\n\r\n").passed().interim(&[102]).kept(),
        before("102 and 103", &format!("HTTP/1.1 102 X\r\n\r\n{hints}")).passed().interim(&[102, 103]).kept(),
        before("199, which nobody knows", "HTTP/1.1 199 X\r\n\r\n").passed().interim(&[199]).kept(),
        before("104 without a reason", "HTTP/1.1 104 \r\n\r\n").passed().interim(&[104]).kept(),
        before("100 that nobody asked for", "HTTP/1.1 100 Continue\r\n\r\n").passed().kept().claim(
            |observed| {
                let statuses: Vec<u16> = observed.interim.iter().map(Message::status).collect();
                ensure(statuses.is_empty() || statuses == [100], || format!("{statuses:?}"))
            },
        ),
        before("103 with fields of one connection", hop).passed().interim(&[103]).kept().claim(|observed| {
            let first = &observed.interim[0];
            let gone = first.get("x-hop").is_none() && first.get("keep-alive").is_none();
            ensure(gone && first.get("x-a").is_some(), || format!("{first:?}"))
        }),
        before("103 with a length", "HTTP/1.1 103 X\r\nContent-Length: 0\r\n\r\n")
            .gateway(&[502])
            .passed()
            .gets_body("ok"),
        before("103 with chunks", "HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n")
            .gateway(&[502])
            .passed(),
        before("103 of HTTP/1.0", "HTTP/1.0 103 X\r\n\r\n").gateway(&[502]).passed().gets_body("ok"),
        answer(
            "HEAD with 103",
            "RFC 9110 15.2",
            format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        )
        .send(head)
        .methods(&["HEAD"])
        .passed()
        .interim(&[103])
        .gets("content-length", "9")
        .kept(),
        answer("103 and 204", "RFC 9110 15.2", format!("{hints}HTTP/1.1 204 X\r\n\r\n"))
            .passed()
            .status(204)
            .kept(),
        answer("103 and 404", "RFC 9110 15.2", format!("{hints}HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"))
            .passed()
            .status(404)
            .kept(),
        answer("103 and the end", "RFC 9112 8", hints).close().gateway(&[502]),
        answer("103 and a reset", "RFC 9112 8", hints).reset().gateway(&[502]),
        answer("half a 103 and the end", "RFC 9112 8", "HTTP/1.1 103 X\r\nLink").close().gateway(&[502]),
        answer("103 and garbage", "RFC 9112 4", format!("{hints}{RAW}\r\n\r\n")).gateway(&[502]),
        before("103 with a bad name", &format!("HTTP/1.1 103 X\r\nX A: {RAW}\r\n\r\n")).gateway(&[502]),
        before("103 with a NUL", "HTTP/1.1 103 X\r\nX-A: \0\r\n\r\n").gateway(&[502]).passed(),
        before("20 times 103", &hints.repeat(20)).gateway(&[502]).passed().gets_body("ok"),
        before("10,000 times 103", &hints.repeat(10_000)).gateway(&[502]),
        before("10,000 times 100", &"HTTP/1.1 100 X\r\n\r\n".repeat(10_000)).gateway(&[502]),
    ];
    run(cases.into_iter().chain([flood()])).await;
}

/// An origin that never comes to its answer.
fn flood() -> Case {
    scenario("103 without end", "RFC 9110 15.2", async {
        let origin = Origin::start(|mut conn: Conn| async move {
            conn.request().await?;
            while conn.write("HTTP/1.1 103 X\r\nLink: </a>\r\n\r\n".repeat(10)).await {}
            Some(conn)
        })
        .await;
        let world = World::start(origin.address).await;
        let mut client = world.client().await;
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        for count in 0.. {
            match client.next("GET").await {
                Ok(answer) if answer.status() >= 200 => {
                    ensure(answer.status() == 502, || format!("{} after {count}", answer.start))?;
                    break;
                }
                Ok(_) => ensure(count < 10_000, || "10,000 of them passed".to_owned())?,
                Err(Trouble::Cut(None)) if count > 0 => break,
                Err(trouble) => return Err(format!("{trouble:?} after {count}")),
            }
        }
        drop(client);
        world.stop().await;
        origin.end().await;
        Ok(())
    })
}

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn asking(options: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{options}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_switched_who_did_not_ask() {
    let switch = |upgrade: &str| {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n{upgrade}X-Raw: {RAW}\r\n\r\n{RAW}"
        )
    };
    let section = "RFC 9110 7.8";
    let unasked = [
        ("unasked", asking("")),
        ("asked without its option", asking("Upgrade: websocket\r\n")),
        ("asked by the option alone", asking("Connection: upgrade\r\n")),
        (
            "asked for h2c alone",
            asking(
                "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            ),
        ),
        (
            "asked by HEAD without an option",
            "HEAD / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n".to_owned(),
        ),
    ];
    let unasked = unasked.map(|(name, bytes)| {
        let method = if bytes.starts_with("HEAD") { "HEAD" } else { "GET" };
        let case = answer(format!("101 {name}"), section, switch("Upgrade: websocket\r\n")).send(bytes);
        case.methods(&[method]).gateway(&[502])
    });
    let other =
        answer("101 to another protocol", section, switch("Upgrade: foo\r\n")).send(ASK).gateway(&[502]);
    let none = answer("101 to no protocol", section, switch("")).send(ASK).gateway(&[502]);
    let refused =
        request("a refused switch is an answer", section, ASK).passed().sees("upgrade", "websocket").kept();
    let refused = refused.claim(|observed| {
        let told = observed.seen.requests[0].lists("connection", "upgrade");
        ensure(told, || "the option did not reach the origin".to_owned())
    });
    let must = answer(
        "426 tells what to upgrade to",
        "RFC 9110 15.5.22",
        "HTTP/1.1 426 X\r\nContent-Length: 2\r\n\r\nok",
    );
    let h2c =
        asking("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n");
    let h2c = request("h2c is not asked for", section, h2c)
        .passed()
        .sees_no("upgrade")
        .sees_no("http2-settings")
        .kept();
    let spelled = ["H2C", "h2c, websocket", "websocket, h2c", "h2c\r\nUpgrade: websocket"].map(|protocols| {
        let bytes = asking(&format!("Connection: upgrade\r\nUpgrade: {protocols}\r\n"));
        request(format!("h2c among {protocols:?}"), section, bytes).wrong().passed().claim(|observed| {
            let asked = observed.seen.requests[0].get("upgrade").unwrap_or_default().to_ascii_lowercase();
            ensure(!asked.contains("h2c"), || format!("Upgrade: {asked}"))
        })
    });
    run(unasked.into_iter().chain(spelled).chain([other, none, refused, must.passed().status(426), h2c]))
        .await;
}

/// A WebSocket in the hands of `client_says`, before an origin that repeats lines in capitals.
fn switched(name: &str, origin_first: &'static str, lines: &'static [&'static str]) -> Case {
    scenario(format!("switch: {name}"), "RFC 9110 7.8", async move {
        let origin = Origin::start(move |mut conn: Conn| async move {
            conn.head().await?;
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
            conn.write(format!("{head}{origin_first}")).await;
            while let Some(line) = conn.until(b"\n").await {
                if line == b"end\n" {
                    conn.finish().await;
                    break;
                }
                conn.write(line.to_ascii_uppercase()).await;
            }
            Some(conn)
        })
        .await;
        let world = World::start(origin.address).await;
        let mut client = world.client().await;
        client.say(ASK).await;
        let head = client.answer("GET").await.map_err(|trouble| format!("{trouble:?}"))?;
        let fine =
            head.status() == 101 && head.lists("connection", "upgrade") && head.lists("upgrade", "websocket");
        ensure(fine && head.get("sec-websocket-accept").is_some(), || format!("{head:?}"))?;
        let first = client.take(origin_first.len()).await;
        ensure(first.as_deref() == Some(origin_first.as_bytes()), || format!("first came {first:?}"))?;
        for line in lines {
            client.say(line).await;
            let back = client.take(line.len()).await.unwrap_or_default();
            ensure(back == line.to_ascii_uppercase().as_bytes(), || {
                format!("{line:?} came back as {back:?}")
            })?;
        }
        client.say("end\n").await;
        let rest = client.rest().await;
        ensure(rest.as_deref() == Some(&[]), || format!("behind the end came {rest:?}"))?;
        drop(client);
        world.stop().await;
        origin.end().await;
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_is_switched() {
    let cases = [
        switched("the origin's end", "", &[]),
        switched("bytes behind the head", "hello", &[]),
        switched("lines both ways", "", &["abc\n", "def\n"]),
        switched("what looks like HTTP", "HTTP/1.1 200 OK\r\n\r\n", &["GET / HTTP/1.1\r\n", "\r\n", "x\n"]),
    ];
    run(cases).await;
}
