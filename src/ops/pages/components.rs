//! The components of pages: tables, facts, times, numbers. The templates escape HTML; foreign text also
//! goes through [`text`].

use std::time::Duration;

use maud::{Markup, html};

use super::action;
use crate::base::clock::Timestamp;
use crate::base::escape::escape_controls;
use crate::domain::money::Money;
use crate::domain::operator_action::ActionKind;
use crate::store::status::Progress;

/// The browser may break longer text anywhere, so that tables stay narrow. In bytes.
const LONG: usize = 24;

/// Foreign text with its control characters escaped.
pub(super) fn text(foreign: &str) -> String {
    escape_controls(foreign)
}

/// A number with its thousands separated.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

/// A large number, rounded down to a tenth of its unit.
pub(super) fn brief(value: u64) -> String {
    let tenths = |unit: u64, name: &str| format!("{}.{}{name}", value / unit, value % unit * 10 / unit);
    match value {
        0..10_000 => number(value),
        10_000..1_000_000 => tenths(1_000, "\u{202f}k"),
        1_000_000..1_000_000_000 => tenths(1_000_000, "\u{202f}M"),
        _ => tenths(1_000_000_000, "\u{202f}G"),
    }
}

/// An amount of dollars, to the cent; amounts below one dollar to four digits, tiny ones to six.
pub(super) fn dollars(amount: Money) -> String {
    if amount == Money(0) {
        return "$0".to_owned();
    }
    let exact = amount.to_string();
    let (whole, parts) = exact.split_once('.').unwrap_or((&exact, ""));
    let shown = match whole {
        "0" if parts.starts_with("0000") => 6,
        "0" => 4,
        _ => 2,
    };
    let parts: String = parts.chars().take(shown).collect();
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), number);
    format!("${whole}.{parts}")
}

/// A duration in its largest unit.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{}.{}\u{202f}s", seconds, time.subsec_millis() / 100),
        10..120 => format!("{seconds}\u{202f}s"),
        120..7_200 => format!("{}\u{202f}min", seconds / 60),
        7_200..172_800 => format!("{}\u{202f}h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A time as its distance from now, with the exact time as its title.
pub(super) fn time(at: Timestamp, now: Timestamp) -> Markup {
    let exact = at.to_seconds_text();
    let shown = match (now.since(at), at.since(now)) {
        (Duration::ZERO, ahead) if ahead > Duration::ZERO => {
            format!("in {}", whole_seconds(ahead))
        }
        (ago, _) if ago < Duration::from_secs(5) => "now".to_owned(),
        (ago, _) => format!("{} ago", whole_seconds(ago)),
    };
    html! { time datetime=(exact) title=(exact) { (shown) } }
}

/// A duration without tenths of a second.
fn whole_seconds(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..10 => format!("{seconds}\u{202f}s"),
        _ => duration(time),
    }
}

/// A state, coloured by its meaning.
pub(super) fn badge(state: &str) -> Markup {
    let tone = match state {
        "completed" | "ingested" | "delivered" | "answered" | "done" => "good",
        "failed" | "expired" | "refused" | "wrong" => "bad",
        "cancelled" | "scheduled" | "pending" | "planned" | "cancelling" | "waiting" | "not ingested" => {
            "quiet"
        }
        _ => "busy",
    };
    html! { span class={ "badge " (tone) } { (text(state)) } }
}

/// How much of something is done: `5 / 10` with a bar. The part that failed has a colour of its own.
fn progress(progress: Progress) -> Markup {
    let Progress { done, failed, all } = progress;
    if all == 0 {
        return html! { (done) "/" (all) };
    }
    let (shown, total) = (number(done), number(all));
    let width = |part: u64| part.min(all).saturating_mul(100).div_ceil(all);
    let bad = width(failed);
    let good = width(done).saturating_sub(bad);
    let failures = (failed > 0).then(|| format!(", {} of them failed", number(failed)));
    html! {
        span class="amount" {
            svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img"
                aria-label={ (shown) " of " (total) (failures.unwrap_or_default()) } {
                rect class="rest" width="100" height="8" {}
                rect class="good" width=(good) height="8" {}
                rect class="bad" x=(good) width=(bad) height="8" {}
            }
            " " span { (shown) span class="of" { " / " (total) } }
        }
    }
}

/// A column: its heading, and the cell of a row.
pub(super) type Column<R> = (&'static str, fn(&R) -> Cell<'_>);

/// What a cell shows, and how it is drawn.
pub(super) enum Cell<'r> {
    /// A job's id, as a link to its page.
    Job(&'r str),
    /// A batch's id, as a link to its page.
    Batch(i64),
    /// Another row's id.
    Id(i64),
    /// A lot by its job and place, with the client's id of it, as a link to its page.
    Lot(&'r str, i64, &'r str),
    /// The page of an action on a row, with the words of its link.
    Act(ActionKind, i64, &'static str),
    /// The address of a picture on the Internet, as a link that only a person follows.
    Address(&'r str),
    /// A state, as a badge.
    State(&'r str),
    /// How much is done, as a bar.
    Progress(Progress),
    /// A number.
    Number(u64),
    /// A time, as an age.
    Time(Timestamp),
    /// Text.
    Text(&'r str),
    /// Text that the row does not own.
    Owned(String),
    /// A value that the row does not have.
    Absent,
}

impl<'r> Cell<'r> {
    /// A badge, if there is a state.
    pub(super) fn state(state: Option<&'r str>) -> Self {
        state.map_or(Self::Absent, Self::State)
    }
}

impl<'r> From<Option<&'r str>> for Cell<'r> {
    fn from(text: Option<&'r str>) -> Self {
        text.map_or(Self::Absent, Self::Text)
    }
}

impl From<Option<Timestamp>> for Cell<'_> {
    fn from(time: Option<Timestamp>) -> Self {
        time.map_or(Self::Absent, Self::Time)
    }
}

impl From<Option<u16>> for Cell<'_> {
    fn from(number: Option<u16>) -> Self {
        number.map_or(Self::Absent, |number| Self::Number(number.into()))
    }
}

impl Cell<'_> {
    fn class(&self) -> Option<&'static str> {
        let is_numeric = matches!(self, Self::Batch(_) | Self::Id(_) | Self::Number(_));
        is_numeric.then_some("number")
    }

    fn render(&self, now: Timestamp) -> Markup {
        html! {
            @match self {
                Self::Absent | Self::Text("") => {
                    span class="none" role="img" aria-label="none" { "–" }
                }
                Self::Job(id) => { a class="id" href={ "/jobs/" (text(id)) } { (text(id)) } }
                Self::Batch(id) => { a class="id" href={ "/batches/" (id) } { (id) } }
                Self::Id(id) => { (id) }
                Self::Lot(job, position, id) => {
                    a href={ "/jobs/" (text(job)) "/lots/" (position) } { (breakable(id)) }
                }
                Self::Act(kind, id, words) => { a href=(action::address(*kind, &id.to_string())) { (words) } }
                Self::Address(url) => { (address(url)) }
                Self::State(state) => { (badge(state)) }
                Self::Progress(amount) => { (progress(*amount)) }
                Self::Number(value) => { (number(*value)) }
                Self::Time(at) => { (time(*at, now)) }
                Self::Text(foreign) => { (breakable(foreign)) }
                Self::Owned(foreign) => { (breakable(foreign)) }
            }
        }
    }
}

/// An address as a link, if a browser opens it as a page. It learns nothing about this page.
fn address(url: &str) -> Markup {
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    html! {
        @if is_web {
            a class="long" href=(url) rel="noopener noreferrer" target="_blank" { (text(url)) }
        } @else { (breakable(url)) }
    }
}

/// Text in a cell.
fn breakable(foreign: &str) -> Markup {
    html! {
        @if foreign.len() > LONG { span class="long" { (text(foreign)) } }
        @else { (text(foreign)) }
    }
}

/// A table with its caption, or a sentence if it has no rows.
pub(super) fn table<R>(
    caption: &str,
    columns: &[Column<R>],
    rows: &[R],
    empty: &str,
    now: Timestamp,
) -> Markup {
    if rows.is_empty() {
        return html! { h2 { (caption) } p class="empty" { (empty) } };
    }
    html! {
        div class="wide" {
            table {
                caption { (caption) }
                thead { tr { @for (heading, _) in columns { th scope="col" { (heading) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (heading, cell) in columns {
                                @let cell = cell(row);
                                td data-label=(heading) class=[cell.class()] { (cell.render(now)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// One row as a list of the values that it has.
pub(super) fn facts<R>(columns: &[Column<R>], row: &R, now: Timestamp) -> Markup {
    html! {
        dl class="facts" {
            @for (heading, cell) in columns {
                @let cell = cell(row);
                @if !matches!(cell, Cell::Absent) {
                    div { dt { (heading) } dd { (cell.render(now)) } }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_as_people_read_them() {
        for (value, shown) in [
            (7, "7"),
            (1_234, "1\u{202f}234"),
            (1_234_567, "1\u{202f}234\u{202f}567"),
        ] {
            assert_eq!(number(value), shown);
        }
        assert_eq!(brief(12_345), "12.3\u{202f}k");
        assert_eq!(brief(1_999_999), "1.9\u{202f}M");
        assert_eq!(dollars(Money(1_234_567_899_000_000)), "$1\u{202f}234.56");
        assert_eq!(dollars(Money(0)), "$0");
        assert_eq!(dollars(Money(12_345_600_000)), "$0.0123");
        assert_eq!(dollars(Money(27_400_000)), "$0.000027");
        assert_eq!(duration(Duration::from_millis(1_250)), "1.2\u{202f}s");
        assert_eq!(duration(Duration::from_secs(7_300)), "2\u{202f}h");
        let now = Timestamp::from_seconds(1_795_400_000);
        assert!(time(now, now).0.contains(">now<"));
        assert!(
            time(now.before(Duration::from_secs(90)), now)
                .0
                .contains(">90\u{202f}s ago<")
        );
        assert!(
            time(now + Duration::from_secs(300), now)
                .0
                .contains(">in 5\u{202f}min<")
        );
    }

    #[test]
    fn foreign_text_stays_text_in_every_kind_of_cell() {
        let now = Timestamp::from_seconds(1_795_400_000);
        let nasty = "\"><script>alert(1)</script>\u{202e}";
        for cell in [
            Cell::Job(nasty),
            Cell::State(nasty),
            Cell::Text(nasty),
            Cell::Owned(nasty.to_owned()),
        ] {
            let shown = cell.render(now).0;
            assert!(!shown.contains("<script") && !shown.contains("\"><s"), "{shown}");
            assert!(!shown.contains('\u{202e}'), "{shown}");
        }
        let half = Progress {
            done: 5,
            failed: 2,
            all: 10,
        };
        let bar = Cell::Progress(half).render(now).0;
        assert!(
            bar.contains("x=\"30\" width=\"20\"") && bar.contains("5 of 10, 2 of them failed"),
            "{bar}"
        );
    }
}
