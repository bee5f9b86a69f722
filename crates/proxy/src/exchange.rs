//! One request and its response, as it is counted.

use std::rc::Rc;
use std::time::Instant;

use crate::routing::Service;

/// Ends when it is dropped: its duration counts up to then.
pub(crate) struct Exchange {
    began: Instant,
    /// Whose figures it is part of, and on which worker; none until the service is known.
    counted: Option<(Rc<Service>, usize)>,
    sent: u64,
}

impl Exchange {
    /// Begins now, as its head has come.
    pub(crate) fn begin() -> Exchange {
        Exchange { began: Instant::now(), counted: None, sent: 0 }
    }

    /// Its end is counted in this service's durations.
    pub(crate) fn count_for(&mut self, service: &Rc<Service>, worker: usize) {
        self.counted = Some((Rc::clone(service), worker));
    }

    /// It became a tunnel, whose life says nothing about how long requests take.
    pub(crate) fn uncounted(&mut self) {
        self.counted = None;
    }

    /// So many bytes of the response's body were handed over.
    pub(crate) fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some((service, worker)) = &self.counted {
            service.stats.stripes.end(*worker, self.began.elapsed(), self.sent);
        }
    }
}
