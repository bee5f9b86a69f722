//! What we take for a whole message, hyper takes for the same: where it ends, what its body is, and what its head says.
//!
//! Requests stand one behind the other, as on a connection: who disagreed about the end of one would disagree about all
//! that follow, which is how requests are smuggled. Not the other way round: hyper takes much that we refuse. What it
//! refuses of what we take is named in [`is_beyond_hyper`] and nothing else.

#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_util::FutureExt;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, Uri, Version};
use libfuzzer_sys::fuzz_target;
use ringmaster_proxy::fuzzing::{Message, requests, response};

/// More polls than any input takes.
const POLLS_MAX: usize = 10_000;

fuzz_target!(|bytes: &[u8]| {
    let ours = requests(bytes);
    if !ours.is_empty() {
        compare_requests(&ours, bytes);
    }
    for to_head in [false, true] {
        if let Some(ours) = response(bytes, to_head) {
            compare_response(&ours, bytes, to_head);
        }
    }
});

fn compare_requests(ours: &[Message], bytes: &[u8]) {
    let theirs = served_by_hyper(bytes);
    for (index, our) in ours.iter().enumerate() {
        if is_beyond_hyper(our) {
            return;
        }
        let their = theirs.get(index).unwrap_or_else(|| panic!("hyper refuses {our:?}, after {theirs:?}"));
        assert_eq!((&their.what, their.minor), (&our.what, our.minor), "{our:?}");
        // What hyper makes of an absolute target without a path.
        let slash = if our.target.starts_with(['/', '*']) { "" } else { "/" };
        assert_eq!(their.target, format!("{slash}{}", our.target), "{our:?}");
        assert_eq!(sorted(&their.fields), sorted(&our.fields), "{our:?}");
        assert_eq!(their.body, our.body, "{our:?}");
    }
}

fn compare_response(ours: &Message, bytes: &[u8], to_head: bool) {
    let Some(theirs) = read_by_hyper(bytes, to_head) else {
        assert!(is_beyond_hyper(ours) || ours.what.starts_with('1'), "hyper refuses {ours:?}");
        return;
    };
    if ours.what.starts_with('1') {
        return;
    }
    assert_eq!((&theirs.what, theirs.minor), (&ours.what, ours.minor), "{ours:?}");
    assert_eq!(sorted(&theirs.fields), sorted(&ours.fields), "{ours:?}");
    assert_eq!(theirs.body, ours.body, "{ours:?}");
}

/// What hyper cannot take although it is HTTP/1: targets that are no URI of its own, minor versions beyond 1, and empty elements in
/// a list of codings.
fn is_beyond_hyper(ours: &Message) -> bool {
    let target_is_odd = !ours.whole_target.is_empty() && ours.whole_target.parse::<Uri>().is_err();
    let is_coding = |name: &[u8]| name.eq_ignore_ascii_case(b"transfer-encoding");
    let mut codings = ours.fields.iter().filter(|(name, _)| is_coding(name));
    let coding_is_odd = codings.any(|(_, value)| !value.eq_ignore_ascii_case(b"chunked"));
    target_is_odd || coding_is_odd || ours.minor > 1
}

/// In hyper's order names of one kind stand together.
fn sorted(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut fields: Vec<_> =
        fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    // Stable: the values of one name keep their order.
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    fields
}

fn fields(map: &HeaderMap) -> Vec<(Vec<u8>, Vec<u8>)> {
    map.iter().map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

fn minor(version: Version) -> u8 {
    u8::from(version != Version::HTTP_10)
}

/// The requests that a server of hyper's makes of these bytes.
fn served_by_hyper(bytes: &[u8]) -> Vec<Message> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let (head, body) = request.into_parts();
            // A body that is not whole is no message.
            if let Ok(body) = body.collect().await {
                seen.borrow_mut().push(Message {
                    what: head.method.to_string(),
                    whole_target: String::new(),
                    target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
                    minor: minor(head.version),
                    fields: fields(&head.headers),
                    body: body.to_bytes().to_vec(),
                    stays: true,
                    switches: false,
                });
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    // The end comes right behind the last request, and is no reason not to answer it.
    let mut builder = hyper::server::conn::http1::Builder::new();
    let serving = builder.half_close(true).serve_connection(Wire { bytes, waits: false }, service);
    run(serving.map(drop));
    let seen = seen.take();
    seen
}

/// The response that a client of hyper's makes of these bytes.
fn read_by_hyper(bytes: &[u8], to_head: bool) -> Option<Message> {
    let reading = async {
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.allow_spaces_after_header_name_in_responses(true);
        let (mut sender, connection) = builder.handshake(Wire { bytes, waits: true }).await.ok()?;
        let method = if to_head { "HEAD" } else { "GET" };
        let request = Request::builder().method(method).uri("/").header("host", "a");
        let request = request.body(Empty::<Bytes>::new()).expect("it is a request");
        let exchange = async {
            let (head, body) = sender.send_request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes().to_vec();
            Some(Message {
                what: head.status.as_str().to_owned(),
                target: String::new(),
                whole_target: String::new(),
                minor: minor(head.version),
                fields: fields(&head.headers),
                body,
                stays: true,
                switches: false,
            })
        };
        let connection = connection.map(drop).fuse();
        let (mut exchange, mut connection) = (pin!(exchange.fuse()), pin!(connection));
        loop {
            futures_util::select_biased! {
                message = exchange => return message,
                () = connection => {}
                complete => return None,
            }
        }
    };
    run(reading).flatten()
}

/// Polls until it is done; none if it waits for what never comes.
fn run<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    (0..POLLS_MAX).find_map(|_| match future.as_mut().poll(&mut cx) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

/// A connection that brings these bytes and then ends, and takes whatever is written.
struct Wire<'a> {
    bytes: &'a [u8],
    /// Nothing comes before something was written: a response before its request is none.
    waits: bool,
}

impl Read for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.waits {
            return Poll::Pending;
        }
        let count = buffer.remaining().min(self.bytes.len());
        let (now, later) = self.bytes.split_at(count);
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.waits = false;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
