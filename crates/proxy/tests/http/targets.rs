//! Request targets in their four forms, and the Host that must agree with them.

use crate::case::{Case, request, run};

fn target(target: &str) -> Case {
    request(
        format!("the target {target:?}"),
        "RFC 9112 3.2",
        format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_form_passes_byte_for_byte() {
    let valid = [
        "/",
        "/a",
        "/a/",
        "//",
        "//a",
        "//a//b",
        "/.",
        "/..",
        "/./a",
        "/../a",
        "/a/../b",
        "/a/./b",
        "/a/..",
        "/%2e%2e/a",
        "/%2E",
        "/a%2Fb",
        "/a%2fb",
        "/%41",
        "/%7e",
        "/%20",
        "/%00",
        "/%0d%0a",
        "/%25%32%46",
        "/a+b",
        "/a;b=c",
        "/a,b",
        "/a:b",
        "/a@b",
        "/:",
        "/*",
        "/~!$&'()*+,;=:@",
        "/?",
        "/??",
        "/?a",
        "/?a=b&c=d",
        "/?a=%20+",
        "/a?b/c?d",
        "/?/../a",
        "/?a=http://b/",
        "/a?",
        "/-._~",
        "/?a==&&",
        "/http://b/",
        "/a//?b//",
        "/%E2%82%AC",
    ];
    let valid = valid.map(|text| target(text).passed().sees_line(format!("GET {text} HTTP/1.1")).kept());
    run(valid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nearly_an_origin_form_is_never_changed() {
    // Not in the grammar, yet sent by browsers and scripts; never changed on the way.
    let tolerated = [
        "/%",
        "/%zz",
        "/%4",
        "/a|b",
        "/\"a\"",
        "/<a>",
        "/{a}",
        "/[a]",
        "/\\a",
        "/^",
        "/`",
        "/?[]{}|\\^`\"<>",
    ];
    let tolerated =
        tolerated.map(|text| target(text).wrong().passed().sees_line(format!("GET {text} HTTP/1.1")));
    let high = target("/\u{e9}").wrong().passed().sees_line("GET /\u{c3}\u{a9} HTTP/1.1");
    let long = format!("/{}", "a".repeat(7_900));
    let line = format!("GET {long} HTTP/1.1");
    let long = request("a target of 7,901 bytes", "RFC 9112 3", format!("{line}\r\nHost: a\r\n\r\n"));
    run(tolerated.into_iter().chain([high, long.passed().sees_line(line).kept()])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_target_is_refused() {
    let refused = [
        "a",
        "a/b",
        "?a",
        "#",
        "/#",
        "/a#b",
        "/?a#b",
        "#a",
        "*",
        "*a",
        "**",
        "a:80",
        "a.example:80",
        "a.example",
        ".",
        "..",
        "%2f",
        "\\",
        "&",
        "/\x01",
        "/a\x7fb",
        "/a\0",
        "/\x0b",
        "/\x1f",
    ];
    run(refused.map(|text| target(text).wrong())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_form_is_taken_apart() {
    let forms = [
        ("http://a/", "/", "a"),
        ("http://a/x/y?z", "/x/y?z", "a"),
        ("http://a", "/", "a"),
        ("http://a?x", "/?x", "a"),
        ("http://a/?", "/?", "a"),
        ("http://b/x", "/x", "b"),
        ("http://b:8080/x", "/x", "b:8080"),
        ("http://a.example:80/", "/", "a.example:80"),
        ("HTTP://a/x", "/x", "a"),
        ("hTtP://a/x", "/x", "a"),
        ("http://[::1]/x", "/x", "[::1]"),
        ("http://[::1]:81/x", "/x", "[::1]:81"),
        ("http://127.0.0.1/x", "/x", "127.0.0.1"),
        ("http://a/../b/%2e", "/../b/%2e", "a"),
        ("http://a//b", "//b", "a"),
        ("http://a/http://b/", "/http://b/", "a"),
    ];
    let forms = forms.map(|(text, path, host)| {
        let case = target(text).passed().sees_line(format!("GET {path} HTTP/1.1"));
        case.sees("host", host).sees("x-forwarded-host", host).kept()
    });
    let refused = [
        "http://",
        "http:///x",
        "http://?x",
        "http:/x",
        "http:x",
        "http:",
        "://a/",
        "http//a/",
        "http://a b/",
        "http://a/#x",
        "http://a#x",
        "http://a:b/",
        "http://a:80:80/",
        "http://a:-1/",
        "http://[::1/",
        "http://[zz]/",
        "http://::1/",
        "http://a\\b/",
        "http://a^b/",
        "http://\"a\"/",
        "http://a<b>/",
        "http://:80/",
        "http://@/",
        "1http://a/",
        "http://a|b/",
        "http://a{b}/",
        "http://a\u{e9}/",
        "http://%zz/",
    ];
    let refused = refused.map(|text| target(text).wrong());
    let ports = ["http://a:99999/", "http://a:65536/"].map(|text| target(text).wrong().passed());
    let empty = target("http://a:/x").wrong().passed().sees_line("GET /x HTTP/1.1");
    let users = ["http://u@a/", "http://u:p@a/", "http://a@b@c/"]
        .map(|text| target(text).wrong().passed().sees("host", "a").sees_line("GET / HTTP/1.1"));
    let schemes = ["https://a/x", "ftp://a/x", "ws://a/x", "file:///x", "javascript:x", "urn:a:b"];
    let schemes =
        schemes.map(|text| target(text).refused(&[400, 421, 501, 502]).local(&[400, 404, 421, 501, 502]));
    let https =
        target("https://a/y").refused(&[400, 421]).local(&[421]).passed().sees_line("GET /y HTTP/1.1");
    let cases = forms.into_iter().chain(refused).chain(ports).chain(users).chain(schemes.into_iter().skip(1));
    run(cases.chain([empty, https])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_form_overrules_the_host() {
    let hosts = ["Host: b\r\n", "Host: a:80\r\n", "host: evil.example\r\n", "Host: a\r\n"];
    let overruled = hosts.map(|host| {
        let bytes = format!("GET http://a/x HTTP/1.1\r\n{host}\r\n");
        let case = request(format!("http://a/x with {host:?}"), "RFC 9112 3.2.2", bytes).passed();
        case.sees("host", "a").sees_line("GET /x HTTP/1.1").sees("x-forwarded-host", "a").kept()
    });
    let bad = ["", "Host: a\r\nHost: a\r\n", "Host: b c\r\n", "Host: a\r\nHost: b\r\n"];
    let bad = bad.map(|host| {
        let bytes = format!("GET http://a/x HTTP/1.1\r\n{host}\r\n");
        request(format!("http://a/x with {host:?}"), "RFC 9112 3.2", bytes).wrong()
    });
    let old = request("http://a/x in HTTP/1.0", "RFC 9112 3.2.2", "GET http://a/x HTTP/1.0\r\n\r\n");
    let post = "POST http://a/x HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\nhi";
    let post = request("POST http://a/x", "RFC 9112 3.2.2", post).passed().sees_line("POST /x HTTP/1.1");
    let old = old.passed().sees("host", "a").sees_line("GET /x HTTP/1.1");
    run(overruled.into_iter().chain(bad).chain([old, post.sees("host", "a").sees_body("hi")])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asterisk_is_for_options_and_an_authority_for_connect() {
    let star = request("OPTIONS *", "RFC 9112 3.2.4", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    let star = star.local(&[200, 204]).passed().sees_line("OPTIONS * HTTP/1.1").sees("host", "a");
    let empty = request("OPTIONS http://a", "RFC 9112 3.2.4", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n");
    let empty = empty.local(&[200, 204]).passed().sees_line("OPTIONS * HTTP/1.1").sees("host", "a");
    let lines = [
        ("OPTIONS http://a/", "OPTIONS / HTTP/1.1"),
        ("OPTIONS http://a/x", "OPTIONS /x HTTP/1.1"),
        ("OPTIONS http://a?x", "OPTIONS /?x HTTP/1.1"),
        ("OPTIONS /", "OPTIONS / HTTP/1.1"),
        ("OPTIONS /*", "OPTIONS /* HTTP/1.1"),
    ];
    let lines = lines.map(|(line, seen)| {
        let case = request(line, "RFC 9112 3.2", format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"));
        case.passed().sees_line(seen).kept()
    });
    let stars = ["POST", "PUT", "HEAD", "DELETE", "TRACE", "FOO"].map(|method| {
        let case = request(
            format!("{method} *"),
            "RFC 9112 3.2.4",
            format!("{method} * HTTP/1.1\r\nHost: a\r\n\r\n"),
        );
        case.methods(&[if method == "HEAD" { "HEAD" } else { "GET" }]).refused(&[400, 405, 501])
    });
    let connects = [
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT * HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n",
        "CONNECT a:443 HTTP/1.0\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 2\r\n\r\nhi",
    ];
    let connects = connects.map(|bytes| {
        let case = request(format!("{bytes:?}"), "RFC 9110 9.3.6", bytes).methods(&["CONNECT"]);
        case.refused(&[400, 403, 405, 501]).local(&[400, 403, 405, 501])
    });
    run(lines.into_iter().chain(stars).chain(connects).chain([star, empty])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_valid_host() {
    let section = "RFC 9112 3.2, RFC 9110 7.2";
    let none = request("no Host in HTTP/1.1", section, "GET / HTTP/1.1\r\nX-A: 1\r\n\r\n").wrong();
    let pairs =
        ["Host: a\r\nHost: a", "Host: a\r\nHost: b", "Host: a\r\nhost: b", "Host: a\r\nX-A: 1\r\nHOST: a"];
    let pairs = pairs.iter().chain(&["Host: a\r\nHost:", "Host:\r\nHost: a"]).map(|lines| {
        request(format!("{lines:?}"), section, format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n")).wrong()
    });
    let refused = [
        "a b",
        "a\tb",
        "a/b",
        "a/",
        "/a",
        "a?b",
        "a#b",
        "u@a",
        "u:p@a",
        "a:b",
        "a:80:80",
        "a:-1",
        "a:+80",
        "a: 80",
        "a:8 0",
        "a:0x50",
        "[::1",
        "::1",
        "[zz]",
        "[::1]x",
        "[::1]:x",
        "[]",
        "http://a",
        "http://a/",
        "\"a\"",
        "a\\b",
        "<a>",
        "a^b",
        "a|b",
        "a{b}",
        "a`b",
        "a\0b",
        "a\x01",
        "a\x7f",
        "\u{e9}",
        "a%zz",
        ":80",
        "a, b",
        "a\r\n b",
        "\r\n a",
        "[::1%25eth0]\\",
    ];
    let refused = refused.map(|host| {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        request(format!("the Host {host:?}"), section, bytes).wrong()
    });
    let lines = ["Host : a", " Host: a", "Host", "Host\r\n: a", "Host=a", "H ost: a"].map(|line| {
        request(format!("{line:?}"), section, format!("GET / HTTP/1.1\r\n{line}\r\n\r\n")).wrong()
    });
    run(pairs.chain(refused).chain(lines).chain([none])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_host_passes_as_it_is() {
    let section = "RFC 9112 3.2, RFC 9110 7.2";
    let passed = [
        "a",
        "A.Example",
        "a.example.",
        "a-b.c_d",
        "a:80",
        "127.0.0.1",
        "127.0.0.1:5000",
        "[::1]",
        "[::1]:5000",
        "xn--a",
        "1",
        "a.b.c.d.e",
        "[2001:db8::1]",
    ];
    let passed = passed.map(|host| {
        let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        request(format!("the Host {host:?}"), section, bytes).passed().sees("host", host).kept()
    });
    let either =
        ["", " ", "a:", "a,b", "a:99999", "a:65536", "%61", "a!$&'()*+;=b", "[v1.a]", "a..b"].map(|host| {
            let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            request(format!("the Host {host:?}"), section, bytes).wrong().passed()
        });
    let last = request("Host as the last field", section, "GET / HTTP/1.1\r\nX-A: 1\r\nHost: a\r\n\r\n");
    run(passed.into_iter().chain(either).chain([last.passed().sees("host", "a").kept()])).await;
}
