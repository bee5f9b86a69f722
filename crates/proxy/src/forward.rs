//! One request from its head to its answer: route, key, tries, and what is relayed back.
//!
//! Each try resolves against the newest routing. Between the choice of an endpoint and its count nothing is
//! awaited, so a worker that has swapped in a snapshot has counted every request that it gave to an endpoint
//! of the one before.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue, SET_COOKIE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use ringmaster_core::ReplicaName;
use tokio::time::timeout;

use crate::assignment;
use crate::body::{Progress, RequestBody, ResponseBody};
use crate::error::Refusal;
use crate::headers::{self, Framing};
use crate::io::Exchange;
use crate::key::Key;
use crate::picker;
use crate::retry::{self, Decision, Rights};
use crate::routing::{Service, without_port};
use crate::upgrade::Tunnel;
use crate::upstream::{Connection, Endpoint, Failure, InFlight, Limits};
use crate::worker::Worker;

/// Request bodies of a known length up to this are read before they are sent, so that they can be sent again.
pub(crate) const BODY_BYTES_BUFFERED_MAX: usize = 64 << 10;
/// How long a client may take to send a body that is buffered.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Names the replica that answered, where `route.replicaHeader` asks for it.
const X_RINGMASTER_REPLICA: HeaderName = HeaderName::from_static("x-ringmaster-replica");

/// A request as every try needs it.
struct Prepared {
    head: Parts,
    host: Option<HeaderValue>,
    key: Option<Key>,
    /// The key as a cookie, for a client that has none.
    set_cookie: Option<HeaderValue>,
    /// The body as a whole; none while it streams.
    buffered: Option<Bytes>,
    progress: Progress,
    upgrade: Option<HeaderValue>,
}

/// A response that has begun, and what ends with it.
struct Begun {
    response: Response<Incoming>,
    connection: Connection,
    in_flight: InFlight,
}

/// What the proxy adds to an answer.
struct Added {
    set_cookie: Option<HeaderValue>,
    replica: Option<ReplicaName>,
}

impl Added {
    fn to(self, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        if let Some(cookie) = self.set_cookie {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        // A name is of letters, digits and hyphens.
        let name = self.replica.and_then(|replica| HeaderValue::from_str(&replica.short()).ok());
        if let Some(name) = name {
            response.headers_mut().insert(X_RINGMASTER_REPLICA, name);
        }
        response
    }
}

/// Answers one request of a client.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    client: SocketAddr,
    request: Request<Incoming>,
    exchange: Exchange,
) -> Response<ResponseBody> {
    let mut exchange = Some(exchange);
    let response = match answer(&worker, client.ip(), request, &mut exchange).await {
        Ok(response) => response,
        Err(refusal) => {
            worker.shared.front.refuse(refusal);
            refusal.response()
        }
    };
    match exchange {
        Some(exchange) => response.map(|body| body.ending(exchange)),
        None => response,
    }
}

async fn answer(
    worker: &Rc<Worker>,
    client: IpAddr,
    mut request: Request<Incoming>,
    exchange: &mut Option<Exchange>,
) -> Result<Response<ResponseBody>, Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::Tunnel);
    }
    let host = host_of(&request)?;
    let routing = worker.routing();
    let local = worker.shared.local.as_ref().filter(|_| routing.assignment_api.is_some());
    if let Some(local) = local.filter(|_| assignment::is_local(request.method(), request.uri().path())) {
        let (head, body) = request.into_parts();
        return Ok(assignment::call(&**local, head.method, head.uri.path(), body).await);
    }
    let service = find(worker, host.as_ref(), request.uri().path()).ok_or(Refusal::NoRoute)?;
    if let Some(exchange) = exchange {
        exchange.count_for(&service, worker.index);
    }
    let began = exchange.as_ref().map_or_else(Instant::now, Exchange::began);
    let of_assignment = routing.assignment_api.as_ref() == Some(&service.spec.name);
    drop(routing);
    let on_upgrade = hyper::upgrade::on(&mut request);
    let result = match prepare(worker, client, host, &service, request).await {
        Ok((prepared, first)) => {
            let path = of_assignment.then(|| prepared.head.uri.path().to_owned());
            let (upgrade, set_cookie) = (prepared.upgrade.clone(), prepared.set_cookie.clone());
            exchange_with_endpoint(worker, prepared, first, began).await.and_then(|begun| {
                let replica =
                    service.spec.route.replica_header.then(|| begun.in_flight.endpoint().replica.clone());
                let response = match path {
                    Some(path) if begun.response.status() == StatusCode::NOT_FOUND => {
                        Ok(assignment::unknown_endpoint(&path))
                    }
                    _ => relay(worker, begun, upgrade, on_upgrade, exchange),
                };
                let added = Added { set_cookie, replica };
                response.map(|response| added.to(response))
            })
        }
        Err(refusal) => Err(refusal),
    };
    let response = result.unwrap_or_else(|refusal| {
        service.stats.refuse(refusal);
        refusal.response()
    });
    service.stats.stripes.respond(worker.index, response.status());
    Ok(response)
}

/// The request's host: the authority of an absolute target before the Host field (RFC 9112 section 3.2.2).
fn host_of(request: &Request<Incoming>) -> Result<Option<HeaderValue>, Refusal> {
    let mut fields = request.headers().get_all(HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (_, Some(_)) => return Err(Refusal::BadHost),
        (None, None) if request.version() != Version::HTTP_10 => return Err(Refusal::BadHost),
        (field, None) => field,
    };
    let valid = |value: &HeaderValue| value.to_str().is_ok_and(|host| !host.contains(['/', ' ', '@', ',']));
    if field.is_some_and(|field| !valid(field)) {
        return Err(Refusal::BadHost);
    }
    match request.uri().authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).map(Some).map_err(|_| Refusal::BadHost),
        None => Ok(field.cloned()),
    }
}

fn find(worker: &Worker, host: Option<&HeaderValue>, path: &str) -> Option<Rc<Service>> {
    let host = host.and_then(|host| host.to_str().ok()).map(without_port);
    worker.routing().find(host, path).cloned()
}

/// Makes a client's request into the one that is sent, with its first body.
async fn prepare(
    worker: &Worker,
    client: IpAddr,
    host: Option<HeaderValue>,
    service: &Rc<Service>,
    request: Request<Incoming>,
) -> Result<(Prepared, RequestBody), Refusal> {
    let (mut head, body) = request.into_parts();
    let found = service.keys.iter().find_map(|source| {
        let key = source.key(&head, client, &worker.random)?;
        let set_cookie = source.set_cookie(&head, &key);
        Some((key, set_cookie))
    });
    let (key, set_cookie) = found.map_or((None, None), |(key, cookie)| (Some(key), cookie));
    if let Some(key) = &key {
        service.stats.offer(key.as_bytes(), worker.random.bits());
    }
    let upgrade = headers::upgrade_protocol(&head.headers, head.version);
    let length = body.size_hint().exact();
    let framing = if length.is_some() { Framing::Length } else { Framing::Chunked };
    headers::to_upstream(&mut head.headers, client, host.as_ref(), framing, upgrade.as_ref());
    head.version = Version::HTTP_11;
    if head.uri.scheme().is_some() || head.uri.authority().is_some() {
        let target = head.uri.path_and_query().cloned();
        head.uri = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    // What hyper noted for itself on the client's side means nothing on the other.
    head.extensions = http::Extensions::new();
    let (buffered, progress, body) = match length {
        Some(0) => (Some(Bytes::new()), Progress::sent(), RequestBody::whole(Bytes::new())),
        Some(length) if length <= BODY_BYTES_BUFFERED_MAX as u64 => {
            let collected =
                timeout(BODY_TIMEOUT, body.collect()).await.map_err(|_| Refusal::ClientBodyStalled)?;
            let bytes = collected.map_err(|_| Refusal::ClientBodyBroken)?.to_bytes();
            service.stats.stripes.receive(worker.index, bytes.len() as u64);
            (Some(bytes.clone()), Progress::sent(), RequestBody::whole(bytes))
        }
        _ => {
            let progress = Progress::sending(service, worker.index);
            (None, progress.clone(), RequestBody::Stream(body, progress))
        }
    };
    Ok((Prepared { head, host, key, set_cookie, buffered, progress, upgrade }, body))
}

/// Tries until a response begins, or the decision is to give up.
async fn exchange_with_endpoint(
    worker: &Worker,
    prepared: Prepared,
    first: RequestBody,
    began: Instant,
) -> Result<Begun, Refusal> {
    let idempotent = retry::is_idempotent(&prepared.head.method);
    let mut request = Request::from_parts(prepared.head.clone(), first);
    let (mut is_replay, mut replays) = (false, 0);
    let mut fresh = false;
    let mut tried: Vec<Rc<Endpoint>> = Vec::new();
    let mut refusal = Refusal::NoEndpoint;
    loop {
        // While the body was read, or since the last try, the snapshot may have changed: an endpoint may be gone,
        // its replacement may be there.
        let service =
            find(worker, prepared.host.as_ref(), prepared.head.uri.path()).ok_or(Refusal::NoRoute)?;
        let Some(in_flight) = picker::reserve(&service, prepared.key.as_ref(), &tried, &worker.random) else {
            return Err(if service.places.is_empty() { Refusal::NoEndpoint } else { refusal });
        };
        in_flight.count();
        let chosen_at = if is_replay { Instant::now() } else { began };
        let endpoint = Rc::clone(in_flight.endpoint());
        if is_replay {
            service.stats.replays.fetch_add(1, Ordering::Relaxed);
        }
        let resilience = &service.spec.resilience;
        let limits =
            Limits { connect: resilience.connect_timeout.0, response: resilience.response_timeout.0 };
        let Failure { kind, unsent } = match endpoint.send(request, fresh, &limits, &prepared.progress).await
        {
            Ok((response, connection)) => return Ok(Begun { response, connection, in_flight }),
            Err(failure) => failure,
        };
        drop(in_flight);
        let after_us = chosen_at.elapsed().as_micros() as u64;
        tracing::debug!(replica = %endpoint.replica, ?kind, after_us, "try failed");
        let replays_left = resilience.retries.saturating_sub(replays);
        let rights = Rights { idempotent, buffered: prepared.buffered.is_some(), replays_left };
        match retry::decide(kind, unsent.is_some(), rights) {
            Decision::GiveUp(refusal) => return Err(refusal),
            Decision::Refresh => fresh = true,
            Decision::Replay => {
                replays += 1;
                refusal = Refusal::Unreachable;
                tried.push(endpoint);
            }
        }
        is_replay = true;
        request = match (unsent, &prepared.buffered) {
            (Some(request), _) => request,
            (None, Some(bytes)) => {
                Request::from_parts(prepared.head.clone(), RequestBody::whole(bytes.clone()))
            }
            (None, None) => return Err(Refusal::Unreachable),
        };
    }
}

/// Makes an endpoint's response into the client's.
fn relay(
    worker: &Worker,
    begun: Begun,
    upgrade: Option<HeaderValue>,
    client: OnUpgrade,
    exchange: &mut Option<Exchange>,
) -> Result<Response<ResponseBody>, Refusal> {
    let Begun { mut response, connection, in_flight } = begun;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // Only who asked can be switched; the endpoint names the protocol that it took.
        let asked = upgrade.ok_or(Refusal::InvalidResponse)?;
        let protocol = headers::upgrade_protocol(response.headers(), Version::HTTP_11).unwrap_or(asked);
        let upstream = hyper::upgrade::on(&mut response);
        let exchange = exchange.take().map(Exchange::uncounted);
        let tunnel = Tunnel { client, upstream, in_flight, exchange };
        worker.tunnel(tunnel);
        let (mut head, _) = response.into_parts();
        headers::to_client(&mut head.headers, Some(&protocol));
        head.extensions = http::Extensions::new();
        return Ok(Response::from_parts(head, ResponseBody::empty()));
    }
    let (mut head, incoming) = response.into_parts();
    let reusable = headers::keeps_alive(&head.headers, head.version);
    headers::to_client(&mut head.headers, None);
    head.version = Version::HTTP_11;
    head.extensions = http::Extensions::new();
    Ok(Response::from_parts(head, ResponseBody::relay(incoming, connection, reusable, in_flight)))
}
