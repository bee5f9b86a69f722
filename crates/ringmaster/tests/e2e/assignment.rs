//! The assignment's API, byte for byte.

use std::collections::BTreeSet;

use reqwest::Method;

use crate::common::{Daemon, On, docker_or_skip, shared};

async fn call(daemon: &Daemon, method: Method, path: &str, body: &str) -> (u16, String) {
    let url = format!("http://{}{path}", daemon.setup.listen);
    let response = reqwest::Client::new().request(method, url).body(body.to_owned()).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn names(body: &str) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_str(body).unwrap();
    let list = value["message"]["replicas"].as_array().unwrap_or_else(|| panic!("{body}"));
    assert_eq!(value["message"]["N"].as_u64(), Some(list.len() as u64), "{body}");
    list.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

async fn assignment(on: On) {
    let daemon = Daemon::start(on).await;
    let gateway = format!(
        "apiVersion: ringmaster/v1\nkind: Gateway\nmetadata: {{ name: default }}\nspec:\n  assignmentApi: {{ service: {} }}\n",
        daemon.web
    );
    let web = daemon.manifest(&daemon.web, 3, "  balancing: { hashOn: requestId }\n");
    daemon.apply_and_converge(&daemon.web, &format!("{gateway}---\n{web}")).await;

    let three = r#"{"message":{"N":3,"replicas":["Server 1","Server 2","Server 3"]},"status":"successful"}"#;
    assert_eq!(call(&daemon, Method::GET, "/rep", "").await, (200, three.to_owned()));
    let too_many = r#"{"message":"<Error> Length of hostname list is more than newly added instances","status":"failure"}"#;
    let added = call(&daemon, Method::POST, "/add", r#"{"n":1,"hostnames":["S5","S4"]}"#).await;
    assert_eq!(added, (400, too_many.to_owned()));
    let (code, body) = call(&daemon, Method::POST, "/add", r#"{"n":3,"hostnames":["S5","S4"]}"#).await;
    let six = names(&body);
    assert_eq!((code, six.len(), six[3].as_str(), six[4].as_str()), (200, 6, "S5", "S4"), "{body}");
    assert_eq!(
        daemon.status(&daemon.web).await.unwrap().ready,
        6,
        "the answer comes when the change has converged"
    );

    let too_many = r#"{"message":"<Error> Length of hostname list is more than removable instances","status":"failure"}"#;
    let removed = call(&daemon, Method::DELETE, "/rm", r#"{"n":1,"hostnames":["S5","S4"]}"#).await;
    assert_eq!(removed, (400, too_many.to_owned()));
    let (code, body) = call(&daemon, Method::DELETE, "/rm", r#"{"n":3,"hostnames":["S5","S4"]}"#).await;
    let rest: BTreeSet<String> = names(&body).into_iter().collect();
    assert_eq!((code, rest.len()), (200, 3), "{body}");
    assert!(!rest.contains("S5") && !rest.contains("S4"), "{body}");
    assert!(rest.is_subset(&six.into_iter().collect()), "{body}");
    let (code, body) = call(&daemon, Method::POST, "/rm", r#"{"n":1,"hostnames":[]}"#).await;
    assert_eq!((code, names(&body).len()), (200, 2), "POST /rm is an alias");

    for wrong in [
        "",
        "{",
        r#"{"hostnames":[]}"#,
        r#"{"n":0}"#,
        r#"{"n":-1}"#,
        r#"{"n":"3"}"#,
        r#"{"n":99}"#,
        r#"{"n":1,"hostnames":["nobody"]}"#,
    ] {
        let (code, body) = call(&daemon, Method::DELETE, "/rm", wrong).await;
        assert!(
            code == 400
                && body.starts_with(r#"{"message":"<Error> "#)
                && body.ends_with(r#"","status":"failure"}"#),
            "{wrong}: {code} {body}"
        );
    }
    for wrong in
        [r#"{"n":2,"hostnames":["twice","twice"]}"#, r#"{"n":1,"hostnames":["not a name"]}"#, r#"{"n":5000}"#]
    {
        assert_eq!(call(&daemon, Method::POST, "/add", wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(names(&call(&daemon, Method::GET, "/rep", "").await.1).len(), 2, "refusals changed nothing");

    let (code, body) = call(&daemon, Method::GET, "/home", "").await;
    assert!(code == 200 && body.starts_with(r#"{"message":"Hello from Server: "#), "{code} {body}");
    assert_eq!(call(&daemon, Method::GET, "/heartbeat", "").await, (200, String::new()));
    let nowhere =
        r#"{"message":"<Error> '/other' endpoint does not exist in server replicas","status":"failure"}"#;
    assert_eq!(call(&daemon, Method::GET, "/other", "").await, (400, nowhere.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_assignment_api_is_exact_with_processes() {
    let _shared = shared().await;
    assignment(On::Process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_assignment_api_is_exact_with_docker() {
    let _shared = shared().await;
    let Some(on) = docker_or_skip("the_assignment_api_is_exact_with_docker").await else { return };
    assignment(on).await;
}
