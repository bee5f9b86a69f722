//! Requests behind each other on one connection: answered in order, each once, and none behind an end.

use crate::case::{Case, Observed, request, run};
use crate::check::ensure;

const SECTION: &str = "RFC 9112 9.3.2";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// What the origin saw as each answer was made.
fn order(lines: &'static [&'static str]) -> impl Fn(&Observed) -> Result<(), String> {
    move |observed| {
        let got: Vec<_> = observed.answers.iter().filter_map(|answer| answer.get("x-saw")).collect();
        let wanted: Vec<_> = lines.iter().map(|line| format!("{line} HTTP/1.1")).collect();
        ensure(got == wanted, || format!("the answers were to {got:?}"))
    }
}

/// The statuses of all answers, and whether these request lines and no others reached the origin.
fn ends_with(
    statuses: &'static [u16],
    lines: &'static [&'static str],
) -> impl Fn(&Observed) -> Result<(), String> {
    move |observed| {
        let got: Vec<u16> = observed.answers.iter().map(|answer| answer.status()).collect();
        ensure(got == statuses, || format!("the answers were {got:?}"))?;
        let seen: Vec<&str> = observed.seen.requests.iter().map(|request| request.start.as_str()).collect();
        let wanted: Vec<String> = lines.iter().map(|line| format!("{line} HTTP/1.1")).collect();
        ensure(seen == wanted && observed.seen.partial.is_empty(), || {
            format!("the origin saw {:?}", observed.seen)
        })?;
        ensure(!matches!(observed.after, Some(Ok(_))), || "the connection stayed open".to_owned())
    }
}

fn all(
    name: impl Into<String>,
    bytes: impl AsRef<[u8]>,
    methods: &[&'static str],
    lines: &'static [&'static str],
) -> Case {
    request(name, SECTION, bytes).methods(methods).passed().claim(order(lines)).kept()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_in_order() {
    let two = get("/1") + &get("/2");
    let post = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned();
    let chunked = "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nX-T: 1\r\n\r\n";
    let head = "HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
    let inner = get("/not-a-request");
    let quoted = format!("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len());
    let inner_chunk = format!(
        "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n",
        inner.len()
    );
    let both: &[&str] = &["GET /1", "GET /2"];
    let posted: &[&str] = &["POST /1", "GET /2"];
    let ten: String = (0..10).map(|n| get(&format!("/{n}"))).collect();
    let hundred = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(100);
    let sizes = [1, 2, 3, 5, 17, 41, 60].map(|size| {
        all(format!("two requests in pieces of {size}"), &two, &["GET", "GET"], &["GET /1", "GET /2"])
            .split(size)
    });
    let body_sizes = [1, 3, 61, 66, 70].map(|size| {
        let bytes = post.clone() + &get("/2");
        all(
            format!("a body and a request in pieces of {size}"),
            bytes,
            &["POST", "GET"],
            &["POST /1", "GET /2"],
        )
        .split(size)
    });
    let cases = [
        all("two requests", &two, &["GET", "GET"], both),
        all("a body, a request", post.clone() + &get("/2"), &["POST", "GET"], posted),
        all("two bodies", post.repeat(2), &["POST", "POST"], &["POST /1", "POST /1"]),
        all("chunks, a request", chunked.to_owned() + &get("/2"), &["POST", "GET"], posted),
        all("chunks, a request, byte by byte", chunked.to_owned() + &get("/2"), &["POST", "GET"], posted)
            .split(1),
        all("HEAD, GET", head.clone() + &get("/2"), &["HEAD", "GET"], &["HEAD /1", "GET /2"]),
        all(
            "GET, HEAD, GET",
            get("/0") + &head + &get("/2"),
            &["GET", "HEAD", "GET"],
            &["GET /0", "HEAD /1", "GET /2"],
        ),
        all("a request inside a body", quoted + &get("/2"), &["POST", "GET"], posted),
        all("a request inside a chunk", inner_chunk + &get("/2"), &["POST", "GET"], posted),
        all(
            "a body of GET",
            get("/1").replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nhi") + &get("/2"),
            &["GET", "GET"],
            both,
        ),
        all("an empty line between", get("/1") + "\r\n" + &get("/2"), &["GET", "GET"], both),
        request("ten requests", SECTION, ten).methods(&["GET"; 10]).passed().claim(|observed| {
            let saw = |n: usize| observed.answers[n].get("x-saw") == Some(format!("GET /{n} HTTP/1.1"));
            ensure((0..10).all(saw), || "not in order".to_owned())
        }),
        request("a hundred requests", SECTION, hundred).methods(&["GET"; 100]).passed().kept(),
        request("a slow answer, a fast one", SECTION, &two)
            .methods(&["GET", "GET"])
            .origin("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
            .answer_split(1)
            .origin("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfast")
            .passed()
            .claim(|observed| {
                let bodies: Vec<_> = observed.answers.iter().map(|answer| answer.body.clone()).collect();
                ensure(bodies == [b"slow", b"fast"], || format!("{bodies:?}"))
            }),
    ];
    run(cases.into_iter().chain(sizes).chain(body_sizes)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_an_end_nothing_is_looked_at() {
    let close = "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned() + &get("/2");
    let old = "GET /1 HTTP/1.0\r\nHost: a\r\n\r\n".to_owned() + &get("/2");
    let bad = [
        "BAD\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX A: 1\r\n\r\n",
        "\x16\x03\x01\r\n\r\n",
    ];
    let bad = bad.map(|bytes| {
        let case = request(format!("a request, {bytes:?}"), SECTION, get("/1") + bytes + &get("/3"));
        // What is behind it counts only where its end is clear: where no more than the Host is missing.
        case.methods(&["GET"; 3]).claimed().claim(move |observed| match &observed.answers[..] {
            [_, bad, _] if bytes.starts_with("GET / HTTP/1.1\r\n\r\n") => {
                ensure(bad.status() == 400, || format!("the second answer was {}", bad.start))
            }
            _ => ends_with(&[200, 400], &["GET /1"])(observed),
        })
    });
    let framing = [
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 1\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: x\r\n",
    ];
    let framing = framing.map(|fields| {
        let bytes = get("/1") + &format!("POST /2 HTTP/1.1\r\nHost: a\r\n{fields}\r\n0\r\n\r\n") + &get("/3");
        let case = request(format!("a request, {fields:?}, a request"), "RFC 9112 11.2", bytes);
        case.methods(&["GET", "POST", "GET"]).claimed().claim(|observed| {
            let last = observed.answers.last().map(|answer| answer.status());
            ensure(last.is_some_and(|status| status == 400 || status == 501), || format!("{last:?}"))?;
            ends_with(if last == Some(501) { &[200, 501] } else { &[200, 400] }, &["GET /1"])(observed)
        })
    });
    let chunk = "POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nX\r\n"
        .to_owned()
        + &get("/3");
    let chunk = request("a bad chunk, a request", "RFC 9112 7.1", chunk).methods(&["POST"]).broken(&[400]);
    let connect = "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned() + &get("/2");
    let connect =
        request("CONNECT, a request", "RFC 9110 9.3.6", connect).methods(&["CONNECT", "GET"]).claimed();
    let connect = connect.claim(|observed| {
        let first = observed.answers.first().map_or(0, |answer| answer.status());
        ensure([400, 405, 501].contains(&first), || format!("CONNECT got {first}"))
    });
    let cases = [
        request("close, a request", "RFC 9112 9.6", close)
            .methods(&["GET", "GET"])
            .claimed()
            .claim(ends_with(&[200], &["GET /1"])),
        request("1.0, a request", "RFC 9112 9.3", old)
            .methods(&["GET", "GET"])
            .claimed()
            .claim(ends_with(&[200], &["GET /1"])),
        chunk,
        connect,
    ];
    run(cases.into_iter().chain(bad).chain(framing)).await;
}
