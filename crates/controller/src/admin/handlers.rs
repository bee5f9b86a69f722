//! The handlers, in the order of the routes.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use ringmaster_core::api::{
    ApplyRequest, ApplyResponse, DaemonInfo, EventList, FaultRequest, Overview, ScaleRequest, ServiceView,
};
use ringmaster_core::desired::DesiredService;
use ringmaster_core::event::Event;
use ringmaster_core::ids::parse_short;
use ringmaster_core::{Generation, Reason, ServiceName};
use ringmaster_runtime::Signal;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::CancellationToken;

use super::AdminState;
use super::error::Refusal;
use crate::reconcile::{Board, Command};

/// Most lines of output in one answer.
const LOG_LINES_MAX: usize = 10_000;
/// How long the engine may take for a command.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);
/// Followers get at most one update in this time, however busy the daemon is.
const WATCH_PAUSE: Duration = Duration::from_millis(100);
/// Followers hear something at least this often, so that silence means that the daemon is gone or stuck.
const WATCH_HEARTBEAT: Duration = Duration::from_secs(2);

type Answer<T> = Result<Json<T>, Refusal>;

pub(super) async fn overview(State(state): State<AdminState>) -> Json<Overview> {
    Json(make_overview(&state))
}

fn make_overview(state: &AdminState) -> Overview {
    let desired = state.store.desired();
    let board = state.board.borrow().clone();
    let services = desired.services.iter().map(|(name, service)| view(name, service, &board)).collect();
    Overview {
        generation: desired.generation,
        now: state.clock.now(),
        services,
        gateway: desired.gateway.clone(),
        daemon: daemon_info(state, &board),
    }
}

fn daemon_info(state: &AdminState, board: &Board) -> DaemonInfo {
    DaemonInfo {
        engine_error: board.engine_error.clone(),
        listeners: (state.daemon.listeners)(),
        ..state.daemon.info.clone()
    }
}

fn view(name: &ServiceName, service: &DesiredService, board: &Board) -> ServiceView {
    ServiceView {
        name: name.clone(),
        generation: service.generation,
        spec: service.live_spec(),
        deleting: service.deleting,
        status: board.statuses.get(name).cloned(),
    }
}

pub(super) async fn services(State(state): State<AdminState>) -> Json<Vec<ServiceView>> {
    Json(make_overview(&state).services)
}

pub(super) async fn service(
    State(state): State<AdminState>,
    Path(name): Path<String>,
) -> Answer<ServiceView> {
    let name = ServiceName::new(name).map_err(Refusal::bad_request)?;
    let found = make_overview(&state).services.into_iter().find(|service| service.name == name);
    found.map(Json).ok_or_else(|| crate::store::StoreError::UnknownService(name).into())
}

#[derive(Debug, Deserialize)]
pub(super) struct DeleteQuery {
    #[serde(default)]
    force: bool,
}

pub(super) async fn delete(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> Answer<Generation> {
    let name = ServiceName::new(name).map_err(Refusal::bad_request)?;
    let (service, force) = (name.clone(), query.force);
    let generation = change(&state, move |state| state.store.delete(&name, force)).await?;
    if force {
        let message = "deleted by force: its replicas are stopped without waiting for the data plane, and requests that \
                       are in flight there fail";
        state.timeline.warning(Some(&service), "service", Reason::DeletedByForce, message);
    }
    Ok(Json(generation))
}

pub(super) async fn scale(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Json(request): Json<ScaleRequest>,
) -> Answer<Generation> {
    let name = ServiceName::new(name).map_err(Refusal::bad_request)?;
    let service = name.clone();
    let generation = change(&state, move |state| state.store.scale(&name, request.replicas)).await?;
    let message = format!("to {} replicas as asked, generation {generation}", request.replicas);
    state.timeline.normal(Some(&service), "service", Reason::Scaled, message);
    Ok(Json(generation))
}

pub(super) async fn apply(
    State(state): State<AdminState>,
    Json(request): Json<ApplyRequest>,
) -> Answer<ApplyResponse> {
    let dry_run = request.dry_run;
    let response = change(&state, move |state| state.store.apply(&request, &*state.daemon.traffic)).await?;
    if !dry_run && response.changes() {
        let names: Vec<String> = response.services.iter().map(|service| service.name.to_string()).collect();
        let message = format!("{} applied as generation {}", names.join(", "), response.generation);
        state.timeline.normal(None, "manifest", Reason::ManifestApplied, message);
    }
    Ok(Json(response))
}

/// A change waits for the disk, and a ring may take long to compare: not on a thread that serves others.
pub(super) async fn change<T: Send + 'static>(
    state: &AdminState,
    change: impl FnOnce(&AdminState) -> Result<T, crate::store::StoreError> + Send + 'static,
) -> Result<T, Refusal> {
    let (state, span) = (state.clone(), tracing::Span::current());
    match tokio::task::spawn_blocking(move || span.in_scope(|| change(&state))).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Since {
    #[serde(default)]
    since: u64,
}

pub(super) async fn events(State(state): State<AdminState>, Query(query): Query<Since>) -> Json<EventList> {
    Json(EventList { events: state.timeline.since(query.since), now: state.clock.now() })
}

#[derive(Debug, Serialize)]
struct Update {
    overview: Overview,
    events: Vec<Event>,
}

/// What is, whole, whenever it changes; and every event once.
pub(super) async fn watch(
    State(state): State<AdminState>,
    axum::Extension(shutdown): axum::Extension<CancellationToken>,
) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let boards = WatchStream::new(state.board.clone()).map(|_| ());
    let events = WatchStream::new(state.timeline.subscribe()).map(|_| ());
    let changes = stream::select(boards, events);
    // Each follower holds one value at most, made when its connection takes it: a slow one skips what it could not
    // take. hyper buffers 16 of them or 400 KiB and one, whichever is less, the kernel `tcp_wmem`.
    let updates = stream::unfold((changes, state, 0_u64), |(mut changes, state, seen)| async move {
        changes.next().await?;
        tokio::time::sleep(WATCH_PAUSE).await;
        let events = state.timeline.since(seen);
        let seen = events.last().map_or(seen, |event| event.sequence);
        let update = Update { overview: make_overview(&state), events };
        let text = serde_json::to_string(&update).expect("an update has no maps with other keys than text");
        let event = sse::Event::default().event("update").data(text);
        Some((Ok(event), (changes, state, seen)))
    });
    Sse::new(updates.take_until(shutdown.cancelled_owned()))
        .keep_alive(KeepAlive::new().interval(WATCH_HEARTBEAT))
}

#[derive(Debug, Deserialize)]
pub(super) struct LogsQuery {
    lines: Option<usize>,
    #[serde(default)]
    previous: bool,
}

pub(super) async fn logs(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<String, Refusal> {
    let (service, ordinal) = parse_short(&name).map_err(Refusal::bad_request)?;
    let lines = query.lines.unwrap_or(100).min(LOG_LINES_MAX);
    let (reply, answer) = oneshot::channel();
    command(&state, Command::Logs { service, ordinal, previous: query.previous, lines, reply }, answer).await
}

pub(super) async fn fault(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Json(request): Json<FaultRequest>,
) -> Answer<String> {
    if !state.daemon.info.faults_allowed {
        let error = "this daemon does not inject faults: start it with --allow-faults";
        return Err(Refusal::new(StatusCode::FORBIDDEN, error));
    }
    let (service, ordinal) = parse_short(&name).map_err(Refusal::bad_request)?;
    let signal = match request.signal.to_ascii_uppercase().trim_start_matches("SIG") {
        "KILL" => Signal::Kill,
        "TERM" => Signal::Term,
        "STOP" => Signal::Stop,
        "CONT" => Signal::Cont,
        other => {
            return Err(Refusal::bad_request(format!("`{other}` is not one of KILL, TERM, STOP and CONT")));
        }
    };
    let (reply, answer) = oneshot::channel();
    command(&state, Command::Fault { service, ordinal, signal, reply }, answer).await.map(Json)
}

async fn command(
    state: &AdminState,
    command: Command,
    answer: oneshot::Receiver<Result<String, String>>,
) -> Result<String, Refusal> {
    let stopping = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping");
    state.commands.send(command).await.map_err(|_| stopping())?;
    match tokio::time::timeout(COMMAND_DEADLINE, answer).await {
        Ok(Ok(Ok(text))) => Ok(text),
        Ok(Ok(Err(error))) => Err(Refusal::new(StatusCode::CONFLICT, error)),
        Ok(Err(_)) => Err(stopping()),
        Err(_) => Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the engine did not answer in time")),
    }
}

pub(super) async fn version(State(state): State<AdminState>) -> Json<DaemonInfo> {
    let board = state.board.borrow().clone();
    Json(daemon_info(&state, &board))
}

pub(super) async fn index() -> &'static str {
    "Ringmaster admin API\n\
     \n\
     GET    /api/v1/overview              everything at a glance\n\
     GET    /api/v1/services              all services; /services/NAME for one\n\
     POST   /api/v1/services/NAME/scale   {\"replicas\": 5}\n\
     GET    /api/v1/services/NAME/revisions  the templates that it has had\n\
     POST   /api/v1/services/NAME/rollback   {\"toRevision\": 3}, or {} for the template before\n\
     GET    /api/v1/services/NAME/ring    who owns which share of the keys (?replicas=N: would own)\n\
     GET    /api/v1/services/NAME/explain?key=K\n\
     DELETE /api/v1/services/NAME         ?force=true: without waiting for the data plane\n\
     POST   /api/v1/apply                 {\"files\": [{\"file\": \"-\", \"text\": \"...\"}]}\n\
     GET    /api/v1/log                   what is logged; PUT another filter as text, such as debug\n\
     GET    /api/v1/events?since=N        the timeline\n\
     GET    /api/v1/watch                 changes as they happen (server-sent events)\n\
     GET    /api/v1/replicas/NAME/logs    the output of a replica, such as web-0\n\
     POST   /api/v1/replicas/NAME/fault   {\"signal\": \"KILL\"} (with --allow-faults)\n\
     GET    /api/v1/prometheus/targets    where to scrape (HTTP service discovery)\n\
     GET    /metrics /healthz /readyz\n\
     \n\
     GET    /                             the live page, for browsers; this text for others, and at /api\n"
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready means: every service that wants replicas has one that gets traffic.
pub(super) async fn readyz(State(state): State<AdminState>) -> Response {
    let board = state.board.borrow().clone();
    let desired = state.store.desired();
    let waiting: Vec<String> = desired
        .services
        .iter()
        .filter(|(_, service)| !service.members.is_empty())
        .filter(|(name, _)| board.statuses.get(name).is_none_or(|status| status.ready == 0))
        .map(|(name, _)| name.to_string())
        .collect();
    match waiting.is_empty() {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, format!("no replica ready: {}\n", waiting.join(", ")))
            .into_response(),
    }
}

pub(super) async fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "no such page: GET /api lists the API")
}
