//! What to do about a try that brought no response: a pure decision.

use crate::error::Refusal;
use crate::upstream::FailureKind;

/// What a request allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rights {
    /// Sending it twice has the effect of sending it once (RFC 9110 section 9.2.2).
    pub(crate) idempotent: bool,
    /// Its body is at hand as a whole.
    pub(crate) buffered: bool,
    /// How many replays are left.
    pub(crate) replays_left: u32,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Try the next candidate.
    Replay,
    /// Try again on a fresh connection, at the same endpoint if it is still the first choice: the failure was
    /// the connection's, so it costs no replay. It happens once, because a fresh connection is never stale.
    Refresh,
    /// Answer the client.
    GiveUp(Refusal),
}

/// Decides about a failure. `unsent` says that not a byte of the request went out.
pub(crate) fn decide(kind: FailureKind, unsent: bool, rights: Rights) -> Decision {
    let refusal = match kind {
        FailureKind::Connect | FailureKind::Stale | FailureKind::Broken => Refusal::Unreachable,
        // Bytes came, or much time passed: a second try would be a second answer, or twice the wait.
        FailureKind::Invalid => return Decision::GiveUp(Refusal::InvalidResponse),
        FailureKind::ResponseTimeout => return Decision::GiveUp(Refusal::ResponseTimeout),
        FailureKind::ClientBody => return Decision::GiveUp(Refusal::ClientBodyBroken),
        FailureKind::ClientStalled => return Decision::GiveUp(Refusal::ClientBodyStalled),
    };
    let repeatable = unsent || (rights.idempotent && rights.buffered);
    match kind {
        _ if !repeatable => Decision::GiveUp(refusal),
        FailureKind::Stale => Decision::Refresh,
        _ if rights.replays_left > 0 => Decision::Replay,
        _ => Decision::GiveUp(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Rights = Rights { idempotent: true, buffered: true, replays_left: 1 };
    const POST: Rights = Rights { idempotent: false, ..GET };

    #[test]
    fn what_was_never_sent_is_always_replayed() {
        for rights in [GET, POST, Rights { buffered: false, ..POST }] {
            assert_eq!(decide(FailureKind::Connect, true, rights), Decision::Replay);
            assert_eq!(decide(FailureKind::Stale, true, rights), Decision::Refresh);
        }
    }

    #[test]
    fn what_was_sent_is_replayed_only_if_idempotent_and_buffered() {
        assert_eq!(decide(FailureKind::Broken, false, GET), Decision::Replay);
        assert_eq!(decide(FailureKind::Broken, false, POST), Decision::GiveUp(Refusal::Unreachable));
        let streamed = Rights { buffered: false, ..GET };
        assert_eq!(decide(FailureKind::Stale, false, streamed), Decision::GiveUp(Refusal::Unreachable));
    }

    #[test]
    fn a_stale_connection_costs_no_replay() {
        let spent = Rights { replays_left: 0, ..GET };
        assert_eq!(decide(FailureKind::Stale, false, spent), Decision::Refresh);
        assert_eq!(decide(FailureKind::Broken, false, spent), Decision::GiveUp(Refusal::Unreachable));
        assert_eq!(decide(FailureKind::Connect, true, spent), Decision::GiveUp(Refusal::Unreachable));
    }

    #[test]
    fn late_and_wrong_answers_are_final() {
        assert_eq!(
            decide(FailureKind::ResponseTimeout, false, GET),
            Decision::GiveUp(Refusal::ResponseTimeout)
        );
        assert_eq!(decide(FailureKind::Invalid, false, GET), Decision::GiveUp(Refusal::InvalidResponse));
    }
}
