//! The options of `rollout` and `top`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Output, Wait, span};

#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// List the templates that a service has had, oldest first.
    #[command(after_help = "Example:\n  ringmaster rollout history web")]
    History {
        /// The service.
        service: String,
        /// How to print it.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Wait until a rollout is complete; exits 1 when it fails or is rolled back.
    #[command(
        after_help = "Examples:\n  ringmaster rollout status web\n  ringmaster rollout status web --no-wait\n\n\
                            A canary that waits for its promotion ends the waiting, with exit code 0.\n\
                            With --no-wait it tells how far the rollout is, and exits 1 only if it was rolled back."
    )]
    Status(RolloutOf),
    /// Replace no further replica until it is resumed; what has begun is finished.
    #[command(after_help = "Example:\n  ringmaster rollout pause web")]
    Pause {
        /// The service.
        service: String,
    },
    /// Let a paused rollout go on.
    #[command(after_help = "Example:\n  ringmaster rollout resume web")]
    Resume(RolloutOf),
    /// The canary is good: replace the other replicas too.
    #[command(after_help = "Example:\n  ringmaster rollout promote web")]
    Promote(RolloutOf),
    /// Replace every replica by another of the same template.
    #[command(after_help = "Example:\n  ringmaster rollout restart web")]
    Restart(RolloutOf),
    /// Go back to an earlier template. Only the template changes: the count, balancing and the rest stay.
    #[command(
        after_help = "Examples:\n  ringmaster rollout undo web\n  ringmaster rollout undo web --to-revision 3\n\n\
                            In the middle of a rollout it goes back to where that began, and ends a pause. Only what was ready as a whole can be \
                            gone back to.\n\
                            The next `apply` of a file with another template goes forward again: change the file too."
    )]
    Undo(Undo),
}

#[derive(Debug, Args)]
pub(crate) struct RolloutOf {
    /// The service.
    pub(crate) service: String,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct Undo {
    /// The service.
    pub(crate) service: String,
    /// The revision to go back to [default: the last one before the one in force that was ready].
    #[arg(long, value_name = "N")]
    pub(crate) to_revision: Option<u64>,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Time between two looks.
    #[arg(long, default_value = "1s", value_parser = interval, value_name = "TIME")]
    pub(crate) interval: Duration,
    /// Look twice, print one table, and end.
    #[arg(long)]
    pub(crate) once: bool,
    /// How to print what was seen once.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// Not so short that looking is the load.
fn interval(text: &str) -> Result<Duration, String> {
    let long_enough = |time: &Duration| *time >= Duration::from_millis(100);
    let time = span(text)?;
    Some(time).filter(long_enough).ok_or_else(|| "100ms is the shortest".to_owned())
}
