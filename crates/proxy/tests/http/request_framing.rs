//! Where a request's body ends: by its length, by a transfer coding, and never by both.

use crate::case::{Case, request, run};

/// A POST with these fields (each with its CRLF) and what follows the head.
pub(crate) fn post(name: impl Into<String>, section: &'static str, fields: &str, body: &str) -> Case {
    let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}");
    request(name, section, bytes).methods(&["POST"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_is_one_row_of_digits() {
    let refused = [
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("two lengths in a list", "Content-Length: 5, 6\r\n"),
        ("two lengths, the first is zero", "Content-Length: 0\r\nContent-Length: 5\r\n"),
        (
            "three lengths, the last differs",
            "Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 0\r\n",
        ),
        ("a plus sign", "Content-Length: +5\r\n"),
        ("a negative length", "Content-Length: -5\r\n"),
        ("a negative zero", "Content-Length: -0\r\n"),
        ("a hexadecimal length", "Content-Length: 0x5\r\n"),
        ("hexadecimal digits", "Content-Length: a\r\n"),
        ("a fraction", "Content-Length: 5.0\r\n"),
        ("an exponent", "Content-Length: 5e0\r\n"),
        ("an underscore between digits", "Content-Length: 0_5\r\n"),
        ("a blank between digits", "Content-Length: 0 5\r\n"),
        ("an empty length", "Content-Length:\r\n"),
        ("a blank length", "Content-Length:  \r\n"),
        ("a word", "Content-Length: five\r\n"),
        ("a quoted length", "Content-Length: \"5\"\r\n"),
        ("a parameter", "Content-Length: 5;q=1\r\n"),
        ("a semicolon", "Content-Length: 5;\r\n"),
        ("no number beside a number", "Content-Length: 5\r\nContent-Length: x\r\n"),
        ("an empty length beside a number", "Content-Length: 5\r\nContent-Length:\r\n"),
        ("2^64 + 5", "Content-Length: 18446744073709551621\r\n"),
        ("2^64", "Content-Length: 18446744073709551616\r\n"),
        ("2^32 to the fourth", "Content-Length: 340282366920938463463374607431768211461\r\n"),
        ("a vertical tab before the digits", "Content-Length: \x0b5\r\n"),
        ("a form feed behind the digits", "Content-Length: 5\x0c\r\n"),
        ("a NUL behind the digits", "Content-Length: 5\0\r\n"),
        ("a no-break space before the digits", "Content-Length: \u{a0}5\r\n"),
        ("digits of another script", "Content-Length: \u{665}\r\n"),
        ("a space before the colon", "Content-Length : 5\r\n"),
        ("a tab before the colon", "Content-Length\t: 5\r\n"),
        ("a folded length", "Content-Length:\r\n 5\r\n"),
        ("a length continued on the next line", "Content-Length: 5\r\n 0\r\n"),
    ];
    let name = |name| format!("length: {name}");
    run(refused.map(|(what, fields)| {
        post(name(what), "RFC 9112 6.3, RFC 9110 8.6", fields, "hello").refused(&[400, 413])
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_length_passes() {
    let section = "RFC 9110 8.6";
    let same = [
        ("twice the same length", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        ("a list of the same length", "Content-Length: 5, 5\r\n"),
        ("a list with an empty member", "Content-Length: 5,\r\n"),
    ];
    let same = same.map(|(name, fields)| {
        post(name, section, fields, "hello")
            .refused(&[400])
            .passed()
            .sees("content-length", "5")
            .sees_body("hello")
    });
    let plain = [
        ("a length in small letters", "content-length: 5\r\n"),
        ("a length in capitals", "CONTENT-LENGTH: 5\r\n"),
        ("a length without a blank", "Content-Length:5\r\n"),
        ("a length amid blanks and tabs", "Content-Length: \t 5 \t \r\n"),
        (
            "a length behind other fields",
            "X-Content-Length: 9\r\nX-A: Content-Length: 7\r\nContent-Length: 5\r\n",
        ),
        ("a length beside a look-alike", "Content_Length: 3\r\nContent-Length: 5\r\n"),
        ("a length beside a coding's look-alike", "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n"),
    ];
    let plain = plain.map(|(name, fields)| {
        post(name, section, fields, "hello").passed().sees("content-length", "5").sees_body("hello").kept()
    });
    let zeros = post("a length with leading zeros", section, "Content-Length: 0005\r\n", "hello");
    let methods = ["GET", "DELETE", "OPTIONS", "PATCH", "PUT", "PROPFIND"].map(|method| {
        let bytes = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        let case = request(format!("{method} with a body"), "RFC 9110 9.3", bytes);
        case.passed().sees_line(format!("{method} / HTTP/1.1")).sees_body("hello").kept()
    });
    let none = ["POST", "PUT", "PATCH", "GET"].map(|method| {
        let bytes = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        request(format!("{method} without a body"), "RFC 9112 6.3", bytes)
            .passed()
            .sees_no("transfer-encoding")
            .sees_body("")
            .kept()
    });
    let zero = post("a body of no bytes", section, "Content-Length: 0\r\n", "")
        .passed()
        .sees("content-length", "0")
        .kept();
    let binary: Vec<u8> = (0..=255).collect();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 256\r\n\r\n";
    let binary =
        request("a body of every byte", section, [&head[..], &binary].concat()).passed().sees_body(binary);
    let single = zeros.passed().sees_body("hello").kept();
    let cases = same.into_iter().chain(plain).chain(methods).chain(none);
    run(cases.chain([zero, binary, single])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_length_beside_a_coding_is_refused() {
    const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let fields = [
        ("length, coding", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("coding, length", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ("length 0, coding", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        ("length, coding in capitals", "Content-Length: 5\r\nTRANSFER-ENCODING: CHUNKED\r\n"),
        (
            "length, other fields, coding",
            "Content-Length: 5\r\nX-A: 1\r\nX-B: 2\r\nTransfer-Encoding: chunked\r\n",
        ),
        ("length, an unknown coding", "Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n"),
        ("length, identity", "Content-Length: 5\r\nTransfer-Encoding: identity\r\n"),
        ("length, an empty coding", "Content-Length: 5\r\nTransfer-Encoding:\r\n"),
        ("a bad length, coding", "Content-Length: x\r\nTransfer-Encoding: chunked\r\n"),
        ("two lengths, coding", "Content-Length: 5\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n"),
    ];
    let refused = fields.map(|(name, fields)| {
        let body = format!("0\r\n\r\n{NEXT}");
        post(format!("both: {name}"), "RFC 9112 6.1", fields, &body).refused(&[400, 501])
    });
    let get = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let get = request("both: with GET", "RFC 9112 6.1", get).refused(&[400]);
    let large = post("both: while 10 MB are sent", "RFC 9112 9.6", fields[0].1, &"x".repeat(10_000_000));
    let split = post("both: byte by byte", "RFC 9112 6.1", fields[0].1, "0\r\n\r\n").split(1).refused(&[400]);
    run(refused.into_iter().chain([get, split, large.refused(&[400])])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coding_other_than_chunked_is_refused() {
    let values = [
        "identity",
        "gzip",
        "x-chunked",
        "xchunked",
        "chunkedx",
        "chunke",
        "chunked, identity",
        "chunked, gzip",
        "identity, chunked",
        "chunked, chunked",
        "chunked;q=1",
        "chunked; a=b",
        "\"chunked\"",
        "'chunked'",
        "chunked chunked",
        "chunked\u{a0}",
        "\x0bchunked",
        "chunked\x0c",
        "chunked\0",
        "chunked\r",
        "\u{212a}chunked",
        "chun\u{212a}ed",
        "\r\n chunked",
        "\r\n\tchunked",
        "chunked\r\n , identity",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "identity\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: x",
        "",
    ];
    let values = values.map(|value| {
        let fields = format!("Transfer-Encoding: {value}\r\n");
        post(format!("coding {value:?}"), "RFC 9112 6.1, 6.3", &fields, "0\r\n\r\n").refused(&[400, 501])
    });
    let lines = [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        "Transfer-Encoding\0: chunked",
        "Transfer Encoding: chunked",
        " Transfer-Encoding: chunked",
        "\tTransfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\n",
        "Transfer-Encoding",
    ];
    let lines = lines.map(|line| {
        let name = format!("coding in the line {line:?}");
        post(name, "RFC 9112 5.1", &format!("{line}\r\n"), "0\r\n\r\n").refused(&[400])
    });
    let gzip = post("gzip below chunks", "RFC 9112 6.1", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n");
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let old = request("chunks in HTTP/1.0", "RFC 9112 6.1", old).refused(&[400]);
    let kept = "POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\
                Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let kept = request("chunks and a length in HTTP/1.0", "RFC 9112 6.1", kept).refused(&[400]);
    run(values.into_iter().chain(lines).chain([gzip.refused(&[400, 501]), old, kept])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_is_no_request() {
    let cases = [
        ("a length's body", "Content-Length: 10\r\n", "hello"),
        ("a length's body before its first byte", "Content-Length: 10\r\n", ""),
        ("a large length's body", "Content-Length: 1000000\r\n", "hello"),
        ("a chunk", "Transfer-Encoding: chunked\r\n", "a\r\nhello"),
        ("chunks before the last", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"),
        ("chunks amid a size", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n1"),
        ("chunks behind the last size", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n"),
        ("chunks amid the last CRLF", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r"),
        ("chunks amid a trailer", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nX-A: 1\r\n"),
        ("a chunk of 4 GiB and 5 bytes", "Transfer-Encoding: chunked\r\n", "100000005\r\nhello\r\n0\r\n\r\n"),
        ("chunks before the first", "Transfer-Encoding: chunked\r\n", ""),
    ];
    let cut = cases.map(|(name, fields, body)| {
        let case = post(format!("cut off: {name}"), "RFC 9112 8", fields, body).finish();
        // The origin may have the begin of it, and then its connection ends as the client's did.
        case.broken(&[400, 408, 499, 502]).gone()
    });
    let heads = [
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\n",
        "GET / HT",
        "G",
        "GET / HTTP/1.1\r\nHost: a\r\n\r",
    ];
    let heads = heads.map(|head| {
        let case = request(format!("cut off: the head {head:?}"), "RFC 9112 8", head).finish();
        case.refused(&[400, 408]).dropped()
    });
    let nothing = request("a connection without a request", "RFC 9112 9.5", "").finish().dropped();
    let empty = request("only an empty line", "RFC 9112 2.2", "\r\n").finish().dropped().refused(&[400]);
    run(cut.into_iter().chain(heads).chain([nothing, empty])).await;
}
