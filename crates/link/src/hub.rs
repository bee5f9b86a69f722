//! The controller's side: lets data planes in, hands them the newest snapshot, and puts together what they report.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use ringmaster_core::ServiceName;
use ringmaster_core::exposition::{Exposition, Kind, add_up};
use ringmaster_core::ring::Ring;
use ringmaster_core::snapshot::{Report, Snapshot};
use ringmaster_core::traffic::TrafficMoved;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::address::{Listener, Reads, Writes};
use crate::frame;
use crate::message::{Hello, Question, Run, ToPlane};
use crate::planes::{Note, Planes};
use crate::session::{self, Heard, Session};
use crate::{CONNECTED_METRIC, LocalHandler, SILENCE_MAX, random};

/// Connections at once, those that have not said hello included.
const CONNECTIONS_MAX: usize = 64;
/// Pause after a failed accept: there are no descriptors left, and another try at once would not find one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a hub is made with.
pub struct HubConfig {
    /// What a data plane has to show; nothing where the socket's permissions decide.
    pub token: Option<String>,
    /// The file in which the names of data planes are remembered: after a restart those that may be serving are
    /// waited for.
    pub memory: Option<PathBuf>,
    /// Answers the assignment's API.
    pub local: Arc<LocalHandler>,
    /// Hears what people should hear.
    pub note: Arc<dyn Fn(Note) + Send + Sync>,
}

/// The meeting point of the data planes. A clone is the same.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    config: HubConfig,
    run: Run,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    reports: watch::Sender<Report>,
    planes: Mutex<Planes>,
    connected: watch::Sender<usize>,
}

impl Hub {
    /// A hub between the controller's two channels, and whatever data planes come.
    pub fn new(
        config: HubConfig,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        reports: watch::Sender<Report>,
    ) -> Hub {
        let planes = Mutex::new(Planes::remembered(config.memory.clone()));
        let hub = Inner {
            config,
            run: Run(random()),
            snapshots,
            reports,
            planes,
            connected: watch::Sender::new(0),
        };
        hub.tell();
        Hub(Arc::new(hub))
    }

    /// Lets data planes in until shut down.
    ///
    /// # Errors
    /// Never by itself: a failed accept is tried again.
    pub async fn serve(self, listener: Listener, shutdown: CancellationToken) -> std::io::Result<()> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut snapshots = self.0.snapshots.clone();
        loop {
            let forget_at = self.0.planes().forget_at();
            let forgotten = async {
                match forget_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // Every arm is cancel-safe: what was not taken stays in its queue.
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Ok(()) = snapshots.changed() => self.0.tell(),
                () = forgotten => self.0.forget(),
                accepted = listener.accept() => match accepted {
                    Ok((reads, writes)) => {
                        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                            tracing::warn!("{CONNECTIONS_MAX} data planes are connected: another is not let in");
                            continue;
                        };
                        let (inner, shutdown) = (Arc::clone(&self.0), shutdown.clone());
                        tokio::spawn(async move {
                            let _held_until_the_end = place;
                            tokio::select! {
                                () = shutdown.cancelled() => {}
                                () = inner.serve(reads, writes) => {}
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a data plane: raise the limit on open files (`ulimit -n`)");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    /// How many data planes are connected.
    pub fn connected(&self) -> watch::Receiver<usize> {
        self.0.connected.subscribe()
    }

    /// Where the data planes listen, and where they should and cannot.
    pub fn listeners(&self) -> Vec<String> {
        self.0.planes().listeners()
    }

    /// The metrics of all data planes, added up, and which of them are connected.
    pub async fn metrics(&self) -> String {
        let sessions = self.0.planes().sessions();
        let mut out = Exposition::new();
        let (name, help) = CONNECTED_METRIC;
        out.family(name, Kind::Gauge, help);
        for (name, session) in &sessions {
            out.sample(&[("data_plane", name)], u8::from(session.is_some()));
        }
        let ask =
            |session: Arc<Session>| async move { session.ask(Question::Metrics, bytes::Bytes::new()).await };
        let answers = join_all(sessions.into_iter().filter_map(|(_, session)| session).map(ask)).await;
        let text = |bytes: bytes::Bytes| String::from_utf8_lossy(&bytes).into_owned();
        let texts: Vec<String> = answers.into_iter().flatten().map(text).collect();
        out.finish() + &self.in_our_generations(&add_up(&texts))
    }

    /// What a change of a service's ring would mean for the requests of the last minutes, at all data planes.
    pub async fn traffic(&self, service: &ServiceName, after: &Ring) -> Option<TrafficMoved> {
        let sessions: Vec<_> =
            self.0.planes().sessions().into_iter().filter_map(|(_, session)| session).collect();
        let ring: bytes::Bytes = after.encode().into();
        let ask = |session: Arc<Session>| {
            let (question, ring) = (Question::Traffic { service: service.clone() }, ring.clone());
            async move { session.ask(question, ring).await }
        };
        let answers = join_all(sessions.into_iter().map(ask)).await;
        let told = answers
            .into_iter()
            .flatten()
            .filter_map(|bytes| serde_json::from_slice::<TrafficMoved>(&bytes).ok());
        told.reduce(|a, b| {
            let requests = a.requests + b.requests;
            let moved = a.share * a.requests as f64 + b.share * b.requests as f64;
            TrafficMoved { requests, share: if requests > 0 { moved / requests as f64 } else { 0.0 } }
        })
    }
}

/// A data plane counts generations by itself: here they are told as the controller's, which they are compared with.
const ACKNOWLEDGED: &str = "ringmaster_proxy_acknowledged_generation ";

impl Hub {
    fn in_our_generations(&self, text: &str) -> String {
        let acknowledged = self.0.planes().together().map(|report| report.acknowledged);
        let line = |line: &str| match (line.starts_with(ACKNOWLEDGED), acknowledged) {
            (true, Some(generation)) => format!("{ACKNOWLEDGED}{generation}\n"),
            _ => format!("{line}\n"),
        };
        text.lines().map(line).collect()
    }
}

impl Inner {
    fn planes(&self) -> MutexGuard<'_, Planes> {
        self.planes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: Note) {
        (self.config.note)(note);
    }

    /// Tells the controller what all data planes report. Without any, everything is acknowledged: nobody routes.
    fn tell(&self) {
        let planes = self.planes();
        let newest = self.snapshots.borrow().generation;
        let report = planes.together().unwrap_or_else(|| Report {
            acknowledged: newest,
            stale: true,
            ..Report::default()
        });
        self.connected.send_if_modified(|count| {
            let now = planes.sessions().iter().filter(|(_, session)| session.is_some()).count();
            std::mem::replace(count, now) != now
        });
        self.reports.send_if_modified(|current| {
            let modified = *current != report;
            *current = report;
            modified
        });
    }

    fn forget(&self) {
        let lost = self.planes().forget(Instant::now());
        for name in lost {
            self.note(Note::Forgotten { name });
        }
        self.tell();
    }

    async fn serve(&self, mut reads: Reads, mut writes: Writes) {
        let hello = match session::hello(&mut reads).await {
            Ok(hello) => hello,
            Err(error) => return self.note(Note::Refused { why: error.to_string() }),
        };
        let (session, queue) = Session::new(hello.process);
        let answer = match self.let_in(&hello, &session) {
            Ok(()) => ToPlane::Welcome { run: self.run },
            Err(why) => {
                self.note(Note::Refused { why: why.clone() });
                ToPlane::Refused { why }
            }
        };
        let let_in = matches!(answer, ToPlane::Welcome { .. });
        let answered = frame::write(&mut writes, &answer.into(), SILENCE_MAX).await;
        if !let_in {
            if let Err(error) = answered {
                tracing::debug!(%error, "who was not let in did not wait to hear why");
            }
            return;
        }
        self.note(Note::Connected { name: hello.name.clone(), software: hello.software.clone() });
        self.tell();
        let known = hello.rings.iter().copied().collect();
        let hear = |heard| self.hear(&hello.name, &session, heard);
        // Dropping either loses nothing: the connection ends with it.
        let ended = tokio::select! {
            error = session::write(writes, queue, self.snapshots.clone(), known) => Err(error),
            ended = session::read(reads, &session, &self.config.local, hear) => ended,
        };
        let was_its_own = self.planes().leave(&hello.name, &session, ended.is_ok());
        if was_its_own {
            let name = hello.name;
            self.note(match ended {
                Ok(()) => Note::Ended { name },
                Err(error) => Note::Away { name, why: error.to_string() },
            });
        }
        self.tell();
    }

    fn let_in(&self, hello: &Hello, session: &Arc<Session>) -> Result<(), String> {
        let given = hello.token.as_deref().unwrap_or_default();
        if self.config.token.as_ref().is_some_and(|token| !same(token.as_bytes(), given.as_bytes())) {
            return Err("its token is not the controller's: see --link-token-file".to_owned());
        }
        if hello.name.is_empty() || hello.name.len() > 64 || !hello.name.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err("its name is not of 1 to 64 printable characters: see --name".to_owned());
        }
        self.planes().join(hello, session)
    }

    fn hear(&self, name: &str, session: &Arc<Session>, heard: Heard) {
        match heard {
            Heard::Report(run, mut report) => {
                if run != self.run {
                    // Requests in flight are what they are; an acknowledgement is of another controller's snapshot.
                    report.acknowledged = ringmaster_core::Generation(0);
                }
                self.planes().report(name, session, report);
                self.tell();
            }
            Heard::Listeners(listeners) => self.planes().listen(name, session, listeners),
        }
    }
}

/// Compares in a time that depends on the length alone.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}
