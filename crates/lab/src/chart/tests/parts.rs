//! The parts of charts: text, numbers, ticks, colours, and the chart of the terminal.

use super::chart_of;
use crate::chart::{Colour, grouped, in_milliseconds, number, replica_colour, terminal_bars, text};

#[test]
fn text_is_measured_cut_and_wrapped() {
    assert!(text::width("iii", 12.0, false) < text::width("mmm", 12.0, false));
    assert!(text::width("mean", 12.0, false) < text::width("mean", 12.0, true));
    assert_eq!(text::width("0123", 12.0, false), text::width("9876", 12.0, false), "figures have one width");
    let cut = text::cut("a long sentence that has no room", 12.0, false, 80.0);
    assert!(cut.ends_with('…') && text::width(&cut, 12.0, false) <= 80.0, "{cut}");
    assert_eq!(text::cut("x", 12.0, false, 1.0), "", "not even an ellipsis");
    let lines = text::wrap("one two three four five six seven", 12.0, false, 60.0, 2);
    assert!(lines.len() == 2 && lines[1].ends_with('…'), "{lines:?}");
    assert_eq!(text::wrap("  ", 12.0, false, 60.0, 2), Vec::<String>::new());
}

#[test]
fn numbers_are_written_for_people() {
    assert_eq!(grouped(8437.0, 0), "8,437");
    assert_eq!(grouped(-1_234_567.891, 2), "−1,234,567.89");
    assert_eq!(grouped(-0.001, 2), "0.00");
    assert_eq!(grouped(f64::NAN, 2), "–");
    assert_eq!(in_milliseconds(0.000_42), "0.42 ms");
    assert_eq!(in_milliseconds(0.0041), "4.1 ms");
    assert_eq!(in_milliseconds(0.438), "438 ms");
    assert_eq!(in_milliseconds(1.238), "1.24 s");
    let compact: Vec<_> = [0.0, 0.125, 950.0, 12_000.0, 999_950.0, 1.26e9, 3e17].map(number::compact).into();
    assert_eq!(compact, ["0", "0.125", "950", "12k", "1M", "1.3G", "3.0e17"]);
    assert_eq!(number::common_decimals([1.0482, 1.5].into_iter()), 3);
    assert_eq!(number::common_decimals([50.4, 61.0].into_iter()), 1);
    assert_eq!(number::common_decimals([3.0, 4.0].into_iter()), 0);
}

#[test]
fn ticks_are_round_and_within_their_axis() {
    for (low, high) in [(0.0, 1.0), (0.0, 9_973.0), (0.97, 1.06), (-3.0, 3.0), (0.0, 1e-7), (0.0, 1e300)] {
        let ticks = number::Ticks::within(low, high, 5, false);
        let count = ticks.values.len();
        assert!((2..=12).contains(&count), "{count} ticks from {low} to {high}");
        let slack = (high - low) * 1e-6;
        assert!(ticks.values.iter().all(|tick| *tick >= low - slack && *tick <= high + slack));
        let mut texts: Vec<_> = ticks.texts().map(|(_, text)| text).collect();
        texts.dedup();
        assert_eq!(texts.len(), count, "two ticks read alike: {texts:?}");
    }
    let whole = number::Ticks::within(0.0, 3.4, 6, true);
    assert_eq!(whole.values, [0.0, 1.0, 2.0, 3.0]);
}

/// How a colour looks to someone without one kind of cones (Machado et al., 2009), as linear parts.
fn seen(colour: Colour, matrix: [[f64; 3]; 3]) -> [f64; 3] {
    let linear = [colour.red, colour.green, colour.blue].map(|part| (f64::from(part) / 255.0).powf(2.2));
    matrix.map(|row| row.iter().zip(linear).map(|(factor, part)| factor * part).sum::<f64>().clamp(0.0, 1.0))
}

#[test]
fn replicas_can_be_told_apart_without_red_green_vision() {
    let deuteranopia = [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]];
    let protanopia = [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]];
    let normal = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    for matrix in [normal, deuteranopia, protanopia] {
        for one in 0..8 {
            for other in 0..one {
                let (a, b) = (seen(replica_colour(one), matrix), seen(replica_colour(other), matrix));
                let distance: f64 =
                    a.iter().zip(b).map(|(x, y)| (x.powf(1.0 / 2.2) - y.powf(1.0 / 2.2)).powi(2)).sum();
                assert!(distance.sqrt() > 0.15, "{one} and {other} look alike: {}", distance.sqrt());
            }
        }
    }
    let all: std::collections::HashSet<_> = (0..24).map(replica_colour).collect();
    assert_eq!(all.len(), 24);
    assert_eq!(Colour::BLUE.readable_text(), Colour::WHITE);
    assert_eq!(Colour::YELLOW.readable_text(), Colour::INK);
}

#[test]
fn terminal_bars_are_as_long_as_their_values() {
    let chart = chart_of(&[8000.0, 4000.0, 0.0], |value| Some(value * 0.5));
    let text = terminal_bars(&chart, 80, false);
    let blocks = |row: usize| text.lines().nth(row).unwrap().chars().filter(|cell| *cell == '█').count();
    // The mark of the prediction takes one cell of each bar.
    assert!((blocks(1) + 1).abs_diff(2 * (blocks(2) + 1)) <= 1, "{text}");
    assert_eq!(blocks(3), 0);
    assert!(text.contains(" 8,000  │4,000"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn names_cannot_speak_to_the_terminal() {
    let mut chart = chart_of(&[1.0, 2.0], Some);
    chart.bars[0].label = "\u{1b}[2Jweb\u{7}".into();
    chart.title = "\u{1b}]0;title".into();
    assert!(!terminal_bars(&chart, 60, false).contains('\u{1b}'));
    let coloured = terminal_bars(&chart, 60, true);
    let codes = coloured.split('\u{1b}').skip(1);
    assert!(
        codes.clone().count() >= 4
            && codes.into_iter().all(|code| code.contains('m') && code.starts_with('['))
    );
    assert!(!coloured.contains("[2J\u{7}") && !coloured.contains('\u{7}'));
    for count in [0, 1, 30] {
        let text = terminal_bars(&chart_of(&vec![f64::MAX; count], Some), 1, false);
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
    }
}
