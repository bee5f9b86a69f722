//! The assignment's API as the data plane calls it: by the controller, or not at all.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::CALLS_MAX;

/// Calls the assignment's API at the controller. A clone is the same.
#[derive(Debug, Clone)]
pub struct LocalCaller {
    calls: mpsc::Sender<Call>,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) reply: oneshot::Sender<(u16, Bytes)>,
}

impl LocalCaller {
    /// One, and where its calls arrive.
    pub(crate) fn new() -> (LocalCaller, mpsc::Receiver<Call>) {
        let (calls, arriving) = mpsc::channel(CALLS_MAX);
        (LocalCaller { calls }, arriving)
    }

    /// Calls; without a controller the answer is a 503 that says so.
    pub fn call(&self, method: String, path: String, body: Bytes) -> BoxFuture<'static, (u16, Bytes)> {
        let (reply, answer) = oneshot::channel();
        let sent = self.calls.try_send(Call { method, path, body, reply });
        async move {
            match sent {
                Ok(()) => answer.await.unwrap_or_else(|_| away()),
                Err(_) => away(),
            }
        }
        .boxed()
    }
}

/// What is said where no controller is.
pub(crate) fn away() -> (u16, Bytes) {
    unavailable("the controller is away: requests are served, changes have to wait until it is back")
}

pub(crate) fn unavailable(why: &str) -> (u16, Bytes) {
    let body = serde_json::json!({ "message": format!("<Error> {why}"), "status": "failure" });
    (503, body.to_string().into())
}
