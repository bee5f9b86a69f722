//! The bytes of a request's head: line ends, the request line, names and values.

use crate::case::{request, run};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_line_ends_with_crlf() {
    let refused = [
        ("bare LFs everywhere", "GET / HTTP/1.1\nHost: a\n\n"),
        ("a bare LF behind the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
        ("a bare LF behind a field", "GET / HTTP/1.1\r\nHost: a\nX-A: 1\r\n\r\n"),
        ("a bare LF behind the last field", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\n\r\n"),
        ("a bare LF for the last line", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
        (
            "two LFs behind the last field",
            "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\n\nGET /smuggled HTTP/1.1\r\n",
        ),
        ("a bare CR behind the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n"),
        ("a bare CR in the request line", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a bare CR before the version", "GET / \rHTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a CR before CRLF in the request line", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n"),
        ("a CR before CRLF in a field", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
        ("a bare CR in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\rA: 1\r\n\r\n"),
        ("a bare CR before a name", "GET / HTTP/1.1\r\nHost: a\r\n\rX-A: 1\r\n\r\n"),
        ("a bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r2\r\n\r\n"),
        ("a bare CR at the begin of a value", "GET / HTTP/1.1\r\nHost: a\r\nX-A: \r1\r\n\r\n"),
        ("a bare CR for the last line", "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n"),
        ("LF CR for CRLF", "GET / HTTP/1.1\n\rHost: a\n\r\n\r"),
    ];
    let refused = refused.map(|(name, bytes)| request(name, "RFC 9112 2.2", bytes).refused(&[400]));
    let empty = format!("\r\n{GET}\r\n");
    let empty = request("an empty line before the request", "RFC 9112 2.2", empty).passed().kept();
    let two = request("two empty lines before the request", "RFC 9112 2.2", format!("\r\n\r\n{GET}\r\n"));
    let split =
        request("an empty line before the request, byte by byte", "RFC 9112 2.2", format!("\r\n{GET}\r\n"));
    let lf = request("a bare LF before the request", "RFC 9112 2.2", format!("\n{GET}\r\n"));
    let many = request("100,000 empty lines", "RFC 9112 2.2", "\r\n".repeat(100_000) + GET + "\r\n");
    // No line has ended when the client has.
    let cr = request("bare CRs everywhere", "RFC 9112 2.2", "GET / HTTP/1.1\rHost: a\r\r").finish();
    let others = [
        cr.refused(&[400, 408]).dropped(),
        empty,
        two.passed().refused(&[400]),
        split.split(1).passed(),
        lf.refused(&[400]).passed(),
        many.refused(&[400, 408, 414, 431]).passed(),
    ];
    run(refused.into_iter().chain(others)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_line_has_three_parts() {
    let lines = [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "\tGET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1\t",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET\x0b/ HTTP/1.1",
        "GET /\x0cHTTP/1.1",
        "GET\u{a0}/ HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a HTTP/1.1 HTTP/1.1",
        "GET / HTTP/1.1 x",
        "GET /",
        "GET / ",
        "GET",
        "GET HTTP/1.1",
        "GET  HTTP/1.1",
        " / HTTP/1.1",
        "/ HTTP/1.1",
        "/",
        "HTTP/1.1 200 OK",
        "G(T / HTTP/1.1",
        "G/T / HTTP/1.1",
        "G:T / HTTP/1.1",
        "G\"T / HTTP/1.1",
        "G{T} / HTTP/1.1",
        "G@T / HTTP/1.1",
        "G[T] / HTTP/1.1",
        "G\\T / HTTP/1.1",
        "G,T / HTTP/1.1",
        "G;T / HTTP/1.1",
        "G=T / HTTP/1.1",
        "G?T / HTTP/1.1",
        "G<T> / HTTP/1.1",
        "G\0T / HTTP/1.1",
        "G\x01T / HTTP/1.1",
        "G\x7fT / HTTP/1.1",
        "G\u{cb}T / HTTP/1.1",
        "\u{feff}GET / HTTP/1.1",
    ];
    let lines = lines.map(|line| {
        let bytes = format!("{line}\r\nHost: a\r\n\r\n");
        request(format!("the request line {line:?}"), "RFC 9112 3", bytes).refused(&[400, 501, 505])
    });
    run(lines).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_is_any_token_and_passes_as_it_is() {
    let methods = [
        "FOO",
        "PURGE",
        "M-SEARCH",
        "PROPFIND",
        "QUERY",
        "PATCH",
        "A",
        "!#$%&'*+-.^_`|~09",
        "UPDATEREDIRECTREF",
    ];
    let methods = methods.map(|method| {
        let bytes = format!("{method} /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
        let case = request(format!("the method {method:?}"), "RFC 9110 9.1", bytes).passed();
        case.sees_line(format!("{method} /x HTTP/1.1")).sees_body("ab").kept()
    });
    let cases = ["get", "Get", "gET", "head", "Post"].map(|method| {
        let bytes = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        let case = request(format!("the method {method:?} is not in capitals"), "RFC 9110 9.1", bytes);
        case.refused(&[400, 405, 501]).local(&[405, 501]).passed().sees_line(format!("{method} / HTTP/1.1"))
    });
    let long = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(20_000));
    let long = request("a method of 20,000 letters", "RFC 9112 3", long).refused(&[400, 414, 431, 501]);
    run(methods.into_iter().chain(cases).chain([long])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_a_token_right_before_its_colon() {
    let lines = [
        "X-A : 1",
        "X-A\t: 1",
        "X-A\x0b: 1",
        "X-A\u{a0}: 1",
        "X A: 1",
        ": 1",
        " : 1",
        ":",
        "X-A",
        "X-A 1",
        "X-A;1",
        "=",
        "X(A: 1",
        "X)A: 1",
        "X,A: 1",
        "X/A: 1",
        "X;A: 1",
        "X<A: 1",
        "X=A: 1",
        "X>A: 1",
        "X?A: 1",
        "X@A: 1",
        "X[A: 1",
        "X\\A: 1",
        "X]A: 1",
        "X{A: 1",
        "X}A: 1",
        "X\"A\": 1",
        "X\0A: 1",
        "\0: 1",
        "X\x01A: 1",
        "X\x1fA: 1",
        "X\x7fA: 1",
        "X\u{e9}A: 1",
        "\u{feff}X: 1",
        "GET /smuggled HTTP/1.1",
    ];
    let lines = lines.map(|line| {
        let bytes = format!("{GET}{line}\r\nX-B: 1\r\n\r\n");
        request(format!("the field {line:?}"), "RFC 9112 5.1", bytes).refused(&[400])
    });
    let first = ["X-A : 1", " X-A: 1", "\tX-A: 1", " ", "\t", ": 1", "X-A"].map(|line| {
        let bytes = format!("GET / HTTP/1.1\r\n{line}\r\nHost: a\r\n\r\n");
        request(format!("the first field {line:?}"), "RFC 9112 2.2", bytes).refused(&[400])
    });
    let folds = [
        "X-A: 1\r\n 2",
        "X-A: 1\r\n\t2",
        "X-A:\r\n 1",
        "X-A: 1\r\n ",
        "X-A: 1\r\n \r\n 2",
        "X-A: 1\r\n 2\r\n 3",
    ];
    let folds = folds.map(|line| {
        let bytes = format!("{GET}{line}\r\n\r\n");
        let case = request(format!("the folded field {line:?}"), "RFC 9112 5.2", bytes).refused(&[400]);
        case.passed().claim(|observed| {
            let value = observed.seen.requests[0].get("x-a").unwrap_or_default();
            crate::check::ensure(value.starts_with('1'), || format!("X-A: {value:?}"))
        })
    });
    let tokens = format!("{GET}!#$%&'*+-.^_`|~09Az: 1\r\n\r\n");
    let tokens = request("a name of every token character", "RFC 9110 5.6.2", tokens).passed();
    let tokens = tokens.sees("!#$%&'*+-.^_`|~09Az", "1").kept();
    run(lines.into_iter().chain(first).chain(folds).chain([tokens])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_has_no_control_bytes_and_passes_as_it_is() {
    let refused = ["a\0b", "\0", "a\0", "a\x01b", "a\x08b", "a\x0bb", "a\x0cb", "a\x1bb", "a\x1fb", "a\x7fb"];
    let refused = refused.map(|value| {
        let bytes = format!("{GET}X-A: {value}\r\n\r\n");
        request(format!("the value {value:?}"), "RFC 9110 5.5", bytes).refused(&[400])
    });
    let passed = [
        ("", ""),
        ("1", "1"),
        ("  1", "1"),
        ("1  ", "1"),
        ("\t1\t", "1"),
        ("a  b", "a  b"),
        ("a\tb", "a\tb"),
        ("a:b:c", "a:b:c"),
        ("a, b,,c , d", "a, b,,c , d"),
        ("\"a\\\"b\"", "\"a\\\"b\""),
        ("(comment)", "(comment)"),
        ("=;?/<>@[]{}\\", "=;?/<>@[]{}\\"),
        ("%00%0d%0a", "%00%0d%0a"),
    ];
    let passed = passed.map(|(sent, seen)| {
        let bytes = format!("{GET}X-A:{sent}\r\nX-B: 2\r\n\r\n");
        let case = request(format!("the value {sent:?}"), "RFC 9110 5.5", bytes).passed();
        case.sees("x-a", seen).sees("x-b", "2").kept()
    });
    let bytes = [GET.as_bytes(), b"X-A: \x80\xe9\xff\xc3\xa9\r\n\r\n"].concat();
    let obs = request("obs-text in a value", "RFC 9110 5.5", bytes).passed();
    let obs = obs.sees("x-a", "\u{80}\u{e9}\u{ff}\u{c3}\u{a9}").kept();
    let every: String = (' '..='~').collect();
    let every = format!("x{every}x");
    let whole =
        request("every visible byte in a value", "RFC 9110 5.5", format!("{GET}X-A: {every}\r\n\r\n"));
    run(refused.into_iter().chain(passed).chain([obs, whole.passed().sees("x-a", every)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn however_it_is_cut_into_pieces_a_request_is_the_same() {
    let bytes = "POST /a HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello";
    let cases = [1, 2, 3, 7, 16, 31].map(|size| {
        let case = request(format!("pieces of {size}"), "RFC 9112 2.2", bytes).split(size).methods(&["POST"]);
        case.passed().sees_line("POST /a HTTP/1.1").sees("x-a", "1").sees_body("hello").kept()
    });
    run(cases).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_gets_no_further() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00".to_vec();
    let hello = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\x01\x02\x03\x04\r\n\r\n".to_vec();
    let cases = [
        ("HTTP/2's preface", preface),
        ("a TLS hello", hello),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()),
        ("SMTP", b"EHLO a\r\n\r\n".to_vec()),
        ("RTSP", b"DESCRIBE rtsp://a/ RTSP/1.0\r\nCSeq: 1\r\n\r\n".to_vec()),
        ("SIP", b"OPTIONS sip:a SIP/2.0\r\nHost: a\r\n\r\n".to_vec()),
        (
            "the PROXY protocol",
            b"PROXY TCP4 6.6.6.6 6.6.6.6 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        ),
        ("zeros", vec![0; 1_000]),
        ("high bytes", [vec![0xff; 1_000], b"\r\n\r\n".to_vec()].concat()),
        ("a response", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()),
    ];
    let cases = cases
        .map(|(name, bytes)| request(name, "RFC 9112 3", bytes).refused(&[400, 405, 501, 505]).dropped());
    run(cases).await;
}
