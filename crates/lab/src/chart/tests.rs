//! What a chart promises whatever its values: no label over another, none cut off, ink where a label should be.

use resvg::tiny_skia::Pixmap;

use super::canvas::{Drawing, Rect};
use super::text::Label;
use super::*;

mod parts;

/// No two labels overlap, none leaves the sheet, and no number went wrong.
fn sound(drawing: &Drawing, what: &str) {
    let labels = drawing.texts.labels();
    let sheet = Rect::new(0.0, 0.0, WIDTH, drawing.height);
    for (index, label) in labels.iter().enumerate() {
        let extent = label.extent();
        let inside = extent.left >= sheet.left - 0.01
            && extent.right <= sheet.right + 0.01
            && extent.top >= sheet.top
            && extent.bottom <= sheet.bottom;
        assert!(inside, "{what}: {:?} is cut off at {extent:?}", label.text);
        for other in &labels[index + 1..] {
            let apart = !extent.overlaps(other.extent());
            assert!(apart, "{what}: {:?} lies over {:?}", label.text, other.text);
        }
    }
    for wrong in ["NaN", "inf", "-2147483648"] {
        assert!(!drawing.svg.0.contains(wrong), "{what}: {wrong} in the drawing");
    }
}

fn texts(drawing: &Drawing) -> Vec<&str> {
    drawing.texts.labels().iter().map(|label| label.text.as_str()).collect()
}

fn chart_of(values: &[f64], expected: impl Fn(f64) -> Option<f64>) -> BarChart {
    let bar = |(ordinal, value): (usize, &f64)| Bar {
        label: format!("web-{ordinal}"),
        value: *value,
        expected: expected(*value),
        colour: replica_colour(ordinal as u32),
    };
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    BarChart {
        title: "Requests per replica".into(),
        subtitle: "10,000 requests, seed 42".into(),
        x_label: "replica".into(),
        y_label: "requests answered".into(),
        bars: values.iter().enumerate().map(bar).collect(),
        mean: Some(RefLine { value: mean, label: "mean".into() }),
        band: Some(Band { low: mean * 0.97, high: mean * 1.03, label: "±2σ of ideal hashing".into() }),
        decimals: None,
    }
}

#[test]
fn bars_of_any_count_and_size_keep_their_labels_apart() {
    for count in [0, 1, 2, 3, 5, 6, 7, 11, 12, 19, 30, 60] {
        for size in
            [0.0, 1.0, 0.000_37, 1.0482, 17.25, 3333.0, 10_000.0, 987_654_321.0, 1e18, 1e300, f64::MAX]
        {
            for factor in [0.0, 0.9, 1.0, 1.02, 1.5] {
                let values: Vec<f64> =
                    (0..count).map(|index| size * (1.0 - f64::from(index * 7 % 10) / 40.0)).collect();
                let chart = chart_of(&values, |value| (factor > 0.0).then_some(value * factor));
                sound(&chart.drawing().unwrap(), &format!("{count} bars of {size}, predicted {factor}"));
            }
        }
    }
}

#[test]
fn published_counts_are_labelled_with_their_predictions() {
    let chart = chart_of(&[8437.0, 469.0, 1094.0], |value| Some(value + 12.0));
    let drawing = chart.drawing().unwrap();
    sound(&drawing, "the assignment");
    let texts = texts(&drawing);
    for text in
        ["8,437", "predicted 8,449", "469", "predicted 481", "1,094", "predicted 1,106", "web-0", "10,000"]
    {
        assert!(texts.contains(&text), "{text} is missing among {texts:?}");
    }
}

#[test]
fn counts_have_no_decimals_although_their_prediction_has() {
    let drawing = chart_of(&[912.0, 905.0], |_| Some(908.5)).drawing().unwrap();
    assert!(texts(&drawing).contains(&"912"), "{:?}", texts(&drawing));
}

#[test]
fn values_that_are_no_numbers_are_drawn_as_nothing() {
    let chart = chart_of(&[f64::NAN, f64::INFINITY, -5.0, 7.0], Some);
    let drawing = chart.drawing().unwrap();
    sound(&drawing, "no numbers");
    assert!(texts(&drawing).contains(&"7"), "the bar that is one keeps its label");
}

#[test]
fn a_label_clears_what_crosses_its_bar() {
    let height = 20.0;
    let clear = |baseline: f64, (top, bottom): (f64, f64)| top >= baseline || bottom <= baseline - height;
    for obstacle in [(95.0, 105.0), (80.0, 90.0), (70.0, 92.0), (40.0, 50.0), (110.0, 120.0)] {
        let baseline = bars::stack_bottom(100.0, &[obstacle], height, 40.0);
        assert!(baseline <= 94.0 && clear(baseline, obstacle), "{obstacle:?} and a label on {baseline}");
    }
    let stacked = [(60.0, 64.0), (85.0, 92.0)];
    let baseline = bars::stack_bottom(100.0, &stacked, height, 40.0);
    assert!(stacked.into_iter().all(|obstacle| clear(baseline, obstacle)), "{baseline} is over both");
    assert_eq!(bars::stack_bottom(100.0, &[(20.0, 98.0)], height, 40.0), 94.0, "too far to go");
}

#[test]
fn long_names_are_wrapped_cut_or_shortened_but_never_collide() {
    let names = ["assignment, sha256", "a name without any space in it at all", "ring", "x"];
    for count in 1..=24 {
        let mut chart = chart_of(&vec![3333.0; count], Some);
        for (index, bar) in chart.bars.iter_mut().enumerate() {
            bar.label = names[index % names.len()].into();
        }
        chart.title = "A title that goes on and on ".repeat(12);
        chart.subtitle = "a remark that goes on and on ".repeat(20);
        chart.y_label = "an axis that goes on and on ".repeat(9);
        chart.x_label = chart.y_label.clone();
        sound(&chart.drawing().unwrap(), &format!("{count} long names"));
    }
}

#[test]
fn what_all_names_share_moves_to_the_axis() {
    let drawing = chart_of(&[333.0; 30], |_| None).drawing().unwrap();
    let texts = texts(&drawing);
    assert!(texts.contains(&"29") && texts.contains(&"replica (web-…)"), "{texts:?}");
}

#[test]
fn a_chart_without_line_band_and_prediction_has_no_legend() {
    let mut chart = chart_of(&[1.0, 2.0], |_| None);
    (chart.mean, chart.band) = (None, None);
    assert!(chart.entries().is_empty());
    let series = Series { name: "p50".into(), points: vec![(0.0, 1.0), (1.0, 2.0)], ..Series::default() };
    assert!(lines::entries(&[series], &[]).is_empty());
}

fn series(name: &str, points: Vec<(f64, f64)>) -> Series {
    Series { name: name.into(), points, colour: Colour::BLUE, ..Series::default() }
}

#[test]
fn lines_survive_every_kind_of_points() {
    let kinds: [Vec<(f64, f64)>; 9] = [
        vec![],
        vec![(3.0, 5.0)],
        vec![(0.0, 0.0), (1.0, 0.0)],
        vec![(2.0, 7.5), (3.0, 7.5), (4.0, 7.5)],
        vec![(0.0, -4.0), (1.0, 4.0)],
        vec![(0.0, f64::NAN), (1.0, f64::INFINITY), (f64::NAN, 2.0), (2.0, 3.0)],
        vec![(0.0, 1e300), (1e300, -1e300)],
        vec![(0.0, 1e-9), (1e-9, 2e-9)],
        (0..4000).map(|index| (f64::from(index), f64::from(index % 17))).collect(),
    ];
    for points in kinds {
        for (y_from_zero, dashed, step) in [(true, false, false), (false, true, false), (false, false, true)]
        {
            let one = Series { dashed, step, filled: true, ..series("one", points.clone()) };
            let chart = LineChart {
                title: "Lines".into(),
                x_label: "N".into(),
                y_label: "ms".into(),
                series: vec![one, series("other", points.iter().map(|(x, y)| (*x, y * 1.01)).collect())],
                bands: vec![AreaBand {
                    name: "band".into(),
                    points: points.iter().map(|(x, y)| (*x, y * 0.9, y * 1.1)).collect(),
                    colour: Colour::GREY,
                }],
                y_from_zero,
                ..LineChart::default()
            };
            sound(&chart.drawing().unwrap(), &format!("{:?}", points.iter().take(4).collect::<Vec<_>>()));
        }
    }
}

#[test]
fn markers_close_together_do_not_share_a_place() {
    let marker = |index: u32| Marker {
        x: 1.0 + f64::from(index) * 0.01,
        y: index.is_multiple_of(3).then_some(2.0),
        label: format!("moment {index}"),
    };
    let mut chart = LineChart {
        series: vec![series("p50", vec![(0.0, 1.0), (2.0, 3.0)])],
        markers: (0..6).map(marker).collect(),
        ..LineChart::default()
    };
    let drawing = chart.drawing().unwrap();
    sound(&drawing, "markers");
    assert_eq!(texts(&drawing).iter().filter(|text| text.starts_with("moment")).count(), 6);
    chart.x = Axis::Categories(vec!["one".into(), "a category with a long name ".repeat(9), "three".into()]);
    sound(&chart.drawing().unwrap(), "categories");
}

fn moments(faults: &[f64]) -> Vec<Moment> {
    let delays = [
        (MomentKind::Kill, 0.0),
        (MomentKind::Detected, 0.0041),
        (MomentKind::RingChanged, 0.0049),
        (MomentKind::Created, 0.21),
        (MomentKind::Ready, 0.487),
    ];
    let of_fault = |(index, kill): (usize, &f64)| {
        let (fault, kill) = (index as u32 + 1, *kill);
        delays.map(|(kind, after)| Moment {
            at_seconds: kill + after,
            fault,
            label: "kill -9 web-1".into(),
            kind,
        })
    };
    faults.iter().enumerate().flat_map(of_fault).collect()
}

#[test]
fn moments_of_any_density_keep_their_marks_apart() {
    let together: Vec<f64> = (0..30).map(|index| 5.0 + f64::from(index) * 0.001).collect();
    for faults in [vec![], vec![0.0], vec![1.2, 3.6, 6.0, 8.4, 8.45], vec![12.0, 11.99, f64::NAN], together] {
        let panel = Panel {
            title: "requests per second".into(),
            note: "0 failed of 10,000".into(),
            series: vec![series("a", vec![(0.0, 800.0), (12.0, 820.0)]), series("b", vec![])],
            ..Panel::default()
        };
        let crowded = Panel {
            note: "a note that needs the whole line ".repeat(3),
            series: (0..9).map(|index| series(&format!("replica {index}"), vec![(0.0, 0.0)])).collect(),
            ..panel.clone()
        };
        let timeline = Timeline {
            title: "Faults".into(),
            seconds: 12.0,
            panels: vec![panel, crowded, Panel::default()],
            moments: moments(&faults),
            ..Timeline::default()
        };
        sound(&timeline.drawing().unwrap(), &format!("{} faults", faults.len()));
    }
    let places = timeline::apart(&[1.0, 2.0, 50.0, 99.0, 100.0], 10.0, 100.0);
    assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= 10.0) && places[4] <= 100.0, "{places:?}");
    assert_eq!(places[2], 50.0, "a mark that has room stays at its moment");
}

#[test]
fn a_timeline_says_how_long_each_step_took() {
    let mut timeline = Timeline { seconds: 12.0, moments: moments(&[1.2]), ..Timeline::default() };
    timeline.moments.push(Moment {
        at_seconds: 1.2 + 0.0093,
        fault: 1,
        label: String::new(),
        kind: MomentKind::Detected,
    });
    let drawing = timeline.drawing().unwrap();
    let texts = texts(&drawing);
    for text in ["kill -9 web-1 at 1.20 s", "4.1–9.3 ms", "4.9 ms", "210 ms", "487 ms", "out of ring"] {
        assert!(texts.contains(&text), "{text} is missing among {texts:?}");
    }
}

#[test]
fn small_multiples_fit_whatever_their_number() {
    for count in [0, 1, 2, 7, 10, 12] {
        for columns in [0, 1, 2, 3, 4, 5, 99] {
            let chart = |index: usize| BarChart {
                title: format!("{index}. a policy whose name is rather long for a panel of this page"),
                subtitle: "H reaches 87 of 512 slots, so that most of them are never asked for".into(),
                ..chart_of(&[8437.0, 469.0, 1094.0], Some)
            };
            let page = SmallMultiples {
                title: "Hash functions".into(),
                columns,
                charts: (1..=count).map(chart).collect(),
                shared_scale: count % 2 == 0,
                ..SmallMultiples::default()
            };
            sound(&page.drawing().unwrap(), &format!("{count} charts in {columns} columns"));
        }
    }
}

#[test]
fn one_legend_says_what_all_panels_share() {
    let mut charts = vec![chart_of(&[1.0], Some), chart_of(&[2.0], Some)];
    charts[0].mean = Some(RefLine { value: 1.0, label: "mean 1".into() });
    charts[1].mean = Some(RefLine { value: 2.0, label: "mean 2".into() });
    let page = SmallMultiples { charts, columns: 2, ..SmallMultiples::default() };
    let drawing = page.drawing().unwrap();
    let texts = texts(&drawing);
    assert!(texts.contains(&"mean") && !texts.contains(&"mean 1"), "{texts:?}");
    assert_eq!(texts.iter().filter(|text| text.starts_with("±2σ")).count(), 1);
}

#[test]
fn names_cannot_break_the_svg() {
    let mut chart = chart_of(&[1.0, 2.0], Some);
    chart.title = "</text><script>alert(\"1\" & '2')</script>\u{0}\u{1b}[31m\u{ffff}".into();
    chart.bars[0].label = "<b>&amp;".into();
    let svg = chart.svg().unwrap();
    assert!(!svg.0.contains("<script") && !svg.0.contains("<b>"));
    assert!(svg.0.contains("&lt;/text&gt;&lt;script&gt;"));
    png(&svg).expect("what is escaped parses");
}

/// The pixels of a PNG that differ from white, by their place in CSS pixels.
fn ink(pixels: &Pixmap, within: Rect) -> Vec<(f64, f64)> {
    let mut found = Vec::new();
    for (index, pixel) in pixels.pixels().iter().enumerate() {
        let (x, y) = (index as u32 % pixels.width(), index as u32 / pixels.width());
        let (x, y) = (f64::from(x) / 2.0, f64::from(y) / 2.0);
        let inside = x >= within.left && x <= within.right && y >= within.top && y <= within.bottom;
        if inside && u32::from(pixel.red()) + u32::from(pixel.green()) + u32::from(pixel.blue()) < 500 {
            found.push((x, y));
        }
    }
    found
}

#[test]
fn a_png_has_ink_where_each_label_was_measured() {
    let drawing = chart_of(&[8437.0, 469.0, 1094.0], Some).drawing().unwrap();
    let pixels = Pixmap::decode_png(&png(&drawing.svg).unwrap()).unwrap();
    assert_eq!((f64::from(pixels.width()), f64::from(pixels.height())), (2.0 * WIDTH, 2.0 * drawing.height));
    for label in drawing.texts.labels() {
        let found = ink(&pixels, label.extent());
        assert!(found.len() > 10, "{:?} is not to be seen", label.text);
    }
    // The measured width is the drawn one; with another font it would not be.
    let title: &Label = &drawing.texts.labels()[0];
    let extent = title.extent();
    let found = ink(&pixels, Rect { right: WIDTH, ..extent });
    let right = found.iter().map(|(x, _)| *x).fold(0.0, f64::max);
    assert!((right - extent.right).abs() < 3.0, "measured to {}, drawn to {right}", extent.right);
}
