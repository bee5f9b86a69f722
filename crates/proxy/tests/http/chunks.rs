//! Chunks of a request: sizes, extensions, data and trailers.

use crate::case::{Case, run};
use crate::request_framing::post;

fn chunked(name: impl Into<String>, section: &'static str, body: &str) -> Case {
    post(name, section, "Transfer-Encoding: chunked\r\n", body)
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_chunks_pass() {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a=b;".repeat(20) + "c");
    let bodies = [
        ("one chunk", "5\r\nhello\r\n0\r\n\r\n"),
        ("two chunks", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        ("single bytes", "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n"),
        ("leading zeros", "0005\r\nhello\r\n0\r\n\r\n"),
        ("a last chunk of zeros", "5\r\nhello\r\n000\r\n\r\n"),
        ("an extension", "5;a\r\nhello\r\n0\r\n\r\n"),
        ("an extension with a value", "5;a=b\r\nhello\r\n0\r\n\r\n"),
        ("an extension with a quoted value", "5;a=\"b c\"\r\nhello\r\n0\r\n\r\n"),
        ("an extension with quoted specials", "5;a=\"b;\\\"=\\\\\"\r\nhello\r\n0\r\n\r\n"),
        ("two extensions", "5;a=b;c=d\r\nhello\r\n0\r\n\r\n"),
        ("many extensions", &long),
        ("an extension at the last chunk", "5\r\nhello\r\n0;a=b\r\n\r\n"),
        ("blanks around an extension", "5 ; a = b\r\nhello\r\n0\r\n\r\n"),
        ("a tab before an extension", "5\t;a=b\r\nhello\r\n0\r\n\r\n"),
    ];
    let cases = bodies.map(|(name, body)| {
        let case = chunked(format!("chunks: {name}"), "RFC 9112 7.1", body);
        case.passed().sees_body("hello").sees_no("x-a").kept()
    });
    let split =
        chunked("chunks: byte by byte", "RFC 9112 7.1", "3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n").split(1);
    let empty =
        chunked("chunks: none but the last", "RFC 9112 7.1", "0\r\n\r\n").passed().sees_body("").kept();
    let capital = chunked("chunks: a size in capitals", "RFC 9112 7.1", "A\r\nhellohello\r\n0\r\n\r\n");
    let small = chunked("chunks: a size in small letters", "RFC 9112 7.1", "a\r\nhellohello\r\n0\r\n\r\n");
    let lines =
        chunked("chunks: data that looks like chunks", "RFC 9112 7.1", "8\r\n0\r\n\r\n0\r\n\r\n0\r\n\r\n");
    let spellings = ["Chunked", "CHUNKED", "\tchunked \t"].map(|value| {
        let fields = format!("Transfer-Encoding: {value}\r\n");
        let case = post(format!("coding {value:?}"), "RFC 9112 7", &fields, "5\r\nhello\r\n0\r\n\r\n");
        case.passed().sees_body("hello")
    });
    let empties = ["chunked,", ",chunked", ", , chunked", "chunked\r\ntransfer-encoding:"].map(|value| {
        let fields = format!("Transfer-Encoding: {value}\r\n");
        let case = post(format!("coding {value:?}"), "RFC 9110 5.6.1", &fields, "5\r\nhello\r\n0\r\n\r\n");
        case.refused(&[400, 501]).passed().sees_body("hello")
    });
    let others = [
        split.passed().sees_body("hello").kept(),
        empty,
        capital.passed().sees_body("hellohello").kept(),
        small.passed().sees_body("hellohello").kept(),
        lines.passed().sees_body("0\r\n\r\n0\r\n").kept(),
    ];
    run(cases.into_iter().chain(spellings).chain(empties).chain(others)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_chunks_end_the_request() {
    let bodies = [
        ("no size", "\r\nhello\r\n0\r\n\r\n"),
        ("a word for a size", "five\r\nhello\r\n0\r\n\r\n"),
        ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        ("a negative zero", "-0\r\n\r\n"),
        ("a plus sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a blank before the size", " 5\r\nhello\r\n0\r\n\r\n"),
        ("a tab before the size", "\t5\r\nhello\r\n0\r\n\r\n"),
        ("a blank in the size", "0 5\r\nhello\r\n0\r\n\r\n"),
        ("a blank behind the size", "5 \r\nhello\r\n0\r\n\r\n"),
        ("an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
        ("a suffix", "5h\r\nhello\r\n0\r\n\r\n"),
        ("a comma", "5,5\r\nhello\r\n0\r\n\r\n"),
        ("a point", "5.0\r\nhello\r\n0\r\n\r\n"),
        ("2^64 + 5", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("2^64 + 0", "10000000000000000\r\nhello\r\n0\r\n\r\n"),
        ("2^128 + 5", "100000000000000000000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("a size of 20 f", "ffffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("more data than the size", "5\r\nhelloX\r\n0\r\n\r\n"),
        ("less data than the size", "6\r\nhello\r\n0\r\n\r\n"),
        ("no CRLF behind the data", "5\r\nhello0\r\n\r\n"),
        ("a bare LF behind the data", "5\r\nhello\n0\r\n\r\n"),
        ("a bare CR behind the data", "5\r\nhello\r0\r\n\r\n"),
        ("a bare LF behind the size", "5\nhello\r\n0\r\n\r\n"),
        ("a bare CR behind the size", "5\rhello\r\n0\r\n\r\n"),
        ("a bare LF behind the last size", "5\r\nhello\r\n0\n\r\n"),
        ("a bare LF at the end", "5\r\nhello\r\n0\r\n\n"),
        ("bare LFs everywhere", "5\nhello\n0\n\n"),
        ("a bare LF behind an extension", "5;a\nhello\r\n0\r\n\r\n"),
        ("a bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("a bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("a bare LF in a quoted extension", "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"),
        ("a NUL in an extension", "5;a\0\r\nhello\r\n0\r\n\r\n"),
        ("a control byte in an extension", "5;a\x01\r\nhello\r\n0\r\n\r\n"),
        ("a CR before CRLF", "5\r\r\nhello\r\n0\r\n\r\n"),
        ("a NUL behind the size", "5\0\r\nhello\r\n0\r\n\r\n"),
        ("a full-width digit", "\u{ff15}\r\nhello\r\n0\r\n\r\n"),
        ("a vertical tab behind the size", "5\x0b\r\nhello\r\n0\r\n\r\n"),
    ];
    run(bodies
        .map(|(name, body)| chunked(format!("chunks: {name}"), "RFC 9112 7.1", body).broken(&[400, 413])))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_extensions_change_no_framing() {
    let bodies = [
        ("an empty extension", "5;\r\nhello\r\n0\r\n\r\n"),
        ("two semicolons", "5;;\r\nhello\r\n0\r\n\r\n"),
        ("an extension without a name", "5;=b\r\nhello\r\n0\r\n\r\n"),
        ("an extension without its value", "5;a=\r\nhello\r\n0\r\n\r\n"),
        ("an open quote", "5;a=\"b\r\nhello\r\n0\r\n\r\n"),
        ("a size of many zeros", "000000000000000000000000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("obs-text in an extension", "5;a=\"\u{e9}\"\r\nhello\r\n0\r\n\r\n"),
    ];
    let bodies = bodies.map(|(name, body)| {
        let case = chunked(format!("chunks: {name}"), "RFC 9112 7.1.1", body);
        case.broken(&[400]).passed().sees_body("hello")
    });
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(200_000));
    let long = chunked("chunks: an extension of 200 kB", "RFC 9112 7.1.1", &long).broken(&[400, 413, 431]);
    let many = format!("1;{}\r\nx\r\n", "a".repeat(2_000)).repeat(200) + "0\r\n\r\n";
    let many = chunked("chunks: an extension of 2 kB at each of 200", "RFC 9112 7.1.1", &many);
    let many = many.broken(&[400, 413, 431]);
    let zeros = format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(200_000));
    let zeros = chunked("chunks: a size of 200,000 zeros", "RFC 9112 7.1", &zeros).broken(&[400, 413, 431]);
    run(bodies.into_iter().chain([long, many, zeros])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_never_become_fields() {
    let trailers = [
        ("a trailer", "X-A: 1\r\n"),
        ("two trailers", "X-A: 1\r\nX-B: 2\r\n"),
        ("a trailer without a value", "X-A:\r\n"),
    ];
    let valid = trailers.map(|(name, trailers)| {
        let body = format!("5\r\nhello\r\n0\r\n{trailers}\r\n");
        let case = chunked(name, "RFC 9112 7.1.2", &body).passed();
        case.sees_body("hello").sees_no("x-a").kept()
    });
    let forbidden = [
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        "Host: b",
        "Authorization: Basic x",
        "X-Forwarded-For: 6.6.6.6",
        "Connection: close",
        "Content-Encoding: gzip",
        "Cookie: a=b",
    ];
    let forbidden = forbidden.map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        let body = format!("5\r\nhello\r\n0\r\n{line}\r\n\r\n");
        let case = chunked(format!("a trailer {line:?}"), "RFC 9110 6.5.1", &body).broken(&[400]).passed();
        case.sees_body("hello").claim(move |observed| {
            let request = &observed.seen.requests[0];
            let (fields, trailers) = (&request.fields, &request.trailers);
            let same = |(n, v): &&(String, String)| n.eq_ignore_ascii_case(name) && v == value;
            let count = fields.iter().filter(same).filter(|(n, _)| n != "Transfer-Encoding").count();
            let merged = count > 0 && !name.eq_ignore_ascii_case("transfer-encoding");
            crate::check::ensure(!merged, || format!("{line} became a field"))?;
            crate::check::ensure(trailers.is_empty(), || format!("{line} was passed on"))
        })
    });
    let malformed = [
        ("a space before the colon", "X-A : 1\r\n"),
        ("no colon", "X-A\r\n"),
        ("no name", ": 1\r\n"),
        ("a blank in the name", "X A: 1\r\n"),
        ("a NUL", "X-A: \0\r\n"),
        ("a bare LF", "X-A: 1\n"),
        ("a bare CR", "X-A: 1\r2\r\n"),
        ("a folded line", "X-A: 1\r\n 2\r\n"),
        ("a folded first line", " X-A: 1\r\n"),
    ];
    let malformed = malformed.map(|(name, trailers)| {
        let body = format!("5\r\nhello\r\n0\r\n{trailers}\r\n");
        chunked(format!("a trailer with {name}"), "RFC 9112 5, 7.1.2", &body).broken(&[400])
    });
    let large = format!("0\r\n{}\r\n", format!("X-A: {}\r\n", "a".repeat(1_000)).repeat(200));
    let large = chunked("trailers of 200 kB", "RFC 9110 5.4", &large).broken(&[400, 413, 431]);
    run(valid.into_iter().chain(forbidden).chain(malformed).chain([large])).await;
}
