//! Where an answer's body ends, and what a client is told when it ends early.

use tokio::sync::watch;

use crate::case::{Case, answer, request, run, scenario};
use crate::check::ensure;
use crate::client::Trouble;
use crate::message::Framing;
use crate::origin::{Conn, Origin};
use crate::world::World;

const OK: &str = "HTTP/1.1 200 OK\r\n";

fn chunked(name: impl Into<String>, section: &'static str, body: &str) -> Case {
    answer(name, section, format!("{OK}Transfer-Encoding: chunked\r\n\r\n{body}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_arrives_however_it_is_framed() {
    let section = "RFC 9112 6.3";
    let every: Vec<u8> = (0..=255).collect();
    let binary = [format!("{OK}Content-Length: 256\r\n\r\n").as_bytes(), &every].concat();
    let mib = vec![b'x'; 1 << 20];
    let large = [format!("{OK}Content-Length: {}\r\n\r\n", mib.len()).as_bytes(), &mib].concat();
    let large_close = [format!("{OK}\r\n").as_bytes(), &mib].concat();
    let lengths = [
        ("Content-Length: 5\r\n", "hello"),
        ("content-length:5\r\n", "hello"),
        ("Content-Length: 0\r\n", ""),
        ("Content-Length: 005\r\n", "hello"),
        ("Content-Length: \t5 \r\n", "hello"),
    ];
    let lengths = lengths.map(|(fields, body)| {
        let case =
            answer(format!("an origin's {fields:?}"), section, format!("{OK}{fields}\r\n{body}")).passed();
        case.gets_body(body).kept()
    });
    let chunks = [
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("0\r\n\r\n", ""),
        ("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello"),
        ("5;a=b\r\nhello\r\n0;c\r\n\r\n", "hello"),
        ("05\r\nhello\r\n00\r\n\r\n", "hello"),
        ("5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n", "hello"),
        ("A\r\nhellohello\r\n0\r\n\r\n", "hellohello"),
    ];
    let chunks = chunks.map(|(bytes, body)| {
        let case = chunked(format!("an origin's chunks {bytes:?}"), "RFC 9112 7.1", bytes).passed();
        case.gets_body(body).gets_no("x-t").kept()
    });
    let close = ["hello", "", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"].map(|body| {
        let case =
            answer(format!("up to the end {body:?}"), section, format!("{OK}\r\n{body}")).close().passed();
        case.gets_body(body).claim(|observed| {
            let framing = observed.answers[0].framing;
            ensure(framing == Framing::Chunked || framing == Framing::Close, || format!("by {framing:?}"))
        })
    });
    let others = [
        answer("every byte", section, binary).passed().gets_body(every).kept(),
        answer("a MiB", section, large).passed().gets_body(mib.clone()).kept(),
        answer("a MiB up to the end", section, large_close).close().passed().gets_body(mib),
        answer("an answer byte by byte", section, format!("{OK}Content-Length: 5\r\nX-A: 1\r\n\r\nhello"))
            .answer_split(1)
            .passed()
            .gets_body("hello")
            .gets("x-a", "1")
            .kept(),
        chunked("chunks byte by byte", "RFC 9112 7.1", "2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX-T: 1\r\n\r\n")
            .answer_split(1)
            .passed()
            .gets_body("hello")
            .kept(),
    ];
    run(lengths.into_iter().chain(chunks).chain(close).chain(others)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_body_has_none() {
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    let to_head = |name: &str, bytes: &str| {
        answer(format!("HEAD: {name}"), "RFC 9110 9.3.2", bytes)
            .send(head)
            .methods(&["HEAD"])
            .passed()
            .gets_body("")
    };
    let nothing = |status: &str, fields: &str| {
        let bytes = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
        answer(format!("{status} with {fields:?}"), "RFC 9112 6.3", bytes).passed().gets_body("").kept()
    };
    let spilled = |status: &str, fields: &str| {
        let bytes = format!("HTTP/1.1 {status} X\r\n{fields}\r\nhello");
        // Whatever stands behind it must not become the next answer.
        answer(format!("{status} with {fields:?} and a body"), "RFC 9112 6.3", bytes)
            .gateway(&[502])
            .passed()
            .gets_body("")
    };
    let cases = [
        to_head("a length", &format!("{OK}Content-Length: 1234\r\n\r\n"))
            .gets("content-length", "1234")
            .kept(),
        to_head("chunks", &format!("{OK}Transfer-Encoding: chunked\r\n\r\n")).kept(),
        to_head("neither", &format!("{OK}ETag: x\r\n\r\n")).gets("etag", "x"),
        to_head("a length of zero", &format!("{OK}Content-Length: 0\r\n\r\n"))
            .gets("content-length", "0")
            .kept(),
        to_head("404", "HTTP/1.1 404 X\r\nContent-Length: 7\r\n\r\n")
            .status(404)
            .gets("content-length", "7")
            .kept(),
        to_head("304", "HTTP/1.1 304 X\r\nContent-Length: 7\r\n\r\n").status(304).kept(),
        to_head("204", "HTTP/1.1 204 X\r\n\r\n").status(204).kept(),
        to_head("a body all the same", &format!("{OK}Content-Length: 5\r\n\r\nhello")).gateway(&[502]),
        to_head(
            "chunks all the same",
            &format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        )
        .gateway(&[502]),
        nothing("204", "").status(204),
        nothing("204", "Content-Length: 0\r\n").status(204).gets_no("content-length"),
        nothing("304", "").status(304),
        nothing("304", "Content-Length: 1234\r\nETag: \"x\"\r\n").status(304).gets("etag", "\"x\""),
        nothing("304", "Transfer-Encoding: chunked\r\n").status(304),
        nothing("200", "Content-Length: 0\r\n").status(200),
        nothing("205", "Content-Length: 0\r\n").status(205),
        nothing("301", "Location: /x\r\nContent-Length: 0\r\n").status(301).gets("location", "/x"),
        spilled("204", ""),
        spilled("204", "Content-Length: 5\r\n"),
        spilled("204", "Transfer-Encoding: chunked\r\n"),
        spilled("304", ""),
        spilled("304", "Content-Length: 5\r\n"),
        answer("205 with a body", "RFC 9110 15.3.6", "HTTP/1.1 205 X\r\nContent-Length: 5\r\n\r\nhello")
            .gateway(&[502])
            .passed()
            .status(205),
        answer(
            "204 with a coding",
            "RFC 9112 6.1",
            "HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        )
        .gateway(&[502])
        .passed()
        .gets_body(""),
    ];
    run(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_answer_to_head_has_no_body() {
    let heads = [
        "HEAD / HTTP/1.1\r\n\r\n",
        "HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "HEAD * HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    let wrong =
        heads.map(|bytes| request(format!("{bytes:?}"), "RFC 9110 9.3.2", bytes).methods(&["HEAD"]).wrong());
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    let broken = answer("HEAD and no answer", "RFC 9110 9.3.2", "")
        .close()
        .send(head)
        .methods(&["HEAD"])
        .gateway(&[502]);
    run(wrong.into_iter().chain([broken])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ways_to_end_are_none() {
    let section = "RFC 9112 6.3";
    let both = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 99\r\n",
    ];
    let both = both.map(|fields| {
        let bytes = format!("{OK}{fields}\r\n5\r\nhello\r\n0\r\n\r\n");
        answer(format!("an origin's {fields:?}"), "RFC 9112 6.1", bytes)
            .gateway(&[502])
            .passed()
            .gets_body("hello")
    });
    let same = ["Content-Length: 5\r\nContent-Length: 5\r\n", "Content-Length: 5, 5\r\n"].map(|fields| {
        let case =
            answer(format!("an origin's {fields:?}"), "RFC 9110 8.6", format!("{OK}{fields}\r\nhello"));
        case.gateway(&[502]).passed().gets("content-length", "5").gets_body("hello")
    });
    let extra = [
        ("bytes behind a length", "Content-Length: 2\r\n\r\nokEXTRA"),
        (
            "an answer behind a length",
            "Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        ),
        ("bytes behind chunks", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nEXTRA"),
        (
            "an answer behind chunks",
            "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nevil",
        ),
        ("an empty line behind a length", "Content-Length: 2\r\n\r\nok\r\n"),
    ];
    let extra = extra.map(|(name, rest)| {
        let case = answer(name, section, format!("{OK}{rest}")).passed().gets_body("ok");
        case.claim(|observed| match &observed.after {
            Some(Ok(answer)) => ensure(answer.body == b"ok", || format!("/after got {answer:?}")),
            _ => Ok(()),
        })
    });
    run(both.into_iter().chain(same).chain(extra)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_can_tell_that_an_answer_was_cut_off() {
    let section = "RFC 9112 8";
    let bodies = [
        ("a length", "Content-Length: 10\r\n\r\nhello"),
        ("a length before its first byte", "Content-Length: 10\r\n\r\n"),
        ("a length before its last byte", "Content-Length: 10\r\n\r\nhellohell"),
        ("a large length", "Content-Length: 10000000\r\n\r\nhello"),
        ("a chunk", "Transfer-Encoding: chunked\r\n\r\na\r\nhello"),
        ("chunks", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        ("chunks behind a CR", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r"),
        ("chunks in a size", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5"),
        ("chunks before the first", "Transfer-Encoding: chunked\r\n\r\n"),
        ("chunks behind the last size", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
        ("chunks in the last CRLF", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r"),
        ("chunks in a trailer", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n"),
    ];
    let ends = bodies.map(|(name, rest)| {
        let case = answer(format!("the end in {name}"), section, format!("{OK}{rest}")).close();
        case.truncated().gateway(&[502])
    });
    let resets = bodies.map(|(name, rest)| {
        let case = answer(format!("a reset in {name}"), section, format!("{OK}{rest}")).reset();
        case.truncated().gateway(&[502])
    });
    let close = answer("a reset up to the end", section, format!("{OK}\r\nhello")).reset();
    run(ends.into_iter().chain(resets).chain([close.truncated().gateway(&[502])])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_chunks_of_an_origin_end_the_answer() {
    let bodies = [
        "zz\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\nzz\r\n\r\n",
        "5\r\nhello\r\n0\r\nX T: 1\r\n\r\n",
        "5\r\nhello\r\n0\r\n: 1\r\n\r\n",
    ];
    let cases = bodies.map(|body| {
        let case = chunked(format!("an origin's chunks {body:?}"), "RFC 9112 7.1", body);
        case.truncated().gateway(&[502])
    });
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(300_000));
    let long =
        chunked("an origin's extension of 300 kB", "RFC 9112 7.1.1", &long).truncated().gateway(&[502]);
    let trailers = format!("0\r\n{}\r\n", format!("X-T: {}\r\n", "a".repeat(1_000)).repeat(300));
    let trailers = chunked("an origin's trailers of 300 kB", "RFC 9110 5.4", &trailers).truncated();
    let trailers = trailers.gateway(&[502]).passed().gets_body("");
    run(cases.into_iter().chain([late(), long, trailers])).await;
}

/// A bad chunk behind one that the client already has.
fn late() -> Case {
    scenario("a bad chunk that comes late", "RFC 9112 7.1", async {
        let (go_on, waiting) = watch::channel(false);
        let origin = Origin::start(move |mut conn: Conn| {
            let mut waiting = waiting.clone();
            async move {
                conn.request().await?;
                conn.write(format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")).await;
                waiting.wait_for(|go_on| *go_on).await.ok()?;
                conn.write("zz\r\nhello\r\n0\r\n\r\n").await;
                Some(conn)
            }
        })
        .await;
        let world = World::start(origin.address).await;
        let mut client = world.client().await;
        client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let first = client.peek(b"hello").await;
        ensure(first, || "the first chunk did not come".to_owned())?;
        go_on.send_replace(true);
        let end = client.answer("GET").await;
        ensure(matches!(end, Err(Trouble::Cut(Some(_)))), || format!("then came {end:?}"))?;
        drop(client);
        world.stop().await;
        origin.end().await;
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_an_origin_never_become_fields() {
    let lines = [
        "Content-Length: 9",
        "Transfer-Encoding: gzip",
        "Set-Cookie: a=b",
        "Location: /x",
        "X-A: 1",
        "Connection: close",
    ];
    let cases = lines.map(|line| {
        let name = line.split(':').next().unwrap();
        let case = chunked(
            format!("the trailer {line:?}"),
            "RFC 9110 6.5.1",
            &format!("2\r\nok\r\n0\r\n{line}\r\n\r\n"),
        );
        case.truncated().gateway(&[502]).passed().gets_body("ok").claim(move |observed| {
            let (answer, after) = (&observed.answers[0], &observed.after);
            let value = line.split(": ").nth(1);
            let merged = answer.values(name).any(|v| Some(v) == value);
            ensure(!merged, || format!("it became a field, after {after:?}"))?;
            let framing = ["Content-Length", "Transfer-Encoding", "Connection"].contains(&name);
            let passed = answer.trailers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
            ensure(!(framing && passed), || "it was passed on as a trailer".to_owned())
        })
    });
    run(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_pass() {
    let statuses = [
        200, 201, 202, 203, 206, 301, 302, 303, 400, 401, 403, 404, 405, 406, 408, 409, 410, 412, 413, 415,
        416,
    ];
    let statuses =
        statuses.into_iter().chain([417, 421, 425, 428, 429, 451, 500, 501, 502, 503, 504, 505, 507, 511]);
    run(statuses
        .map(|status| {
            let bytes = format!("HTTP/1.1 {status} X\r\nContent-Length: 4\r\n\r\nbody");
            answer(format!("{status}"), "RFC 9110 15", bytes).passed().status(status).gets_body("body").kept()
        })
        .chain([request(
            "two answers to two requests",
            "RFC 9112 9.3.2",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .passed()]))
    .await;
}
