//! Charts of a suite whose cases are points, as one SVG: a panel for each chart, a line for each broker, a bar from the lowest to the
//! highest run. The x axis is logarithmic; the y axis begins at 0, so that what is flat looks flat.

use super::suite::Point;
use super::table::{Results, readable};
use std::fmt::Write;

const PANEL: (f64, f64) = (480.0, 300.0);
/// Left, top, right, bottom of a panel's plot.
const MARGIN: (f64, f64, f64, f64) = (62.0, 44.0, 18.0, 44.0);
const COLUMNS: usize = 2;
/// Told apart by most eyes, and in grey.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];
/// Lines across a panel.
const STEPS: u32 = 4;

/// A point of a line: x, median, lowest, highest.
type Mark = (f64, [f64; 3]);

struct Panel {
    of: Point,
    /// For each broker that has any.
    lines: Vec<(usize, Vec<Mark>)>,
}

/// All charts; nothing if no case is a point, or none was measured.
pub fn svg(results: &Results<'_>) -> Option<String> {
    let panels = panels(results);
    if panels.is_empty() {
        return None;
    }
    let (width, height) = (PANEL.0 * COLUMNS as f64, PANEL.1 * panels.len().div_ceil(COLUMNS) as f64 + 30.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (index, target) in results.targets.iter().enumerate() {
        let is_drawn = panels.iter().any(|panel| panel.lines.iter().any(|(other, _)| *other == index));
        if is_drawn {
            let x = MARGIN.0 + index as f64 * 160.0;
            let colour = COLOURS[index % COLOURS.len()];
            let _ = writeln!(out, "<rect x=\"{x}\" y=\"10\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
            text(&mut out, (x + 18.0, 20.0), "start", &target.name);
        }
    }
    for (number, panel) in panels.iter().enumerate() {
        let at = ((number % COLUMNS) as f64 * PANEL.0, (number / COLUMNS) as f64 * PANEL.1 + 30.0);
        draw(&mut out, panel, at);
    }
    out.push_str("</svg>\n");
    Some(out)
}

fn panels(results: &Results<'_>) -> Vec<Panel> {
    let mut panels: Vec<Panel> = Vec::new();
    for (number, case) in results.cases.iter().enumerate() {
        let Some(point) = case.point else { continue };
        let metric = case.metrics.iter().find(|metric| metric.pointer == point.pointer);
        for target in 0..results.targets.len() {
            let Some(range) = metric.and_then(|&metric| results.range(number, metric, target)) else {
                continue;
            };
            let panel = panels.iter().position(|panel| panel.of.chart == point.chart).unwrap_or_else(|| {
                panels.push(Panel { of: point, lines: Vec::new() });
                panels.len() - 1
            });
            let lines = &mut panels[panel].lines;
            match lines.iter_mut().find(|(other, _)| *other == target) {
                Some((_, marks)) => marks.push((point.x, range)),
                None => lines.push((target, vec![(point.x, range)])),
            }
        }
    }
    panels
}

fn draw(out: &mut String, panel: &Panel, at: (f64, f64)) {
    let marks = || panel.lines.iter().flat_map(|(_, marks)| marks);
    let highest = marks().map(|(_, [_, _, highest])| *highest).fold(f64::MIN_POSITIVE, f64::max);
    let top = round_up(highest);
    let (first, last) =
        marks().fold((f64::MAX, f64::MIN), |(first, last), &(x, _)| (first.min(x), last.max(x)));
    let decades = (last / first).log10().max(f64::MIN_POSITIVE);
    let (left, upper) = (at.0 + MARGIN.0, at.1 + MARGIN.1);
    let (wide, high) = (PANEL.0 - MARGIN.0 - MARGIN.2, PANEL.1 - MARGIN.1 - MARGIN.3);
    let to_x = |x: f64| left + 12.0 + (wide - 24.0) * (x / first).log10() / decades;
    let to_y = |y: f64| upper + high * (1.0 - y / top);
    text(out, (left, upper - 14.0), "start", panel.of.chart);
    for step in 0..=STEPS {
        let value = top * f64::from(step) / f64::from(STEPS);
        let (y, right) = (to_y(value), left + wide);
        let _ = writeln!(out, "<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"#ddd\"/>");
        text(out, (left - 6.0, y + 4.0), "end", &readable(value));
    }
    let mut ticks: Vec<f64> = marks().map(|&(x, _)| x).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    for x in ticks {
        text(out, (to_x(x), upper + high + 18.0), "middle", &readable_count(x));
    }
    text(out, (left + wide / 2.0, upper + high + 36.0), "middle", panel.of.axis);
    for (target, marks) in &panel.lines {
        let colour = COLOURS[target % COLOURS.len()];
        let points: Vec<String> =
            marks.iter().map(|&(x, [median, ..])| format!("{:.1},{:.1}", to_x(x), to_y(median))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        for &(x, [median, lowest, highest]) in marks {
            let (x, y) = (to_x(x), to_y(median));
            let _ = writeln!(
                out,
                "<path d=\"M{x:.1} {:.1}V{:.1}\" stroke=\"{colour}\"/><circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>",
                to_y(lowest),
                to_y(highest)
            );
        }
    }
}

/// The next of 1, 2, 4, 5, 8 and 10 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 5.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|&top| top >= value).unwrap_or(10.0 * power)
}

fn readable_count(count: f64) -> String {
    if count >= 1000.0 { format!("{}k", count / 1000.0) } else { count.to_string() }
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, top) in [(0.07, 0.08), (1.0, 1.0), (1.1, 2.0), (4.4, 5.0), (8.1, 10.0), (470.0, 500.0)] {
            assert!((round_up(value) - top).abs() < 1e-9, "{value}: {}", round_up(value));
        }
        assert_eq!([1.0, 100.0, 1000.0, 100_000.0].map(readable_count), ["1", "100", "1k", "100k"]);
    }

    #[test]
    fn a_point_stands_where_its_median_is() {
        let of = Point { chart: "a < b", axis: "clients", x: 1.0, pointer: "/x" };
        let marks = vec![(10.0, [5.0, 4.0, 6.0]), (1000.0, [10.0, 10.0, 10.0])];
        let mut out = String::new();
        draw(&mut out, &Panel { of, lines: vec![(0, marks)] }, (0.0, 0.0));
        // The plot is 400 x 212 from (62, 44), and 12 are left free on both sides.
        assert!(out.contains("points=\"74.0,150.0 450.0,44.0\""), "{out}");
        assert!(out.contains("a &lt; b") && out.contains(">1k</text>"), "{out}");
        // From the lowest to the highest.
        assert!(out.contains("M74.0 171.2V128.8"), "{out}");
    }
}
