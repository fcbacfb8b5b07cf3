//! Throughput and latency as a picture: an SVG of its own, beside it the figures in words.

use std::time::Duration;

use super::pieces::{length, number, text};
use crate::clock::Timestamp;
use crate::store::status::Stretch;

/// The picture's size, in its own units.
const WIDTH: u64 = 960;
const HEIGHT: u64 = 180;

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

/// `value` of `most`, in units of the picture's height.
fn tall(value: u64, most: u64) -> u64 {
    value.saturating_mul(HEIGHT).checked_div(most).unwrap_or(0)
}

/// Lots finished as bars, their mean time as a line above them.
pub(super) fn picture(stretches: &[Stretch], span: Span, now: Timestamp) -> String {
    let total = stretches.iter().fold(Stretch::default(), Stretch::and);
    let most = stretches.iter().map(Stretch::lots).max().unwrap_or(0);
    let slowest = stretches
        .iter()
        .filter_map(Stretch::mean)
        .max()
        .unwrap_or(0);
    let step = WIDTH / u64::from(span.bars);
    let every = Duration::from_mins(u64::from(span.minutes));
    let mut bars = String::new();
    let mut line = String::new();
    for (at, stretch) in (0u64..).zip(stretches) {
        let x = at * step;
        let (good, bad) = (tall(stretch.completed, most), tall(stretch.failed, most));
        let back = u32::try_from(at).map_or(0, |at| span.bars.saturating_sub(at + 1));
        let from = text(&now.before(every * back).to_seconds_text());
        if stretch.lots() > 0 {
            bars += &format!(
                "<g><title>until {from}: {} lots finished, {} of them failed, mean {}</title>\
                 <rect class=\"good\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"1.5\"/>\
                 <rect class=\"bad\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{bad}\"/></g>",
                number(stretch.lots()),
                number(stretch.failed),
                mean(stretch),
                x + 1,
                HEIGHT - good.max(2),
                step.saturating_sub(2),
                good.max(2),
                x + 1,
                HEIGHT - good.max(2) - bad,
                step.saturating_sub(2),
            );
        }
        if let Some(mean) = stretch.mean() {
            // Twice, so that one alone is a dot.
            line += &format!(
                "{0},{1} {0},{1} ",
                x + step / 2,
                HEIGHT - tall(mean, slowest.max(1)) * 9 / 10
            );
        }
    }
    let words = format!(
        "{} lots finished in the last {}, {} of them failed; from acceptance to result they took {} on average",
        number(total.lots()),
        span.name,
        number(total.failed),
        mean(&total),
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
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"chart-title chart-words\">\
         <line class=\"rule\" x1=\"0\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" y2=\"{HEIGHT}\"/>\
         <line class=\"grid\" x1=\"0\" y1=\"1\" x2=\"{WIDTH}\" y2=\"1\"/>\
         <line class=\"grid\" x1=\"0\" y1=\"{half}\" x2=\"{WIDTH}\" y2=\"{half}\"/>{bars}\
         <polyline class=\"mean\" points=\"{line}\"/></svg><p class=\"axis\" aria-hidden=\"true\"><span>{} ago</span><span>now</span></p>\
         <figcaption id=\"chart-words\"><span class=\"key good\"></span>{words}. \
         <span class=\"key mean\"></span>Mean time, {} at most; bars: {} lots in {} at most.</figcaption></figure>",
        length(every * span.bars),
        length(Duration::from_millis(slowest)),
        number(most),
        if span.minutes == 1 {
            "a minute".to_owned()
        } else {
            length(every)
        },
        half = HEIGHT / 2,
    )
}

fn mean(stretch: &Stretch) -> String {
    stretch.mean().map_or_else(
        || "–".to_owned(),
        |mean| length(Duration::from_millis(mean)),
    )
}
