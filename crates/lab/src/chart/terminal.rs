//! A bar chart for the terminal, in blocks of an eighth of a cell.

use std::fmt::Write as _;

use super::number;
use super::{Bar, BarChart, Colour};

/// The chart as lines of at most `width` cells (at least 40); with `colour` in 24-bit colours.
///
/// Each line is a bar with its value; a `│` marks the prediction, whose value stands last. Control characters in
/// names are left out, so that a name cannot speak to the terminal.
#[must_use]
pub fn terminal_bars(chart: &BarChart, width: u16, colour: bool) -> String {
    let width = usize::from(width.max(40));
    let decimals = chart
        .decimals
        .map_or_else(|| number::common_decimals(chart.bars.iter().map(|bar| bar.value)), usize::from);
    let names: Vec<String> = chart.bars.iter().map(|bar| fitted(&clean(&bar.label), width / 4)).collect();
    let values: Vec<String> = chart.bars.iter().map(|bar| number::label(bar.value, decimals)).collect();
    let expected = |bar: &Bar| bar.expected.map_or_else(String::new, |value| number::label(value, decimals));
    let predictions: Vec<String> = chart.bars.iter().map(expected).collect();
    let widest = |texts: &[String]| texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let (name_cells, value_cells, predicted_cells) = (widest(&names), widest(&values), widest(&predictions));
    let tail = if predicted_cells > 0 { predicted_cells + 3 } else { 0 };
    let cells = width.saturating_sub(name_cells + value_cells + tail + 3).max(4);

    let mut out = format!("{}\n", fitted(&clean(&chart.title), width));
    for (index, bar) in chart.bars.iter().enumerate() {
        let line = bar_cells(bar, chart.largest(), cells, colour);
        write!(out, "{:name_cells$} {line} {:>value_cells$}", names[index], values[index])
            .expect("invariant: writing to a String does not fail");
        if tail > 0 && !predictions[index].is_empty() {
            write!(out, "  │{:>predicted_cells$}", predictions[index])
                .expect("invariant: writing to a String does not fail");
        }
        out.push('\n');
    }
    let notes = [
        (predicted_cells > 0).then_some("│ predicted"),
        chart.mean.as_ref().map(|mean| mean.label.as_str()),
        chart.band.as_ref().map(|band| band.label.as_str()),
    ];
    let notes: Vec<String> = notes.into_iter().flatten().map(clean).filter(|note| !note.is_empty()).collect();
    if !notes.is_empty() {
        out.push_str(&fitted(&notes.join(" · "), width));
        out.push('\n');
    }
    out
}

/// The bar itself, padded to `cells`.
fn bar_cells(bar: &Bar, largest: f64, cells: usize, colour: bool) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let share = |value: f64| if value.is_finite() { (value / largest).clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (share(bar.value) * cells as f64 * 8.0).round() as usize;
    let mark = bar.expected.map(|value| ((share(value) * cells as f64) as usize).min(cells - 1));
    let block = |cell: usize| match eighths.saturating_sub(cell * 8) {
        0 => ' ',
        part @ 1..8 => EIGHTHS[part],
        _ => '█',
    };
    let line: String = (0..cells).map(|cell| if mark == Some(cell) { '│' } else { block(cell) }).collect();
    if !colour {
        return line;
    }
    // The mark keeps the bar's colour behind it where it lies inside, and splits the bar in two runs.
    let Colour { red, green, blue } = bar.colour;
    let painted = |run: String| {
        let blank = run.trim().is_empty();
        if blank { run } else { format!("\x1b[38;2;{red};{green};{blue}m{run}\x1b[0m") }
    };
    let Some(mark) = mark else { return painted(line) };
    let (before, after): (String, String) =
        (line.chars().take(mark).collect(), line.chars().skip(mark + 1).collect());
    let inside = block(mark) == '█';
    let mark =
        if inside { format!("\x1b[97;48;2;{red};{green};{blue}m│\x1b[0m") } else { "│".to_owned() };
    painted(before) + &mark + &painted(after)
}

fn clean(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect::<String>().trim().to_owned()
}

fn fitted(text: &str, cells: usize) -> String {
    if text.chars().count() <= cells {
        return text.to_owned();
    }
    text.chars().take(cells.saturating_sub(1)).chain(['…']).collect()
}
