//! The Prometheus text format, version 0.0.4: one writer for all that is exported.
//!
//! Deliberately absent: counters and where they live. Whoever counts asks this to write the figures down.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// What a family of series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows while the process lives; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket, with their sum.
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A text that grows family by family.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    name: String,
}

impl Exposition {
    /// Nothing yet.
    pub fn new() -> Exposition {
        Exposition::default()
    }

    /// Begins a family: the series that follow are its own.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        name.clone_into(&mut self.name);
        self.line(format_args!("# HELP {name} {}", help.replace('\\', "\\\\").replace('\n', "\\n")));
        self.line(format_args!("# TYPE {name} {}", kind.as_str()));
    }

    /// One series of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.series("", labels, None, value);
    }

    /// One histogram of the family. `buckets` are upper bounds, ascending, each with what was counted up to it
    /// and above the one before; `beyond` is the count above the last.
    pub fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        beyond: u64,
        sum: f64,
    ) {
        let mut count = 0_u64;
        for (bound, counted) in buckets {
            count += counted;
            self.series("_bucket", labels, Some(("le", &bound.to_string())), count);
        }
        count += beyond;
        self.series("_bucket", labels, Some(("le", "+Inf")), count);
        self.series("_sum", labels, None, sum);
        self.series("_count", labels, None, count);
    }

    /// The text so far.
    pub fn finish(self) -> String {
        self.text
    }

    fn series(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        extra: Option<(&str, &str)>,
        value: impl Display,
    ) {
        self.text.push_str(&self.name);
        self.text.push_str(suffix);
        let mut open = '{';
        for (name, value) in labels.iter().copied().chain(extra) {
            self.text.push(open);
            open = ',';
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(&mut self.text, value);
            self.text.push('"');
        }
        if open == ',' {
            self.text.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a String takes all that is written to it");
    }
}

/// How the families begin whose series are what each process makes of one server.
const VERDICTS: &str = "ringmaster_proxy_server_";

/// Several texts of the same families as one, each series the sum of its own: what several processes count together. A sum
/// of generations means nothing, nor of what several think of one server: of the first the lowest is told, of the
/// second the highest, an ejection by any.
pub fn add_up(texts: &[String]) -> String {
    if let [one] = texts {
        return one.clone();
    }
    let mut families: Vec<(String, Vec<String>)> = Vec::new();
    let mut series: BTreeMap<String, f64> = BTreeMap::new();
    let mut family = String::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        if let Some(about) = line.strip_prefix("# ") {
            family = about.split(' ').nth(1).unwrap_or_default().to_owned();
            match families.iter_mut().find(|(name, _)| *name == family) {
                Some((_, lines)) if lines.iter().any(|known| known == line) => {}
                Some((_, lines)) => lines.push(line.to_owned()),
                None => families.push((family.clone(), vec![line.to_owned()])),
            }
            continue;
        }
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        match series.get_mut(name) {
            Some(known) if family.ends_with("_generation") => *known = known.min(value),
            Some(known) if family.starts_with(VERDICTS) => *known = known.max(value),
            Some(known) => *known += value,
            None => {
                series.insert(name.to_owned(), value);
                if let Some((_, lines)) = families.iter_mut().find(|(known, _)| *known == family) {
                    lines.push(name.to_owned());
                }
            }
        }
    }
    let mut text = String::new();
    for line in families.into_iter().flat_map(|(_, lines)| lines) {
        text.push_str(&line);
        if let Some(value) = series.get(&line) {
            text.push_str(&format!(" {value}"));
        }
        text.push('\n');
    }
    text
}

fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_series_and_histograms_are_written_as_the_format_says() {
        let mut out = Exposition::new();
        out.family("a_total", Kind::Counter, "Counts\nthings.");
        out.sample(&[], 3_u64);
        out.sample(&[("service", "we\"b\\"), ("server", "0")], 0.5);
        out.family("b_seconds", Kind::Histogram, "Time.");
        out.histogram(&[("service", "web")], [(0.1, 1), (1.0, 2)], 4, 9.25);
        let expected = "# HELP a_total Counts\\nthings.\n# TYPE a_total counter\na_total 3\n\
            a_total{service=\"we\\\"b\\\\\",server=\"0\"} 0.5\n\
            # HELP b_seconds Time.\n# TYPE b_seconds histogram\n\
            b_seconds_bucket{service=\"web\",le=\"0.1\"} 1\nb_seconds_bucket{service=\"web\",le=\"1\"} 3\n\
            b_seconds_bucket{service=\"web\",le=\"+Inf\"} 7\nb_seconds_sum{service=\"web\"} 9.25\n\
            b_seconds_count{service=\"web\"} 7\n";
        assert_eq!(out.finish(), expected);
    }

    #[test]
    fn what_several_processes_count_is_added_up_family_by_family() {
        let one = "# HELP a_total A.\n# TYPE a_total counter\na_total{server=\"0\"} 3\n\
            # TYPE g_generation gauge\ng_generation 9\n# TYPE ringmaster_proxy_server_ejected gauge\n\
            ringmaster_proxy_server_ejected{server=\"0\"} 1\n";
        let other = "# HELP a_total A.\n# TYPE a_total counter\na_total{server=\"0\"} 4\na_total{server=\"1\"} 0.5\n\
            # TYPE g_generation gauge\ng_generation 7\n# TYPE ringmaster_proxy_server_ejected gauge\n\
            ringmaster_proxy_server_ejected{server=\"0\"} 1\n";
        let sum = "# HELP a_total A.\n# TYPE a_total counter\na_total{server=\"0\"} 7\na_total{server=\"1\"} 0.5\n\
            # TYPE g_generation gauge\ng_generation 7\n# TYPE ringmaster_proxy_server_ejected gauge\n\
            ringmaster_proxy_server_ejected{server=\"0\"} 1\n";
        assert_eq!(add_up(&[one.to_owned(), other.to_owned()]), sum);
        assert_eq!(add_up(&[one.to_owned()]), one);
        assert_eq!(add_up(&[]), "");
    }
}
