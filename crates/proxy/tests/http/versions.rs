//! Versions: HTTP/1.0 clients and origins, and those that nobody knows.

use crate::case::{Case, answer, request, run};
use crate::check::ensure;
use crate::message::Framing;

const OK: &str = "HTTP/1.1 200 OK\r\n";

fn old(name: &str, section: &'static str, fields: &str) -> Case {
    request(name, section, format!("GET / HTTP/1.0\r\n{fields}\r\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_versions_are_refused() {
    let versions = [
        "HTTP/2.0",
        "HTTP/2",
        "HTTP/3",
        "HTTP/3.0",
        "HTTP/0.9",
        "HTTP/0.0",
        "HTTP/9.9",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/",
        "HTTP",
        "HTTP/1.10",
        "HTTP/1.01",
        "HTTP/01.1",
        "HTTP/11.1",
        "HTTP/1.1.1",
        "HTTP/1,1",
        "HTTP/1.x",
        "HTTP/x.1",
        "HTTP/+1.1",
        "HTTP/1.+1",
        "HTTP/-1.1",
        "HTTP/ 1.1",
        "HTTP /1.1",
        "HTTP\t/1.1",
        "http/1.1",
        "Http/1.1",
        "HTTPS/1.1",
        "XHTTP/1.1",
        "HTTP/1.1x",
        "HTTP/1.1,",
        "HTP/1.1",
        "HTTP-1.1",
        "HTTP\\1.1",
        "1.1",
        "HTTP/1.\u{661}",
        "HTTP/\0.1",
        "HTTP/1.1\0",
        "ICY/1.1",
        "HTTP/A.B",
    ];
    let versions = versions.map(|version| {
        let bytes = format!("GET / {version}\r\nHost: a\r\n\r\n");
        request(format!("the version {version:?}"), "RFC 9112 2.3", bytes).refused(&[400, 505])
    });
    let minor = ["HTTP/1.2", "HTTP/1.9"].map(|version| {
        let bytes = format!("GET / {version}\r\nHost: a\r\n\r\n");
        let case = request(format!("the version {version:?}"), "RFC 9110 2.5", bytes).refused(&[400, 505]);
        case.passed().sees_line("GET / HTTP/1.1")
    });
    let simple = ["GET /\r\n", "GET /\r\n\r\n", "GET / \r\n\r\n"].map(|bytes| {
        request(format!("HTTP/0.9: {bytes:?}"), "RFC 9112 2.3", bytes).finish().refused(&[400, 505]).dropped()
    });
    run(versions.into_iter().chain(minor).chain(simple)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_is_answered_and_its_connection_closed() {
    let section = "RFC 9112 9.3";
    let plain =
        old("1.0: GET", section, "Host: a\r\n").passed().sees_line("GET / HTTP/1.1").sees("host", "a");
    let hostless = old("1.0: no Host", "RFC 9112 3.2", "").passed().sees_line("GET / HTTP/1.1").closed();
    let close = old("1.0: Connection: close", section, "Host: a\r\nConnection: close\r\n").passed().closed();
    let keep = ["keep-alive", "Keep-Alive", "x, keep-alive"].map(|option| {
        let fields = format!("Host: a\r\nConnection: {option}\r\n");
        let case = old(&format!("1.0: Connection: {option}"), "RFC 9112 9.3", &fields).passed();
        case.gets_body("ok").claim(|observed| {
            let (answer, kept) = (&observed.answers[0], matches!(observed.after, Some(Ok(_))));
            let told = answer.lists("connection", "keep-alive");
            ensure(!kept || told, || "it was kept and the client was not told".to_owned())
        })
    });
    let both = old("1.0: keep-alive and close", section, "Host: a\r\nConnection: keep-alive, close\r\n");
    let post = "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let post = request("1.0: POST", section, post).passed().sees_body("hello").closed();
    let bare = request("1.0: POST without a length", "RFC 9112 6.3", "POST / HTTP/1.0\r\nHost: a\r\n\r\n");
    let twice = "GET / HTTP/1.0\r\nHost: a\r\n\r\nGET /two HTTP/1.0\r\nHost: a\r\n\r\n";
    let twice = request("1.0: a second request is not looked at", section, twice).passed().closed();
    let two_hosts = old("1.0: two Hosts", "RFC 9112 3.2", "Host: a\r\nHost: b\r\n").wrong();
    let bad_host = old("1.0: a bad Host", "RFC 9112 3.2", "Host: a b\r\n").wrong();
    let head =
        request("1.0: HEAD", section, "HEAD / HTTP/1.0\r\nHost: a\r\n\r\n").methods(&["HEAD"]).passed();
    let expect = "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello";
    let expect = request("1.0: Expect is ignored", "RFC 9110 10.1.1", expect).passed().sees_body("hello");
    let upgrade = old(
        "1.0: Upgrade is ignored",
        "RFC 9110 7.8",
        "Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
    );
    let cases = [
        plain.closed().gets_body("ok"),
        hostless,
        close,
        both.passed().closed(),
        post,
        bare.passed().refused(&[400, 411]).local(&[411]),
        twice,
        two_hosts,
        bad_host,
        head.closed().gets_body(""),
        expect.interim(&[]).closed(),
        upgrade.passed().sees_no("upgrade").closed(),
    ];
    run(cases.into_iter().chain(keep)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_never_gets_what_it_does_not_know() {
    let send = "GET / HTTP/1.0\r\nHost: a\r\n\r\n";
    let keep = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
    let chunks =
        format!("{OK}Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nX-T: 1\r\n\r\n");
    let chunked = |name, send| {
        let case = answer(name, "RFC 9112 6.1", &chunks).send(send).passed().gets_body("hello");
        case.gets_no("transfer-encoding").gets_no("x-t").closed()
    };
    let interim = ["100 Continue", "103 Early Hints\r\nLink: </a>", "102 Processing"].map(|first| {
        let bytes = format!("HTTP/1.1 {first}\r\n\r\n{OK}Content-Length: 2\r\n\r\nok");
        let case = answer(format!("1.0: no {first:?}"), "RFC 9110 15.2", bytes).send(send).passed();
        case.interim(&[]).gets_body("ok").closed()
    });
    let close =
        answer("1.0: up to the end", "RFC 9112 6.3", format!("{OK}\r\nhello")).close().send(send).passed();
    let cut = answer(
        "1.0: chunks cut off",
        "RFC 9112 8",
        format!("{OK}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    );
    let length =
        answer("1.0: a length", "RFC 9112 6.3", format!("{OK}Content-Length: 5\r\n\r\nhello")).send(send);
    let length = length.passed().gets_body("hello").gets("content-length", "5").closed();
    let switched =
        answer("1.0: no switch", "RFC 9110 15.2", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
    let cases = [
        chunked("1.0: chunks are put together", send),
        chunked("1.0: chunks are put together, keep-alive", keep),
        close.gets_body("hello").gets_no("transfer-encoding").closed(),
        // Without chunks nothing but a reset tells that there should have been more.
        cut.close().send(send).truncated().gateway(&[502]),
        length,
        switched.send(send).gateway(&[502]),
    ];
    run(cases.into_iter().chain(interim)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_version_is_what_both_sides_see() {
    let versions = ["HTTP/1.0", "HTTP/1.1"].map(|version| {
        let bytes = format!("{version} 200 OK\r\nContent-Length: 2\r\n\r\nok");
        answer(format!("an origin of {version}"), "RFC 9110 2.5", bytes).passed().gets_body("ok").kept()
    });
    let minor =
        answer("an origin of HTTP/1.2", "RFC 9110 2.5", "HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let keep = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok";
    let keep = answer("an origin of HTTP/1.0 that keeps its connection", "RFC 9112 9.3", keep);
    let chunked = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let chunked = answer("an origin of HTTP/1.0 with chunks", "RFC 9112 6.1", chunked).close();
    let close =
        answer("an origin of HTTP/1.0 up to the end", "RFC 9112 6.3", "HTTP/1.0 200 OK\r\n\r\nhello").close();
    let close = close.passed().gets_body("hello").claim(|observed| {
        let framing = observed.answers[0].framing;
        ensure(matches!(framing, Framing::Chunked | Framing::Close), || format!("framed by {framing:?}"))
    });
    let others = [
        minor.gateway(&[502]).passed().gets_body("ok"),
        keep.passed().gets_body("ok").gets_no("keep-alive").kept(),
        chunked.gateway(&[502]).passed().gets_body("ok"),
        close,
    ];
    run(versions.into_iter().chain(others)).await;
}
