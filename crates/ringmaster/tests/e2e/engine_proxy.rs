//! A unix socket between the daemon and the engine that makes faults: it speaks HTTP, and rules say which calls it answers
//! itself, delays, cuts off, or answers with something else than the engine did.

mod event_faults;

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::common::SOON;

pub(crate) use event_faults::EventFault;

pub(crate) const ENGINE: &str = "/var/run/docker.sock";
/// The list of everything that is ours; the same call with an id among its filters looks for one container.
pub(crate) const LIST: &str = "GET /containers/json (all)";
pub(crate) const FIND: &str = "GET /containers/json (one)";
pub(crate) const CREATE: &str = "POST /containers/create";
pub(crate) const START: &str = "POST /containers/*/start";
pub(crate) const STOP: &str = "POST /containers/*/stop";
pub(crate) const REMOVE: &str = "DELETE /containers/*";
pub(crate) const UNPAUSE: &str = "POST /containers/*/unpause";
pub(crate) const RENAME: &str = "POST /containers/*/rename";
pub(crate) const INSPECT: &str = "GET /containers/*/json";

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Edit = Box<dyn Fn(Vec<Value>) -> Vec<Value> + Send + Sync>;

/// What happens to a call that a rule is about.
pub(crate) enum Fault {
    /// The engine never hears of it.
    Answer(u16, &'static str),
    /// The engine does as asked; this is told instead.
    AnswerAfter(u16, &'static str),
    /// The engine hears of it later.
    Late(Duration),
    /// The connection ends instead of the call being made.
    CutBefore,
    /// The engine does as asked, and the connection ends without an answer.
    CutAfter,
    /// The connection ends in the middle of the engine's answer.
    CutMidway,
    /// The engine does as asked, and nobody ever hears of it.
    Swallow,
    /// The list that the engine answers with is changed.
    Edit(Edit),
}

struct Rule {
    id: u64,
    call: &'static str,
    left: usize,
    fault: Arc<Fault>,
    hits: watch::Sender<usize>,
}

#[derive(Default)]
struct Rules {
    next: u64,
    all: Vec<Rule>,
}

struct Shared {
    engine: PathBuf,
    rules: Mutex<Rules>,
    up: watch::Sender<bool>,
    events: watch::Sender<EventFault>,
}

/// The proxy; it ends with this value.
pub(crate) struct EngineProxy {
    pub(crate) path: PathBuf,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

/// A rule that is in force; it ends with this value.
pub(crate) struct InForce {
    id: u64,
    shared: Arc<Shared>,
    hits: watch::Receiver<usize>,
}

impl EngineProxy {
    /// Listens on `path`, before the engine that all tests use.
    pub(crate) fn start(path: &Path) -> EngineProxy {
        EngineProxy::before(path, Path::new(ENGINE))
    }

    /// Listens on `path`, before the engine at `engine`.
    pub(crate) fn before(path: &Path, engine: &Path) -> EngineProxy {
        let shared = Arc::new(Shared {
            engine: engine.to_owned(),
            rules: Mutex::default(),
            up: watch::Sender::new(true),
            events: watch::Sender::new(EventFault::None),
        });
        let task = tokio::spawn(serve(UnixListener::bind(path).unwrap(), Arc::clone(&shared)));
        EngineProxy { path: path.to_owned(), shared, task }
    }

    /// The next `times` calls of a kind meet a fault, for as long as the returned value lives.
    pub(crate) fn rule(&self, call: &'static str, times: usize, fault: Fault) -> InForce {
        let mut rules = self.shared.rules.lock().unwrap();
        let (sender, hits) = watch::channel(0);
        let id = rules.next;
        rules.next += 1;
        rules.all.push(Rule { id, call, left: times, fault: Arc::new(fault), hits: sender });
        InForce { id, shared: Arc::clone(&self.shared), hits }
    }

    /// What happens to events from now on, also on a stream that is open.
    pub(crate) fn events(&self, fault: EventFault) {
        self.shared.events.send_replace(fault);
    }

    /// Cuts all connections and refuses new ones, as an engine does that stops.
    pub(crate) fn cut(&self) {
        self.shared.up.send_replace(false);
    }

    /// Lets connections through again.
    pub(crate) fn mend(&self) {
        self.shared.up.send_replace(true);
    }

    /// Takes the socket's file away (`true`), or puts it back. Connections that exist are cut.
    pub(crate) fn hide(&self, hidden: bool) {
        let aside = self.path.with_extension("aside");
        let (from, to) = if hidden { (&self.path, &aside) } else { (&aside, &self.path) };
        std::fs::rename(from, to).unwrap();
        self.shared.up.send_replace(!hidden);
    }

    /// Forbids (`true`) or allows everybody to connect; root is exempt, unless it has dropped that capability. Connections that
    /// exist are cut.
    pub(crate) fn forbid(&self, forbidden: bool) {
        let mode = if forbidden { 0 } else { 0o777 };
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(mode)).unwrap();
        self.shared.up.send_replace(!forbidden);
    }
}

impl Drop for EngineProxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

impl InForce {
    /// Awaits so many calls that met the fault.
    pub(crate) async fn met(&mut self, times: usize) {
        let met = tokio::time::timeout(SOON, self.hits.wait_for(|hits| *hits >= times)).await;
        assert!(met.is_ok(), "not met {times} times within {SOON:?}");
    }
}

impl Drop for InForce {
    fn drop(&mut self) {
        // A test that fails unwinds through here: the first panic is the one to be seen.
        if let Ok(mut rules) = self.shared.rules.lock() {
            rules.all.retain(|rule| rule.id != self.id);
        }
    }
}

async fn serve(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let mut up = shared.up.subscribe();
        if !*up.borrow() {
            continue; // Dropped: the client sees its connection closed without an answer.
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let calls = hyper::service::service_fn(|request| handle(Arc::clone(&shared), request));
            let serving =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(client), calls);
            tokio::select! {
                // Whoever closes first, and how, is for the client to deal with.
                ended = serving => drop(ended),
                _ = up.wait_for(|up| !up) => {}
            }
        });
    }
}

/// Answers a call; an error ends the connection.
async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let is_events = plain_path(parts.uri.path()) == "/events";
    let fault = fault_for(&shared, &parts);
    let call = Request::from_parts(parts, Full::new(body));
    let engine = &shared.engine;
    match fault.as_deref() {
        None if is_events => {
            Ok(forward(engine, call).await?.map(|body| event_faults::through(body, &shared.events)))
        }
        None => Ok(forward(engine, call).await?.map(|body| body.map_err(io::Error::other).boxed_unsync())),
        Some(Fault::Answer(status, message)) => Ok(refusal(*status, message)),
        Some(Fault::AnswerAfter(status, message)) => {
            collected(engine, call).await?;
            Ok(refusal(*status, message))
        }
        Some(Fault::Late(by)) => {
            tokio::time::sleep(*by).await;
            Ok(whole(collected(engine, call).await?))
        }
        Some(Fault::CutBefore) => Err(io::ErrorKind::ConnectionReset.into()),
        Some(Fault::CutAfter) => {
            collected(engine, call).await?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(Fault::CutMidway) => Ok(half(collected(engine, call).await?)),
        Some(Fault::Swallow) => {
            collected(engine, call).await?;
            std::future::pending().await
        }
        Some(Fault::Edit(edit)) => {
            let (head, body) = collected(engine, call).await?;
            let list = edit(serde_json::from_slice(&body).map_err(io::Error::other)?);
            Ok(whole((head, serde_json::to_vec(&list).map_err(io::Error::other)?.into())))
        }
    }
}

/// The first rule in force for a call, used up by one.
fn fault_for(shared: &Shared, parts: &http::request::Parts) -> Option<Arc<Fault>> {
    let mut rules = shared.rules.lock().unwrap();
    let rule = rules.all.iter_mut().find(|rule| rule.left > 0 && is_about(rule.call, parts))?;
    rule.left -= 1;
    rule.hits.send_modify(|hits| *hits += 1);
    Some(Arc::clone(&rule.fault))
}

/// Whether a call such as `POST /containers/*/start` is this one; `*` stands for one segment.
fn is_about(call: &str, parts: &http::request::Parts) -> bool {
    let asks = |what| parts.uri.query().is_some_and(|query| query.contains(what));
    // The look at limits, a second after the engine is back, lists only what runs: it is neither.
    let (finds_one, finds_all) = (asks("%22id%22"), asks("all=true"));
    let call = match call {
        LIST if finds_one || !finds_all => return false,
        FIND if !finds_one => return false,
        call => call.trim_end_matches(" (all)").trim_end_matches(" (one)"),
    };
    let Some((method, path)) = call.split_once(' ') else { return false };
    let (wanted, found) = (path.split('/'), plain_path(parts.uri.path()).split('/'));
    // `/containers/json` and `/containers/create` are no containers.
    let fits = |(wanted, found): (&str, &str)| {
        wanted == found || (wanted == "*" && found != "json" && found != "create")
    };
    parts.method == method && wanted.clone().count() == found.clone().count() && wanted.zip(found).all(fits)
}

/// Without the version in front.
fn plain_path(path: &str) -> &str {
    let rest = path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    rest.unwrap_or(path)
}

async fn forward(engine: &Path, call: Request<Full<Bytes>>) -> io::Result<Response<Incoming>> {
    let stream = UnixStream::connect(engine).await?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    // It ends when the answer has been read, or is dropped.
    tokio::spawn(connection);
    sender.send_request(call).await.map_err(io::Error::other)
}

async fn collected(engine: &Path, call: Request<Full<Bytes>>) -> io::Result<(http::response::Parts, Bytes)> {
    let (mut head, body) = forward(engine, call).await?.into_parts();
    head.headers.remove(http::header::CONTENT_LENGTH);
    head.headers.remove(http::header::TRANSFER_ENCODING);
    Ok((head, body.collect().await.map_err(io::Error::other)?.to_bytes()))
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn whole((head, body): (http::response::Parts, Bytes)) -> Response<Body> {
    Response::from_parts(head, full(body))
}

fn half((mut head, body): (http::response::Parts, Bytes)) -> Response<Body> {
    head.headers.insert(http::header::CONTENT_LENGTH, body.len().into());
    let frames = [Ok(Frame::data(body.slice(..body.len() / 2))), Err(io::ErrorKind::ConnectionReset.into())];
    Response::from_parts(head, BodyExt::boxed_unsync(StreamBody::new(futures_util::stream::iter(frames))))
}

fn refusal(status: u16, message: &str) -> Response<Body> {
    let mut response = Response::new(full(json!({ "message": message }).to_string().into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}
