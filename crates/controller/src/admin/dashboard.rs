//! The live page: three files inside the binary, served to browsers at `/`.
//!
//! Deliberately absent: data. The page asks the API for what it shows, so its files are the same for everybody and
//! need no token. No script or style stands in the page itself, and nothing comes from elsewhere: the policy forbids
//! both, so that a name in a manifest can never become a script.

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::xxh3_64;

use super::handlers;

/// Where the page's script is.
pub(super) const SCRIPT: &str = "/app.js";
/// Where the page's style sheet is.
pub(super) const STYLE: &str = "/style.css";

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page for browsers, the list of routes for everybody else.
pub(super) async fn index(headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let vary = [(header::VARY, "accept")];
    match accept.split(',').any(|kind| kind.trim_start().starts_with("text/html")) {
        true => {
            let page = file(&headers, "text/html; charset=utf-8", include_str!("dashboard/index.html"));
            (vary, page).into_response()
        }
        false => (vary, handlers::index().await).into_response(),
    }
}

pub(super) async fn script(headers: HeaderMap) -> Response {
    file(&headers, "text/javascript; charset=utf-8", include_str!("dashboard/app.js"))
}

pub(super) async fn style(headers: HeaderMap) -> Response {
    file(&headers, "text/css; charset=utf-8", include_str!("dashboard/style.css"))
}

/// A file, or that the browser has it already: asked each time, so that a new daemon is never shown by an old page.
fn file(request: &HeaderMap, content_type: &str, text: &'static str) -> Response {
    let tag = format!("\"{:016x}\"", xxh3_64(text.as_bytes()));
    let known = request.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let headers: [(HeaderName, &str); 7] = [
        (header::CONTENT_TYPE, content_type),
        (header::ETAG, &tag),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    match known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag) {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => (headers, text).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_known_is_not_sent_again() {
        let first = style(HeaderMap::new()).await;
        assert_eq!(first.status(), StatusCode::OK);
        let mut request = HeaderMap::new();
        request.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        assert_eq!(style(request.clone()).await.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(script(request).await.status(), StatusCode::OK, "another file has another tag");
    }

    #[test]
    fn the_page_is_small_and_holds_no_script_or_style() {
        let (page, script, style) = (
            include_str!("dashboard/index.html"),
            include_str!("dashboard/app.js"),
            include_str!("dashboard/style.css"),
        );
        let size = page.len() + script.len() + style.len();
        assert!(size <= 40 << 10, "{size} bytes");
        for inline in ["<style", "style=", "onclick", "<script>", "javascript:", "http://", "https://"] {
            assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(inline), "{inline}");
        }
        for unsafe_sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!script.contains(unsafe_sink), "{unsafe_sink}: texts of manifests are not ours");
        }
    }
}
