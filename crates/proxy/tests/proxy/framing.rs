use crate::origin::Origin;
use crate::world::{World, service};

/// Answers with the head that it got.
async fn mirror() -> Origin {
    Origin::script(|mut conn| async move {
        while let Some(request) = conn.request().await {
            conn.ok(&request.head.to_ascii_lowercase()).await;
        }
    })
    .await
}

async fn world(origin: &Origin) -> World {
    World::start([service("web", 1, &[(0, 0, origin.address)])]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_with_ambiguous_framing_are_refused_and_the_connection_closed() {
    let origin = mirror().await;
    let world = world(&origin).await;
    let cases = [
        ("space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX-A : 1\r\n\r\n"),
        ("obsolete line folding", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n 2\r\n\r\n"),
        ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na"),
        ("an unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
        (
            "chunked not last",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        ),
        ("chunks in 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("a bare CR", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r2\r\n\r\n"),
        ("a NUL", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\0\r\n\r\n"),
        ("a bare LF", "GET / HTTP/1.1\nHost: a\n\n"),
        (
            "a length and chunks",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ];
    for (what, bytes) in cases {
        let mut client = world.client().await;
        client.send(bytes).await;
        assert_eq!(client.answer().await.status, 400, "{what}");
        assert!(client.is_closed().await, "{what}");
    }
    assert_eq!(origin.counts().requests, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_chunk_ends_the_request() {
    let origin = mirror().await;
    let world = world(&origin).await;
    for chunk in ["zz\r\nab\r\n", "-1\r\n", "ffffffffffffffffff\r\nab"] {
        let mut client = world.client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}")).await;
        let answer = client.answer_to("POST").await;
        assert!(answer.as_ref().is_none_or(|answer| answer.status == 400), "{chunk:?}: {answer:?}");
        assert!(client.is_closed().await, "{chunk:?}");
    }
    assert_eq!(origin.counts().requests, 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_have_limits() {
    let origin = mirror().await;
    let world = world(&origin).await;
    let many: String = (0..101).map(|n| format!("X-{n}: 1\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "x".repeat(70_000));
    for fields in [many, long] {
        let mut client = world.client().await;
        client.send(format!("GET / HTTP/1.1\r\n{fields}Host: a\r\n\r\n")).await;
        let status = client.answer_to("GET").await.map(|answer| answer.status);
        assert!(matches!(status, None | Some(431)), "{status:?}");
    }
    let fits = format!("X-Long: {}\r\n", "x".repeat(30_000));
    assert_eq!(world.client().await.get("/", &fits).await.status, 200);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_end_here_both_ways() {
    let origin = Origin::script(|mut conn| async move {
        while let Some(request) = conn.request().await {
            for gone in ["connection", "keep-alive", "x-hop", "te", "proxy-authorization"] {
                assert!(request.values(gone).is_empty(), "{gone}");
            }
            assert_eq!(request.values("host"), ["a.example"]);
            assert_eq!(request.values("x-forwarded-for"), ["127.0.0.1"]);
            assert_eq!(request.values("x-forwarded-proto"), ["http"]);
            assert_eq!(request.values("x-forwarded-host"), ["a.example"]);
            assert_eq!(request.values("forwarded"), ["for=127.0.0.1;host=a.example;proto=http"]);
            assert_eq!(request.values("x-end"), ["1"]);
            let fields = "Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-End: 2\r\n";
            conn.write(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok")).await;
        }
    })
    .await;
    let world = world(&origin).await;
    let fields = "Connection: x-hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 3\r\nTE: trailers\r\nX-End: 1\r\n\
                  Proxy-Authorization: x\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n";
    let mut client = world.client().await;
    for _ in 0..2 {
        let answer = client.get("/", fields).await;
        assert_eq!((answer.status, answer.text(), &*answer.headers["x-end"]), (200, "ok", "2"));
        for gone in ["connection", "keep-alive", "x-hop"] {
            assert!(!answer.headers.contains_key(gone), "{gone}");
        }
    }
    assert_eq!(origin.counts().connections, 1);
    world.stop().await;
}
