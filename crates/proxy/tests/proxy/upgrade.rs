use crate::origin::Origin;
use crate::world::{World, replica, service};

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: k\r\n\r\n";

/// Switches protocols and sends back in capitals what it gets.
async fn echo() -> Origin {
    Origin::script(|mut conn| async move {
        let request = conn.request().await.unwrap();
        assert_eq!(
            (request.values("connection"), request.values("upgrade")),
            (vec!["upgrade"], vec!["websocket"])
        );
        assert_eq!(request.values("sec-websocket-key"), ["k"]);
        conn.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi")
            .await;
        while let Some(line) = conn.until(b"\n").await {
            conn.write(line.to_ascii_uppercase()).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_passes_bytes_and_is_in_flight_until_it_ends() {
    let origin = echo().await;
    let mut world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    let mut client = world.client().await;
    client.send(ASK).await;
    let (status, headers) = client.head().await.unwrap();
    assert_eq!((status, &*headers["upgrade"], &*headers["connection"]), (101, "websocket", "upgrade"));
    assert_eq!(client.take(2).await.unwrap(), b"hi");
    for _ in 0..3 {
        client.send("abc\n").await;
        assert_eq!(client.take(4).await.unwrap(), b"ABC\n");
    }
    // It outlives the withdrawal of its endpoint, which therefore is not drained.
    world.publish([service("web", 1, &[])]).await;
    let draining = replica("web", 0, 0);
    world.endpoint(&draining, |report| (report.in_flight, report.streams) == (1, 1)).await;
    client.send("abc\n").await;
    assert_eq!(client.take(4).await.unwrap(), b"ABC\n");
    drop(client);
    world.report(|report| !report.endpoints.contains_key(&draining)).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_connection_ends_with_the_data_plane() {
    let origin = echo().await;
    let world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    let mut client = world.client().await;
    client.send(ASK).await;
    assert_eq!(client.head().await.unwrap().0, 101);
    client.take(2).await.unwrap();
    let started = std::time::Instant::now();
    world.stop().await;
    assert!(client.is_closed().await);
    assert!(started.elapsed() < ringmaster_proxy::SHUTDOWN_GRACE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let origin = Origin::named("no").await;
    let world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    let mut client = world.client().await;
    for _ in 0..2 {
        client.send(ASK).await;
        assert_eq!(client.answer().await.text(), "no");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_switched_who_did_not_ask() {
    let origin = Origin::script(|mut conn| async move {
        let request = conn.request().await.unwrap();
        assert!(request.values("upgrade").is_empty());
        conn.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").await;
        conn.request().await;
    })
    .await;
    let world = World::start([service("web", 1, &[(0, 0, origin.address)])]).await;
    for fields in ["", "Connection: Upgrade\r\nUpgrade: h2c\r\n"] {
        assert_eq!(world.client().await.get("/", fields).await.status, 502, "{fields}");
    }
    world.stop().await;
}
