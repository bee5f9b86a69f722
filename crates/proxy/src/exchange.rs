//! One request and its response, as it is counted and as the access log tells it.

use std::net::IpAddr;
use std::rc::Rc;

use ringmaster_core::ReplicaName;
use tokio::time::Instant;

use crate::h1::request::Request;
use crate::routing::Service;
use crate::worker::Worker;

/// Ends when it is dropped: its duration counts up to then.
pub(crate) struct Exchange<'a> {
    worker: &'a Worker,
    began: Instant,
    /// Whose figures it is part of; none until the service is known.
    counted: Option<Rc<Service>>,
    sent: u64,
    access: Option<Box<Access>>,
}

/// What the access log tells of a request.
pub(crate) struct Access {
    client: IpAddr,
    method: String,
    host: String,
    target: String,
    status: u16,
    replica: Option<ReplicaName>,
}

impl Access {
    /// Of a request that has only just come.
    pub(crate) fn new(client: IpAddr, request: &Request, buffer: &[u8]) -> Access {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Access {
            client,
            method: text(request.method_name.of(buffer)),
            host: request.host.map(|host| text(host.of(buffer))).unwrap_or_default(),
            target: text(request.target.of(buffer)),
            status: 0,
            replica: None,
        }
    }
}

impl Exchange<'_> {
    /// Begins as its head has come.
    pub(crate) fn begin(worker: &Worker, access: Option<Box<Access>>) -> Exchange<'_> {
        Exchange { worker, began: worker.now(), counted: None, sent: 0, access }
    }

    /// Its end is counted in this service's durations.
    pub(crate) fn count_for(&mut self, service: &Rc<Service>) {
        self.counted = Some(Rc::clone(service));
    }

    /// It became a tunnel, whose life says nothing about how long requests take.
    pub(crate) fn uncounted(&mut self) {
        self.counted = None;
    }

    /// Its response begins; none of the replicas made one of our own.
    pub(crate) fn answered(&mut self, status: u16, replica: Option<&ReplicaName>) {
        if let Some(access) = &mut self.access {
            (access.status, access.replica) = (status, replica.cloned());
        }
    }

    /// So many bytes of the response's body were handed over.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let took = self.worker.now().duration_since(self.began);
        if let Some(service) = &self.counted {
            service.stats.stripes.end(self.worker.index, took, self.sent);
        }
        if let Some(access) = &self.access {
            let Access { client, method, host, target, status, replica } = &**access;
            let replica = replica.as_ref().map(ReplicaName::short);
            let (took_us, sent) = (took.as_micros() as u64, self.sent);
            // A status of 0 is of a client that was gone before an answer began.
            tracing::info!(target: "access", %client, method, host, path = target, status, sent, took_us, replica);
        }
    }
}
