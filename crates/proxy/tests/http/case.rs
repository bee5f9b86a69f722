//! A case: what is sent from either side, and every outcome that is right. A table of them runs side by side and
//! tells all that failed, each with what came instead.
//!
//! Every case has a data plane and an origin of its own. After the answers the client asks for `/after` on the same
//! connection and reads to its end: bytes too many or too few show there. The origin's record is looked at when the
//! data plane has ended, so "not a byte" means ever.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ringmaster_core::snapshot::ServiceRouting;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::check;
use crate::client::{Client, Trouble};
use crate::message::Message;
use crate::origin::{Conn, Origin, Seen};
use crate::world::World;

/// How many cases run at once.
const LANES: usize = 12;
const AFTER: &str = "GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

pub(crate) type Checked<T = ()> = Result<T, String>;

pub(crate) struct Case {
    name: String,
    /// Where it is written, such as `RFC 9112 6.3`.
    section: &'static str,
    run: Run,
}

enum Run {
    Exchange(Box<Exchange>),
    Scenario(BoxFuture<'static, Checked>),
}

/// One client's connection, and the origin's part.
pub(crate) struct Exchange {
    send: Vec<Vec<u8>>,
    finish: bool,
    /// The methods of the requests that were sent.
    pub(crate) methods: Vec<&'static str>,
    answers: Vec<Answer>,
    change: fn(&mut ServiceRouting),
    pub(crate) outcomes: Vec<Outcome>,
    /// What holds where the request is passed on.
    pub(crate) claims: Vec<check::Claim>,
}

/// What may come of it; one of a case's outcomes must.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// One answer of such a status, then the connection ends; not a byte reaches the origin.
    Refused(&'static [u16]),
    /// As refused, but the body was under way: no whole request reaches the origin.
    Broken(&'static [u16]),
    /// The connection ends without an answer; not a byte reaches the origin.
    Dropped,
    /// The connection ends without an answer; no whole request reaches the origin.
    Gone,
    /// The proxy answers by itself with such a status; not a byte reaches the origin.
    Local(&'static [u16]),
    /// Each request reaches the origin, and its answer the client.
    Passed,
    /// An answer of such a status, and nothing of what the origin sent.
    Gateway(&'static [u16]),
    /// Whatever the case claims.
    Claimed,
    /// The answer begins and is cut off, so that the client can tell.
    Truncated,
}

/// What the origin does about a request other than `/after`; the last one of a script stays in force.
#[derive(Debug, Clone)]
struct Answer {
    pieces: Vec<Vec<u8>>,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Keep,
    Close,
    Reset,
}

/// What came of an exchange.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) answers: Vec<Message>,
    pub(crate) interim: Vec<Message>,
    pub(crate) trouble: Option<Trouble>,
    /// To the request that follows, if the last answer left the connection open.
    pub(crate) after: Option<Result<Message, Trouble>>,
    /// What came behind the answers until the connection ended; none if it did not end.
    pub(crate) rest: Option<Vec<u8>>,
    /// What the origin got, but for `/after`.
    pub(crate) seen: Seen,
}

/// These bytes are sent to the proxy; the origin answers `200` with the body `ok`, and with the request line
/// in `X-Saw`.
pub(crate) fn request(name: impl Into<String>, section: &'static str, bytes: impl AsRef<[u8]>) -> Case {
    exchange(name, section, vec![bytes.as_ref().to_vec()], Vec::new())
}

/// The origin answers `GET /` with these bytes.
pub(crate) fn answer(name: impl Into<String>, section: &'static str, bytes: impl AsRef<[u8]>) -> Case {
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
    let answer = Answer { pieces: vec![bytes.as_ref().to_vec()], then: Then::Keep };
    exchange(name, section, vec![get], vec![answer])
}

/// Whatever `run` does.
pub(crate) fn scenario(
    name: impl Into<String>,
    section: &'static str,
    run: impl Future<Output = Checked> + Send + 'static,
) -> Case {
    Case { name: name.into(), section, run: Run::Scenario(run.boxed()) }
}

fn exchange(
    name: impl Into<String>,
    section: &'static str,
    send: Vec<Vec<u8>>,
    answers: Vec<Answer>,
) -> Case {
    let exchange = Exchange {
        send,
        finish: false,
        methods: vec!["GET"],
        answers,
        change: |_| {},
        outcomes: Vec::new(),
        claims: Vec::new(),
    };
    Case { name: name.into(), section, run: Run::Exchange(Box::new(exchange)) }
}

/// Runs the cases side by side and tells all that failed.
pub(crate) async fn run(cases: impl IntoIterator<Item = Case>) {
    let lanes = Arc::new(Semaphore::new(LANES));
    let mut runs = JoinSet::new();
    for case in cases {
        let lanes = Arc::clone(&lanes);
        runs.spawn(async move {
            let _lane = lanes.acquire_owned().await.unwrap();
            let what = format!("{} ({})", case.name, case.section);
            // A case that panics fails as any other, beside the others.
            let run = tokio::spawn(case.run.finish()).await;
            let result = run.unwrap_or_else(|error| Err(error.to_string()));
            result.err().map(|why| format!("{what}\n      {why}"))
        });
    }
    let results = runs.join_all().await;
    let count = results.len();
    let mut failed: Vec<String> = results.into_iter().flatten().collect();
    failed.sort_unstable();
    assert!(
        failed.is_empty(),
        "{} of {count} cases failed:\n  FAIL {}",
        failed.len(),
        failed.join("\n  FAIL ")
    );
    println!("{count} cases");
}

impl Run {
    async fn finish(self) -> Checked {
        match self {
            Run::Scenario(run) => run.await,
            Run::Exchange(exchange) => {
                let observed = exchange.observe().await;
                check::outcome(&exchange, &observed)
            }
        }
    }
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut Exchange)) -> Case {
        match &mut self.run {
            Run::Exchange(exchange) => change(exchange),
            Run::Scenario(_) => panic!("a scenario does everything itself"),
        }
        self
    }

    fn outcome(self, outcome: Outcome) -> Case {
        self.with(|exchange| exchange.outcomes.push(outcome))
    }

    /// One more outcome that is right: [`Outcome::Refused`].
    pub(crate) fn refused(self, statuses: &'static [u16]) -> Case {
        self.outcome(Outcome::Refused(statuses))
    }

    /// 400, and the connection may go on: where the message ends is clear, what it says is wrong.
    pub(crate) fn wrong(self) -> Case {
        self.refused(&[400]).local(&[400])
    }

    pub(crate) fn broken(self, statuses: &'static [u16]) -> Case {
        self.outcome(Outcome::Broken(statuses))
    }

    pub(crate) fn dropped(self) -> Case {
        self.outcome(Outcome::Dropped)
    }

    pub(crate) fn gone(self) -> Case {
        self.outcome(Outcome::Gone)
    }

    pub(crate) fn local(self, statuses: &'static [u16]) -> Case {
        self.outcome(Outcome::Local(statuses))
    }

    pub(crate) fn passed(self) -> Case {
        self.outcome(Outcome::Passed)
    }

    pub(crate) fn gateway(self, statuses: &'static [u16]) -> Case {
        self.outcome(Outcome::Gateway(statuses))
    }

    pub(crate) fn truncated(self) -> Case {
        self.outcome(Outcome::Truncated)
    }

    /// Nothing but what the case claims.
    pub(crate) fn claimed(self) -> Case {
        self.outcome(Outcome::Claimed)
    }

    /// What holds if it is passed on.
    pub(crate) fn claim(self, claim: impl Fn(&Observed) -> Checked + Send + Sync + 'static) -> Case {
        self.with(|exchange| exchange.claims.push(Box::new(claim)))
    }

    /// The methods of the requests, where it is not one GET.
    pub(crate) fn methods(self, methods: &[&'static str]) -> Case {
        self.with(|exchange| exchange.methods = methods.to_vec())
    }

    /// What the client sends instead.
    pub(crate) fn send(self, bytes: impl AsRef<[u8]>) -> Case {
        self.with(|exchange| exchange.send = vec![bytes.as_ref().to_vec()])
    }

    /// The client's bytes are sent in pieces of this size.
    pub(crate) fn split(self, size: usize) -> Case {
        self.with(|exchange| exchange.send = split(&exchange.send.concat(), size))
    }

    /// The origin's bytes are sent in pieces of this size.
    pub(crate) fn answer_split(self, size: usize) -> Case {
        self.with(|exchange| exchange.answers[0].pieces = split(&exchange.answers[0].pieces.concat(), size))
    }

    /// The client says after its bytes that there are no more.
    pub(crate) fn finish(self) -> Case {
        self.with(|exchange| exchange.finish = true)
    }

    /// What the origin answers instead.
    pub(crate) fn origin(self, bytes: impl AsRef<[u8]>) -> Case {
        let answer = Answer { pieces: vec![bytes.as_ref().to_vec()], then: Then::Keep };
        self.with(|exchange| exchange.answers.push(answer))
    }

    /// The origin closes after its answer.
    pub(crate) fn close(self) -> Case {
        self.with(|exchange| exchange.answers.last_mut().unwrap().then = Then::Close)
    }

    /// The origin resets the connection after its answer.
    pub(crate) fn reset(self) -> Case {
        self.with(|exchange| exchange.answers.last_mut().unwrap().then = Then::Reset)
    }

    /// Changes the service.
    pub(crate) fn service(self, change: fn(&mut ServiceRouting)) -> Case {
        self.with(|exchange| exchange.change = change)
    }
}

impl Exchange {
    async fn observe(&self) -> Observed {
        let origin = scripted(self.answers.clone()).await;
        let world = World::start_with(origin.address, self.change).await;
        let mut client = world.client().await;
        client.send(self.send.clone()).await;
        if self.finish {
            client.finish().await;
        }
        let (mut answers, mut trouble) = (Vec::new(), None);
        for method in &self.methods {
            match client.answer(method).await {
                Ok(answer) => answers.push(answer),
                Err(what) => {
                    trouble = Some(what);
                    break;
                }
            }
        }
        let open = trouble.is_none() && !answers.last().is_some_and(check::closes);
        let after = if open { Some(follow_up(&mut client).await) } else { None };
        let rest = if trouble.is_none() { client.rest().await } else { None };
        let interim = std::mem::take(&mut client.interim);
        drop(client);
        world.stop().await;
        let mut seen = origin.end().await;
        seen.requests.retain(|request| !is_after(request));
        Observed { answers, interim, trouble, after, rest, seen }
    }
}

async fn follow_up(client: &mut Client) -> Result<Message, Trouble> {
    client.say(AFTER).await;
    client.answer("GET").await
}

fn is_after(request: &Message) -> bool {
    request.start == "GET /after HTTP/1.1"
}

fn split(bytes: &[u8], size: usize) -> Vec<Vec<u8>> {
    bytes.chunks(size).map(<[u8]>::to_vec).collect()
}

/// An origin that gives these answers in turn, and plain ones to `/after` or where there are none.
async fn scripted(answers: Vec<Answer>) -> Origin {
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let next = move || {
        let mut answers = answers.lock().unwrap();
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
    };
    let next = Arc::new(next);
    Origin::start(move |mut conn: Conn| {
        let next = Arc::clone(&next);
        async move {
            while let Some(request) = conn.request().await {
                let Some(answer) = (!is_after(&request)).then(|| next()).flatten() else {
                    let head = request.start.starts_with("HEAD ");
                    let (body, line) = (if head { "" } else { "ok" }, &request.start);
                    conn.write(format!(
                        "HTTP/1.1 200 OK\r\nX-Saw: {line}\r\nContent-Length: 2\r\n\r\n{body}"
                    ))
                    .await;
                    continue;
                };
                for piece in &answer.pieces {
                    conn.write(piece).await;
                    tokio::task::yield_now().await;
                }
                match answer.then {
                    Then::Keep => {}
                    Then::Close => {
                        conn.finish().await;
                        return Some(conn);
                    }
                    Then::Reset => {
                        conn.reset();
                        return None;
                    }
                }
            }
            Some(conn)
        }
    })
    .await
}
