//! The assignment's API on the data port: exact paths go to the controller, a replica's 404 becomes its error.

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::LocalApi;
use crate::answer::Answer;

/// Whether the controller answers this request.
pub(crate) fn is_local(method: &[u8], path: &[u8]) -> bool {
    matches!((path, method), (b"/rep", b"GET") | (b"/add", b"POST") | (b"/rm", b"DELETE" | b"POST"))
}

/// Lets the controller answer.
pub(crate) async fn call(local: &dyn LocalApi, method: Method, path: &str, body: Bytes) -> Answer {
    let answer = local.call(method, path.to_owned(), body).await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Answer::json(status, answer.body.to_vec())
}

/// What the assignment says to more than it can take.
pub(crate) fn too_large() -> Answer {
    Answer::failure(StatusCode::BAD_REQUEST, "<Error> request body is too large")
}

/// What the assignment says where a replica says 404.
pub(crate) fn unknown_endpoint(path: &str) -> Answer {
    let message = format!("<Error> '{path}' endpoint does not exist in server replicas");
    Answer::failure(StatusCode::BAD_REQUEST, &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: &Answer) -> String {
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    #[test]
    fn only_the_exact_paths_and_methods_are_the_controllers() {
        for (method, path) in [("GET", "/rep"), ("POST", "/add"), ("DELETE", "/rm"), ("POST", "/rm")] {
            assert!(is_local(method.as_bytes(), path.as_bytes()), "{method} {path}");
        }
        for (method, path) in
            [("GET", "/add"), ("GET", "/rm"), ("POST", "/rep"), ("GET", "/rep/"), ("GET", "/home")]
        {
            assert!(!is_local(method.as_bytes(), path.as_bytes()), "{method} {path}");
        }
    }

    #[test]
    fn the_error_text_is_that_of_the_assignment() {
        assert_eq!(
            text(&unknown_endpoint("/other")),
            r#"{"message":"<Error> '/other' endpoint does not exist in server replicas","status":"failure"}"#
        );
    }

    #[test]
    fn a_path_cannot_break_out_of_the_json() {
        let body = text(&unknown_endpoint("/a\"b\\"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["status"], "failure");
        assert!(body.contains(r#"'/a\"b\\'"#), "{body}");
    }
}
