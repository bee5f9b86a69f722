//! How many connections each client address has, where that is limited.
//!
//! Of all workers together: the kernel deals connections out among them, and a client cannot choose. The lock is taken as a
//! connection begins and ends, and not at all without a limit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Those who have connections. Nothing is counted without a limit.
#[derive(Debug, Default)]
pub(crate) struct Crowd(Mutex<HashMap<IpAddr, u32>>);

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Option<(Arc<Crowd>, IpAddr)>);

impl Crowd {
    /// A place for a connection of this address; none if it has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, most: Option<u32>) -> Option<Place> {
        let Some(most) = most else { return Some(Place(None)) };
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        (*count < most).then(|| {
            *count += 1;
            Place(Some((Arc::clone(self), address)))
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((crowd, address)) = &self.0 else { return };
        let mut counts = crowd.counts();
        if let Some(count) = counts.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_so_many_places() {
        let crowd = Arc::new(Crowd::default());
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let first = crowd.enter(address(1), Some(1));
        assert!(first.is_some() && crowd.enter(address(1), Some(1)).is_none());
        assert!(crowd.enter(address(2), Some(1)).is_some() && crowd.enter(address(1), None).is_some());
        drop(first);
        assert!(crowd.enter(address(1), Some(1)).is_some());
        assert!(crowd.counts().is_empty());
    }
}
