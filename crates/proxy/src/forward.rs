//! One request from its head to its answer: route, key, tries, and what is relayed back.
//!
//! Deliberately absent: which endpoint is tried, and how often ([`crate::attempt`]).

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use ringmaster_core::Generation;
use ringmaster_core::snapshot::Front;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::assignment;
use crate::attempt::{self, Job};
use crate::back::Added;
use crate::claims;
use crate::client::{After, Client};
use crate::error::Refusal;
use crate::exchange::{Access, Exchange};
use crate::h1::body::{Body, Piece};
use crate::h1::emit::{self, RequestParts};
use crate::h1::framing::Framing;
use crate::h1::request::Request;
use crate::io::{Buffer, read_more};
use crate::key::{Asked, Key};
use crate::routing::Service;
use crate::stream::{self, Sending};
use crate::upload::KEPT_BYTES_MAX;
use crate::worker::Worker;

/// How long the next piece of a short body is waited for, and all of it, to be sent with its head and, should that fail, again:
/// what a client does not hold back comes piece after piece.
const NEXT_PIECE: Duration = Duration::from_millis(100);
const GATHERED_AT_MOST: Duration = Duration::from_secs(1);

/// A request on its way.
pub(crate) struct Passage<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) client: &'a mut Client,
    /// Who asks: the client, or whom it asks for if it is a trusted proxy.
    pub(crate) asker: IpAddr,
    /// What was read from the client, the request's head at its beginning.
    pub(crate) buffer: &'a mut Buffer,
    pub(crate) request: &'a Request,
    pub(crate) exchange: Exchange<'a>,
    /// How clients are met.
    pub(crate) front: Rc<Front>,
    /// Of the routing by which it goes.
    pub(crate) generation: Generation,
    /// Where the next request begins, once this one's body has come as a whole.
    pub(crate) end: Option<usize>,
    /// The buffer may hold no more than a rest of the body: what it begins with says nothing about where that ends.
    pub(crate) body_is_taken: bool,
}

/// An answer of our own instead of an endpoint's.
pub(crate) enum Own {
    Refusal(Refusal),
    Answer(Answer),
}

impl From<Refusal> for Own {
    fn from(refusal: Refusal) -> Own {
        Own::Refusal(refusal)
    }
}

/// Answers one request of a client.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    client: &mut Client,
    buffer: &mut Buffer,
    request: &Request,
) -> After {
    let routing = worker.routing();
    let front = Rc::clone(&routing.front);
    client.forwarding.trusted = claims::is_trusted(client.address, &front.trusted_proxies);
    let asker = match client.forwarding.trusted {
        true => claims::client(client.address, &front.trusted_proxies, &buffer.head, buffer),
        false => client.address,
    };
    let exchange = Exchange::begin(worker, access(worker, &front, asker, request, buffer));
    let generation = routing.generation;
    let mut passage = Passage {
        worker,
        client,
        asker,
        buffer,
        request,
        exchange,
        front,
        generation,
        end: None,
        body_is_taken: false,
    };
    let method = request.method_name.of(passage.buffer);
    let is_local =
        routing.assignment_api.is_some() && assignment::is_local(method, request.path(passage.buffer));
    if is_local && worker.shared.local.is_some() {
        drop(routing);
        return Box::pin(passage.ask_local()).await;
    }
    if request.max_forwards == Some(0) {
        return Box::pin(passage.answer_as_last()).await;
    }
    let Some(service) = find(worker, request, passage.buffer) else {
        worker.shared.front.refuse(Refusal::NoRoute);
        return passage.refuse(&Refusal::NoRoute.answer()).await;
    };
    passage.exchange.count_for(&service);
    let of_assignment = routing.assignment_api.as_ref() == Some(&service.spec.name);
    drop(routing);
    match passage.pass(&service, of_assignment).await {
        Ok(after) => after,
        Err(own) => {
            let own = match own {
                Own::Answer(answer) => answer,
                Own::Refusal(refusal) => {
                    service.stats.refuse(refusal);
                    refusal.answer()
                }
            };
            service.stats.stripes.respond(worker.index, own.status.as_u16());
            passage.refuse(&own).await
        }
    }
}

/// What is written to the log of a request, if it is to be.
fn access(
    worker: &Worker,
    front: &Front,
    asker: IpAddr,
    request: &Request,
    buffer: &[u8],
) -> Option<Box<Access>> {
    let sample = front.access_log.as_ref()?.sample;
    let drawn = worker.random.below(100) < usize::from(sample.0);
    drawn.then(|| Box::new(Access::new(asker, request, buffer)))
}

/// The service that a request belongs to as of the newest snapshot.
pub(crate) fn find(worker: &Worker, request: &Request, buffer: &[u8]) -> Option<Rc<Service>> {
    let host = request.host.map(|host| host.of(buffer));
    worker.routing().find(host, request.path(buffer)).cloned()
}

impl Passage<'_> {
    /// Its body was passed on, up to its end if that has come.
    pub(crate) fn body_is_taken(&mut self, end: Option<usize>) {
        (self.end, self.body_is_taken) = (end, true);
    }

    /// Brings the request to an endpoint and its response back.
    async fn pass(&mut self, service: &Rc<Service>, of_assignment: bool) -> Result<After, Own> {
        let most = self.front.limits.max_body.map(|most| most.bytes);
        if let Framing::Length(length) = self.request.framing
            && most.is_some_and(|most| length > most)
        {
            return Err(Refusal::BodyTooLarge.into());
        }
        let (key, added) = self.key(service);
        let mut wire = self.worker.buffers.out();
        let head = self.request.framing;
        let has_come = !self.buffer[self.buffer.head.len..].is_empty();
        let waits = self.request.expects_continue && !has_come;
        let parts = RequestParts {
            request: self.request,
            head: &self.buffer.head,
            buffer: self.buffer,
            forwarding: &self.client.forwarding,
            asker: self.asker,
            default_host: service.spec.name.as_str(),
            expect_continue: waits,
        };
        emit::request(&mut wire, &parts);
        let head_len = wire.len();
        let end = if waits { None } else { self.gather(service, head, &mut wire).await? };
        let Some(end) = end else {
            wire.truncate(head_len);
            let sending = Sending { key: key.as_ref(), head: &wire, waits, added: &added, of_assignment };
            // On the heap, as all that is rare: the usual way stays small.
            return Box::pin(stream::pass(self, service, &sending)).await;
        };
        self.end = Some(end);
        let job = Job {
            worker: self.worker,
            request: self.request,
            buffer: self.buffer,
            key: key.as_ref(),
            service,
            generation: self.generation,
            wire: &wire,
        };
        let begun = attempt::run(&job, &mut self.client.stream, &mut self.client.timer).await;
        let mut begun = match begun {
            Ok(begun) => begun,
            // Nobody is left to take an answer.
            Err(None) => return Ok(After::Close),
            Err(Some(refusal)) => return Err(refusal.into()),
        };
        if begun.response.status < 200 {
            let limit = service.spec.resilience.response_timeout.0;
            Box::pin(self.settle_interim(&mut begun, limit)).await?;
        }
        if of_assignment && begun.response.status == 404 {
            let path = String::from_utf8_lossy(self.request.path(self.buffer)).into_owned();
            let own = assignment::unknown_endpoint(&path);
            service.stats.stripes.respond(self.worker.index, own.status.as_u16());
            return Ok(self.refuse_at(&own, Some(end)).await);
        }
        if begun.response.status == 101 {
            return Ok(Box::pin(self.tunnel(service, begun, &added, end)).await);
        }
        Ok(self.bring_back(service, begun, &added, end).await)
    }

    /// The request's key, and what its answer gets with it.
    fn key(&self, service: &Service) -> (Option<Key>, Added) {
        let asked = Asked { request: self.request, head: &self.buffer.head, buffer: self.buffer };
        let mut added = Added { lines: String::new(), names_replica: service.spec.route.replica_header };
        let found = service.keys.iter().find_map(|source| {
            let key = source.key(asked, self.asker, &self.worker.random)?;
            if let Some(line) = source.set_cookie(asked, &key) {
                added.lines = line;
            }
            Some(key)
        });
        if let Some(key) = &found {
            let now = self.worker.now().into_std();
            service.stats.offer(self.worker.index, key.as_bytes(), now, self.worker.random.bits());
        }
        (found, added)
    }

    /// Reads a short body behind the head that is sent; returns where the next request begins, or none if the body has
    /// to be streamed: then nothing of it is taken from the buffer.
    ///
    /// One that does not come at once is streamed too: the endpoint may have an answer to its head alone, which a client
    /// that holds its body back waits for.
    async fn gather(
        &mut self,
        service: &Service,
        framing: Framing,
        wire: &mut Vec<u8>,
    ) -> Result<Option<usize>, Refusal> {
        let mut body = Body::new(framing, self.buffer.head.len);
        let waits_for_it = match framing {
            Framing::Length(length) if length > KEPT_BYTES_MAX as u64 => return Ok(None),
            Framing::Length(_) => true,
            Framing::Chunked | Framing::Close => false,
        };
        let most = self.front.limits.max_body.map_or(u64::MAX, |most| most.bytes);
        let mut received = 0;
        let (Client { timer, stream, .. }, buffer) = (&mut *self.client, &mut *self.buffer);
        let mut began = None;
        loop {
            match body.next(buffer).map_err(|_| Refusal::ClientBodyBroken)? {
                Piece::Data(range) => {
                    received += range.len() as u64;
                    if received > most {
                        return Err(Refusal::BodyTooLarge);
                    }
                    let data = &buffer[range];
                    if waits_for_it { wire.extend_from_slice(data) } else { emit::chunk(wire, data) }
                }
                // What is announced to be too much need not come to be refused.
                Piece::More if body.announced() > most - received => return Err(Refusal::BodyTooLarge),
                Piece::More if !waits_for_it => return Ok(None),
                Piece::More => {
                    let now = Instant::now();
                    let until = (now + NEXT_PIECE).min(*began.get_or_insert(now) + GATHERED_AT_MOST);
                    match timer.until(until, read_more(stream, buffer)).await {
                        Some(Ok(count)) if count > 0 => {}
                        Some(_) => return Err(Refusal::ClientBodyBroken),
                        None => return Ok(None),
                    }
                }
                Piece::End => {
                    if !waits_for_it {
                        emit::last_chunk(wire, None);
                    }
                    service.stats.stripes.receive(self.worker.index, received);
                    return Ok(Some(body.end()));
                }
            }
        }
    }
}
