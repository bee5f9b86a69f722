//! The assignment's API on the data port: exact paths go to the controller, a replica's 404 becomes its error.

use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::LocalApi;
use crate::body::ResponseBody;
use crate::error::{Refusal, failure, json};
use crate::forward::{BODY_BYTES_BUFFERED_MAX, BODY_TIMEOUT};

/// Whether the controller answers this request.
pub(crate) fn is_local(method: &Method, path: &str) -> bool {
    match path {
        "/rep" => method == Method::GET,
        "/add" => method == Method::POST,
        "/rm" => method == Method::DELETE || method == Method::POST,
        _ => false,
    }
}

/// Lets the controller answer.
pub(crate) async fn call(
    local: &dyn LocalApi,
    method: Method,
    path: &str,
    body: Incoming,
) -> Response<ResponseBody> {
    let body = match timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_BUFFERED_MAX).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return failure(StatusCode::BAD_REQUEST, "<Error> request body is too large");
        }
        Ok(Err(_)) => return Refusal::ClientBodyBroken.response(),
        Err(_) => return Refusal::ClientBodyStalled.response(),
    };
    let answer = local.call(method, path.to_owned(), body).await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, answer.body)
}

/// What the assignment says where a replica says 404.
pub(crate) fn unknown_endpoint(path: &str) -> Response<ResponseBody> {
    let message = format!("<Error> '{path}' endpoint does not exist in server replicas");
    failure(StatusCode::BAD_REQUEST, &message)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(response: Response<ResponseBody>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[test]
    fn only_the_exact_paths_and_methods_are_the_controllers() {
        for (method, path) in [("GET", "/rep"), ("POST", "/add"), ("DELETE", "/rm"), ("POST", "/rm")] {
            assert!(is_local(&method.parse().unwrap(), path), "{method} {path}");
        }
        for (method, path) in
            [("GET", "/add"), ("GET", "/rm"), ("POST", "/rep"), ("GET", "/rep/"), ("GET", "/home")]
        {
            assert!(!is_local(&method.parse().unwrap(), path), "{method} {path}");
        }
    }

    #[tokio::test]
    async fn the_error_text_is_that_of_the_assignment() {
        assert_eq!(
            text(unknown_endpoint("/other")).await,
            r#"{"message":"<Error> '/other' endpoint does not exist in server replicas","status":"failure"}"#
        );
    }

    #[tokio::test]
    async fn a_path_cannot_break_out_of_the_json() {
        let body = text(unknown_endpoint("/a\"b\\")).await;
        assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["status"], "failure");
        assert!(body.contains(r#"'/a\"b\\'"#), "{body}");
    }
}
