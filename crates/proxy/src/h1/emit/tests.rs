use super::*;
use crate::h1::head::{Progress, Side};

fn head(text: &str, side: Side) -> Head {
    let mut head = Head::default();
    head.reset(0);
    assert_eq!(head.advance(text.as_bytes(), side), Ok(Progress::Whole));
    head
}

fn forward(text: &str, trusted: bool) -> String {
    forward_for(&Forwarding { trusted, ..Forwarding::of([10, 0, 0, 7].into()) }, text)
}

fn forward_for(forwarding: &Forwarding, text: &str) -> String {
    let (head, buffer) = (head(text, Side::Request), text.as_bytes());
    let request = &Request::of(&head, buffer).unwrap();
    let mut out = Vec::new();
    super::request(
        &mut out,
        &RequestParts {
            request,
            head: &head,
            buffer,
            forwarding,
            asker: [9, 9, 9, 9].into(),
            default_host: "web",
            expect_continue: false,
        },
    );
    String::from_utf8(out).unwrap()
}

fn back(text: &str, method: Method) -> String {
    let (head, buffer) = (head(text, Side::Response), text.as_bytes());
    let response = &Response::of(&head, buffer, method).unwrap();
    let mut out = Vec::new();
    super::response(
        &mut out,
        &ResponseParts {
            response,
            head: &head,
            buffer,
            framing: response.framing,
            connection: Persistence::Stays,
            date: b"now",
            added: b"",
        },
    );
    String::from_utf8(out).unwrap()
}

const OURS: &str = "X-Forwarded-For: 10.0.0.7\r\nForwarded: for=10.0.0.7;host=a;proto=http\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\
                    X-Real-IP: 10.0.0.7\r\nVia: 1.1 ringmaster\r\n";

#[test]
fn fields_keep_their_order_their_spelling_and_their_repeats() {
    let text = "GET /a%2f/../b?c HTTP/1.1\r\nx-B: 2\r\nhost: a\r\nX-a: 1\r\nx-B:  1 \r\nCookie: c\r\n\r\n";
    let expected = format!(
        "GET /a%2f/../b?c HTTP/1.1\r\nx-B: 2\r\nhost: a\r\nX-a: 1\r\nx-B: 1\r\nCookie: c\r\n{OURS}\r\n"
    );
    assert_eq!(forward(text, false), expected);
}

#[test]
fn hop_by_hop_fields_end_here_with_those_that_connection_names() {
    let text = "POST / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Secret, host\r\nConnection: x-other, content-length\r\n\
                Content-Length: 003\r\nX-Secret: 1\r\nx-Other: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Authorization: x\r\n\
                Proxy-Connection: close\r\nUpgrade: h2c\r\nExpect: 100-continue\r\nX-Kept: 1\r\n\r\n";
    let expected = format!("POST / HTTP/1.1\r\nHost: a\r\nX-Kept: 1\r\n{OURS}Content-Length: 3\r\n\r\n");
    assert_eq!(forward(text, false), expected);
}

#[test]
fn forwarding_fields_are_ours_alone_unless_the_sender_is_trusted() {
    let claims = "X-Forwarded-Prefix: /p\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n\
                  Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n";
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{claims}\r\n");
    assert_eq!(forward(&text, false), format!("GET / HTTP/1.1\r\nHost: a\r\n{OURS}\r\n"));
    let trusted = forward(&text, true);
    for line in [
        "X-Forwarded-For: 6.6.6.6, 10.0.0.7",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Port: 1",
        "X-Forwarded-Prefix: /p",
        "Forwarded: for=6.6.6.6, for=10.0.0.7;host=a;proto=http",
        "X-Real-IP: 9.9.9.9",
    ] {
        assert_eq!(trusted.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {trusted}");
    }
    assert_eq!(trusted.matches("X-Forwarded-For").count(), 1);
    assert_eq!(trusted.matches("X-Real-IP").count(), 1);
}

#[test]
fn no_stranger_hides_behind_a_quote() {
    let claim = |name: &str, value: &str| {
        forward(&format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: {value}\r\n\r\n"), true)
    };
    assert!(
        claim("X-Forwarded-For", "\", 1.1.1.1").contains("\r\nX-Forwarded-For: \", 1.1.1.1, 10.0.0.7\r\n")
    );
    for (value, goes_on) in [
        ("for=\"x", "for=9.9.9.9"),
        ("\", for=1.1.1.1", "for=9.9.9.9"),
        (r#"for="a\""#, "for=9.9.9.9"),
        (r#"for="a\"b""#, r#"for="a\"b""#),
        ("for=\"[2001:db8::1]\"", "for=\"[2001:db8::1]\""),
    ] {
        let out = claim("Forwarded", value);
        assert!(
            out.contains(&format!("\r\nForwarded: {goes_on}, for=10.0.0.7;host=a;proto=http\r\n")),
            "{out}"
        );
    }
}

#[test]
fn an_absolute_target_becomes_a_path_and_a_host() {
    for (line, target) in [
        ("GET http://b:8/x?y", "/x?y"),
        ("GET http://b:8", "/"),
        ("GET http://b:8?y", "/?y"),
        ("OPTIONS http://b:8", "*"),
    ] {
        let out = forward(&format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"), false);
        let method = line.split(' ').next().unwrap();
        assert!(out.starts_with(&format!("{method} {target} HTTP/1.1\r\nHost: b:8\r\n")), "{out}");
    }
}

#[test]
fn what_is_no_token_is_quoted() {
    let forwarding = &Forwarding::of("2001:db8::1".parse().unwrap());
    let out = forward_for(forwarding, "GET / HTTP/1.1\r\nHost: a:80\r\n\r\n");
    assert!(out.contains("\r\nForwarded: for=\"[2001:db8::1]\";host=\"a:80\";proto=http\r\n"), "{out}");
    assert!(out.contains("\r\nX-Real-IP: 2001:db8::1\r\n"), "{out}");
}

#[test]
fn forwards_are_counted_down() {
    assert!(
        forward("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 7\r\n\r\n", false)
            .contains("\r\nMax-Forwards: 6\r\n")
    );
    assert!(
        forward("GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 7\r\n\r\n", false)
            .contains("\r\nMax-Forwards: 7\r\n")
    );
    for (fields, left) in [
        ("Max-Forwards: 99999999999999999999999", "999999999999999998"),
        ("Max-Forwards: 5\r\nMax-Forwards: 3", "2"),
        ("Max-Forwards: 00000000000000000000005", "4"),
        ("Max-Forwards: five", "five"),
    ] {
        let out = forward(&format!("TRACE / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"), false);
        assert_eq!(out.matches("Max-Forwards").count(), 1, "{out}");
        assert!(out.contains(&format!("\r\nMax-Forwards: {left}\r\n")), "{out}");
    }
}

#[test]
fn a_request_without_a_host_gets_one() {
    let out = forward("GET / HTTP/1.0\r\n\r\n", false);
    assert!(
        out.starts_with("GET / HTTP/1.1\r\nHost: web\r\n") && out.ends_with("Via: 1.0 ringmaster\r\n\r\n"),
        "{out}"
    );
}

#[test]
fn a_response_keeps_its_fields_and_gets_a_date() {
    let text = "HTTP/1.0 200 Fine\r\nset-cookie: a\r\nServer: s\r\nset-cookie: b\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
                Content-Length: 2\r\n\r\n";
    assert_eq!(
        back(text, Method::Get),
        "HTTP/1.1 200 Fine\r\nset-cookie: a\r\nServer: s\r\nset-cookie: b\r\nVia: 1.0 ringmaster\r\nDate: now\r\nContent-Length: 2\r\n\r\n"
    );
    assert!(!back("HTTP/1.1 200 OK\r\nDate: then\r\n\r\n", Method::Get).contains("now"));
}

#[test]
fn an_upgrade_goes_on_without_cleartext_http_2() {
    let ask = |value: &str| {
        forward(
            &format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: {value}\r\n\r\n"),
            false,
        )
    };
    assert!(ask("h2c, websocket,x").ends_with("\r\nConnection: upgrade\r\nUpgrade: websocket, x\r\n\r\n"));
    assert!(!ask("H2C").contains("pgrade"));
}

#[test]
fn who_requires_an_upgrade_says_to_what() {
    let text = "HTTP/1.1 426 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\n";
    let out = back(text, Method::Get);
    assert!(out.ends_with("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\n"), "{out}");
    assert!(!back(&text.replace("426", "200"), Method::Get).contains("pgrade"));
}

#[test]
fn a_response_without_a_body_claims_no_length() {
    let end = "Via: 1.1 ringmaster\r\nDate: now\r\n\r\n";
    for (text, method) in [
        ("HTTP/1.1 204 X\r\nContent-Length: 0\r\n\r\n", Method::Get),
        ("HTTP/1.1 304 X\r\n\r\n", Method::Get),
        ("HTTP/1.1 200 X\r\n\r\n", Method::Head),
        ("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n", Method::Head),
    ] {
        assert!(
            back(text, method).ends_with(end) && !back(text, method).contains("Content-Length"),
            "{text:?}"
        );
    }
    assert!(
        back("HTTP/1.1 200 X\r\nContent-Length: 7\r\n\r\n", Method::Head).contains("Content-Length: 7\r\n")
    );
    assert!(
        back("HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n", Method::Get).contains("Content-Length: 0\r\n")
    );
}

#[test]
fn chunks_are_written_with_their_size() {
    for size in [1, 9, 10, 15, 16, 255, 256, 65_536] {
        let mut out = Vec::new();
        chunk(&mut out, &vec![b'x'; size]);
        assert!(out.starts_with(format!("{size:x}\r\nx").as_bytes()), "{size}");
        assert_eq!(out.len(), format!("{size:x}").len() + 4 + size);
    }
    let text = "T\r\nX-T: 1\r\nContent-Length: 5\r\nSet-Cookie: a\r\n\r\n";
    let trailers = head(text, Side::Response);
    let mut out = Vec::new();
    last_chunk(&mut out, Some((&trailers, text.as_bytes())));
    assert_eq!(out, b"0\r\nX-T: 1\r\n\r\n");
}
