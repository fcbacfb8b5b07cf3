//! Throughput and latency as an SVG, with the figures in words below it.

use std::time::Duration;

use maud::{Markup, html};

use super::components::{duration, number};
use crate::store::status::Interval;

/// The size of the SVG in its own units.
pub(super) const WIDTH: u64 = 960;
pub(super) const HEIGHT: u64 = 200;
/// The height of the upper part, which has the line of mean times.
const LINE: u64 = 56;
/// The height of the lower part, which has the bars of lots.
const BARS: u64 = 132;

/// How far back the chart goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The value of the query parameter `span`.
    pub(super) name: &'static str,
    /// Minutes of one bar.
    pub(super) minutes: u32,
    /// The number of bars.
    pub(super) bars: u32,
}

/// The spans to choose from. The first one is the default.
pub(super) const SPANS: [Span; 4] = [
    Span {
        name: "hour",
        minutes: 1,
        bars: 60,
    },
    Span {
        name: "day",
        minutes: 30,
        bars: 48,
    },
    Span {
        name: "week",
        minutes: 180,
        bars: 56,
    },
    Span {
        name: "month",
        minutes: 720,
        bars: 60,
    },
];

impl Span {
    /// The span of that name, or the default.
    pub(super) fn of(name: Option<&str>) -> Self {
        let found = SPANS.iter().find(|span| Some(span.name) == name);
        *found.unwrap_or(&SPANS[0])
    }

    /// The time of one bar.
    fn interval(self) -> Duration {
        Duration::from_mins(u64::from(self.minutes))
    }
}

/// The height of `value` if `most` has the height `full`. Values above 0 are always visible.
pub(super) fn height(value: u64, most: u64, full: u64) -> u64 {
    let height = value.saturating_mul(full).checked_div(most).unwrap_or(0);
    height.max(u64::from(value > 0))
}

/// Finished lots as bars, and their mean time as a line above them.
pub(super) fn chart(intervals: &[Interval], span: Span) -> Markup {
    let most = intervals.iter().map(Interval::lots).max().unwrap_or(0);
    let slowest = intervals.iter().filter_map(Interval::mean).max();
    let slowest = slowest.unwrap_or(0);
    let step = WIDTH / u64::from(span.bars);
    // Intervals without lots have no bar and no point.
    let columns = || {
        let left = (0..WIDTH).step_by(usize::try_from(step).unwrap_or(1));
        let ages = (0..span.bars).rev();
        let columns = left.zip(ages).zip(intervals);
        columns
            .filter(|(_, interval)| interval.lots() > 0)
            .map(|((x, age), interval)| (x, age, interval))
    };
    let means = columns().filter_map(|(x, _, interval)| Some((x, interval.mean()?)));
    let lines = mean_lines(means, step, slowest);
    html! {
        figure {
            div class="head" {
                h2 id="chart-title" { "Throughput and latency" }
                nav class="choice" aria-label="How far back" {
                    @for it in SPANS {
                        @let current = (it == span).then_some("true");
                        a href={ "/?span=" (it.name) } aria-current=[current] { (it.name) }
                    }
                }
            }
            div class="plot" {
              div class="scale" aria-hidden="true" {
                span { (duration(Duration::from_millis(slowest))) }
                span { (number(most)) " lots" }
                span { "0" }
              }
              svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img"
                aria-labelledby="chart-title chart-words" {
                @for y in [HEIGHT, HEIGHT - BARS / 2, HEIGHT - BARS, LINE] {
                    line class="rule" x1="0" y1=(y) x2=(WIDTH) y2=(y) {}
                }
                @for (x, age, interval) in columns() {
                    (bar(x + 1, step.saturating_sub(2), most, interval, span.interval() * age))
                }
                @for points in lines { polyline class="mean" points=(points) {} }
              }
            }
            p class="axis" aria-hidden="true" {
                span { (duration(span.interval() * span.bars)) " ago" } span { "now" }
            }
            figcaption id="chart-words" { (words(intervals, span, most, slowest)) }
        }
    }
}

/// The points of the line of mean times: one line for each run of intervals that follow each other, so that a gap
/// stays a gap. Each point is there twice, so that a single one is drawn as a dot.
fn mean_lines(means: impl Iterator<Item = (u64, u64)>, step: u64, slowest: u64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut last = None;
    for (x, mean) in means {
        let y = LINE - height(mean, slowest, LINE - 2);
        let point = format!("{0},{y} {0},{y} ", x + step / 2);
        match lines.last_mut().filter(|_| last == x.checked_sub(step)) {
            Some(line) => line.push_str(&point),
            None => lines.push(point),
        }
        last = Some(x);
    }
    lines
}

/// The bar of one interval that is `age` old, with its figures as the title.
fn bar(x: u64, width: u64, most: u64, interval: &Interval, age: Duration) -> Markup {
    let completed = height(interval.completed, most, BARS);
    let failed = height(interval.failed, most, BARS);
    let top = HEIGHT - completed;
    html! {
        g {
            title {
                (number(interval.lots())) " lots finished " (duration(age)) " ago, " (number(interval.failed))
                " of them failed"
                @if let Some(mean) = interval.mean() { ", mean " (duration(Duration::from_millis(mean))) }
            }
            rect class="good" x=(x) y=(top) width=(width) height=(completed) {}
            rect class="bad" x=(x) y=(top.saturating_sub(failed)) width=(width) height=(failed) {}
        }
    }
}

/// The figures in words, which are also the key of the colours.
fn words(intervals: &[Interval], span: Span, most: u64, slowest: u64) -> Markup {
    let total = intervals.iter().fold(Interval::default(), Interval::plus);
    let mean = total
        .mean()
        .map_or_else(|| "–".to_owned(), |mean| duration(Duration::from_millis(mean)));
    html! {
        span class="key good" {}
        (number(total.completed)) " lots completed in the last " (span.name) ". "
        span class="key bad" {} (number(total.failed)) " of " (number(total.lots())) " lots failed. "
        span class="key mean" {}
        "Mean time from acceptance to text: " (mean) ", " (duration(Duration::from_millis(slowest)))
        " at most in a bar. Bars: " (number(most)) " lots in "
        @if span.minutes == 1 { "a minute" } @else { (duration(span.interval())) }
        " at most."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_mean_times_has_gaps_where_nothing_ended() {
        let lines = mean_lines([(0, 10), (16, 20), (64, 20)].into_iter(), 16, 20);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("8,29 8,29 24,2"), "{lines:?}");
        assert_eq!(mean_lines([(0, 0)].into_iter(), 16, 0).len(), 1);
    }
}
