//! JSON as Python 3.11 reads and writes it. The earlier service's clients sign JSON in this form.
//!
//! serde_json cannot reproduce the signed bytes: it refuses texts that Python accepts (NaN, lone surrogates,
//! 1e400), and rounds numbers that Python keeps (integers of any size). A text is checked once, in one pass, and
//! its values are read from it when they are asked for: no tree is built of a body that a stranger sent.

mod canonical;
mod document;
mod parse;
mod text;

pub use canonical::{
    write_canonical, write_canonical_value, write_canonical_without, write_number, write_string,
};
pub use document::{Document, Elements, Json, Members};
pub use parse::{
    JsonError, JsonProblem, MAX_DEPTH, MAX_INTEGER_DIGITS, MAX_OPEN_MEMBERS, parse, parse_within,
};
pub use text::{LoneSurrogate, Text};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_their_decoded_name_and_null_is_absent() {
        let document = parse(br#"{"a":1,"\u0061":2,"n":null,"t":true,"s":"x","l":[-0]}"#).unwrap();
        let json = document.root();
        assert_eq!(json.get("a").and_then(Json::as_u64), Some(2));
        assert!(matches!(json.get("n"), Some(Json::Null)));
        assert!(json.field("n").is_none());
        assert!(json.field("absent").is_none());
        assert_eq!(json.field("t").and_then(Json::as_bool), Some(true));
        assert!(json.field("s").and_then(Json::as_text).unwrap().is("x"));
        let mut others = Vec::new();
        let [a, null, absent] = json.fields(["a", "n", "absent"], |name| others.push(name.raw()));
        assert_eq!(a.and_then(Json::as_u64), Some(2));
        assert!(null.is_none() && absent.is_none());
        let mut list = json.field("l").and_then(Json::as_array).unwrap();
        let zero = list.next().unwrap();
        assert_eq!(zero.as_u64(), Some(0));
        assert_eq!(zero.kind(), "a number");
        assert!(zero.get("a").is_none());
        assert!(list.next().is_none());
    }
}
