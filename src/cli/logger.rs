//! The daemon's log on standard error: one line a record, for a person, a program or the journal.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt;

use log::kv::{self, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};
use serde_json::{Map, Value as Json};

use crate::base::escape::escape_controls;
use crate::base::fields::write_value;
use crate::config::LogFormat;

/// Starts the log. The environment's `RUST_LOG` takes precedence over `filter`.
pub(super) fn start(filter: &str, format: LogFormat) {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| filter.to_owned());
    let journal = is_journal();
    let mut builder = env_logger::Builder::new();
    builder
        .filter_module("refinery_core", log::LevelFilter::Warn)
        .parse_filters(&filter)
        .format(move |out, record| {
            let time = out.timestamp_millis().to_string();
            let line = line(format, journal, &time, record);
            writeln!(out, "{line}")
        });
    if builder.try_init().is_err() {
        log::debug!(event = "log_kept"; "the logger was there already");
    }
}

/// Whether standard error leads to the journal. systemd names the socket in `JOURNAL_STREAM`; a child may
/// inherit the variable and write elsewhere (systemd.exec(5)).
fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let ours = std::fs::metadata("/proc/self/fd/2").ok();
    let ours = ours.map(|it| format!("{}:{}", it.dev(), it.ino()));
    named.is_some() && named == ours
}

/// A record as one line, whatever text from outside it holds. The journal has its own time, and takes the
/// level as a prefix (sd-daemon(3)).
fn line(format: LogFormat, journal: bool, time: &str, record: &Record<'_>) -> String {
    let fields = LoggedFields::of(record);
    let level = record.level();
    let text = match format {
        LogFormat::Json => fields.into_json(time, level),
        LogFormat::Text => fields.text,
    };
    match (journal, format) {
        (true, _) => format!("<{}>{text}", priority(level)),
        (false, LogFormat::Json) => text,
        (false, LogFormat::Text) => format!("[{time} {level:<5}] {text}"),
    }
}

/// The priority of a level in syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The fields of a record, as members of an object and as a text that its message ends.
struct LoggedFields {
    members: Map<String, Json>,
    text: String,
    message: String,
}

impl LoggedFields {
    fn of(record: &Record<'_>) -> Self {
        let mut fields = Self {
            members: Map::new(),
            text: String::new(),
            message: record.args().to_string(),
        };
        // A visitor that does not fail is given every field.
        drop(record.key_values().visit(&mut fields));
        if !fields.message.is_empty() {
            fields.separate();
            fields.text.push_str(&fields.message);
        }
        fields.text = escape_controls(&fields.text);
        fields
    }

    fn separate(&mut self) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
    }

    /// An object with time, level, a message, and a member for each field that has another name. The message is
    /// the field of that name, else the record's own text, else its event.
    fn into_json(mut self, time: &str, level: Level) -> String {
        self.members.insert("time".into(), time.into());
        let level = level.as_str().to_lowercase();
        self.members.insert("level".into(), level.into());
        let message = match self.message.is_empty() {
            true => self.members.get("event").cloned().unwrap_or_default(),
            false => escape_controls(&self.message).into(),
        };
        self.members.entry("message").or_insert(message);
        Json::Object(self.members).to_string()
    }
}

impl<'kvs> VisitSource<'kvs> for LoggedFields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let mut member = Member(Json::Null);
        value.visit(&mut member)?;
        self.separate();
        let name = key.as_str();
        match &member.0 {
            Json::String(text) => {
                write!(self.text, "{name}=")?;
                write_value(&mut self.text, text)?;
            }
            Json::Null => write!(self.text, "{name}=none")?,
            other => write!(self.text, "{name}={other}")?,
        }
        let shown = match member.0 {
            Json::String(text) => Json::String(escape_controls(&text)),
            other => other,
        };
        self.members.insert(name.to_owned(), shown);
        Ok(())
    }
}

/// A field's value as JSON: a number, a truth value or null as such, everything else as a text.
struct Member(Json);

impl VisitValue<'_> for Member {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), kv::Error> {
        self.0 = Json::String(value.to_string());
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.0 = Json::Null;
        Ok(())
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.0 = value.into();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::fields::Fields;

    fn written(format: LogFormat, journal: bool, level: Level, fields: &Fields, text: &str) -> String {
        let mut builder = Record::builder();
        builder.level(level).key_values(fields);
        line(
            format,
            journal,
            "T",
            &builder.args(format_args!("{text}")).build(),
        )
    }

    #[test]
    fn the_journal_reads_the_level_and_people_the_time() {
        let fields = Fields::new().with("event", "a");
        let text = |journal| written(LogFormat::Text, journal, Level::Warn, &fields, "x\nb");
        assert_eq!(text(true), "<4>event=a x\\nb");
        assert_eq!(text(false), "[T WARN ] event=a x\\nb");
        let levels = [(Level::Error, 3), (Level::Info, 6), (Level::Debug, 7)];
        for (level, prefix) in levels {
            let line = written(LogFormat::Json, true, level, &fields, "");
            assert!(line.starts_with(&format!("<{prefix}>{{")), "{line}");
        }
    }

    #[test]
    fn each_field_is_a_member() {
        let fields = Fields::new()
            .with("event", "webhook")
            .with("status", 200_u32)
            .with("path", "/a b\"=c\n")
            .with("level", "forged");
        let line = written(LogFormat::Json, false, Level::Info, &fields, "then nothing=more");
        let value: Json = serde_json::from_str(&line).unwrap();
        let wanted = json!({
            "time": "T", "level": "info",
            "message": "then nothing=more",
            "event": "webhook", "status": 200, "path": "/a b\"=c\\n",
        });
        assert_eq!(value, wanted);
    }

    #[test]
    fn a_record_without_fields_is_its_message() {
        let line = written(LogFormat::Text, true, Level::Info, &Fields::new(), "started");
        assert_eq!(line, "<6>started");
    }
}
