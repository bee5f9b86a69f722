//! Who may speak to the admin API.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::Refusal;
use super::{AdminState, dashboard};

/// Checks `Host`, `Origin`, the content type of changes, and the token where there is one.
pub(super) async fn guard(State(state): State<AdminState>, request: Request, next: Next) -> Response {
    match check(&state, request.method(), request.headers(), request.uri().path()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn check(state: &AdminState, method: &Method, headers: &HeaderMap, path: &str) -> Result<(), Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    // With a token, names other than ours are fine: a page that knows the token is no stranger.
    if state.daemon.token.is_none() && !is_local(host) {
        let error = format!("host `{host}` is not this machine: use localhost or 127.0.0.1");
        return Err(Refusal::new(StatusCode::FORBIDDEN, error));
    }
    if let Some(origin) = text(header::ORIGIN)
        && origin.split_once("://").map(|(_, rest)| rest) != Some(host)
    {
        return Err(Refusal::new(StatusCode::FORBIDDEN, format!("origin `{origin}` may not use this API")));
    }
    if method == Method::POST
        && !text(header::CONTENT_TYPE).unwrap_or_default().starts_with("application/json")
    {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send `Content-Type: application/json`",
        ));
    }
    // The page holds nothing: what it shows it asks for, with the token. Nor does the list of routes.
    let open = dashboard::is_file(path) || matches!(path, "/api" | "/healthz" | "/readyz");
    match &state.daemon.token {
        Some(token) if !open => {
            let given = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
            match given.is_some_and(|given| same(given.as_bytes(), token.as_bytes())) {
                true => Ok(()),
                false => Err(Refusal::new(
                    StatusCode::UNAUTHORIZED,
                    "a bearer token is needed: see --admin-token-file",
                )),
            }
        }
        _ => Ok(()),
    }
}

/// Whether a `Host` names this machine's loopback.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Compares in a time that depends on the length alone.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_local() {
        for good in ["localhost", "localhost:5001", "127.0.0.1:5001", "[::1]:5001", "127.0.0.2"] {
            assert!(is_local(good), "{good}");
        }
        for bad in
            ["", "evil.example", "localhost.evil.example:5001", "10.0.0.1:5001", "127.0.0.1.evil.example"]
        {
            assert!(!is_local(bad), "{bad}");
        }
    }

    #[test]
    fn tokens_are_compared_whole() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}
