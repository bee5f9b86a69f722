//! Load for tests: requests at fixed times, whether or not the ones before have been answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// Requests in the background until it is stopped.
pub(crate) struct Load {
    /// What the times of its outcome count from.
    pub(crate) started: Instant,
    answered: watch::Receiver<usize>,
    stop: oneshot::Sender<()>,
    done: tokio::task::JoinHandle<Outcome>,
}

/// What became of them.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) total: usize,
    /// Each failure: when it was sent, after the start, and why it counts as one.
    pub(crate) failed: Vec<(Duration, String)>,
    pub(crate) slowest: Duration,
    /// Of each request: when it was due, after the start, and how long it took from then on.
    pub(crate) times: Vec<(Duration, Duration)>,
    /// What was answered to which request, counted from 0.
    pub(crate) log: BTreeMap<u64, String>,
    /// Answers by body.
    pub(crate) answers: BTreeMap<String, usize>,
}

impl Load {
    /// `rate` GETs of `/home` a second over kept-alive connections.
    pub(crate) fn start(target: SocketAddr, rate: u32) -> Load {
        let url = format!("http://{target}/home");
        Load::of(rate, move |client, _| client.get(&url))
    }

    /// `rate` requests a second over kept-alive connections, each made from its number.
    pub(crate) fn of(
        rate: u32,
        make: impl Fn(&reqwest::Client, u64) -> reqwest::RequestBuilder + Send + 'static,
    ) -> Load {
        let (stop, mut stopped) = oneshot::channel();
        let (count, answered) = watch::channel(0);
        let count = Arc::new(count);
        let started = Instant::now();
        let done = tokio::spawn(async move {
            let client =
                reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
            let mut number = 0;
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let (results, mut ended) = mpsc::unbounded_channel();
            loop {
                tokio::select! {
                    biased;
                    _ = &mut stopped => break,
                    intended = ticks.tick() => {
                        let (request, results) = (make(&client, number), results.clone());
                        let (this, count) = (number, Arc::clone(&count));
                        number += 1;
                        tokio::spawn(async move {
                            let answer = ask(request).await;
                            count.send_modify(|count| *count += 1);
                            // The receiver outlives all senders.
                            drop(results.send((this, intended - started, intended.elapsed(), answer)));
                        });
                    }
                }
            }
            drop(results);
            let mut outcome = Outcome::default();
            while let Some((number, sent, took, answer)) = ended.recv().await {
                outcome.total += 1;
                outcome.slowest = outcome.slowest.max(took);
                outcome.times.push((sent, took));
                match answer {
                    Ok(body) => {
                        *outcome.answers.entry(body.clone()).or_default() += 1;
                        outcome.log.insert(number, body);
                    }
                    Err(why) => outcome.failed.push((sent, why)),
                }
            }
            outcome
        });
        Load { started, answered, stop, done }
    }

    /// Waits until so many more requests have ended: what is tested has load before it and after it.
    pub(crate) async fn more(&mut self, requests: usize) {
        let goal = *self.answered.borrow() + requests;
        self.answered.wait_for(|count| *count >= goal).await.expect("it counts until it is stopped");
    }

    /// Stops sending and waits for the last answers.
    pub(crate) async fn stop(self) -> Outcome {
        self.stop.send(()).expect("it sends until it is stopped");
        self.done.await.unwrap()
    }
}

async fn ask(request: reqwest::RequestBuilder) -> Result<String, String> {
    let response = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = response.status();
    let body = response.text().await.map_err(|error| format!("{error:?}"))?;
    if status.is_success() { Ok(body) } else { Err(format!("{status}: {body}")) }
}
