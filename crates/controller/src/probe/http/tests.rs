use ringmaster_core::spec::HttpGet;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// Answers every request with these pieces, each written by itself, until as many have been asked for; then ends.
/// Returns how many connections there were, and the first request.
async fn origin(
    pieces: Vec<Vec<u8>>,
    requests: usize,
    close: bool,
) -> (SocketAddr, JoinHandle<(usize, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        let (mut connections, mut answered, mut first) = (0, 0, String::new());
        while answered < requests {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            connections += 1;
            let mut buffer = Vec::new();
            while answered < requests {
                let head = memmem::find(&buffer, b"\r\n\r\n").map(|at| at + 4);
                let Some(head) = head else {
                    if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                        break;
                    }
                    continue;
                };
                let request: Vec<u8> = buffer.drain(..head).collect();
                if first.is_empty() {
                    first = String::from_utf8(request).unwrap();
                }
                answered += 1;
                for piece in &pieces {
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                if close {
                    break;
                }
            }
        }
        (connections, first)
    };
    (address, tokio::spawn(serve))
}

fn get(body_contains: Option<&str>) -> HttpGet {
    HttpGet {
        path: "/heartbeat?x=1".to_owned(),
        headers: [("X-Probe".to_owned(), "yes".to_owned()), ("Host".to_owned(), "a.example".to_owned())]
            .into(),
        status: StatusRange { first: 200, last: 299 },
        body_contains: body_contains.map(str::to_owned),
    }
}

/// What one answer comes to: whole, and byte by byte.
async fn check(answer: &str, wanted: Option<&str>, good: Result<(), &str>) {
    let bytes = answer.as_bytes();
    for pieces in [vec![bytes.to_vec()], bytes.iter().map(|byte| vec![*byte]).collect()] {
        let (address, origin) = origin(pieces, 1, true).await;
        let found = Http::new(address).ask(&Question::new(&get(wanted), address), false).await;
        let found = found.map_err(|failure| failure.why.replace(&address.to_string(), "origin"));
        assert_eq!(found.as_ref().err().map(String::as_str), good.err(), "{answer:?}");
        // Not waited for: whoever has its answer may hang up before the last byte of it is written.
        origin.abort();
    }
}

const ABOUT: &str = "GET /heartbeat?x=1 on origin";

#[tokio::test]
async fn every_framing_of_an_answer_is_read() {
    let body_is_wrong = format!("{ABOUT} answered 200, and its body does not contain `all is well`");
    for (framing, good) in [
        ("content-length: 13\r\n\r\n> all is well", Ok(())),
        ("Content-Length: 3\r\n\r\n> all is well", Err(body_is_wrong.as_str())),
        ("transfer-encoding: chunked\r\n\r\n5\r\n> all\r\n8;x=y\r\n is well\r\n0\r\nt: 1\r\n\r\n", Ok(())),
        ("transfer-encoding: chunked\r\n\r\n3\r\n all\r\n0\r\n\r\n", Err("a chunk")),
        ("\r\n> all is well", Ok(())),
        ("\r\n> all is ill", Err(body_is_wrong.as_str())),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{framing}");
        let broken = format!("{ABOUT}: a chunk of the answer is broken");
        let good = good.map_err(|why| if why == "a chunk" { broken.as_str() } else { why });
        check(&answer, Some("all is well"), good).await;
    }
}

#[tokio::test]
async fn a_status_out_of_range_fails_and_an_interim_answer_is_passed_over() {
    check("HTTP/1.1 204 No Content\r\n\r\n", None, Ok(())).await;
    check("HTTP/1.0 200 OK\r\n\r\nuntil the end", None, Ok(())).await;
    check(
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        None,
        Ok(()),
    )
    .await;
    let refused = format!("{ABOUT} answered 302");
    check("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", None, Err(&refused)).await;
    let eof = format!("{ABOUT}: the connection was closed before the answer's end");
    check("HTTP/1.1 200 OK\r\ncontent-le", None, Err(&eof)).await;
    check("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nshort", None, Err(&eof)).await;
    let other = format!("{ABOUT}: the answer is not HTTP/1.1: invalid HTTP version");
    check("SSH-2.0-OpenSSH_9.2\r\n\r\n", None, Err(&other)).await;
}

/// Asks `asks` times and returns how many connections that took.
async fn connections(answer: &str, asks: usize, close: bool, fresh: bool) -> usize {
    let (address, origin) = origin(vec![answer.as_bytes().to_vec()], asks, close).await;
    let (mut http, question) = (Http::new(address), Question::new(&get(None), address));
    for _ in 0..asks {
        http.ask(&question, fresh).await.unwrap();
    }
    drop(http);
    origin.await.unwrap().0
}

#[tokio::test]
async fn a_connection_is_used_again_as_often_as_it_can_be() {
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(connections(whole, 20, false, false).await, 1);
    assert_eq!(connections(whole, 3 * REUSES_MAX as usize, false, false).await, 3, "now and then a new one");
    assert_eq!(connections(whole, 5, false, true).await, 5, "in doubt a new one each time");
    assert_eq!(
        connections("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 20, false, false).await,
        1
    );
    // Closed by the other side after each answer: found out by the next question, which goes over a new one.
    assert_eq!(connections(whole, 5, true, false).await, 5);
    let last = "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(connections(last, 5, true, false).await, 5);
}

#[tokio::test]
async fn the_request_says_what_the_manifest_says() {
    let (address, origin) =
        origin(vec![b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()], 1, true).await;
    Http::new(address).ask(&Question::new(&get(None), address), false).await.unwrap();
    let request = "GET /heartbeat?x=1 HTTP/1.1\r\nuser-agent: ringmaster-probe\r\nHost: a.example\r\nX-Probe: yes\r\n\r\n";
    assert_eq!(origin.await.unwrap().1, request);
}

#[tokio::test]
async fn nobody_who_listens_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = Http::new(address).ask(&Question::new(&get(None), address), false).await.unwrap_err();
    assert!(failure.refused, "{failure:?}");
}
