//! Fields on their way: those of one connection end here, all others pass as they are and in their order.

use crate::case::{Case, Checked, Observed, answer, request, run};
use crate::check::ensure;
use crate::message::latin1;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n";

fn get(name: impl Into<String>, section: &'static str, fields: &str) -> Case {
    request(name, section, format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).passed()
}

fn ok(name: impl Into<String>, section: &'static str, fields: &str) -> Case {
    answer(name, section, format!("{OK}{fields}\r\nok")).passed().gets_body("ok")
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_one_connection_end_here() {
    let section = "RFC 9110 7.6.1";
    let named = [
        ("named", "Connection: x-hop\r\nX-Hop: 1\r\n"),
        ("named in other letters", "Connection: X-HOP\r\nx-hop: 1\r\n"),
        ("named beside close", "Connection: close, x-hop\r\nX-Hop: 1\r\n"),
        ("named beside keep-alive", "Connection: keep-alive,x-hop\r\nX-Hop: 1\r\n"),
        ("named before it comes", "X-Hop: 1\r\nConnection: x-hop\r\n"),
        ("named in the second Connection", "Connection: keep-alive\r\nConnection: x-hop\r\nX-Hop: 1\r\n"),
        ("named amid empty members", "Connection: , ,x-hop,,\r\nX-Hop: 1\r\n"),
        ("named between tabs", "Connection: keep-alive\t,\tx-hop\t\r\nX-Hop: 1\r\n"),
        ("named and repeated", "Connection: x-hop\r\nX-Hop: 1\r\nX-Hop: 2\r\n"),
        ("named twice", "Connection: x-hop, x-hop\r\nX-Hop: 1\r\n"),
        ("named as the last of many", "Connection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,x-hop\r\nX-Hop: 1\r\n"),
    ];
    let requests = named.map(|(name, fields)| {
        get(format!("a request's field {name}"), section, &format!("{fields}X-End: 1\r\n"))
            .sees_no("x-hop")
            .sees("x-end", "1")
    });
    let answers = named.map(|(name, fields)| {
        let case = ok(format!("an answer's field {name}"), section, &format!("{fields}X-End: 1\r\n"));
        case.gets_no("x-hop").gets("x-end", "1").kept()
    });
    let known = [
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "gzip"),
        ("TE", "trailers, deflate;q=0.5"),
        ("Upgrade", "h2c"),
        ("Upgrade", "websocket"),
    ];
    let known = known.map(|(name, value)| {
        let fields = format!("{name}: {value}\r\nX-End: 1\r\n");
        let case = get(format!("{name}: {value} in a request"), section, &fields).sees("x-end", "1").kept();
        if name == "TE" { case } else { case.sees_no(name) }
    });
    let known_back = [("Keep-Alive", "timeout=5"), ("Proxy-Connection", "keep-alive"), ("Upgrade", "h2c")];
    let known_back = known_back.map(|(name, value)| {
        let case =
            ok(format!("{name}: {value} in an answer"), section, &format!("{name}: {value}\r\nX-End: 1\r\n"));
        // A server may tell at any time what it could upgrade to (RFC 9110 7.8), but only of its own connection.
        case.gets_no(name).gets("x-end", "1").kept()
    });
    let te = get("TE: trailers", "RFC 9110 10.1.4", "TE: trailers\r\nConnection: TE\r\n").kept();
    let te_alone = get("TE without its option", "RFC 9110 10.1.4", "TE: trailers\r\n").kept();
    let cases = requests.into_iter().chain(answers).chain(known).chain(known_back);
    run(cases.chain([te, te_alone])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_takes_nothing_that_a_message_needs() {
    let section = "RFC 9110 7.6.1";
    let post = "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n0\r\n\r\n";
    let forwarded = "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-for, x-forwarded-host, forwarded, via, \
                     x-real-ip, x-forwarded-proto\r\n\r\n";
    let cases = [
        request("Connection: host", section, "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n")
            .wrong()
            .passed()
            .sees("host", "a"),
        request("Connection: content-length", section, post).wrong().passed().sees_body("hello"),
        request("Connection: transfer-encoding", section, chunked).wrong().passed().sees_body("hello"),
        request("Connection names what we add", section, forwarded)
            .passed()
            .sees("x-forwarded-for", "127.0.0.1")
            .sees("x-forwarded-proto", "http")
            .sees("x-forwarded-host", "a"),
        get("Connection: close stays here", section, "Connection: close\r\n").closed().claim(|observed| {
            let answer = &observed.answers[0];
            ensure(answer.lists("connection", "close"), || {
                "the answer does not say so (RFC 9112 9.6)".to_owned()
            })
        }),
        get("Connection: CLOSE", "RFC 9110 7.6.1", "Connection: CLOSE\r\n").closed(),
        get("Connection: keep-alive, close", "RFC 9112 9.3", "Connection: keep-alive, close\r\n").closed(),
        get("Connection: close in a second field", "RFC 9112 9.3", "Connection: x\r\nConnection: close\r\n")
            .closed(),
        get("Connection: closed is not close", "RFC 9112 9.3", "Connection: closed\r\n").kept(),
        get("Connection: keep-alive", "RFC 9112 9.3", "Connection: keep-alive\r\n").kept(),
        get("an empty Connection", "RFC 9110 5.6.1", "Connection:\r\n").kept(),
        ok("an answer's Connection: content-length", section, "Connection: content-length\r\n").kept(),
        ok("an answer's Connection: close stays there", "RFC 9112 9.3", "Connection: close\r\n").kept(),
        ok("an answer's Connection: date", section, "Connection: date\r\nDate: x\r\n").kept(),
        ok("an answer's Connection: set-cookie", section, "Connection: set-cookie\r\nSet-Cookie: a=b\r\n")
            .gets_no("set-cookie"),
    ];
    run(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_keep_their_order_their_names_and_their_number() {
    let section = "RFC 9110 5.3";
    let lines = "X-A: 1\r\nx-b: 2\r\nX-A: 3\r\nX-c: 4\r\nX-A: 1\r\n";
    let wanted = &["X-A: 1", "x-b: 2", "X-A: 3", "X-c: 4", "X-A: 1"];
    let repeated = "Accept: a\r\nAccept: b, c\r\naccept: d\r\n";
    let cookies = "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2, c\r\nX-A: 1\r\nset-cookie: a=1; Path=/\r\n";
    let several =
        "WWW-Authenticate: Basic\r\nWWW-Authenticate: Digest a=\"b, c\"\r\nLink: </a>\r\nLink: </b>\r\n";
    let many: String = (0..90).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let spelled = "X-LOUD: 1\r\nx-quiet: 2\r\nX-mIxEd: 3\r\n";
    let cases = [
        get("a request's fields in their order", section, lines).sees_lines(wanted),
        ok("an answer's fields in their order", section, lines).gets_lines(wanted),
        get("a request's repeated fields", section, repeated).sees("accept", "a|b, c|d"),
        ok("an answer's repeated fields", section, "Vary: a\r\nVary: b, c\r\n").gets("vary", "a|b, c"),
        ok("Set-Cookie is never merged", "RFC 9110 5.3", cookies)
            .gets("set-cookie", "a=1; Path=/|b=2, c|a=1; Path=/"),
        ok("challenges are never merged", section, several)
            .gets("www-authenticate", "Basic|Digest a=\"b, c\""),
        ok("links are as sent", section, several).gets("link", "</a>|</b>"),
        get("two Cookies", section, "Cookie: a=1; b=2\r\nCookie: c=3\r\n").claim(|observed| {
            let cookie = observed.seen.requests[0].get("cookie");
            let fine = ["a=1; b=2|c=3", "a=1; b=2; c=3"].map(Some).contains(&cookie.as_deref());
            ensure(fine, || format!("{cookie:?}"))
        }),
        get("90 fields", section, &many).claim(|observed| {
            let request = &observed.seen.requests[0];
            let all = (0..90).all(|n| request.get(&format!("x-{n}")) == Some(n.to_string()));
            ensure(all, || "some are missing".to_owned())
        }),
        ok("90 fields back", section, &many).gets("x-0", "0").gets("x-89", "89"),
        get("a request's names keep their letters", section, spelled).sees_lines(&[
            "X-LOUD: 1",
            "x-quiet: 2",
            "X-mIxEd: 3",
        ]),
        ok("an answer's names keep their letters", section, spelled).gets_lines(&[
            "X-LOUD: 1",
            "x-quiet: 2",
            "X-mIxEd: 3",
        ]),
    ];
    run(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_to_its_origin_passes() {
    let end_to_end = [
        ("Accept", "text/html, */*;q=0.8"),
        ("Accept-Encoding", "gzip, br"),
        ("Authorization", "Basic dTpw"),
        ("Cache-Control", "no-cache, max-age=0"),
        ("Content-Type", "text/plain; charset=\"utf-8\""),
        ("Content-Encoding", "gzip"),
        ("Cookie", "a=b; c=\"d\"; e"),
        ("From", "a@b"),
        ("If-Match", "\"a\", W/\"b\""),
        ("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Origin", "http://a"),
        ("Pragma", "no-cache"),
        ("Range", "bytes=0-1, 5-"),
        ("Referer", "http://a/?b"),
        ("User-Agent", "a/1 (b; c)"),
        ("X-Request-Id", "1"),
        ("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Upgrade-Insecure-Requests", "1"),
        ("HTTP2-Settings-X", "1"),
        ("Trailer", "X-T"),
        ("X_Underscored", "1"),
        ("X-Unknown", "~"),
    ];
    let requests = end_to_end.map(|(name, value)| {
        get(format!("{name} in a request"), "RFC 9110 5.1", &format!("{name}: {value}\r\n")).sees(name, value)
    });
    let invented = get("nothing else is invented", "RFC 9110 7.7", "X-A: 1\r\n").claim(|observed| {
        let ours =
            ["host", "x-a", "via", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
        let ours = ours.iter().chain(&["x-forwarded-port", "x-real-ip", "connection", "content-length"]);
        let request = &observed.seen.requests[0];
        let other =
            request.fields.iter().find(|(name, _)| !ours.clone().any(|o| o.eq_ignore_ascii_case(name)));
        ensure(other.is_none(), || format!("the origin saw {other:?}"))
    });
    run(requests.into_iter().chain([invented])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_origin_says_to_its_client_passes() {
    let back = [
        ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Server", "a/1"),
        ("ETag", "W/\"a\""),
        ("Location", "/a?b#c"),
        ("Content-Type", "a/b"),
        ("Content-Encoding", "gzip"),
        ("Content-Range", "bytes 0-1/5"),
        ("Accept-Ranges", "bytes"),
        ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Retry-After", "1"),
        ("Allow", "GET, HEAD"),
        ("Age", "1"),
        ("Cache-Control", "private"),
        ("Expires", "0"),
        ("Strict-Transport-Security", "max-age=1"),
        ("Content-Security-Policy", "default-src 'self'; script-src a"),
        ("X-Forwarded-For", "1"),
        ("Host", "b"),
        ("Trailer", "X-T"),
        ("Upgrade-X", "1"),
        ("X-Empty", ""),
    ];
    let back = back.map(|(name, value)| {
        ok(format!("{name} in an answer"), "RFC 9110 5.1", &format!("{name}: {value}\r\n"))
            .gets(name, value)
            .kept()
    });
    let obs = ok("obs-text in an answer", "RFC 9110 5.5", "X-A: \u{e9}\r\n").gets("x-a", "\u{c3}\u{a9}");
    let date = ok("a Date is added", "RFC 9110 6.6.1", "").claim(|observed| {
        let date = observed.answers[0].get("date").unwrap_or_default();
        let fine = date.len() == 29 && date.ends_with(" GMT") && date.as_bytes()[3] == b',';
        ensure(fine, || format!("Date: {date:?}"))
    });
    run(back.into_iter().chain([obs, date])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn via_tells_the_way() {
    let section = "RFC 9110 7.6.3";
    let hop = |earlier: &'static str, version: &'static str| {
        move |observed: &Observed| {
            let via = observed.seen.requests[0].get("via").unwrap_or_default().replace('|', ", ");
            let ours = via.strip_prefix(earlier).map(|ours| ours.trim_start_matches(", "));
            let fine = ours
                .and_then(|ours| ours.strip_prefix(version))
                .is_some_and(|by| by.strip_prefix(' ').is_some_and(|by| !by.is_empty() && !by.contains(',')));
            ensure(fine, || format!("Via: {via:?}"))
        }
    };
    let old = request("Via of an HTTP/1.0 client", section, "GET / HTTP/1.0\r\nHost: a\r\n\r\n").passed();
    let cases = [
        get("Via is added", section, "").claim(hop("", "1.1")),
        get("Via follows another", section, "Via: 1.0 fred\r\n").claim(hop("1.0 fred", "1.1")),
        get("Via follows two in one field", section, "Via: 1.0 fred, 1.1 p.example (c)\r\n")
            .claim(hop("1.0 fred, 1.1 p.example (c)", "1.1")),
        get("Via follows two fields", section, "Via: 1.0 fred\r\nVia: 1.1 p\r\n")
            .claim(hop("1.0 fred, 1.1 p", "1.1")),
        old.claim(hop("", "1.0")),
        ok("an answer's Via stays first", section, "Via: 1.0 fred\r\n").claim(|observed| {
            let via = observed.answers[0].get("via").unwrap_or_default();
            ensure(via.starts_with("1.0 fred"), || format!("Via: {via:?}"))
        }),
        ok("an answer gets a Via", section, "").claim(|observed| {
            let via = observed.answers[0].get("via").unwrap_or_default();
            ensure(via.starts_with("1.1 "), || format!("Via: {via:?}"))
        }),
    ];
    run(cases).await;
}

/// A TRACE that ends here: refused, or what we got of it, without secrets (RFC 9110 9.3.8).
fn reflected(observed: &Observed, line: &str) -> Checked {
    let answer = &observed.answers[0];
    ensure(observed.seen.requests.is_empty(), || "it reached the origin".to_owned())?;
    if [405, 501].contains(&answer.status()) {
        return Ok(());
    }
    let text = latin1(&answer.body);
    let whole = answer.status() == 200 && text.starts_with(line) && !text.contains("secret");
    let typed = answer.get("content-type").is_some_and(|kind| kind.starts_with("message/http"));
    ensure(whole && typed, || format!("the client got {answer:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn max_forwards_ends_at_zero() {
    let section = "RFC 9110 7.6.2";
    let ask = |method: &'static str, forwards: &str| {
        let bytes = format!("{method} /x HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nMax-Forwards: {forwards}\r\n\r\n");
        request(format!("{method} with Max-Forwards: {forwards:?}"), section, bytes)
    };
    let trace = ask("TRACE", "0").claimed().claim(|observed| reflected(observed, "TRACE /x HTTP/1.1"));
    let secret =
        "TRACE / HTTP/1.1\r\nHost: a\r\nCookie: secret\r\nAuthorization: secret\r\nMax-Forwards: 0\r\n\r\n";
    let secret = request("TRACE tells no secrets", "RFC 9110 9.3.8", secret);
    let secret = secret.claimed().claim(|observed| reflected(observed, "TRACE / HTTP/1.1"));
    let body = "TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    let body = request("TRACE with a body", "RFC 9110 9.3.8", body).refused(&[400, 405, 413, 501]);
    let zeros = ask("OPTIONS", "00").local(&[200, 204]);
    let star = "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n";
    let star = request("OPTIONS * with Max-Forwards: 0", section, star).local(&[200, 204]);
    let huge = ask("OPTIONS", "99999999999999999999").wrong().passed();
    let bad = ["x", "-1", "1.5", "", "+1"]
        .map(|forwards| ask("OPTIONS", forwards).wrong().local(&[200, 204]).passed());
    let twice = "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nMax-Forwards: 5\r\n\r\n";
    let cases = [
        trace,
        ask("OPTIONS", "0").local(&[200, 204]),
        zeros,
        star,
        huge,
        secret,
        ask("TRACE", "1").local(&[405, 501]).passed().sees("max-forwards", "0"),
        ask("TRACE", "10").local(&[405, 501]).passed().sees("max-forwards", "9"),
        ask("OPTIONS", "1").passed().sees("max-forwards", "0").sees_line("OPTIONS /x HTTP/1.1"),
        ask("OPTIONS", "10").passed().sees("max-forwards", "9"),
        ask("GET", "0").passed().sees("max-forwards", "0"),
        ask("GET", "5").passed().sees("max-forwards", "5"),
        request("two Max-Forwards", section, twice).wrong().local(&[200, 204]).passed(),
        request("TRACE without Max-Forwards", "RFC 9110 9.3.8", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n")
            .local(&[405, 501])
            .passed(),
        body.local(&[400, 405, 413, 501]).passed(),
        request("a small max-forwards", section, "OPTIONS / HTTP/1.1\r\nHost: a\r\nmax-forwards: 3\r\n\r\n")
            .passed()
            .sees("max-forwards", "2"),
    ];
    run(cases.into_iter().chain(bad)).await;
}
