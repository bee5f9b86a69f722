//! What happens to the engine's events on their way: each is one line of JSON.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::watch;

use super::Body;

/// A fault of the event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventFault {
    /// They arrive as they are sent.
    None,
    /// They are lost, and the stream stays open.
    Lost,
    /// Each arrives twice.
    Twice,
    /// Two at a time, the later one first; one alone waits for the next.
    Swapped,
    /// Each arrives so much later.
    Late(Duration),
    /// The stream ends.
    Ended,
}

/// The engine's stream with whatever fault is in force when an event arrives.
pub(super) fn through(body: Incoming, faults: &watch::Sender<EventFault>) -> Body {
    let state = Stream { body, faults: faults.subscribe(), rest: Vec::new(), waiting: None };
    let frames = stream::unfold(state, |mut state| async move {
        let bytes = state.next().await?;
        Some((Ok::<_, io::Error>(Frame::data(bytes)), state))
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

struct Stream {
    body: Incoming,
    faults: watch::Receiver<EventFault>,
    /// The beginning of a line.
    rest: Vec<u8>,
    /// The line that the next one overtakes.
    waiting: Option<Vec<u8>>,
}

impl Stream {
    /// What to pass on next; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let frame = tokio::select! {
                frame = self.body.frame() => frame?.ok()?,
                ended = self.faults.wait_for(|fault| *fault == EventFault::Ended) => {
                    drop(ended);
                    return None;
                }
            };
            let Ok(data) = frame.into_data() else { continue };
            self.rest.extend_from_slice(&data);
            let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = self.rest.split_off(end + 1);
            let lines = std::mem::replace(&mut self.rest, rest);
            let fault = *self.faults.borrow();
            let out = self.changed(&lines, fault);
            if let EventFault::Late(by) = fault {
                tokio::time::sleep(by).await;
            }
            if !out.is_empty() {
                return Some(out.into());
            }
        }
    }

    fn changed(&mut self, lines: &[u8], fault: EventFault) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            match fault {
                EventFault::Lost | EventFault::Ended => {}
                EventFault::None | EventFault::Late(_) => out.extend_from_slice(line),
                EventFault::Twice => out.extend_from_slice(&[line, line].concat()),
                EventFault::Swapped => match self.waiting.take() {
                    Some(earlier) => out.extend_from_slice(&[line, earlier.as_slice()].concat()),
                    None => self.waiting = Some(line.to_vec()),
                },
            }
        }
        out
    }
}
