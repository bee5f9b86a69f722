//! A data plane's own generations: they never go down, whichever controller's run a snapshot comes from.

use std::collections::VecDeque;

use ringmaster_core::Generation;

use crate::message::Run;

/// Translates between the generations of a controller's run and a data plane's own.
#[derive(Debug, Default)]
pub(crate) struct Numbering {
    run: Option<Run>,
    /// Own and the run's, both ascending. The oldest is the newest that is acknowledged.
    pairs: VecDeque<(Generation, Generation)>,
    last: Generation,
}

impl Numbering {
    /// After what a process before this one has routed by. Nothing of it counts as acknowledged.
    pub(crate) fn after(last: Generation) -> Numbering {
        Numbering { last, ..Numbering::default() }
    }

    /// The run that the newest snapshot is of, and its generation there.
    pub(crate) fn newest(&self) -> Option<(Run, Generation)> {
        Some((self.run?, self.pairs.back()?.1))
    }

    /// A snapshot has come: its own generation, or none if it is the newest already.
    pub(crate) fn take(&mut self, run: Run, generation: Generation) -> Option<Generation> {
        if self.newest() == Some((run, generation)) {
            return None;
        }
        if self.run != Some(run) {
            self.pairs.clear();
        }
        self.run = Some(run);
        // The same number as the controller's where that is possible: people compare them.
        self.last = generation.max(self.last.next());
        self.pairs.push_back((self.last, generation));
        Some(self.last)
    }

    /// Which generation of the run is acknowledged by an acknowledgement of an own one; 0 if none.
    pub(crate) fn acknowledged(&mut self, own: Generation) -> Generation {
        while self.pairs.get(1).is_some_and(|(next, _)| *next <= own) {
            self.pairs.pop_front();
        }
        match self.pairs.front() {
            Some((first, generation)) if *first <= own => *generation,
            _ => Generation(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Run = Run(1);
    const NEW: Run = Run(2);

    #[test]
    fn one_runs_generations_are_its_own() {
        let mut numbering = Numbering::default();
        assert_eq!(numbering.newest(), None);
        assert_eq!(numbering.acknowledged(Generation(100)), Generation(0));
        assert_eq!(numbering.take(OLD, Generation(7)), Some(Generation(7)));
        assert_eq!(numbering.take(OLD, Generation(7)), None, "it is that one already");
        assert_eq!(numbering.take(OLD, Generation(9)), Some(Generation(9)));
        assert_eq!(numbering.acknowledged(Generation(6)), Generation(0));
        assert_eq!(numbering.acknowledged(Generation(8)), Generation(7));
        assert_eq!(numbering.acknowledged(Generation(9)), Generation(9));
        assert_eq!(numbering.newest(), Some((OLD, Generation(9))));
    }

    #[test]
    fn what_was_kept_is_no_acknowledgement() {
        let mut numbering = Numbering::after(Generation(7));
        assert_eq!(numbering.newest(), None);
        assert_eq!(numbering.acknowledged(Generation(7)), Generation(0));
        assert_eq!(numbering.take(OLD, Generation(7)), Some(Generation(8)));
        assert_eq!(numbering.acknowledged(Generation(7)), Generation(0), "workers route by what was kept");
        assert_eq!(numbering.acknowledged(Generation(8)), Generation(7));
    }

    #[test]
    fn what_was_acknowledged_of_another_run_counts_for_nothing() {
        let mut numbering = Numbering::default();
        numbering.take(OLD, Generation(50));
        assert_eq!(numbering.acknowledged(Generation(50)), Generation(50));
        // A controller that has lost its state begins anew; its generation 3 is none of the old run's.
        assert_eq!(numbering.take(NEW, Generation(3)), Some(Generation(51)));
        assert_eq!(
            numbering.acknowledged(Generation(50)),
            Generation(0),
            "workers still route by the old run"
        );
        assert_eq!(numbering.acknowledged(Generation(51)), Generation(3));
        assert_eq!(numbering.take(NEW, Generation(4)), Some(Generation(52)));
        assert_eq!(numbering.acknowledged(Generation(51)), Generation(3));
        assert_eq!(numbering.take(NEW, Generation(1_000)), Some(Generation(1_000)));
    }
}
