//! The assignment's API on the data port: `/rep`, `/add`, `/rm`, byte for byte.
//!
//! It edits the desired members like any other client of the store; the loop does the work, and the answer
//! comes when the change has converged or a deadline has passed. Random names and victims are drawn here: the
//! core has no random numbers.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::desired::Member;
use ringmaster_core::members;
use ringmaster_core::{Generation, ServiceName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::reconcile::Board;
use crate::store::{Store, StoreError};

/// How long `/add` and `/rm` wait until the change has converged.
const CONVERGE_DEADLINE: Duration = Duration::from_secs(60);
/// Most instances that one call may add or remove.
const INSTANCES_MAX: usize = ringmaster_core::spec::REPLICAS_MAX as usize;

/// Answers the assignment's API.
#[derive(Debug, Clone)]
pub struct Assignment {
    store: Arc<Store>,
    board: watch::Receiver<Arc<Board>>,
}

/// An answer: a status code and a JSON body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    n: usize,
    #[serde(default)]
    hostnames: Vec<String>,
}

#[derive(Serialize)]
struct Replicas {
    #[serde(rename = "N")]
    n: usize,
    replicas: Vec<String>,
}

#[derive(Serialize)]
struct Body<T> {
    message: T,
    status: &'static str,
}

impl Assignment {
    /// An API over a store; the board tells when a change has converged.
    pub fn new(store: Arc<Store>, board: watch::Receiver<Arc<Board>>) -> Assignment {
        Assignment { store, board }
    }

    /// Answers one request. Safe to cancel: a change that was made stays made.
    pub async fn call(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let desired = self.store.desired();
        let Some(service) = desired.gateway.assignment_api.as_ref().map(|api| api.service.clone()) else {
            return failure("the assignment API is off");
        };
        match (method, path) {
            ("GET", "/rep") => self.replicas(&service),
            ("POST", "/add") => self.change(&service, body, add).await,
            ("DELETE" | "POST", "/rm") => self.change(&service, body, remove).await,
            _ => failure(&format!("{method} is not supported on '{path}'")),
        }
    }

    async fn change(
        &self,
        service: &ServiceName,
        body: &[u8],
        change: fn(&[Member], Payload) -> Result<Vec<Member>, StoreError>,
    ) -> Answer {
        let payload: Payload = match serde_json::from_slice(body) {
            Ok(payload) => payload,
            Err(error) => return failure(&format!("Invalid payload: {error}")),
        };
        if payload.n == 0 {
            return failure("Invalid payload: n must be at least 1");
        }
        // The change waits for the disk: not on a thread of the data plane.
        let (store, name) = (Arc::clone(&self.store), service.clone());
        let edit = move || store.change_members(&name, |members| change(members, payload));
        match tokio::task::spawn_blocking(edit).await {
            Ok(Ok(generation)) => {
                self.converge(service, generation).await;
                self.replicas(service)
            }
            Ok(Err(error)) => failure(&error.to_string()),
            Err(error) => failure(&error.to_string()),
        }
    }

    async fn converge(&self, service: &ServiceName, generation: Generation) {
        let mut board = self.board.clone();
        let converged = board.wait_for(|board| {
            board
                .statuses
                .get(service)
                .is_some_and(|status| status.observed_generation >= generation && status.is_converged())
        });
        // Either way the answer is the list of what is desired; the deadline only bounds the wait.
        drop(tokio::time::timeout(CONVERGE_DEADLINE, converged).await);
    }

    fn replicas(&self, service: &ServiceName) -> Answer {
        let desired = self.store.desired();
        let members = desired.services.get(service).map_or(&[][..], |service| &service.members);
        let replicas: Vec<String> = members.iter().map(Member::display_name).collect();
        answer(200, Replicas { n: replicas.len(), replicas }, "successful")
    }
}

/// A refusal in the assignment's words.
fn refusal(why: impl Into<String>) -> StoreError {
    StoreError::Refused(why.into())
}

fn add(present: &[Member], payload: Payload) -> Result<Vec<Member>, StoreError> {
    if payload.hostnames.len() > payload.n {
        return Err(refusal("Length of hostname list is more than newly added instances"));
    }
    if payload.n > INSTANCES_MAX.saturating_sub(present.len()) {
        return Err(refusal(format!("No more than {INSTANCES_MAX} instances are possible")));
    }
    let unnamed = payload.n - payload.hostnames.len();
    let mut hosts: Vec<Option<String>> = payload.hostnames.into_iter().map(Some).collect();
    let random = RandomState::new();
    hosts.extend((0..unnamed).map(|i| Some(format!("server-{:08x}", draw(&random, i) as u32))));
    Ok(members::add(present, hosts)?)
}

fn remove(present: &[Member], payload: Payload) -> Result<Vec<Member>, StoreError> {
    if payload.hostnames.len() > payload.n {
        return Err(refusal("Length of hostname list is more than removable instances"));
    }
    if payload.n > present.len() {
        return Err(refusal("No of servers to be removed is more than actual count of servers"));
    }
    let victims = payload.n - payload.hostnames.len();
    let mut rest = members::remove_named(present, &payload.hostnames)?;
    let random = RandomState::new();
    for i in 0..victims {
        rest.remove((draw(&random, i) % rest.len() as u64) as usize);
    }
    Ok(rest)
}

/// The `i`-th random number of a source: SipHash under a random key.
fn draw(random: &RandomState, i: usize) -> u64 {
    let mut hasher = random.build_hasher();
    hasher.write_usize(i);
    hasher.finish()
}

fn failure(why: &str) -> Answer {
    answer(400, format!("<Error> {why}"), "failure")
}

fn answer<T: Serialize>(status: u16, message: T, outcome: &'static str) -> Answer {
    let body = serde_json::to_string(&Body { message, status: outcome });
    Answer { status, body: body.expect("an answer has only string keys") }
}
