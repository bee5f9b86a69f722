//! The line that is written for a request.

use std::io;
use std::sync::{Arc, LazyLock, Mutex};

use ringmaster_core::quantity::Percent;
use ringmaster_core::spec::AccessLog;
use serde_json::Value;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::origin::Origin;
use crate::world::{World, service, within};

/// What all data planes of this process write to the access log; tests know theirs by the path.
static WRITTEN: LazyLock<Written> = LazyLock::new(|| {
    let written = Written::default();
    let layer = tracing_subscriber::fmt::layer().json().with_writer(written.clone());
    let only = Targets::new().with_target("access", tracing::Level::INFO);
    tracing_subscriber::registry().with(only).with(layer).init();
    written
});

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Written;

    fn make_writer(&'a self) -> Written {
        self.clone()
    }
}

impl Written {
    fn lines(&self, path: &str) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let fields = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["fields"].clone());
        fields.filter(|fields| fields["path"].as_str().is_some_and(|p| p.starts_with(path))).collect()
    }

    /// The one line of this path, which is written when the request has ended.
    async fn line(&self, path: &str) -> Value {
        within(async {
            loop {
                if let [line] = &*self.lines(path) {
                    return line.clone();
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }
}

async fn world(origin: &Origin, sample: Option<u32>) -> World {
    LazyLock::force(&WRITTEN);
    let mut world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    let sample = sample.map(|percent| serde_json::from_value(format!("{percent}%").into()).unwrap());
    let log = sample.map(|sample: Percent| AccessLog { sample });
    world.change(|snapshot| snapshot.front.access_log = log).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_tells_who_asked_what_and_what_became_of_it() {
    let origin = Origin::named("hello").await;
    let world = world(&origin, Some(100)).await;
    let mut client = world.client().await;
    assert_eq!(client.get("/told?q=1", "").await.status, 200);
    let line = WRITTEN.line("/told").await;
    assert_eq!(
        (&line["client"], &line["method"], &line["host"], &line["path"]),
        (&"127.0.0.1".into(), &"GET".into(), &"a.example".into(), &"/told?q=1".into()),
        "{line}"
    );
    assert_eq!((&line["status"], &line["sent"]), (&200.into(), &5.into()), "{line}");
    assert_eq!(line["replica"], "web-0", "{line}");
    let took = line["took_us"].as_u64().unwrap();
    assert!((1..10_000_000).contains(&took), "{line}");

    assert_eq!(client.request("POST", "/told-too", "", b"body").await.status, 200);
    assert_eq!(WRITTEN.line("/told-too").await["method"], "POST");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_our_own_names_no_replica() {
    let origin = Origin::named("").await;
    let mut world = world(&origin, Some(100)).await;
    world.publish([service("web", 1, &[])]).await;
    assert_eq!(world.client().await.get("/nobody", "").await.status, 503);
    let line = WRITTEN.line("/nobody").await;
    assert_eq!((line["status"].as_u64(), line.get("replica")), (Some(503), None), "{line}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_left_before_an_answer_has_status_0() {
    let mut origin = Origin::script(|mut conn| async move { while conn.request().await.is_some() {} }).await;
    let world = world(&origin, Some(100)).await;
    let mut client = world.client().await;
    client.send("GET /left HTTP/1.1\r\nHost: a\r\n\r\n").await;
    origin.requests(1).await;
    socket2::SockRef::from(&client.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(WRITTEN.line("/left").await["status"], 0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_drawn_and_none_of_none() {
    let origin = Origin::named("").await;
    for (sample, path, expected) in [
        (None, "/off", 0..=0),
        (Some(0), "/none", 0..=0),
        (Some(50), "/half", 300..=700),
        (Some(100), "/all", 1_000..=1_000),
    ] {
        let world = world(&origin, sample).await;
        let mut client = world.client().await;
        for _ in 0..1_000 {
            assert_eq!(client.get(path, "").await.status, 200);
        }
        // A request's line is written before the next one is read, and all have ended with the data plane.
        drop(client);
        world.stop().await;
        let lines = WRITTEN.lines(path).len();
        assert!(expected.contains(&lines), "{lines} of 1,000 at {sample:?} %");
    }
}
