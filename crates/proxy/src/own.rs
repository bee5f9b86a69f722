//! Answers in the endpoints' stead: the controller's, the last hop's, and refusals.

use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::assignment;
use crate::client::{After, answer};
use crate::error::Refusal;
use crate::forward::Passage;
use crate::h1::body::{Body, Piece};
use crate::h1::emit::{self, Persistence};
use crate::h1::request::Method;
use crate::io::read_more;
use crate::relay;
use crate::stream::CONTINUE;
use crate::upload::KEPT_BYTES_MAX;

impl Passage<'_> {
    /// Lets the controller answer.
    pub(crate) async fn ask_local(&mut self) -> After {
        let mut body = Vec::new();
        let mut reader = Body::new(self.request.framing, self.buffer.head.len);
        // What is left in the buffer after a part was read is no beginning of a body: a refusal must not look for its end.
        self.body_is_taken(None);
        let mut go_on = self.request.expects_continue.then_some(CONTINUE);
        let end = loop {
            match reader.next(self.buffer) {
                Ok(Piece::Data(range)) => body.extend_from_slice(&self.buffer[range]),
                Ok(Piece::End) => break reader.end(),
                Ok(Piece::More) => {
                    reader.compact(self.buffer);
                    let stall = self.front.limits.stall_timeout.0;
                    if let Some(go_on) = go_on.take().filter(|_| body.is_empty())
                        && relay::write(&mut self.client.stream, &mut go_on.to_vec(), &[], stall)
                            .await
                            .is_err()
                    {
                        return After::Close;
                    }
                    let read = read_more(&mut self.client.stream, self.buffer);
                    match self.client.timer.until(Instant::now() + stall, read).await {
                        Some(Ok(count)) if count > 0 => {}
                        Some(_) => return self.refuse(&Refusal::ClientBodyBroken.answer()).await,
                        None => return self.refuse(&Refusal::ClientBodyStalled.answer()).await,
                    }
                }
                Err(_) => return self.refuse(&Refusal::ClientBodyBroken.answer()).await,
            }
            if body.len() > KEPT_BYTES_MAX {
                return self.refuse(&assignment::too_large()).await;
            }
        };
        let method = http::Method::from_bytes(self.request.method_name.of(self.buffer)).unwrap_or_default();
        let path = String::from_utf8_lossy(self.request.path(self.buffer)).into_owned();
        let Some(local) = self.worker.shared.local.clone() else { return After::Close };
        let own = assignment::call(&*local, method, &path, Bytes::from(body)).await;
        self.refuse_at(&own, Some(end)).await
    }

    /// The request may go no further: who gets it answers (RFC 9110 section 7.6.2).
    pub(crate) async fn answer_as_last(&mut self) -> After {
        let own = match self.request.method {
            Method::Trace => {
                // What was received, less what nobody else should see (RFC 9110 section 9.3.8).
                let secret = ["authorization", "cookie", "proxy-authorization"];
                let bytes = &self.buffer.bytes;
                let mut echo = self.buffer.head.line.of(bytes).to_vec();
                echo.extend_from_slice(b"\r\n");
                for field in &self.buffer.head.fields {
                    let name = field.name.of(bytes);
                    if !secret.iter().any(|secret| name.eq_ignore_ascii_case(secret.as_bytes())) {
                        emit::line(&mut echo, name, field.value.of(bytes));
                    }
                }
                echo.extend_from_slice(b"\r\n");
                Answer { content_type: "message/http", ..Answer::json(StatusCode::OK, echo) }
            }
            _ => Answer {
                fields: "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH, TRACE\r\n",
                ..Answer::json(StatusCode::OK, Vec::new())
            },
        };
        self.refuse(&own).await
    }

    /// Answers in the endpoints' stead. A body that is not in the buffer as a whole is not waited for: the connection
    /// closes.
    pub(crate) async fn refuse(&mut self, own: &Answer) -> After {
        if self.end.is_some() || self.body_is_taken {
            return self.refuse_at(own, self.end).await;
        }
        let mut body = Body::new(self.request.framing, self.buffer.head.len);
        let end = loop {
            match body.next(self.buffer) {
                Ok(Piece::Data(_)) => {}
                Ok(Piece::End) => break Some(body.end()),
                Ok(Piece::More) | Err(_) => break None,
            }
        };
        self.refuse_at(own, end).await
    }

    /// As [`Passage::refuse`], where the end of the request is known.
    pub(crate) async fn refuse_at(&mut self, own: &Answer, end: Option<usize>) -> After {
        let stays = end.filter(|_| self.request.keep_alive && !self.worker.closing.has_begun());
        let persistence = match (stays, self.request.minor) {
            (None, _) => Persistence::Closes,
            (Some(_), 0) => Persistence::StaysAsAsked,
            (Some(_), _) => Persistence::Stays,
        };
        let is_to_head = self.request.method == Method::Head;
        self.exchange.answered(own.status.as_u16(), None);
        match (answer(self.worker, self.client, own, is_to_head, persistence).await, stays, end) {
            (true, Some(end), _) => After::Next(end),
            (true, None, Some(_)) => After::Close,
            (true, None, None) => After::Linger,
            (false, ..) => After::Close,
        }
    }
}
