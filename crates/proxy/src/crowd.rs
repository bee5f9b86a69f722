//! How many connections each client address has on one worker, where that is limited.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

/// Those who have connections. Nothing is counted without a limit.
#[derive(Debug, Default)]
pub(crate) struct Crowd(RefCell<HashMap<IpAddr, u32>>);

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Option<(Rc<Crowd>, IpAddr)>);

impl Crowd {
    /// A place for a connection of this address; none if it has as many as it may.
    pub(crate) fn enter(self: &Rc<Self>, address: IpAddr, most: Option<u32>) -> Option<Place> {
        let Some(most) = most else { return Some(Place(None)) };
        let mut counts = self.0.borrow_mut();
        let count = counts.entry(address).or_default();
        (*count < most).then(|| {
            *count += 1;
            Place(Some((Rc::clone(self), address)))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((crowd, address)) = &self.0 else { return };
        let mut counts = crowd.0.borrow_mut();
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
        let crowd = Rc::new(Crowd::default());
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let first = crowd.enter(address(1), Some(1));
        assert!(first.is_some() && crowd.enter(address(1), Some(1)).is_none());
        assert!(crowd.enter(address(2), Some(1)).is_some() && crowd.enter(address(1), None).is_some());
        drop(first);
        assert!(crowd.enter(address(1), Some(1)).is_some());
        assert!(crowd.0.borrow().is_empty());
    }
}
