//! The components of pages: tables, facts, times, numbers. Every text that is not ours goes through
//! [`text`].

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::escape::escape_controls;
use crate::domain::html::escaped;
use crate::domain::money::Money;
use crate::store::status::Progress;

/// The browser may break longer text anywhere, so that tables stay narrow. In bytes.
const LONG: usize = 24;

/// Foreign text with HTML and control characters escaped.
pub(super) fn text(foreign: &str) -> String {
    escaped(&escape_controls(foreign))
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
    let tenths =
        |unit: u64, name: &str| format!("{}.{}{name}", value / unit, value % unit * 10 / unit);
    match value {
        0..10_000 => number(value),
        10_000..1_000_000 => tenths(1_000, "\u{202f}k"),
        1_000_000..1_000_000_000 => tenths(1_000_000, "\u{202f}M"),
        _ => tenths(1_000_000_000, "\u{202f}G"),
    }
}

/// An amount of dollars, to the cent; amounts below one dollar to four digits.
pub(super) fn dollars(amount: Money) -> String {
    if amount == Money(0) {
        return "$0".to_owned();
    }
    let exact = amount.to_string();
    let (whole, parts) = exact.split_once('.').unwrap_or((&exact, ""));
    let shown = if whole == "0" { 4 } else { 2 };
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
pub(super) fn time(at: Timestamp, now: Timestamp) -> String {
    let exact = at.to_seconds_text();
    let shown = match (now.since(at), at.since(now)) {
        (Duration::ZERO, ahead) if ahead > Duration::ZERO => format!("in {}", whole_seconds(ahead)),
        (ago, _) if ago < Duration::from_secs(5) => "now".to_owned(),
        (ago, _) => format!("{} ago", whole_seconds(ago)),
    };
    format!("<time datetime=\"{exact}\" title=\"{exact}\">{shown}</time>")
}

/// A duration without tenths of a second.
fn whole_seconds(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..10 => format!("{seconds}\u{202f}s"),
        _ => duration(time),
    }
}

/// A state, coloured by its meaning.
fn badge(state: &str) -> String {
    let tone = match state {
        "completed" | "ingested" | "delivered" | "answered" => "good",
        "failed" | "expired" | "refused" | "wrong" => "bad",
        "cancelled" | "scheduled" | "pending" | "planned" | "cancelling" => "quiet",
        _ => "busy",
    };
    format!("<span class=\"badge {tone}\">{}</span>", text(state))
}

/// How much of something is done: `5 / 10` with a bar.
fn progress(progress: Progress) -> String {
    let Progress { done, all } = progress;
    if all == 0 {
        return format!("{done}/{all}");
    }
    let (shown, total) = (number(done), number(all));
    format!(
        "<span class=\"amount\"><progress max=\"{all}\" value=\"{}\" aria-label=\"{shown} of {total}\"></progress> \
         <span>{shown}<span class=\"of\"> / {total}</span></span></span>",
        done.min(all)
    )
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
    fn is_numeric(&self) -> bool {
        matches!(self, Self::Batch(_) | Self::Id(_) | Self::Number(_))
    }

    fn render(&self, now: Timestamp) -> String {
        match self {
            Self::Absent | Self::Text("") => {
                "<span class=\"none\" role=\"img\" aria-label=\"none\">–</span>".to_owned()
            }
            Self::Job(id) => format!("<a class=\"id\" href=\"/jobs/{0}\">{0}</a>", text(id)),
            Self::Batch(id) => format!("<a class=\"id\" href=\"/batches/{id}\">{id}</a>"),
            Self::Id(id) => id.to_string(),
            Self::State(state) => badge(state),
            Self::Progress(amount) => progress(*amount),
            Self::Number(value) => number(*value),
            Self::Time(at) => time(*at, now),
            Self::Text(foreign) => breakable(foreign),
            Self::Owned(foreign) => breakable(foreign),
        }
    }
}

/// Text in a cell.
fn breakable(foreign: &str) -> String {
    if foreign.len() > LONG {
        format!("<span class=\"long\">{}</span>", text(foreign))
    } else {
        text(foreign)
    }
}

/// A table with its caption, or a sentence if it has no rows.
pub(super) fn table<R>(
    caption: &str,
    columns: &[Column<R>],
    rows: &[R],
    empty: &str,
    now: Timestamp,
) -> String {
    if rows.is_empty() {
        return format!("<h2>{caption}</h2><p class=\"empty\">{empty}</p>");
    }
    let mut html = format!("<div class=\"wide\"><table><caption>{caption}</caption><thead><tr>");
    for (heading, _) in columns {
        html += &format!("<th scope=\"col\">{heading}</th>");
    }
    html += "</tr></thead><tbody>";
    for row in rows {
        html += "<tr>";
        for (heading, cell) in columns {
            let cell = cell(row);
            let class = if cell.is_numeric() {
                " class=\"number\""
            } else {
                ""
            };
            html += &format!(
                "<td data-label=\"{heading}\"{class}>{}</td>",
                cell.render(now)
            );
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>"
}

/// One row as a list of the values that it has.
pub(super) fn facts<R>(columns: &[Column<R>], row: Option<&R>, now: Timestamp) -> String {
    let mut html = "<dl class=\"facts\">".to_owned();
    for (heading, cell) in columns {
        let cell = row.map_or(Cell::Absent, cell);
        if !matches!(cell, Cell::Absent) {
            html += &format!("<div><dt>{heading}</dt><dd>{}</dd></div>", cell.render(now));
        }
    }
    html + "</dl>"
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
        assert_eq!(duration(Duration::from_millis(1_250)), "1.2\u{202f}s");
        assert_eq!(duration(Duration::from_secs(7_300)), "2\u{202f}h");
        let now = Timestamp::from_seconds(1_795_400_000);
        assert!(time(now, now).contains(">now<"));
        assert!(time(now.before(Duration::from_secs(90)), now).contains(">90\u{202f}s ago<"));
        assert!(time(now + Duration::from_secs(300), now).contains(">in 5\u{202f}min<"));
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
            let shown = cell.render(now);
            assert!(
                !shown.contains("<script") && !shown.contains("\"><s"),
                "{shown}"
            );
            assert!(!shown.contains('\u{202e}'), "{shown}");
        }
        let half = Progress { done: 5, all: 10 };
        assert!(Cell::Progress(half).render(now).contains("value=\"5\""));
    }
}
