//! Named values of a log record or of a stored event, as `lots=2 error="the disk is full"`.

use std::fmt;

use log::kv::{Error, Key, Source, Value, VisitSource};
use log::{Level, Record};

/// A value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldValue {
    /// A count or a row's id.
    Number(i64),
    /// Any text.
    Text(String),
}

impl From<&str> for FieldValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for FieldValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for FieldValue {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for FieldValue {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for FieldValue {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for FieldValue {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write_value(f, text),
        }
    }
}

/// Named values in their order, and a text that follows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    named: Vec<(&'static str, FieldValue)>,
    text: String,
}

impl Fields {
    /// No fields, and no text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field at the end.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<FieldValue>) -> Self {
        self.named.push((name, value.into()));
        self
    }

    /// Adds a field if it has a value.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl Into<FieldValue>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Sets the text that follows the fields.
    #[must_use]
    pub fn with_text(mut self, text: &str) -> Self {
        text.clone_into(&mut self.text);
        self
    }

    /// Adds the fields and the text of another.
    #[must_use]
    pub fn followed_by(mut self, other: Self) -> Self {
        self.named.extend(other.named);
        self.text = other.text;
        self
    }

    /// Writes them to the log as one record.
    pub fn log(&self, level: Level, target: &str) {
        let record = |args: fmt::Arguments<'_>| {
            let mut builder = Record::builder();
            builder.level(level).target(target).key_values(self);
            log::logger().log(&builder.args(args).build());
        };
        record(format_args!("{}", self.text));
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gap = "";
        for (name, value) in &self.named {
            write!(f, "{gap}{name}={value}")?;
            gap = " ";
        }
        match self.text.is_empty() {
            true => Ok(()),
            false => write!(f, "{gap}{}", self.text),
        }
    }
}

impl Source for Fields {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        for (name, value) in &self.named {
            let value = match value {
                FieldValue::Number(number) => Value::from(*number),
                FieldValue::Text(text) => Value::from(text.as_str()),
            };
            visitor.visit_pair(Key::from_str(name), value)?;
        }
        Ok(())
    }
}

/// Writes a value as it is if it is one plain word, otherwise between quotes.
///
/// # Errors
/// As `to`.
pub fn write_value(to: &mut dyn fmt::Write, value: &str) -> fmt::Result {
    let is_plain = |c: char| !(c.is_whitespace() || c.is_control() || matches!(c, '"' | '='));
    match !value.is_empty() && value.chars().all(is_plain) {
        true => to.write_str(value),
        false => write!(to, "{value:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_several_words_stands_between_quotes() {
        let fields = Fields::new()
            .with("event", "ended")
            .with_some("job", None::<&str>)
            .with("lots", 2_usize)
            .with("path", "/a b")
            .with("empty", "")
            .with("forged", "a\nlevel=error")
            .with_text("and more");
        assert_eq!(
            fields.to_string(),
            r#"event=ended lots=2 path="/a b" empty="" forged="a\nlevel=error" and more"#
        );
        assert_eq!(Fields::new().with_text("only").to_string(), "only");
        assert_eq!(Fields::new().to_string(), "");
    }
}
