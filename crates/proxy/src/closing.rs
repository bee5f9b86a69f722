//! That a worker ends, as its connections see it: they look at it with every request, so looking costs no lock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Whether nothing new is to be begun on a worker, and who is to be woken then.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    has_begun: Cell<bool>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

/// One connection's place among those that are woken, until it is dropped.
#[derive(Debug)]
pub(crate) struct Witness {
    closing: Rc<Closing>,
    index: usize,
}

impl Closing {
    /// From now on; wakes all witnesses.
    pub(crate) fn begin(&self) {
        self.has_begun.set(true);
        for waker in self.wakers.borrow().iter().flatten() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun.get()
    }

    /// A place for one connection.
    pub(crate) fn witness(self: &Rc<Self>) -> Witness {
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut wakers = self.wakers.borrow_mut();
            wakers.push(None);
            wakers.len() - 1
        });
        Witness { closing: Rc::clone(self), index }
    }
}

impl Witness {
    /// Resolves once the worker ends, and from then on.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.closing.has_begun() {
            return Poll::Ready(());
        }
        match &mut self.closing.wakers.borrow_mut()[self.index] {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.closing.wakers.borrow_mut()[self.index] = None;
        self.closing.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn witnesses_are_woken_when_it_begins_and_know_it_from_then_on() {
        let closing = Rc::new(Closing::default());
        let (early, gone) = (closing.witness(), closing.witness());
        let mut waiting = std::pin::pin!(poll_fn(|cx| early.poll(cx)));
        assert!(poll!(waiting.as_mut()).is_pending() && !closing.has_begun());
        drop(gone);
        let begins = async { closing.begin() };
        tokio::join!(waiting, begins);
        let late = closing.witness();
        assert_eq!(late.index, 1, "places are used again");
        poll_fn(|cx| late.poll(cx)).await;
        poll_fn(|cx| early.poll(cx)).await;
    }
}
