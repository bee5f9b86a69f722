//! Every endpoint of the assignment, byte for byte where its sheet is.

use ringmaster_core::spec::AssignmentApiSpec;
use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::http::{once, request_text};
use crate::session::Session;

/// The host name of the replica that is added and removed.
const HOST: &str = "lab-s5";

/// One call and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointCheck {
    /// Method, path and payload.
    pub call: String,
    /// What the answer must be.
    pub expected: String,
    /// Status and body.
    pub answer: String,
    /// Whether it was so.
    pub pass: bool,
}

/// What an answer must be.
enum Expected {
    Exactly(u16, String),
    /// The list of replicas, with these at its end.
    Replicas(usize, Option<&'static str>),
    Greeting,
}

/// Calls all of them. Those that edit the replicas leave as many as there were.
pub(super) async fn check(session: &Session) -> Result<Vec<EndpointCheck>, LabError> {
    let overview = session.client.overview().await?;
    let api = overview.gateway.assignment_api;
    let count = session.status().await?.members.len();
    let error = |text: &str| format!(r#"{{"message":"<Error> {text}","status":"failure"}}"#);
    let mut calls = vec![
        ("GET", "/home", String::new(), Expected::Greeting),
        ("GET", "/heartbeat", String::new(), Expected::Exactly(200, String::new())),
    ];
    if api == Some(AssignmentApiSpec { service: session.service().clone() }) {
        let (one, named) =
            (format!(r#"{{"n":1,"hostnames":["{HOST}"]}}"#), r#"{"n":1,"hostnames":["S5","S4"]}"#.to_owned());
        let beyond = |what: &str| error(&format!("Length of hostname list is more than {what} instances"));
        let other = error("'/other' endpoint does not exist in server replicas");
        calls.extend([
            ("GET", "/other", String::new(), Expected::Exactly(400, other)),
            ("GET", "/rep", String::new(), Expected::Replicas(count, None)),
            ("POST", "/add", named.clone(), Expected::Exactly(400, beyond("newly added"))),
            ("POST", "/add", one.clone(), Expected::Replicas(count + 1, Some(HOST))),
            ("DELETE", "/rm", named, Expected::Exactly(400, beyond("removable"))),
            ("DELETE", "/rm", one, Expected::Replicas(count, None)),
        ]);
    }
    let mut checks = Vec::new();
    for (method, path, body, expected) in calls {
        checks.push(session.unless_cancelled(call(session, method, path, &body, &expected)).await?);
    }
    let generation = session.view().await?.generation;
    session.unless_cancelled(session.converged(generation)).await?;
    Ok(checks)
}

async fn call(
    session: &Session,
    method: &str,
    path: &str,
    body: &str,
    expected: &Expected,
) -> Result<EndpointCheck, LabError> {
    let view = session.view().await?;
    let target = session.target(&view)?;
    let path_there = if path == "/home" { target.path.as_str() } else { path };
    let answer = once(target.address, &request_text(method, path_there, &target.host, "", body))
        .await
        .map_err(LabError::io(format!("{method} {path}")))?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    Ok(EndpointCheck {
        call: format!("{method} {path} {body}").trim_end().to_owned(),
        expected: expected.text(),
        pass: expected.is(answer.status, &text),
        answer: format!("{} {text}", answer.status).trim_end().to_owned(),
    })
}

impl Expected {
    fn text(&self) -> String {
        match self {
            Expected::Exactly(status, body) => format!("{status} {body}").trim_end().to_owned(),
            Expected::Replicas(count, None) => format!("200 and {count} replicas"),
            Expected::Replicas(count, Some(name)) => format!("200 and {count} replicas, {name} among them"),
            Expected::Greeting => "200 and a replica's greeting".to_owned(),
        }
    }

    fn is(&self, status: u16, body: &str) -> bool {
        match self {
            Expected::Exactly(expected, text) => status == *expected && body == text,
            Expected::Greeting => status == 200 && body.contains("Hello from Server: "),
            Expected::Replicas(count, name) => {
                let json: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
                let names = json["message"]["replicas"].as_array().cloned().unwrap_or_default();
                status == 200
                    && json["status"] == "successful"
                    && json["message"]["N"] == *count
                    && names.len() == *count
                    && name.is_none_or(|name| names.iter().any(|listed| listed == name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_the_sheet() {
        let three =
            r#"{"message":{"N":3,"replicas":["Server 1","Server 2","lab-s5"]},"status":"successful"}"#;
        assert!(Expected::Replicas(3, Some(HOST)).is(200, three));
        assert!(!Expected::Replicas(4, None).is(200, three));
        assert!(!Expected::Replicas(3, None).is(400, three));
        assert!(!Expected::Replicas(3, Some("S1")).is(200, three));
        assert!(Expected::Greeting.is(200, r#"{"message":"Hello from Server: 3","status":"successful"}"#));
        assert!(!Expected::Exactly(200, String::new()).is(200, "x"));
    }
}
