//! Charts as SVG, drawn here: they need no script.

use crate::output;
use maud::{Markup, html};

/// A value over time.
pub struct Chart<'c> {
    pub title: &'c str,
    pub unit: &'c str,
    /// Seconds since 1970 and the value then, in the order of time.
    pub points: Vec<(u64, f64)>,
}

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 92.0;
/// What is left to the labels above and below.
const TOP: f64 = 20.0;
const BOTTOM: f64 = 72.0;

impl Chart<'_> {
    pub fn draw(&self) -> Markup {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else {
            return html! {};
        };
        let most = self.points.iter().map(|point| point.1).fold(0.0, f64::max);
        let place = |(time, value): (u64, f64)| {
            let across = (time - first.0) as f64 / (last.0 - first.0).max(1) as f64;
            let up = if most > 0.0 { value / most } else { 0.0 };
            (across * WIDTH, BOTTOM - up * (BOTTOM - TOP))
        };
        let (_, y) = place(*last);
        let steps = self.steps().map(place).chain([(WIDTH, y)]);
        let curve: String = steps.map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
        let area = format!("0,{BOTTOM} {curve}{WIDTH},{BOTTOM}");
        let (from, to) = (moment(first.0), moment(last.0));
        let told = format!(
            "{}, from {from} to {to} UTC: {} at first, {} at most, {} at last.",
            self.title,
            quantity(first.1, self.unit),
            quantity(most, self.unit),
            quantity(last.1, self.unit)
        );
        html! {
            figure {
                figcaption { (self.title) }
                svg class="chart" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(told) {
                    polygon class="area" points=(area) {}
                    polyline class="curve" points=(curve) {}
                    line class="axis" x1="0" y1=(BOTTOM) x2=(WIDTH) y2=(BOTTOM) {}
                    text x="0" y="12" { (quantity(most, self.unit)) }
                    text x="0" y=(HEIGHT - 5.0) { (from) }
                    text x=(WIDTH) y=(HEIGHT - 5.0) text-anchor="end" { (to) " UTC" }
                }
            }
        }
    }

    /// A value holds until the next is known.
    fn steps(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        let held = self
            .points
            .windows(2)
            .flat_map(|pair| [pair[0], (pair[1].0, pair[0].1)]);
        held.chain(self.points.last().copied())
    }
}

/// As people read it: with groups of three digits, and no more decimals than matter.
pub fn quantity(value: f64, unit: &str) -> String {
    let number = match value {
        value if value < 10.0 && value.fract() != 0.0 => format!("{value:.1}"),
        value => grouped(value.round().max(0.0) as u64),
    };
    format!("{number} {unit}").trim_end().to_owned()
}

/// 1234567 as 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Day and minute, in UTC.
pub fn moment(seconds: u64) -> String {
    let time = output::time(seconds).replacen('T', " ", 1);
    time.get(..16).unwrap_or(&time).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(quantity(0.25, "s"), "0.2 s");
        assert_eq!(quantity(1234.5, "rows"), "1,235 rows");
        assert_eq!(quantity(0.0, ""), "0");
        assert_eq!(moment(951_782_460), "2000-02-29 00:01");
    }

    #[test]
    fn a_chart_of_few_or_equal_points_has_no_division_by_zero() {
        for points in [
            vec![],
            vec![(5, 0.0)],
            vec![(5, 3.0)],
            vec![(5, 3.0), (5, 3.0)],
            vec![(1, 0.0), (9, 0.0)],
        ] {
            let chart = Chart {
                title: "Entries",
                unit: "",
                points,
            };
            let drawn = chart.draw().into_string();
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
    }
}
