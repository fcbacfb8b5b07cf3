//! The pieces that pages are made of: tables, facts, times, numbers. Whatever comes from outside goes
//! through [`text`].

use std::time::Duration;

use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::base::escape::escape_controls;
use crate::domain::html::escaped;
use crate::domain::money::Money;
use crate::store::inspect::{Table, plain};

/// Longer text may be broken anywhere, so that no table is wider than it must be.
const LONG: usize = 24;

/// Foreign text, harmless in HTML and to the eye.
pub(super) fn text(foreign: &str) -> String {
    escaped(&escape_controls(foreign))
}

/// A number with its thousands apart.
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

/// A large number in three digits or so.
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

/// An amount of dollars: to the cent, or to four digits below one.
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

/// A length of time, to its largest unit.
pub(super) fn length(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{}.{}\u{202f}s", seconds, time.subsec_millis() / 100),
        10..120 => format!("{seconds}\u{202f}s"),
        120..7_200 => format!("{}\u{202f}min", seconds / 60),
        7_200..172_800 => format!("{}\u{202f}h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A time as people think of it, the exact one in its title.
pub(super) fn time(at: Timestamp, now: Timestamp) -> String {
    let exact = at.to_seconds_text();
    let shown = match (now.since(at), at.since(now)) {
        (Duration::ZERO, ahead) if ahead > Duration::ZERO => format!("in {}", whole(ahead)),
        (ago, _) if ago < Duration::from_secs(5) => "now".to_owned(),
        (ago, _) => format!("{} ago", whole(ago)),
    };
    format!("<time datetime=\"{exact}\" title=\"{exact}\">{shown}</time>")
}

/// Whole seconds are enough beside others that pass.
fn whole(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..10 => format!("{seconds}\u{202f}s"),
        _ => length(time),
    }
}

/// A state, coloured by what it means.
pub(super) fn badge(state: &str) -> String {
    let tone = match state {
        "completed" | "ingested" | "delivered" | "answered" => "good",
        "failed" | "expired" | "refused" | "wrong" => "bad",
        "cancelled" | "scheduled" | "pending" | "planned" | "cancelling" => "quiet",
        _ => "busy",
    };
    format!("<span class=\"badge {tone}\">{}</span>", text(state))
}

/// How much of something is done: `5/10`.
fn progress(of: &str) -> String {
    let parts = of.split_once('/');
    let parts = parts.and_then(|(done, all)| Some((done.parse().ok()?, all.parse().ok()?)));
    match parts {
        Some((done, all)) if all > 0 => {
            let (shown, total): (String, String) = (number(done), number(all));
            format!(
                "<span class=\"amount\"><progress max=\"{all}\" value=\"{}\" aria-label=\"{shown} of {total}\"></progress> \
                 <span>{shown}<span class=\"of\"> / {total}</span></span></span>",
                done.min(all)
            )
        }
        _ => text(of),
    }
}

/// A cell, shown by what its column is called.
fn cell(column: &str, value: &Value, now: Timestamp) -> String {
    let shown = plain(value);
    if shown.is_empty() {
        return "<span class=\"none\" role=\"img\" aria-label=\"none\">–</span>".to_owned();
    }
    match (column, value) {
        ("job", _) => format!("<a class=\"id\" href=\"/jobs/{0}\">{0}</a>", text(&shown)),
        ("batch" | "duplicate of", _) => {
            format!(
                "<a class=\"id\" href=\"/batches/{0}\">{0}</a>",
                text(&shown)
            )
        }
        ("status" | "state" | "at OpenAI" | "outcome", _) => badge(&shown),
        ("lots" | "lines", Value::String(of)) => progress(of),
        (_, Value::Number(_)) => shown.parse().map_or_else(|_| text(&shown), number),
        (_, Value::String(raw)) => match raw.parse::<Timestamp>() {
            Ok(at) if raw.len() == 24 => time(at, now),
            _ if raw.len() > LONG => format!("<span class=\"long\">{}</span>", text(raw)),
            _ => text(raw),
        },
        _ => text(&shown),
    }
}

/// A table with its caption, or a word where it is empty.
pub(super) fn listing(caption: &str, table: &Table, empty: &str, now: Timestamp) -> String {
    if table.rows.is_empty() {
        return format!("<h2>{caption}</h2><p class=\"empty\">{empty}</p>");
    }
    let mut html = format!("<div class=\"wide\"><table><caption>{caption}</caption><thead><tr>");
    for column in &table.columns {
        html += &format!("<th scope=\"col\">{column}</th>");
    }
    html += "</tr></thead><tbody>";
    for row in &table.rows {
        html += "<tr>";
        for (column, value) in table.columns.iter().zip(row) {
            let kind = if value.is_number() {
                " class=\"number\""
            } else {
                ""
            };
            html += &format!(
                "<td data-label=\"{column}\"{kind}>{}</td>",
                cell(column, value, now)
            );
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>"
}

/// One row, as a list of what it says.
pub(super) fn facts(table: &Table, now: Timestamp) -> String {
    let mut html = "<dl class=\"facts\">".to_owned();
    let row = table.rows.first().map(Vec::as_slice).unwrap_or_default();
    for (column, value) in table.columns.iter().zip(row) {
        if !value.is_null() {
            html += &format!(
                "<div><dt>{column}</dt><dd>{}</dd></div>",
                cell(column, value, now)
            );
        }
    }
    html + "</dl>"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        assert_eq!(length(Duration::from_millis(1_250)), "1.2\u{202f}s");
        assert_eq!(length(Duration::from_secs(7_300)), "2\u{202f}h");
        let now = Timestamp::from_seconds(1_795_400_000);
        assert!(time(now, now).contains(">now<"));
        assert!(time(now.before(Duration::from_secs(90)), now).contains(">90\u{202f}s ago<"));
        assert!(time(now + Duration::from_secs(300), now).contains(">in 5\u{202f}min<"));
    }

    #[test]
    fn foreign_text_stays_text_in_every_kind_of_cell() {
        let now = Timestamp::from_seconds(1_795_400_000);
        let nasty = "\"><script>alert(1)</script>\u{202e}";
        for column in ["job", "batch", "status", "lots", "error"] {
            let shown = cell(column, &json!(nasty), now);
            assert!(
                !shown.contains("<script") && !shown.contains("\"><s"),
                "{shown}"
            );
            assert!(!shown.contains('\u{202e}'), "{shown}");
        }
        assert!(cell("lots", &json!("5/10"), now).contains("value=\"5\""));
    }
}
