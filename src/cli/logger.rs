//! The daemon's log: one line an event on standard error, for a person, a program or the journal.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use log::Level;
use serde_json::{Map, Value};

use crate::base::escape::escape_controls;
use crate::config::LogFormat;

/// Log lines on standard error; the environment's `RUST_LOG` wins over `filter`.
pub(super) fn start(filter: &str, format: LogFormat) {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| filter.to_owned());
    let journal = is_journal();
    let mut builder = env_logger::Builder::new();
    builder
        .filter_module("refinery_core", log::LevelFilter::Warn)
        .parse_filters(&filter)
        .format(move |out, record| {
            let time = out.timestamp_millis().to_string();
            let message = record.args().to_string();
            let line = line(format, journal, &time, record.level(), &message);
            writeln!(out, "{line}")
        });
    if builder.try_init().is_err() {
        log::debug!("event=log_kept the logger was there already");
    }
}

/// Whether standard error leads to the journal: systemd names the socket in `JOURNAL_STREAM`, which
/// children inherit that write elsewhere (systemd.exec(5)).
fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let ours = std::fs::metadata("/proc/self/fd/2").ok();
    let ours = ours.map(|it| format!("{}:{}", it.dev(), it.ino()));
    named.is_some() && named == ours
}

/// A record as one line, whatever a stranger's text in it holds. The journal has its own time, and
/// takes the level as a prefix (sd-daemon(3)).
fn line(format: LogFormat, journal: bool, time: &str, level: Level, message: &str) -> String {
    let text = match format {
        LogFormat::Json => json(time, level, message),
        LogFormat::Text => escape_controls(message),
    };
    match (journal, format) {
        (true, _) => format!("<{}>{text}", priority(level)),
        (false, LogFormat::Json) => text,
        (false, LogFormat::Text) => format!("[{time} {level:<5}] {text}"),
    }
}

/// syslog(3)'s.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Time, level and the whole message, and each `key=value` that the message begins with as a member.
fn json(time: &str, level: Level, message: &str) -> String {
    let mut members = Map::new();
    for (name, value) in [
        ("time", time),
        ("level", &level.as_str().to_lowercase()),
        ("message", message),
    ] {
        members.insert(name.to_owned(), escape_controls(value).into());
    }
    let mut rest = message;
    while let Some((name, value, after)) = pair(rest) {
        members
            .entry(name)
            .or_insert_with(|| Value::from(escape_controls(&value)));
        rest = after.trim_start();
    }
    Value::Object(members).to_string()
}

/// The `key=value` that a text begins with, and what comes after it. A value that begins with a quote
/// is as Rust's `{:?}` writes it.
fn pair(text: &str) -> Option<(&str, String, &str)> {
    let (name, rest) = text.split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
    if !is_name {
        return None;
    }
    let Some(quoted) = rest.strip_prefix('"') else {
        let (value, after) = rest.split_once(' ').unwrap_or((rest, ""));
        return Some((name, value.to_owned(), after));
    };
    let mut value = String::new();
    let mut escape = false;
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !escape => return Some((name, value, &quoted[at + 1..])),
            '\\' if !escape => escape = true,
            c => {
                // Other escapes stay as they are written.
                if escape && !matches!(c, '"' | '\\' | '\'') {
                    value.push('\\');
                }
                value.push(c);
                escape = false;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MESSAGE: &str =
        "event=webhook job=6908 path=\"/a b\\\"=c\\n\" level=forged then nothing=more";

    #[test]
    fn the_journal_reads_the_level_and_people_the_time() {
        let at = |journal| line(LogFormat::Text, journal, "T", Level::Warn, "event=a\nb");
        assert_eq!(at(true), "<4>event=a\\nb");
        assert_eq!(at(false), "[T WARN ] event=a\\nb");
        let levels = [(Level::Error, 3), (Level::Info, 6), (Level::Debug, 7)];
        for (level, prefix) in levels {
            let line = line(LogFormat::Json, true, "T", level, "event=a");
            assert!(line.starts_with(&format!("<{prefix}>{{")), "{line}");
        }
    }

    #[test]
    fn programs_find_what_a_record_says_in_members() {
        let line = line(LogFormat::Json, false, "T", Level::Info, MESSAGE);
        let value: Value = serde_json::from_str(&line).unwrap();
        let wanted = json!({
            "time": "T", "level": "info", "message": MESSAGE,
            "event": "webhook", "job": "6908", "path": "/a b\"=c\\n",
        });
        assert_eq!(value, wanted);
    }
}
