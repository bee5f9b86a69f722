//! Answers of the data plane's own.

use std::borrow::Cow;

use http::StatusCode;

use crate::h1::emit::{self, Persistence};

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: Cow<'static, [u8]>,
    /// Whole lines for its head.
    pub(crate) fields: &'static str,
}

impl Answer {
    /// A JSON text.
    pub(crate) fn json(status: StatusCode, body: impl Into<Cow<'static, [u8]>>) -> Answer {
        Answer { status, content_type: "application/json", body: body.into(), fields: "" }
    }

    /// The one form of our error bodies; it is that of the assignment.
    pub(crate) fn failure(status: StatusCode, message: &str) -> Answer {
        // A JSON string escapes whatever a client put into a path.
        let quoted = serde_json::Value::from(message).to_string();
        Answer::json(status, format!(r#"{{"message":{quoted},"status":"failure"}}"#).into_bytes())
    }

    /// Writes it whole; to HEAD without its body.
    pub(crate) fn write(&self, out: &mut Vec<u8>, is_to_head: bool, persistence: Persistence, date: &[u8]) {
        let reason = self.status.canonical_reason().unwrap_or_default();
        emit::status_line(out, self.status.as_u16(), reason.as_bytes());
        if !self.body.is_empty() {
            emit::line(out, b"Content-Type", self.content_type.as_bytes());
        }
        emit::line(out, b"Content-Length", self.body.len().to_string().as_bytes());
        emit::line(out, b"Date", date);
        out.extend_from_slice(self.fields.as_bytes());
        emit::persistence(out, persistence);
        out.extend_from_slice(b"\r\n");
        if !is_to_head {
            out.extend_from_slice(&self.body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_whole_message() {
        let answer = Answer::failure(StatusCode::NOT_FOUND, "no \"x\"");
        let (mut out, mut head) = (Vec::new(), Vec::new());
        answer.write(&mut out, false, Persistence::Closes, b"now");
        answer.write(&mut head, true, Persistence::Closes, b"now");
        let body = r#"{"message":"no \"x\"","status":"failure"}"#;
        let expected = format!(
            "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: {}\r\nDate: now\r\nConnection: close\r\n\r\n",
            body.len()
        );
        assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}{body}"));
        assert_eq!(String::from_utf8(head).unwrap(), expected);
    }
}
