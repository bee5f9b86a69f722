//! What went wrong on the engine, as far as a decision depends on it, and how long to wait then.

use std::time::Duration;

/// Wait after the first failure in a row of something that the engine refused.
const RETRY_BASE: Duration = Duration::from_secs(1);
/// The longest wait.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What went wrong, as far as a decision depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The object is gone: observe again.
    NotFound,
    /// The name is taken, or the object is in a state that forbids this: observe again.
    Conflict,
    /// The image is not there and cannot be pulled.
    ImageMissing,
    /// The request itself is wrong and will fail again: a bad command, a port in use, a template without image.
    Invalid,
    /// The engine cannot be reached or did not answer in time: nothing is known.
    Unreachable,
    /// Anything else that the engine refused.
    Engine,
}

/// The wait after `failures` failures in a row of something that the engine refused: 1 s, 2 s, 4 s … 30 s.
pub fn retry_delay(failures: u32) -> Duration {
    RETRY_BASE.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_half_a_minute() {
        let seconds: Vec<u64> = [0, 1, 2, 3, 4, 5, 6, u32::MAX].map(|n| retry_delay(n).as_secs()).into();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 30, 30]);
    }
}
