//! The suite that every runtime passes: what the controller relies on, one claim per function.
//!
//! A runtime's tests call [`conformance_claims!`](crate::conformance_claims) with a macro of their own that
//! makes one test per claim, so a new claim is run by every runtime. Deliberately absent: how a runtime is set
//! up and cleaned up, which is each test's own business.

mod lifecycle;

use std::io;
use std::net::SocketAddr;
use std::slice::from_ref;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ringmaster_core::observed::{ExitInfo, ReplicaState, RuntimeId, RuntimeReplica};
use ringmaster_core::spec::Template;
use ringmaster_core::{Attempt, Ordinal, ReplicaName, Revision, ServiceName};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub use lifecycle::{
    a_command_runs_beside_the_replica, a_command_that_takes_too_long_is_given_up, how_it_is_to_end_is_kept,
    who_is_being_stopped_is_told_before_the_end,
};

use crate::{CreateRequest, ErrorKind, Inspected, Runtime, RuntimeError, Signal, Wake};

/// Calls `$claim! { name }` for every claim that takes a runtime and a fixture. Two more,
/// [`adopts_what_runs`](crate::conformance::adopts_what_runs) and
/// [`instances_do_not_see_each_other`](crate::conformance::instances_do_not_see_each_other), take two runtimes.
#[macro_export]
macro_rules! conformance_claims {
    ($claim:ident) => {
        $claim! { created_replica_is_listed_and_answers }
        $claim! { labels_and_revision_survive }
        $claim! { a_name_is_given_once }
        $claim! { of_two_creates_at_once_one_wins }
        $claim! { processor_time_is_told_while_it_runs }
        $claim! { stop_is_graceful_and_idempotent }
        $claim! { stop_kills_what_does_not_end_in_time }
        $claim! { remove_is_idempotent }
        $claim! { an_exit_is_listed_with_its_code }
        $claim! { a_failed_start_is_an_error_and_stays_listed }
        $claim! { logs_outlive_the_process }
        $claim! { a_kill_is_seen_by_events_and_list }
        $claim! { a_stopped_process_hangs_and_goes_on }
        $claim! { what_is_missing_does_not_resolve }
        $claim! { resolving_is_stable }
        $claim! { repair_leaves_the_healthy_alone }
        $claim! { what_is_gone_is_not_found }
        $claim! { a_command_runs_beside_the_replica }
        $claim! { a_command_that_takes_too_long_is_given_up }
        $claim! { how_it_is_to_end_is_kept }
        $claim! { who_is_being_stopped_is_told_before_the_end }
    };
}

/// What the claims run.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// A service name that no other test uses.
    pub service: ServiceName,
    /// The demo replica.
    pub runs: Template,
    /// A template whose process ends at once with code 2, after a line that contains `unexpected argument`.
    pub exits: Template,
    /// A template that resolves and cannot be started.
    pub cannot_start: Template,
    /// A template whose program or image is not there.
    pub missing: Template,
    /// How resolving `missing` fails.
    pub missing_kind: ErrorKind,
    /// A command that asks the replica for the path that is appended to it, and succeeds if that is answered.
    pub asks: Vec<String>,
    /// A command that ends with code 2 and says `unexpected argument`.
    pub fails: Vec<String>,
    /// Whether it sees who sends signals to its replicas.
    pub sees_signals: bool,
    /// How long to wait for anything.
    pub deadline: Duration,
}

/// What the tests use besides the claims: small waits and requests.
impl Fixture {
    /// A request for the replica of `ordinal`, resolved.
    pub async fn request(&self, runtime: &dyn Runtime, ordinal: u16, template: &Template) -> CreateRequest {
        let content_id = runtime.resolve(template).await.expect("the template resolves");
        CreateRequest {
            name: ReplicaName {
                service: self.service.clone(),
                ordinal: Ordinal(ordinal),
                attempt: Attempt(3),
            },
            host: None,
            template: template.clone(),
            content_id,
            revision: Revision("0123456789".to_owned()),
        }
    }

    fn asking(&self, path: &str) -> Vec<String> {
        self.asks.iter().cloned().chain([path.to_owned()]).collect()
    }

    /// A demo replica that answers.
    pub async fn started(&self, runtime: &dyn Runtime, ordinal: u16) -> RuntimeReplica {
        let request = self.request(runtime, ordinal, &self.runs).await;
        let replica = runtime.create(&request).await.expect("the replica starts");
        self.answers(&replica).await;
        replica
    }

    /// Waits until it answers `/heartbeat`.
    pub async fn answers(&self, replica: &RuntimeReplica) {
        let address = replica.address.expect("a running replica has an address");
        self.until("the replica answers", async || {
            get(address, "/heartbeat", Duration::from_secs(1)).await.is_ok()
        })
        .await;
    }

    /// Waits until the condition holds, looking every ten milliseconds.
    ///
    /// # Panics
    /// If it does not within the deadline.
    pub async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let start = Instant::now();
        while !condition().await {
            assert!(start.elapsed() < self.deadline, "not within {:?}: {what}", self.deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until it is listed as exited.
    pub async fn exit(&self, runtime: &dyn Runtime, id: &RuntimeId) -> ExitInfo {
        let mut exit = None;
        self.until("the exit is listed", async || {
            exit = match listed(runtime, id).await.expect("it is listed").state {
                ReplicaState::Exited(info) => Some(info),
                _ => None,
            };
            exit.is_some()
        })
        .await;
        exit.expect("the condition held")
    }

    async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        let outcome = tokio::time::timeout(self.deadline, future).await;
        outcome.unwrap_or_else(|_| panic!("not within {:?}: {what}", self.deadline))
    }
}

/// The body of the answer to a GET, within `limit`.
///
/// # Errors
/// No connection, no answer in time, or another status than 200.
pub async fn get(address: SocketAddr, path: &str, limit: Duration) -> io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request_head(path).as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        if head.starts_with("HTTP/1.1 200 ") {
            Ok(body.to_owned())
        } else {
            Err(io::Error::other(head.to_owned()))
        }
    };
    tokio::time::timeout(limit, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn request_head(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: replica\r\nconnection: close\r\n\r\n")
}

async fn listed(runtime: &dyn Runtime, id: &RuntimeId) -> Option<RuntimeReplica> {
    runtime.list().await.expect("the list succeeds").into_iter().find(|replica| replica.id == *id)
}

fn kind<T>(outcome: Result<T, RuntimeError>) -> Option<ErrorKind> {
    outcome.err().map(|error| error.kind)
}

/// A created replica is listed, with the same address, and answers there as the server that its ordinal says.
pub async fn created_replica_is_listed_and_answers(runtime: &dyn Runtime, fixture: &Fixture) {
    let replica = fixture.started(runtime, 4).await;
    assert_eq!(replica.state, ReplicaState::Running);
    let address = replica.address.expect("it runs");
    let home = get(address, "/home", fixture.deadline).await.expect("it answers");
    assert_eq!(home, r#"{"message":"Hello from Server: 5","status":"successful"}"#);
    assert_eq!(runtime.list().await.expect("the list succeeds"), from_ref(&replica));
    let inspected = runtime.inspect(&replica.id).await.expect("it is there");
    assert_eq!(inspected, Some(Inspected { replica, pre_stop: Ok(None) }));
}

/// Name, host name and revision are told as they were given.
pub async fn labels_and_revision_survive(runtime: &dyn Runtime, fixture: &Fixture) {
    let mut request = fixture.request(runtime, 0, &fixture.runs).await;
    request.host = Some("Server-1".to_owned());
    let created = runtime.create(&request).await.expect("it starts");
    let found = listed(runtime, &created.id).await.expect("it is listed");
    assert_eq!(found.name, request.name);
    assert_eq!(found.engine_name, request.name.to_string());
    assert_eq!(found.revision, request.revision);
    assert_eq!(found.host, request.host);
    assert_eq!(found.created_at, created.created_at);
}

/// A second create of the same name is a conflict and changes nothing.
pub async fn a_name_is_given_once(runtime: &dyn Runtime, fixture: &Fixture) {
    let replica = fixture.started(runtime, 0).await;
    let request = fixture.request(runtime, 0, &fixture.runs).await;
    assert_eq!(kind(runtime.create(&request).await), Some(ErrorKind::Conflict));
    assert_eq!(runtime.list().await.expect("the list succeeds"), [replica]);
}

/// The name is the lock: of two creates at the same time one succeeds, the other is a conflict.
pub async fn of_two_creates_at_once_one_wins(runtime: &dyn Runtime, fixture: &Fixture) {
    let request = fixture.request(runtime, 0, &fixture.runs).await;
    let (one, other) = tokio::join!(runtime.create(&request), runtime.create(&request));
    let failures: Vec<_> = [kind(one), kind(other)].into_iter().flatten().collect();
    assert_eq!(failures, [ErrorKind::Conflict]);
    assert_eq!(runtime.list().await.expect("the list succeeds").len(), 1);
}

/// The processor time grows while it works, and is not told of one that has ended.
pub async fn processor_time_is_told_while_it_runs(runtime: &dyn Runtime, fixture: &Fixture) {
    let replica = fixture.started(runtime, 0).await;
    let address = replica.address.expect("it runs");
    let before = runtime.cpu_used(&replica.id).await.expect("it can be told").unwrap_or_default();
    fixture
        .until("it has worked", async || {
            get(address, "/bytes?n=50000000", fixture.deadline).await.expect("it answers");
            runtime.cpu_used(&replica.id).await.expect("it can be told").expect("it runs") > before
        })
        .await;
    runtime.stop(&replica.id, fixture.deadline).await.expect("it stops");
    assert_eq!(runtime.cpu_used(&replica.id).await.expect("it can be told"), None);
}

/// Stop lets a request in flight finish, returns when the process has ended, and may be repeated.
pub async fn stop_is_graceful_and_idempotent(runtime: &dyn Runtime, fixture: &Fixture) {
    let replica = fixture.started(runtime, 0).await;
    let mut stream =
        BufReader::new(TcpStream::connect(replica.address.expect("it runs")).await.expect("it accepts"));
    let head = request_head("/stream?chunks=5&ms=100");
    stream.get_mut().write_all(head.as_bytes()).await.expect("it reads");
    let mut line = String::new();
    while line != "chunk 0\n" {
        line.clear();
        let read = fixture.within("the stream begins", stream.read_line(&mut line)).await;
        assert!(read.expect("the stream begins") > 0);
    }
    let mut rest = String::new();
    let (stopped, read) = fixture
        .within("it ends", async {
            tokio::join!(runtime.stop(&replica.id, fixture.deadline), stream.read_to_string(&mut rest))
        })
        .await;
    stopped.expect("it stops");
    read.expect("the answer is whole");
    assert!(rest.contains("chunk 4\n"), "{rest}");
    let found = listed(runtime, &replica.id).await.expect("it is listed until it is removed");
    let ReplicaState::Exited(exit) = found.state else { panic!("stop returned early: {:?}", found.state) };
    assert_eq!((exit.code, found.address), (Some(0), None));
    runtime.stop(&replica.id, fixture.deadline).await.expect("stopping an ended one is a success");
    runtime.remove(&replica.id).await.expect("it is removed");
    runtime.stop(&replica.id, fixture.deadline).await.expect("stopping one that is gone is a success");
}

/// What has not ended after the grace is killed.
pub async fn stop_kills_what_does_not_end_in_time(runtime: &dyn Runtime, fixture: &Fixture) {
    let replica = fixture.started(runtime, 0).await;
    runtime.signal(&replica.id, Signal::Stop).await.expect("it runs");
    let start = Instant::now();
    let grace = Duration::from_secs(1);
    fixture.within("it ends", runtime.stop(&replica.id, grace)).await.expect("it is killed");
    assert!(start.elapsed() >= grace, "killed after {:?}", start.elapsed());
    assert_eq!(fixture.exit(runtime, &replica.id).await.code, Some(137));
}

/// Remove ends what runs, frees the name, and may be repeated.
pub async fn remove_is_idempotent(runtime: &dyn Runtime, fixture: &Fixture) {
    let replica = fixture.started(runtime, 0).await;
    runtime.remove(&replica.id).await.expect("it is removed");
    assert_eq!(runtime.list().await.expect("the list succeeds"), []);
    let address = replica.address.expect("it ran");
    assert!(get(address, "/heartbeat", Duration::from_secs(1)).await.is_err(), "its process lives on");
    runtime.remove(&replica.id).await.expect("removing one that is gone is a success");
    let again = fixture.started(runtime, 0).await;
    assert_ne!(again.id, replica.id, "ids are not used twice");
    runtime.remove(&replica.id).await.expect("the old id is gone");
    assert!(listed(runtime, &again.id).await.is_some(), "the old id does not hit the new replica");
}

/// A process that ends by itself is listed with its exit code and without address.
pub async fn an_exit_is_listed_with_its_code(runtime: &dyn Runtime, fixture: &Fixture) {
    let request = fixture.request(runtime, 0, &fixture.exits).await;
    let replica = runtime.create(&request).await.expect("it starts, and ends");
    let exit = fixture.exit(runtime, &replica.id).await;
    assert_eq!((exit.code, exit.out_of_memory), (Some(2), false));
    let found = listed(runtime, &replica.id).await.expect("it is listed");
    assert_eq!(found.address, None);
    assert_eq!(listed(runtime, &replica.id).await, Some(found), "asking again tells the same");
}

/// A failed start is an error that says why; what was made stays listed as exited and can be removed.
pub async fn a_failed_start_is_an_error_and_stays_listed(runtime: &dyn Runtime, fixture: &Fixture) {
    let request = fixture.request(runtime, 0, &fixture.cannot_start).await;
    let error = runtime.create(&request).await.expect_err("it cannot start");
    assert_eq!(error.kind, ErrorKind::Invalid, "{error}");
    let found = runtime.list().await.expect("the list succeeds");
    let [left] = found.as_slice() else { panic!("one is left behind: {found:?}") };
    let ReplicaState::Exited(exit) = &left.state else { panic!("it does not run: {:?}", left.state) };
    assert!(exit.message.as_ref().is_some_and(|message| !message.is_empty()), "{exit}");
    assert_eq!(left.name, request.name);
    runtime.remove(&left.id).await.expect("it is removed");
    assert_eq!(runtime.list().await.expect("the list succeeds"), []);
}

/// Logs of both streams, of one that runs and of one that has ended; no more lines than asked for.
pub async fn logs_outlive_the_process(runtime: &dyn Runtime, fixture: &Fixture) {
    let running = fixture.started(runtime, 0).await;
    let has = async |id: &RuntimeId, text: &str| {
        fixture
            .until(text, async || {
                runtime.logs(id, 100).await.expect("there are logs").lines().any(|line| line.contains(text))
            })
            .await;
    };
    has(&running.id, "listens on").await;
    runtime.stop(&running.id, fixture.deadline).await.expect("it stops");
    has(&running.id, "has ended").await;
    let last = runtime.logs(&running.id, 1).await.expect("there are logs");
    assert!(last.lines().count() == 1 && last.contains("has ended"), "{last}");
    let request = fixture.request(runtime, 1, &fixture.exits).await;
    let ended = runtime.create(&request).await.expect("it starts, and ends");
    has(&ended.id, "unexpected argument").await;
}

/// A kill from outside wakes the event stream, and a list that is made then tells the end: nothing is to wake
/// the loop once more.
pub async fn a_kill_is_seen_by_events_and_list(runtime: &dyn Runtime, fixture: &Fixture) {
    let mut events = runtime.events();
    let first = fixture.within("the stream is established", events.next()).await;
    assert_eq!(first, Some(Wake::Reconnected));
    let replica = fixture.started(runtime, 0).await;
    let seen = async {
        loop {
            assert!(matches!(events.next().await, Some(Wake::Changed | Wake::Stopping(_))));
            match listed(runtime, &replica.id).await.expect("it is listed").state {
                ReplicaState::Exited(exit) => return exit,
                // The hint was of its start, or of the signal on its way.
                _ => continue,
            }
        }
    };
    let both = async { tokio::join!(runtime.signal(&replica.id, Signal::Kill), seen) };
    let (sent, exit) = fixture.within("the kill is seen", both).await;
    sent.expect("it runs");
    assert_eq!(exit.code, Some(137));
}

/// SIGSTOP makes it hang without being seen as ended; SIGCONT revives it.
pub async fn a_stopped_process_hangs_and_goes_on(runtime: &dyn Runtime, fixture: &Fixture) {
    let replica = fixture.started(runtime, 0).await;
    let address = replica.address.expect("it runs");
    let patience = Duration::from_millis(300);
    runtime.signal(&replica.id, Signal::Stop).await.expect("it runs");
    fixture.until("it hangs", async || get(address, "/heartbeat", patience).await.is_err()).await;
    assert_eq!(listed(runtime, &replica.id).await, Some(replica.clone()), "a hang is for probes to see");
    runtime.repair(&replica.id).await.expect("repair does nothing");
    assert!(get(address, "/heartbeat", patience).await.is_err(), "repair does not heal a hang");
    runtime.signal(&replica.id, Signal::Cont).await.expect("it runs");
    fixture.until("it goes on", async || get(address, "/heartbeat", patience).await.is_ok()).await;
}

/// Resolving what is not there fails with a kind that says so, and nothing is made.
pub async fn what_is_missing_does_not_resolve(runtime: &dyn Runtime, fixture: &Fixture) {
    let error = runtime.resolve(&fixture.missing).await.expect_err("it is not there");
    assert_eq!(error.kind, fixture.missing_kind, "{error}");
    let mut nothing = fixture.runs.clone();
    nothing.image = None;
    nothing.process = None;
    assert_eq!(kind(runtime.resolve(&nothing).await), Some(ErrorKind::Invalid));
    assert_eq!(runtime.list().await.expect("the list succeeds"), []);
}

/// The same template resolves to the same content.
pub async fn resolving_is_stable(runtime: &dyn Runtime, fixture: &Fixture) {
    let first = runtime.resolve(&fixture.runs).await.expect("it resolves");
    assert!(!first.is_empty());
    assert_eq!(runtime.resolve(&fixture.runs).await.expect("it resolves"), first);
}

/// Repair does nothing to one that is as it should be, nor to one that is gone.
pub async fn repair_leaves_the_healthy_alone(runtime: &dyn Runtime, fixture: &Fixture) {
    let replica = fixture.started(runtime, 0).await;
    runtime.repair(&replica.id).await.expect("there is nothing to repair");
    assert_eq!(listed(runtime, &replica.id).await, Some(replica.clone()));
    fixture.answers(&replica).await;
    runtime.remove(&replica.id).await.expect("it is removed");
    runtime.repair(&replica.id).await.expect("there is nothing to repair");
}

/// What is gone is told apart from what fails.
pub async fn what_is_gone_is_not_found(runtime: &dyn Runtime, fixture: &Fixture) {
    let replica = fixture.started(runtime, 0).await;
    runtime.stop(&replica.id, fixture.deadline).await.expect("it stops");
    let signal = runtime.signal(&replica.id, Signal::Kill).await;
    assert_eq!(kind(signal), Some(ErrorKind::NotFound), "an ended one takes no signal");
    runtime.remove(&replica.id).await.expect("it is removed");
    assert_eq!(runtime.inspect(&replica.id).await.expect("the question is answered"), None);
    assert_eq!(kind(runtime.signal(&replica.id, Signal::Kill).await), Some(ErrorKind::NotFound));
    assert_eq!(kind(runtime.logs(&replica.id, 1).await), Some(ErrorKind::NotFound));
}

/// A runtime that is opened over the same state takes over what runs, and sees it end.
pub async fn adopts_what_runs(
    first: Box<dyn Runtime>,
    reopen: impl AsyncFnOnce() -> Box<dyn Runtime>,
    fixture: &Fixture,
) {
    let replica = fixture.started(&*first, 0).await;
    let ended = fixture.started(&*first, 1).await;
    first.stop(&ended.id, fixture.deadline).await.expect("it stops");
    drop(first);
    let second = reopen().await;
    assert_eq!(listed(&*second, &replica.id).await, Some(replica.clone()));
    let exit = fixture.exit(&*second, &ended.id).await;
    assert_eq!(exit.code, Some(0), "how it ended is not forgotten");
    fixture.answers(&replica).await;
    let mut events = second.events();
    assert_eq!(fixture.within("the stream", events.next()).await, Some(Wake::Reconnected));
    second.signal(&replica.id, Signal::Kill).await.expect("it runs");
    let wake = fixture.within("its end", events.next()).await;
    assert!(matches!(wake, Some(Wake::Changed | Wake::Stopping(_))), "{wake:?}");
    fixture.exit(&*second, &replica.id).await;
    second.remove(&replica.id).await.expect("it is removed");
    second.remove(&ended.id).await.expect("it is removed");
    assert_eq!(second.list().await.expect("the list succeeds"), []);
}

/// Two instances on one engine neither list nor touch each other's replicas.
pub async fn instances_do_not_see_each_other(one: &dyn Runtime, other: &dyn Runtime, fixture: &Fixture) {
    let replica = fixture.started(one, 0).await;
    assert_eq!(other.list().await.expect("the list succeeds"), []);
    assert_eq!(other.inspect(&replica.id).await.expect("the question is answered"), None);
    // Whether these are refused or find nothing is the runtime's choice; that they do nothing is not.
    for outcome in [other.stop(&replica.id, Duration::ZERO).await, other.remove(&replica.id).await] {
        let kind = kind(outcome);
        assert!(matches!(kind, None | Some(ErrorKind::Conflict)), "{kind:?}");
    }
    assert!(other.signal(&replica.id, Signal::Kill).await.is_err());
    let request = fixture.request(other, 0, &fixture.runs).await;
    assert_eq!(kind(other.create(&request).await), Some(ErrorKind::Conflict), "its name is taken");
    assert_eq!(one.list().await.expect("the list succeeds"), from_ref(&replica));
    fixture.answers(&replica).await;
}
