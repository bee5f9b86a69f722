//! How a replica is asked to end.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::probes::{Exec, HttpGet};

/// How a replica is asked to end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lifecycle {
    /// Runs after the drain and before the stop signal, within `terminationGrace`. If it fails, the replica is
    /// stopped all the same, and an event says why. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_stop: Option<PreStop>,
    /// The signal that asks it to end. Default: the image's, or SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<StopSignal>,
}

impl Lifecycle {
    pub(super) fn is_default(&self) -> bool {
        *self == Lifecycle::default()
    }
}

/// What runs before a replica is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum PreStop {
    /// A command inside the replica.
    Exec(Exec),
    /// A GET to the replica's port.
    HttpGet(HttpGet),
}

macro_rules! stop_signals {
    ($($name:ident = $text:literal = $number:literal,)+) => {
        /// A signal that asks a process to end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[expect(missing_docs, reason = "each is the signal of its name")]
        pub enum StopSignal {
            $(#[serde(rename = $text)] $name,)+
        }

        impl StopSignal {
            /// All of them.
            pub const ALL: &[StopSignal] = &[$(StopSignal::$name,)+];

            /// As it is written: `SIGTERM`.
            pub fn as_str(self) -> &'static str {
                match self { $(StopSignal::$name => $text,)+ }
            }

            /// Its number on Linux.
            pub fn number(self) -> i32 {
                match self { $(StopSignal::$name => $number,)+ }
            }
        }
    };
}

stop_signals! {
    Hup = "SIGHUP" = 1,
    Int = "SIGINT" = 2,
    Quit = "SIGQUIT" = 3,
    Usr1 = "SIGUSR1" = 10,
    Usr2 = "SIGUSR2" = 12,
    Term = "SIGTERM" = 15,
    Winch = "SIGWINCH" = 28,
    Kill = "SIGKILL" = 9,
}

impl StopSignal {
    /// The signal that engines and images name `SIGTERM`, `TERM` or `15`; none if it is not one of these.
    pub fn parse(text: &str) -> Option<StopSignal> {
        let named = |signal: &StopSignal| {
            let name = signal.as_str();
            text == name || name.strip_prefix("SIG") == Some(text) || text.parse() == Ok(signal.number())
        };
        Self::ALL.iter().copied().find(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_signal_has_three_spellings() {
        for signal in StopSignal::ALL {
            let name = signal.as_str();
            for text in [name, &name[3..], &signal.number().to_string()] {
                assert_eq!(StopSignal::parse(text), Some(*signal), "{text}");
            }
            assert_eq!(serde_json::to_string(signal).unwrap(), format!("\"{name}\""));
        }
        for text in ["", "SIG", "SIGSTOP", "19", "term"] {
            assert_eq!(StopSignal::parse(text), None, "{text}");
        }
    }
}
