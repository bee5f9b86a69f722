//! What people and scripts read on standard output.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Table, presets};
use ringmaster_core::Timestamp;
use ringmaster_core::snapshot::Circuit;

/// Prints a text and a line end. A closed pipe is an error that ends the program quietly.
pub(crate) fn out(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// Whether to use colours: only for a person on a terminal who has not said no (<https://no-color.org>).
pub(crate) fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns as kubectl prints them: no lines, three spaces.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// How long ago, in at most two units: `45s`, `3m20s`, `5h`, `12d`.
pub(crate) fn age(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.since(at).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => format!("{}m{}s", seconds / 60, seconds % 60),
        600..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Why and since when the data plane leaves a replica out, or puts it to the proof.
pub(crate) fn left_out(circuit: Circuit, now: Timestamp) -> String {
    let (ago, reason) = (age(circuit.since, now), circuit.reason.as_str());
    match circuit.on_probation {
        true => format!("on probation after: {reason}, ejected {ago} ago"),
        false => format!("ejected for {ago}: {reason}"),
    }
}

/// A short time, in at most six letters: `0.6ms`, `14ms`, `2.1s`, `60s`.
pub(crate) fn millis(millis: f64) -> String {
    match millis {
        ..9.95 => format!("{millis:.1}ms"),
        ..999.5 => format!("{millis:.0}ms"),
        ..9_950.0 => format!("{:.1}s", millis / 1e3),
        _ => format!("{:.0}s", millis / 1e3),
    }
}

/// A time as RFC 3339 in UTC, to the millisecond.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    let time = jiff::Timestamp::from_millisecond(at.0 as i64);
    time.map_or_else(|_| at.to_string(), |time| format!("{time:.3}"))
}

#[cfg(test)]
mod tests {
    use ringmaster_core::snapshot::EjectReason;

    use super::*;

    #[test]
    fn ages_are_short() {
        let check =
            |seconds: u64, shown: &str| assert_eq!(age(Timestamp(0), Timestamp(seconds * 1_000)), shown);
        check(0, "0s");
        check(119, "119s");
        check(200, "3m20s");
        check(3_600, "60m");
        check(86_400, "24h");
        check(200_000, "2d");
    }

    #[test]
    fn short_times_fit_a_column() {
        let shown = [0.04, 0.62, 9.96, 14.2, 999.4, 999.6, 9_960.0, 60_000.0].map(millis);
        assert_eq!(shown, ["0.0ms", "0.6ms", "10ms", "14ms", "999ms", "1.0s", "10s", "60s"]);
    }

    #[test]
    fn who_is_left_out_is_told_with_the_reason_and_since_when() {
        let circuit = Circuit { reason: EjectReason::Errors, since: Timestamp(1_000), on_probation: false };
        let now = Timestamp(13_500);
        assert_eq!(left_out(circuit, now), "ejected for 12s: 5xx in a row");
        let after = Circuit { reason: EjectReason::Slow, on_probation: true, ..circuit };
        assert_eq!(left_out(after, now), "on probation after: slower than the others, ejected 12s ago");
    }

    #[test]
    fn columns_stand_under_their_headers() {
        let shown = table(&["NAME", "READY"], vec![vec!["web".to_owned(), "3/3".to_owned()]]);
        assert_eq!(shown, "NAME   READY\nweb    3/3");
    }
}
