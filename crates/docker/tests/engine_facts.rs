//! What the engine answers to a call on a container in a given state, and the state that follows: the table that any model of
//! an engine has to agree with is compared with the real one. Measured on Docker Engine 20.10 (API 1.41), and asked for by that
//! version of the API.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ringmaster_docker::testing::{Cleanup, engine_or_skip, replica_image, unique_name};
use ringmaster_runtime::labels;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const FACTS: &str = include_str!("engine-facts.json");

struct Bench {
    image: String,
    instance: String,
}

impl Bench {
    fn body(&self, command: Option<&str>) -> Value {
        let labels = json!({ labels::INSTANCE: self.instance });
        json!({ "Image": self.image, "Entrypoint": command.map(|command| [command]), "Labels": labels })
    }

    /// Makes a call on the container `name`.
    async fn call(&self, call: &str, name: &str) -> (u16, String) {
        let container = format!("/containers/{name}");
        let create = format!("/containers/create?name={name}");
        match call {
            "create" => http("POST", &create, Some(self.body(None))).await,
            "create of a missing image" => {
                http("POST", &create, Some(json!({ "Image": "nobody/knows:it" }))).await
            }
            "create with a number for the image" => http("POST", &create, Some(json!({ "Image": 7 }))).await,
            "inspect" => http("GET", &format!("{container}/json"), None).await,
            "remove" => http("DELETE", &container, None).await,
            "remove by force" => http("DELETE", &format!("{container}?force=1"), None).await,
            "start" | "stop" | "kill" | "pause" | "unpause" => {
                http("POST", &format!("{container}/{call}"), None).await
            }
            other => panic!("no such call: {other}"),
        }
    }

    /// Brings a new container into a state.
    async fn bring(&self, given: &str, name: &str) {
        let steps: &[&str] = match given {
            "absent" => &[],
            "created" => &["create"],
            "running" => &["create", "start"],
            "paused" => &["create", "start", "pause"],
            "exited" => &["create", "start", "kill"],
            "created with a command that is not there" => {
                let body = self.body(Some("/nope"));
                let (status, text) =
                    http("POST", &format!("/containers/create?name={name}"), Some(body)).await;
                assert_eq!(status, 201, "{text}");
                &[]
            }
            other => panic!("no such state: {other}"),
        };
        for step in steps {
            let (status, text) = self.call(step, name).await;
            assert!(status < 300, "{step} for {given}: {status} {text}");
        }
        if given == "exited" {
            http("POST", &format!("/containers/{name}/wait"), None).await;
        }
    }

    async fn state(&self, name: &str) -> String {
        let (status, text) = self.call("inspect", name).await;
        if status == 404 {
            return "absent".to_owned();
        }
        let found: Value = serde_json::from_str(&text).unwrap();
        found["State"]["Status"].as_str().unwrap().to_owned()
    }
}

/// One call over a connection of its own, as it is on the wire: clients hide some answers.
async fn http(method: &str, path: &str, body: Option<Value>) -> (u16, String) {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let mut stream = UnixStream::connect("/var/run/docker.sock").await.unwrap();
    // HTTP/1.0: the answer is not in chunks, and ends with the connection.
    let request = format!(
        "{method} /v1.41{path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn the_engine_answers_as_the_table_says() {
    let Some(docker) = engine_or_skip("the_engine_answers_as_the_table_says").await else { return };
    let bench = Bench { image: replica_image(&docker).await, instance: unique_name() };
    let _cleanup = Cleanup::of(&bench.instance);
    let facts: Vec<Value> = serde_json::from_str(FACTS).unwrap();
    let mut wrong = Vec::new();
    for fact in &facts {
        let name = unique_name();
        bench.bring(fact["given"].as_str().unwrap(), &name).await;
        let (status, text) = bench.call(fact["call"].as_str().unwrap(), &name).await;
        if fact["then"] == "exited" {
            http("POST", &format!("/containers/{name}/wait"), None).await;
        }
        let then = bench.state(&name).await;
        let agrees = fact["status"] == status
            && text.contains(fact["text"].as_str().unwrap())
            && fact["then"] == then.as_str();
        if !agrees {
            wrong.push(format!("{fact}\n  but it was {status} {} and then {then}", text.trim()));
        }
    }
    assert!(wrong.is_empty(), "{} of {} facts do not hold:\n{}", wrong.len(), facts.len(), wrong.join("\n"));
}
