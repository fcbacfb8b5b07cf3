//! JSON as Python 3.11 reads and writes it. The earlier service's clients sign JSON in this form.
//!
//! serde_json cannot reproduce the signed bytes: it refuses texts that Python accepts (NaN, lone surrogates,
//! 1e400), and rounds numbers that Python keeps (integers of any size). Since bodies are large, the tree is
//! small: beside the body itself, it has 24 bytes for each value and 40 for each member.

mod canonical;
mod parse;
mod text;

pub use canonical::{write_canonical, write_canonical_value, write_number, write_string};
pub use parse::{JsonError, JsonProblem, MAX_DEPTH, MAX_INTEGER_DIGITS, parse, parse_within};
pub use text::{LoneSurrogate, Text};

/// One value of a JSON text, from which it borrows.
#[derive(Clone, Debug)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as written, or `NaN`, `Infinity` or `-Infinity`.
    Number(&'a str),
    /// A string.
    String(Text<'a>),
    /// The elements in their order.
    Array(Box<[Json<'a>]>),
    /// The members in their order, with duplicates. Of duplicates, the last one counts.
    Object(Box<[(Text<'a>, Json<'a>)]>),
}

impl<'a> Json<'a> {
    /// The member of this name, if this is an object that has it. It may be `null`. Of duplicates, this is
    /// the last one, as in Python.
    pub fn get(&self, key: &str) -> Option<&Json<'a>> {
        self.as_object()?
            .iter()
            .rev()
            .find(|(name, _)| name.is(key))
            .map(|(_, value)| value)
    }

    /// The member of this name; `None` if it is absent or `null`.
    pub fn field(&self, key: &str) -> Option<&Json<'a>> {
        self.get(key).filter(|value| !matches!(value, Json::Null))
    }

    /// The elements of an array.
    pub fn as_array(&self) -> Option<&[Json<'a>]> {
        match self {
            Json::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object(&self) -> Option<&[(Text<'a>, Json<'a>)]> {
        match self {
            Json::Object(members) => Some(members),
            _ => None,
        }
    }

    /// A string's text.
    pub fn as_text(&self) -> Option<Text<'a>> {
        match self {
            Json::String(text) => Some(*text),
            _ => None,
        }
    }

    /// A number as written.
    pub fn as_number(&self) -> Option<&'a str> {
        match self {
            Json::Number(text) => Some(text),
            _ => None,
        }
    }

    /// A number without point and exponent that fits into 64 bits.
    pub fn as_u64(&self) -> Option<u64> {
        match self.as_number()? {
            "-0" => Some(0),
            text => text.parse().ok(),
        }
    }

    /// `true` or `false`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Json::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The kind of the value with its article, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_takes_twenty_four_bytes() {
        assert!(size_of::<Json<'_>>() <= 24);
        assert!(size_of::<(Text<'_>, Json<'_>)>() <= 40);
    }

    #[test]
    fn members_are_found_by_their_decoded_name_and_null_is_absent() {
        let json = parse(br#"{"a":1,"\u0061":2,"n":null,"t":true,"s":"x","l":[-0]}"#).unwrap();
        assert_eq!(json.get("a").and_then(Json::as_u64), Some(2));
        assert!(matches!(json.get("n"), Some(Json::Null)));
        assert!(json.field("n").is_none());
        assert!(json.field("absent").is_none());
        assert_eq!(json.field("t").and_then(Json::as_bool), Some(true));
        assert!(json.field("s").and_then(Json::as_text).unwrap().is("x"));
        let list = json.field("l").and_then(Json::as_array).unwrap();
        assert_eq!(list[0].as_u64(), Some(0));
        assert_eq!(list[0].kind(), "a number");
        assert!(list[0].get("a").is_none());
    }
}
