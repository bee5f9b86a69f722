//! Due times of requests, without a timer for each of them.
//!
//! Nearly all requests end long before anything is due, and a timer of the runtime costs a lock, a place in its wheel and,
//! where it is the earliest, a system call. So a worker keeps a list, and one task looks at it every [`TICK`] as long as
//! there are requests; what is due is told up to a tick late.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// How often is looked.
const TICK: Duration = Duration::from_millis(10);

/// One worker's list.
#[derive(Debug, Default)]
pub(crate) struct Ticks {
    entries: RefCell<Vec<Entry>>,
    free: RefCell<Vec<usize>>,
    /// Something was armed since the last look.
    busy: Cell<bool>,
    /// Nobody looks until it is woken.
    asleep: Cell<bool>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Entry {
    due: Option<Instant>,
    is_due: bool,
    /// Kept from one use to the next: it is often the same.
    waker: Option<Waker>,
}

/// A place in the list, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Alarm {
    ticks: Rc<Ticks>,
    index: usize,
}

impl Ticks {
    /// A place for one request; nothing is due there before it is set.
    pub(crate) fn alarm(self: &Rc<Self>) -> Alarm {
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut entries = self.entries.borrow_mut();
            entries.push(Entry::default());
            entries.len() - 1
        });
        Alarm { ticks: Rc::clone(self), index }
    }

    /// Looks after the list until it is dropped.
    pub(crate) async fn run(&self) -> Infallible {
        loop {
            sleep(TICK).await;
            let now = Instant::now();
            let mut waiting = false;
            for entry in &mut *self.entries.borrow_mut() {
                match entry.due {
                    Some(due) if due <= now => {
                        (entry.due, entry.is_due) = (None, true);
                        if let Some(waker) = &entry.waker {
                            waker.wake_by_ref();
                        }
                    }
                    due => waiting |= due.is_some(),
                }
            }
            if !waiting && !self.busy.replace(false) {
                self.asleep.set(true);
                self.wake.notified().await;
                self.asleep.set(false);
            }
        }
    }
}

impl Alarm {
    /// Is due then, whatever was set before.
    pub(crate) fn set(&self, due: Instant) {
        let mut entries = self.ticks.entries.borrow_mut();
        let entry = &mut entries[self.index];
        (entry.due, entry.is_due) = (Some(due), false);
        self.ticks.busy.set(true);
        if self.ticks.asleep.get() {
            self.ticks.wake.notify_one();
        }
    }

    /// Resolves once, when it is due.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut entries = self.ticks.entries.borrow_mut();
        let entry = &mut entries[self.index];
        if std::mem::take(&mut entry.is_due) {
            return Poll::Ready(());
        }
        match &mut entry.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut entries = self.ticks.entries.borrow_mut();
        let entry = &mut entries[self.index];
        (entry.due, entry.is_due) = (None, false);
        self.ticks.free.borrow_mut().push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Runs `future` beside the list's own task.
    async fn beside<T>(ticks: &Ticks, future: impl Future<Output = T>) -> T {
        tokio::select! {
            output = future => output,
            never = ticks.run() => match never {},
        }
    }

    #[tokio::test]
    async fn what_is_set_is_due_and_not_before() {
        let ticks = Rc::new(Ticks::default());
        beside(&ticks, async {
            for ms in [30, 5, 60] {
                let alarm = ticks.alarm();
                let (set, after) = (Instant::now(), Duration::from_millis(ms));
                alarm.set(set + after);
                poll_fn(|cx| alarm.poll(cx)).await;
                assert!(set.elapsed() >= after);
            }
        })
        .await;
        assert_eq!(ticks.entries.borrow().len(), 1, "places are used again");
    }

    #[tokio::test]
    async fn a_list_that_slept_wakes_up() {
        let ticks = Rc::new(Ticks::default());
        beside(&ticks, async {
            while !ticks.asleep.get() {
                tokio::task::yield_now().await;
            }
            let (dropped, alarm) = (ticks.alarm(), ticks.alarm());
            dropped.set(Instant::now() + TICK);
            alarm.set(Instant::now() + 2 * TICK);
            drop(dropped);
            poll_fn(|cx| alarm.poll(cx)).await;
        })
        .await;
    }
}
