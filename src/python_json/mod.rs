//! JSON as the earlier service's clients write and sign it: what Python 3.11's `json.loads` takes,
//! read into a tree that borrows from the text, and written as its `json.dumps` writes it.
//!
//! serde_json refuses what Python takes (NaN, lone surrogates, 1e400) and rounds what Python keeps
//! (integers of any size), so it cannot reproduce what a client signed. The tree is small because
//! bodies are large: 24 bytes a value and 40 a member beside the body itself.

mod canonical;
mod parse;
mod text;

pub use canonical::{canonical, canonical_value, write_number, write_string};
pub use parse::{JsonError, MAX_DEPTH, MAX_INTEGER_DIGITS, Problem, parse, parse_within};
pub use text::{LoneSurrogate, Text};

/// One value of a JSON text, borrowed from it.
#[derive(Clone, Debug)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as it was written; also `NaN`, `Infinity` and `-Infinity`.
    Number(&'a str),
    /// A string.
    String(Text<'a>),
    /// The elements in their order.
    Array(Box<[Json<'a>]>),
    /// The members in their order, duplicates included: the last of them counts.
    Object(Box<[(Text<'a>, Json<'a>)]>),
}

impl<'a> Json<'a> {
    /// The member of that name where this is an object that has it, `null` included. Of duplicates
    /// the last one, as in Python.
    pub fn get(&self, key: &str) -> Option<&Json<'a>> {
        self.as_object()?
            .iter()
            .rev()
            .find(|(name, _)| name.is(key))
            .map(|(_, value)| value)
    }

    /// As [`Json::get`], but `null` is as good as absent.
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

    /// A number as it was written.
    pub fn as_number(&self) -> Option<&'a str> {
        match self {
            Json::Number(text) => Some(text),
            _ => None,
        }
    }

    /// A number that is written as an integer (no point, no exponent) and fits.
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

    /// What it is, with its article, for messages to people.
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
    fn members_are_found_by_meaning_and_null_is_absent() {
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
