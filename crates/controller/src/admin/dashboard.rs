//! The live page: a few files inside the binary, served to browsers at `/`.
//!
//! Deliberately absent: data. The page asks the API for what it shows, so its files are the same for everybody and
//! need no token. No script or style stands in the page itself, and nothing comes from elsewhere: the policy forbids
//! both, so that a name in a manifest can never become a script.

use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ringmaster_core::palette;
use xxhash_rust::xxh3::xxh3_64;

use super::handlers;

/// The page's scripts and its style sheet, as they are served.
pub(super) const FILES: [(&str, &str, &str); 5] = [
    ("/app.js", SCRIPT, include_str!("dashboard/app.js")),
    ("/card.js", SCRIPT, include_str!("dashboard/card.js")),
    ("/live.js", SCRIPT, include_str!("dashboard/live.js")),
    ("/rollout.js", SCRIPT, include_str!("dashboard/rollout.js")),
    ("/style.css", "text/css; charset=utf-8", include_str!("dashboard/style.css")),
];
/// Where the colours of replicas are, as a script.
pub(super) const PALETTE: &str = "/palette.js";

const SCRIPT: &str = "text/javascript; charset=utf-8";
const PAGE: &str = include_str!("dashboard/index.html");
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page for browsers, the list of routes for everybody else.
async fn index(headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let vary = [(header::VARY, "accept")];
    match accept.split(',').any(|kind| kind.trim_start().starts_with("text/html")) {
        true => {
            let page = file(&headers, "text/html; charset=utf-8", PAGE);
            (vary, page).into_response()
        }
        false => (vary, handlers::index().await).into_response(),
    }
}

/// Whether a path is one of the page's own: they hold nothing of this daemon.
pub(super) fn is_file(path: &str) -> bool {
    path == "/" || path == PALETTE || FILES.iter().any(|(file, ..)| path == *file)
}

/// The routes of the files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let palette = get(|headers: HeaderMap| async move { file(&headers, SCRIPT, &COLOURS) });
    let routes = Router::new().route("/", get(index)).route(PALETTE, palette);
    FILES.into_iter().fold(routes, |routes, (path, content_type, text)| {
        routes.route(path, get(move |headers: HeaderMap| async move { file(&headers, content_type, text) }))
    })
}

/// The colours that charts have too.
static COLOURS: LazyLock<String> = LazyLock::new(|| {
    let colours: Vec<String> = (0..palette::COLOURS).map(|n| palette::hex(palette::replica(n))).collect();
    format!("export const COLOURS = {};\n", serde_json::json!(colours))
});

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

    /// Of each file, and of all that a browser loads.
    const FILE_BYTES_MAX: usize = 20 << 10;
    const PAGE_BYTES_MAX: usize = 48 << 10;

    #[test]
    fn a_file_that_is_known_is_not_sent_again() {
        let [(_, kind, text), (_, _, other), ..] = FILES;
        let first = file(&HeaderMap::new(), kind, text);
        assert_eq!(first.status(), StatusCode::OK);
        let mut request = HeaderMap::new();
        request.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        assert_eq!(file(&request, kind, text).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(file(&request, kind, other).status(), StatusCode::OK, "another file has another tag");
    }

    #[test]
    fn the_page_is_small_and_holds_no_script_or_style() {
        let sizes = FILES.map(|(path, _, text)| (path, text.len())).into_iter();
        let sizes: Vec<(&str, usize)> = sizes.chain([("/", PAGE.len()), (PALETTE, COLOURS.len())]).collect();
        assert!(sizes.iter().all(|(_, size)| *size <= FILE_BYTES_MAX), "{sizes:?}");
        let all: usize = sizes.iter().map(|(_, size)| size).sum();
        assert!(all <= PAGE_BYTES_MAX, "{all} bytes: {sizes:?}");
        for inline in ["<style", "style=", "onclick", "<script>", "javascript:", "http://", "https://"] {
            assert!(!PAGE.replace("http://www.w3.org/2000/svg", "").contains(inline), "{inline}");
        }
        for (path, _, text) in FILES {
            for unsafe_sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(
                    !text.contains(unsafe_sink),
                    "{path}: {unsafe_sink}: texts of manifests are not ours"
                );
            }
        }
    }

    #[test]
    fn the_colours_are_a_script() {
        assert!(COLOURS.starts_with("export const COLOURS = [\"#0072b2\",\"#e69f00\","), "{}", *COLOURS);
    }
}
