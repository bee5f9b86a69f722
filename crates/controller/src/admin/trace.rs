//! Which request a line of the log belongs to: an id and a span for each, and one line for each change.
//!
//! The id is the client's own if it has one that can be logged as it is, else one is made; it is answered either way.
//! Deliberately absent: where spans go. Who exports them joins them to the client's trace (`Daemon::join_trace`).

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::AdminState;

/// The header of the id, in requests and answers.
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ids are replaced.
const ID_BYTES_MAX: usize = 128;

/// Why a request was refused, on its answer: the log tells it too.
#[derive(Debug, Clone)]
pub(super) struct Why(pub(super) String);

/// Gives a request its id and its span, and logs what became of it.
pub(super) async fn trace(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    let id = given(request.headers()).map_or_else(make, ToOwned::to_owned);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("admin", request_id = id, status = tracing::field::Empty);
    let (parts, body) = request.into_parts();
    (state.daemon.join_trace)(&span, &parts);
    async move {
        let started = Instant::now();
        let mut response = next.run(Request::from_parts(parts, body)).await;
        tracing::Span::current().record("status", response.status().as_u16());
        note(&method, &path, &response, started);
        if let Ok(value) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID.clone(), value);
        }
        response
    }
    .instrument(span)
    .await
}

/// Looks are many and change nothing: they are logged for those who ask for it.
fn note(method: &Method, path: &str, response: &Response, started: Instant) {
    let took_ms = started.elapsed().as_millis() as u64;
    match response.extensions().get::<Why>() {
        Some(Why(why)) if method.is_safe() => tracing::debug!(took_ms, "{method} {path} refused: {why}"),
        Some(Why(why)) => tracing::warn!(took_ms, "{method} {path} refused: {why}"),
        None if method.is_safe() => tracing::debug!(took_ms, "{method} {path}"),
        None => tracing::info!(took_ms, "{method} {path}"),
    }
}

/// The client's id, if it is one: short, and of letters that need no escape anywhere.
fn given(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(&REQUEST_ID)?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    (!id.is_empty() && id.len() <= ID_BYTES_MAX && id.bytes().all(plain)).then_some(id)
}

/// A new id: unlike any other of this daemon, and most likely of any.
fn make() -> String {
    static KEYS: OnceLock<RandomState> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut hasher = KEYS.get_or_init(RandomState::new).build_hasher();
    hasher.write_u64(COUNT.fetch_add(1, Ordering::Relaxed));
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_over_only_if_it_can_be_logged_as_it_is() {
        let taken = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID.clone(), HeaderValue::from_bytes(value).unwrap());
            given(&headers).is_some()
        };
        assert!(taken(b"4bf92f35-77b3:7/a.b_c+d="));
        for bad in [&b""[..], b"a b", b"a\"b", b"a\tb", b"caf\xe9", b"{}", &[b'a'; ID_BYTES_MAX + 1]] {
            assert!(!taken(bad), "{bad:?}");
        }
        assert!(given(&HeaderMap::new()).is_none());
        assert_ne!(make(), make());
        assert_eq!(make().len(), 16);
    }
}
