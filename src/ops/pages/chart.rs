//! Throughput and latency as a picture: an SVG of its own, beside it the figures in words.

use std::time::Duration;

use super::components::{duration, number};
use crate::store::status::Interval;

/// The picture's size, in its own units: the line of mean times above, the bars of lots below.
const WIDTH: u64 = 960;
const HEIGHT: u64 = 200;
const LINE: u64 = 56;
const BARS: u64 = 132;

/// How far back the picture goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// As the address has it.
    pub(super) name: &'static str,
    /// Minutes of one bar.
    pub(super) minutes: u32,
    /// How many bars.
    pub(super) bars: u32,
}

/// What can be chosen; the first where nothing is.
pub(super) const SPANS: [Span; 3] = [
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
];

impl Span {
    /// The one of that name.
    pub(super) fn of(name: Option<&str>) -> Self {
        let found = SPANS.iter().find(|span| Some(span.name) == name);
        *found.unwrap_or(&SPANS[0])
    }
}

/// `value` of `most`, as a part of `height`; what is there at all is seen.
fn tall(value: u64, most: u64, height: u64) -> u64 {
    let tall = value.saturating_mul(height).checked_div(most).unwrap_or(0);
    tall.max(u64::from(value > 0))
}

/// Lots finished as bars, their mean time as a line above them.
pub(super) fn picture(intervals: &[Interval], span: Span) -> String {
    let total = intervals.iter().fold(Interval::default(), Interval::plus);
    let most = intervals.iter().map(Interval::lots).max().unwrap_or(0);
    let means = intervals.iter().filter_map(Interval::mean);
    let slowest = means.max().unwrap_or(0);
    let step = WIDTH / u64::from(span.bars);
    let every = Duration::from_mins(u64::from(span.minutes));
    let mut bars = String::new();
    let mut line = String::new();
    for ((x, back), interval) in (0..WIDTH)
        .step_by(usize::try_from(step).unwrap_or(1))
        .zip((0..span.bars).rev())
        .zip(intervals)
    {
        let Some(mean) = interval.mean() else {
            continue;
        };
        let good = tall(interval.completed, most, BARS);
        let bad = tall(interval.failed, most, BARS);
        let (left, wide, top) = (x + 1, step.saturating_sub(2), HEIGHT - good);
        bars += &format!(
            "<g><title>{} lots finished {} ago, {} of them failed, mean {}</title>\
             <rect class=\"good\" x=\"{left}\" y=\"{top}\" width=\"{wide}\" height=\"{good}\"/>\
             <rect class=\"bad\" x=\"{left}\" y=\"{}\" width=\"{wide}\" height=\"{bad}\"/></g>",
            number(interval.lots()),
            duration(every * back),
            number(interval.failed),
            duration(Duration::from_millis(mean)),
            top.saturating_sub(bad),
        );
        // Twice, so that one alone is a dot.
        let y = LINE - tall(mean, slowest, LINE - 2);
        line += &format!("{0},{y} {0},{y} ", x + step / 2);
    }
    let words = format!(
        "{} lots finished in the last {}, {} of them failed; from acceptance to result they took {} on average",
        number(total.lots()),
        span.name,
        number(total.failed),
        total.mean().map_or_else(
            || "–".to_owned(),
            |mean| duration(Duration::from_millis(mean))
        ),
    );
    let choice: String = SPANS
        .iter()
        .map(|it| {
            let current = if *it == span {
                " aria-current=\"true\""
            } else {
                ""
            };
            format!("<a href=\"/?span={0}\"{current}>{0}</a>", it.name)
        })
        .collect();
    format!(
        "<figure><div class=\"head\"><h2 id=\"chart-title\">Throughput and latency</h2>\
         <nav class=\"choice\" aria-label=\"How far back\">{choice}</nav></div>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-labelledby=\"chart-title chart-words\">\
         <line class=\"rule\" x1=\"0\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" y2=\"{HEIGHT}\"/>\
         <line class=\"rule\" x1=\"0\" y1=\"{LINE}\" x2=\"{WIDTH}\" y2=\"{LINE}\"/>{bars}\
         <polyline class=\"mean\" points=\"{line}\"/></svg>\
         <p class=\"axis\" aria-hidden=\"true\"><span>{} ago</span><span>now</span></p>\
         <figcaption id=\"chart-words\"><span class=\"key good\"></span>{words}. \
         <span class=\"key mean\"></span>Mean time, {} at most; bars: {} lots in {} at most.</figcaption></figure>",
        duration(every * span.bars),
        duration(Duration::from_millis(slowest)),
        number(most),
        if span.minutes == 1 {
            "a minute".to_owned()
        } else {
            duration(every)
        },
    )
}
