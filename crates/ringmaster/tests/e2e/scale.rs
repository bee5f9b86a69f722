//! Figures at scale: a scrape with many real replicas, and what scraping costs the requests (`make scale-figures`).
//!
//! Not for CI: the replicas are processes, and there are RINGMASTER_SCALE_REPLICAS=1000 of them.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::common::{Daemon, On, alone, eventually};

/// What a scrape may take, at the 95th percentile.
const SCRAPE_MAX: Duration = Duration::from_millis(100);
const RATE: u32 = 200;
/// Rounds of requests without and with a scrape every second, one after the other, and how long each lasts.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(6);

fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1)]
}

/// Requests at a steady rate for the time of a round: how long each took from when it was due.
async fn round(client: &reqwest::Client, url: &str) -> Vec<Duration> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (start, mut under_way) = (Instant::now(), Vec::new());
    while start.elapsed() < ROUND {
        let due = ticks.tick().await;
        let request = client.get(url);
        under_way.push(tokio::spawn(async move {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap();
            due.elapsed()
        }));
    }
    let mut times = Vec::new();
    for one in under_way {
        times.push(one.await.unwrap());
    }
    times
}

async fn scrape(client: &reqwest::Client, url: &str) -> (Duration, usize) {
    let asked = Instant::now();
    let text = client.get(url).send().await.unwrap().text().await.unwrap();
    (asked.elapsed(), text.len())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "figures of a thousand processes: make scale-figures"]
async fn a_scrape_of_many_replicas_is_quick_and_costs_requests_nothing() {
    let _alone = alone().await;
    let replicas =
        std::env::var("RINGMASTER_SCALE_REPLICAS").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000);
    let daemon = Daemon::start(On::Process).await;
    let slow_probes =
        |text: String| text.replace("period: 500ms, timeout: 250ms", "period: 10s, timeout: 5s");
    let started = Instant::now();
    daemon.apply(&slow_probes(daemon.manifest("web", replicas, ""))).await;
    let deadline = started + Duration::from_secs(600);
    while daemon.status("web").await.is_none_or(|status| status.ready < replicas) {
        assert!(Instant::now() < deadline, "{:?}", daemon.status("web").await.map(|status| status.ready));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("{replicas} replicas ready after {:.1?}", started.elapsed());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let metrics = format!("http://{}/metrics", daemon.setup.admin);
    let home = format!("http://{}/home", daemon.setup.listen);
    // Every replica has a connection before anything is measured.
    let series = |text: &str| text.matches("ringmaster_proxy_requests_total{").count();
    eventually("every replica is told", || async {
        let text = client.get(&metrics).send().await.unwrap().text().await.unwrap();
        (series(&text) == replicas as usize).then_some(())
    })
    .await;
    round(&client, &home).await;

    let (mut without, mut with, mut scrapes, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        without.extend(round(&client, &home).await);
        let stop = tokio_util::sync::CancellationToken::new();
        let scraper = {
            let (client, metrics, stop) = (client.clone(), metrics.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut ticks, mut seen) = (tokio::time::interval(Duration::from_secs(1)), Vec::new());
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return seen,
                        _ = ticks.tick() => seen.push(scrape(&client, &metrics).await),
                    }
                }
            })
        };
        with.extend(round(&client, &home).await);
        stop.cancel();
        for (took, length) in scraper.await.unwrap() {
            scrapes.push(took);
            bytes = length;
        }
    }
    let [without_p99, with_p99, scrape_p95] =
        [(&without, 0.99), (&with, 0.99), (&scrapes, 0.95)].map(|(times, share)| quantile(times, share));
    println!(
        "scrape of {} KiB under load: p50 {:.1?}, p95 {scrape_p95:.1?}, of {}",
        bytes >> 10,
        quantile(&scrapes, 0.5),
        scrapes.len()
    );
    println!(
        "{RATE} requests/s, {} each: p50 {:.2?} without scraping, {:.2?} with; p99 {without_p99:.2?} without, \
         {with_p99:.2?} with",
        without.len(),
        quantile(&without, 0.5),
        quantile(&with, 0.5)
    );
    assert!(scrape_p95 <= SCRAPE_MAX, "{scrape_p95:?}");
}
