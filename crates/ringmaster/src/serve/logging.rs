//! Logs: human on a terminal, JSON otherwise; `RUST_LOG` sets what is logged at the start, the admin API later.

use std::io::{self, IsTerminal};

use ringmaster_controller::admin::LogControl;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::cli::LogFormat;

/// What is logged unless somebody says otherwise.
const DEFAULT: &str = "info";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A layer beside the log: where spans go.
pub(crate) type Spans = Box<dyn Layer<Registry> + Send + Sync>;

/// The filter of the log.
pub(crate) struct Control(reload::Handle<EnvFilter, Registry>);

/// Starts logging to standard error.
pub(crate) fn init(format: LogFormat, spans: Option<Spans>) -> Control {
    let asked = std::env::var("RUST_LOG").ok().filter(|text| !text.trim().is_empty());
    let parsed = asked.as_deref().map(parse).transpose();
    let (filter, wrong) = match parsed {
        Ok(filter) => (filter.unwrap_or_else(|| EnvFilter::new(DEFAULT)), None),
        Err(why) => (EnvFilter::new(DEFAULT), Some(why)),
    };
    let (filter, handle) = reload::Layer::new(filter);
    let terminal = io::stderr().is_terminal();
    let human = match format {
        LogFormat::Auto => terminal,
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match human {
        true => lines.with_target(false).with_ansi(terminal).with_filter(filter).boxed(),
        false => lines.json().flatten_event(true).with_current_span(false).with_filter(filter).boxed(),
    };
    tracing_subscriber::registry().with(spans.into_iter().chain([lines]).collect::<Vec<_>>()).init();
    if let Some(why) = wrong {
        tracing::warn!("RUST_LOG: {why}: logging at `{DEFAULT}`");
    }
    Control(handle)
}

impl LogControl for Control {
    fn filter(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_else(|error| error.to_string())
    }

    fn set(&self, filter: &str) -> Result<(), String> {
        let filter = parse(filter)?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

/// Reads a filter strictly. A word alone is a level: the library would take a mistyped one for a target, and log
/// nothing else.
fn parse(text: &str) -> Result<EnvFilter, String> {
    if text.trim().is_empty() {
        return Err("it is empty: a level, or `target=level` with commas between".to_owned());
    }
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    for directive in &directives {
        let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(directive));
        if !is_level && !directive.contains('=') && !directive.contains('[') {
            return Err(format!("`{directive}` is neither `target=level` nor one of {}", LEVELS.join(", ")));
        }
    }
    EnvFilter::builder().parse(directives.join(",")).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_strictly() {
        for good in [
            "info",
            "DEBUG",
            "warn,ringmaster_proxy=debug",
            "off, hyper=trace",
            "ringmaster_controller[admin{request_id=me}]=debug",
            "info,[admin]=trace",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good).err());
        }
        for (bad, told) in [
            ("", "empty"),
            ("inof", "`inof` is neither"),
            ("info,debgu", "`debgu` is neither"),
            ("info,", "`` is neither"),
            ("ringmaster=loud", "level filter"),
            ("a=b=c", ""),
        ] {
            let why = parse(bad).expect_err(bad);
            assert!(why.contains(told), "{bad}: {why}");
        }
    }
}
