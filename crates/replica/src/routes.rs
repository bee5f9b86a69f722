//! What a replica answers: the assignment's two paths, and those that exercise a proxy.
//!
//! Deliberately absent: state. Every answer follows from the request and the configuration.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::Config;

/// Longest wait that `/slow`, `/stream` and `/events` grant.
const WAIT_MS_MAX: u64 = 60_000;
/// Most bytes that `/bytes` sends.
const BYTES_MAX: u64 = 1 << 30;
/// Most chunks that `/stream` and `/events` send.
const CHUNKS_MAX: u64 = 100_000;
/// Longest body that `/echo` reads, counting it without keeping it.
const ECHO_BYTES_MAX: u64 = 1 << 30;
/// The size of a chunk of `/bytes`.
const BLOCK: &[u8] = &[b'x'; 16 * 1024];

/// The bytes that never change while a replica runs.
#[derive(Clone)]
struct Answers {
    home: Bytes,
    server_id: String,
}

/// The answers of a replica that is configured so.
pub(crate) fn router(config: &Config) -> Router {
    let message = format!("{} from Server: {}", config.greeting, config.server_id);
    let home = json!({ "message": message, "status": "successful" }).to_string();
    let answers = Answers { home: Bytes::from(home), server_id: config.server_id.clone() };
    Router::new()
        .route("/home", get(home_answer))
        .route("/heartbeat", get(async || StatusCode::OK))
        .route("/echo", any(echo))
        .route("/slow", get(slow))
        .route("/bytes", get(bytes))
        .route("/stream", get(stream_chunks))
        .route("/events", get(events))
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
        .with_state(answers)
}

async fn home_answer(State(answers): State<Answers>) -> Response {
    json_bytes(StatusCode::OK, answers.home)
}

async fn echo(State(answers): State<Answers>, request: Request) -> Response {
    let method = request.method().to_string();
    let path = request.uri().path_and_query().map_or("", |target| target.as_str()).to_owned();
    let mut body = request.into_body().into_data_stream();
    let mut body_bytes = 0_u64;
    while let Some(chunk) = body.next().await {
        let Ok(chunk) = chunk else {
            return failure(StatusCode::BAD_REQUEST, "the body broke off");
        };
        body_bytes += chunk.len() as u64;
        if body_bytes > ECHO_BYTES_MAX {
            return failure(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 1 GiB");
        }
    }
    let answer =
        json!({ "method": method, "path": path, "bodyBytes": body_bytes, "serverId": answers.server_id });
    json_bytes(StatusCode::OK, Bytes::from(answer.to_string()))
}

async fn slow(State(answers): State<Answers>, Query(query): Query<HashMap<String, String>>) -> Response {
    match number(&query, "ms", 1_000, WAIT_MS_MAX) {
        Ok(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            json_bytes(StatusCode::OK, answers.home)
        }
        Err(why) => failure(StatusCode::BAD_REQUEST, &why),
    }
}

async fn bytes(Query(query): Query<HashMap<String, String>>) -> Response {
    let total = match number(&query, "n", 1_024, BYTES_MAX) {
        Ok(total) => total,
        Err(why) => return failure(StatusCode::BAD_REQUEST, &why),
    };
    let blocks = stream::unfold(total, async |left| {
        let length = left.min(BLOCK.len() as u64);
        let block = Bytes::from_static(&BLOCK[..length as usize]);
        (length > 0).then_some((Ok::<_, Infallible>(block), left - length))
    });
    let headers =
        [("content-type", "application/octet-stream".to_owned()), ("content-length", total.to_string())];
    (headers, Body::from_stream(blocks)).into_response()
}

async fn stream_chunks(Query(query): Query<HashMap<String, String>>) -> Response {
    pieces(&query, "text/plain", |index| format!("chunk {index}\n"))
}

async fn events(Query(query): Query<HashMap<String, String>>) -> Response {
    pieces(&query, "text/event-stream", |index| format!("data: chunk {index}\n\n"))
}

/// A body that comes in pieces with pauses between them.
fn pieces(
    query: &HashMap<String, String>,
    kind: &'static str,
    piece: impl Fn(u64) -> String + Send + 'static,
) -> Response {
    let chunks = number(query, "chunks", 10, CHUNKS_MAX);
    let ms = number(query, "ms", 100, WAIT_MS_MAX);
    let (chunks, ms) = match (chunks, ms) {
        (Ok(chunks), Ok(ms)) => (chunks, ms),
        (Err(why), _) | (_, Err(why)) => return failure(StatusCode::BAD_REQUEST, &why),
    };
    let body = stream::iter(0..chunks).then(move |index| {
        let piece = piece(index);
        async move {
            if index > 0 {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            Ok::<_, Infallible>(Bytes::from(piece))
        }
    });
    ([(CONTENT_TYPE, kind)], Body::from_stream(body)).into_response()
}

async fn not_found(uri: Uri) -> Response {
    failure(StatusCode::NOT_FOUND, &format!("'{}' does not exist here", uri.path()))
}

fn number(query: &HashMap<String, String>, name: &str, default: u64, max: u64) -> Result<u64, String> {
    let Some(text) = query.get(name) else { return Ok(default) };
    match text.parse() {
        Ok(number) if number <= max => Ok(number),
        _ => Err(format!("{name} must be a number from 0 to {max}")),
    }
}

fn failure(status: StatusCode, message: &str) -> Response {
    json_bytes(status, Bytes::from(json!({ "message": message, "status": "failure" }).to_string()))
}

fn json_bytes(status: StatusCode, body: Bytes) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}
