//! Writes JSON exactly as Python's `json.dumps(x, separators=(',', ':'), sort_keys=True)` does.
//!
//! The text goes piece by piece to a function, such as the update of a hash, so no copy of a large body is
//! needed.

use super::document::Span;
use super::text::CodePoints;
use super::{Json, Members, Text};

/// The function that gets the pieces in their order.
type Sink<'s> = &'s mut dyn FnMut(&[u8]);

/// Writes a value in canonical form: the names are sorted by code point, and of duplicates the last one
/// counts.
pub fn write_canonical(json: Json<'_>, sink: Sink<'_>) {
    Writer {
        members: Vec::new(),
        sink,
    }
    .value(json);
}

/// The same without the members of one name, if the value is an object.
pub fn write_canonical_without(json: Json<'_>, name: &str, sink: Sink<'_>) {
    let mut writer = Writer {
        members: Vec::new(),
        sink,
    };
    match json {
        Json::Object(members) => writer.object(members, Some(name)),
        other => writer.value(other),
    }
}

/// Where a member's name and value begin in the text.
type MemberSpan = Span;

/// Writes values from the text. It holds the members of the objects that are open, 8 bytes each.
struct Writer<'s> {
    members: Vec<MemberSpan>,
    sink: Sink<'s>,
}

impl Writer<'_> {
    fn value(&mut self, json: Json<'_>) {
        match json {
            Json::Null => (self.sink)(b"null"),
            Json::Bool(true) => (self.sink)(b"true"),
            Json::Bool(false) => (self.sink)(b"false"),
            Json::Number(text) => write_number(text, self.sink),
            Json::String(text) => write_text(text, self.sink),
            Json::Array(elements) => {
                (self.sink)(b"[");
                for (index, element) in elements.enumerate() {
                    write_comma(index, self.sink);
                    self.value(element);
                }
                (self.sink)(b"]");
            }
            Json::Object(members) => self.object(members, None),
        }
    }

    fn object(&mut self, mut members: Members<'_>, without: Option<&str>) {
        let document = members.document();
        let first = self.members.len();
        while let Some((name, value)) = members.next_span() {
            if without.is_none_or(|left_out| !document.string(name).is(left_out)) {
                self.members.push(Span::new(name, value));
            }
        }
        let name_of = |member: &MemberSpan| document.string(member.start());
        // Equal names keep their order, so the last of them stays the last.
        self.members
            .get_mut(first..)
            .unwrap_or_default()
            .sort_unstable_by(|one, other| {
                let by_name = name_of(one).cmp(&name_of(other));
                by_name.then(one.start().cmp(&other.start()))
            });
        (self.sink)(b"{");
        let (end, mut written) = (self.members.len(), 0);
        for index in first..end {
            let Some(member) = self.members.get(index).copied() else {
                break;
            };
            let name = name_of(&member);
            let next = self.members.get(index + 1).filter(|_| index + 1 < end);
            if next.is_some_and(|next| name_of(next) == name) {
                continue;
            }
            write_comma(written, self.sink);
            write_text(name, self.sink);
            (self.sink)(b":");
            self.value(document.value(member.end()));
            written += 1;
        }
        (self.sink)(b"}");
        self.members.truncate(first);
    }
}

/// Writes a value of this program in canonical form.
pub fn write_canonical_value(value: &serde_json::Value, sink: Sink<'_>) {
    use serde_json::Value;
    match value {
        Value::Null => sink(b"null"),
        Value::Bool(true) => sink(b"true"),
        Value::Bool(false) => sink(b"false"),
        Value::Number(number) => write_number(&number.to_string(), sink),
        Value::String(text) => write_string(text, sink),
        Value::Array(elements) => {
            sink(b"[");
            for (index, element) in elements.iter().enumerate() {
                write_comma(index, sink);
                write_canonical_value(element, sink);
            }
            sink(b"]");
        }
        Value::Object(members) => {
            // They are sorted already, unless a dependency enables serde_json's `preserve_order`.
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            sink(b"{");
            for (index, (name, value)) in sorted.into_iter().enumerate() {
                write_comma(index, sink);
                write_string(name, sink);
                sink(b":");
                write_canonical_value(value, sink);
            }
            sink(b"}");
        }
    }
}

fn write_comma(index: usize, sink: Sink<'_>) {
    if index > 0 {
        sink(b",");
    }
}

/// Writes a string in quotes: ASCII only, with lower-case `\uXXXX`.
pub fn write_string(text: &str, sink: Sink<'_>) {
    sink(b"\"");
    write_plain(text, sink);
    sink(b"\"");
}

fn write_text(text: Text<'_>, sink: Sink<'_>) {
    sink(b"\"");
    let mut points: CodePoints<'_> = text.points();
    // The text between two escapes is written at once: most texts have no escapes.
    while let Some(escape) = points.rest().find('\\') {
        let (plain, _) = points.rest().split_at(escape);
        write_plain(plain, sink);
        points.skip_bytes(escape);
        if let Some(point) = points.next() {
            write_point(point, sink);
        }
    }
    write_plain(points.rest(), sink);
    sink(b"\"");
}

/// Writes the characters of a decoded text, without quotes.
fn write_plain(mut text: &str, sink: Sink<'_>) {
    let needs_no_escape = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    while !text.is_empty() {
        let run = text
            .bytes()
            .position(|byte| !needs_no_escape(byte))
            .unwrap_or(text.len());
        let (plain, rest) = text.split_at(run);
        if !plain.is_empty() {
            sink(plain.as_bytes());
        }
        let mut chars = rest.chars();
        if let Some(special) = chars.next() {
            write_point(u32::from(special), sink);
        }
        text = chars.as_str();
    }
}

/// Writes one code point, which may be a lone surrogate.
fn write_point(point: u32, sink: Sink<'_>) {
    match point {
        0x08 => sink(b"\\b"),
        0x09 => sink(b"\\t"),
        0x0a => sink(b"\\n"),
        0x0c => sink(b"\\f"),
        0x0d => sink(b"\\r"),
        0x22 => sink(b"\\\""),
        0x5c => sink(b"\\\\"),
        0x20..=0x7e => sink(&[point.to_le_bytes()[0]]),
        ..=0xffff => write_unit(point, sink),
        _ => {
            let beyond = point - 0x1_0000;
            write_unit(0xd800 + (beyond >> 10), sink);
            write_unit(0xdc00 + (beyond & 0x3ff), sink);
        }
    }
}

fn write_unit(unit: u32, sink: Sink<'_>) {
    const HEX: [u8; 16] = *b"0123456789abcdef";
    let mut escape = *b"\\u0000";
    for (place, byte) in escape.iter_mut().rev().take(4).enumerate() {
        *byte = HEX[usize::try_from((unit >> (4 * place)) & 0xf).unwrap_or(0)];
    }
    sink(&escape);
}

/// Writes a number as Python prints it after reading this JSON text of it: an integer exactly, a
/// number with a point or an exponent as the shortest text of the double nearest to it.
pub fn write_number(text: &str, sink: Sink<'_>) {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return sink(text.as_bytes());
    }
    if !text.contains(['.', 'e', 'E']) {
        return sink(if text == "-0" { b"0" } else { text.as_bytes() });
    }
    match text.parse::<f64>() {
        Ok(number) => sink(float(number).as_bytes()),
        // A JSON number always parses.
        Err(_) => sink(text.as_bytes()),
    }
}

/// Formats a double as Python's `repr` does, with the JSON names of infinity and NaN. Numbers below 1e-4 and
/// from 1e16 on have an exponent of at least two digits. Other numbers have a point.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    let sign = if number.is_sign_negative() { "-" } else { "" };
    if number.is_infinite() {
        return format!("{sign}Infinity");
    }
    let (digits, exponent) = shortest(number.abs());
    if !(-4..16).contains(&exponent) {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let exponent_sign = if exponent < 0 { '-' } else { '+' };
        let size = exponent.unsigned_abs();
        return format!("{sign}{first}{point}{rest}e{exponent_sign}{size:02}");
    }
    let Ok(before_point) = usize::try_from(exponent + 1) else {
        let zeros = "0".repeat(usize::try_from(-1 - exponent).unwrap_or(0));
        return format!("{sign}0.{zeros}{digits}");
    };
    let padded = format!("{digits:0<before_point$}");
    match padded.split_at(before_point) {
        ("", fraction) => format!("{sign}0.{fraction}"),
        (whole, "") => format!("{sign}{whole}.0"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

/// The fewest digits that parse to this number, which must be finite and not negative, and the exponent of
/// the first digit. Of two texts of that length which are equally near, as for 2⁻²⁵, it is the one that ends
/// in an even digit, as in Python.
fn shortest(number: f64) -> (String, i32) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(number);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let leading_zeros = digits.len() - digits.trim_start_matches('0').len();
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let before_point = i32::try_from(whole.len()).unwrap_or(0) - i32::try_from(leading_zeros).unwrap_or(0);
    match digits.trim_matches('0') {
        "" => ("0".into(), 0),
        digits => (digits.into(), exponent + before_point - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python_json::{Document, parse};
    use proptest::prelude::*;

    fn text_of(document: &Document<'_>) -> String {
        let mut bytes = Vec::new();
        write_canonical(document.root(), &mut |piece| bytes.extend_from_slice(piece));
        String::from_utf8(bytes).unwrap()
    }

    fn text_of_value(value: &serde_json::Value) -> String {
        let mut bytes = Vec::new();
        write_canonical_value(value, &mut |piece| bytes.extend_from_slice(piece));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn every_vector_made_with_python() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/fixtures/canonical_vectors.json")).unwrap();
        let (mut taken, mut refused) = (0, 0);
        for vector in file["vectors"].as_array().unwrap() {
            let name = vector["name"].as_str().unwrap();
            let input = vector["input"].as_str().unwrap();
            match (vector["canonical"].as_str(), parse(input.as_bytes())) {
                (Some(expected), Ok(json)) => {
                    assert_eq!(text_of(&json), expected, "{name}");
                    taken += 1;
                }
                (None, Err(_)) => refused += 1,
                (_, result) => panic!("{name}: {result:?}"),
            }
        }
        assert_eq!((taken, refused), (46, 11));
    }

    #[test]
    fn our_own_values_are_written_the_same_way() {
        let value = serde_json::json!({
            "я": "Лот\u{1f697}\u{7f}/", "z": [1, -1, u64::MAX, 1.0, 1e16, 1.5e-7, 0.1],
            "a": {"b": null, "a": [true, false, {}, []]}, "\n": ""
        });
        let text = text_of_value(&value);
        assert_eq!(
            text,
            concat!(
                r#"{"\n":"","a":{"a":[true,false,{},[]],"b":null},"#,
                r#""z":[1,-1,18446744073709551615,1.0,1e+16,1.5e-07,0.1],"#,
                r#""\u044f":"\u041b\u043e\u0442\ud83d\ude97\u007f/"}"#
            )
        );
        assert_eq!(text_of(&parse(text.as_bytes()).unwrap()), text);
    }

    #[test]
    fn ties_between_shortest_floats_end_in_an_even_digit_as_in_python() {
        for (text, expected) in [
            ("2159256500185022.25", "2159256500185022.2"),
            ("76923072769859.125", "76923072769859.12"),
            ("2.98023223876953125e-8", "2.9802322387695312e-08"),
            ("9007199254740993.0", "9007199254740992.0"),
            ("0.0001", "0.0001"),
            ("123.0e0", "123.0"),
            ("0.5", "0.5"),
        ] {
            assert_eq!(text_of(&parse(text.as_bytes()).unwrap()), expected);
        }
    }

    #[test]
    fn the_deepest_text_is_written() {
        let depth = crate::python_json::MAX_DEPTH;
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(text_of(&parse(text.as_bytes()).unwrap()), text);
    }

    /// JSON texts in all the ways that they may be written.
    fn json_text() -> impl Strategy<Value = String> {
        let string = prop_oneof![
            "[ -~а-я\u{80}\u{2028}\u{1f697}]{0,8}".prop_map(|text| {
                let mut quoted = String::new();
                write_string(&text, &mut |piece| {
                    quoted.push_str(std::str::from_utf8(piece).unwrap());
                });
                quoted
            }),
            "[a-c]{0,2}".prop_map(|text| format!("\"{text}\"")),
            r"(\\u[0-9a-fA-F]{4}|\\u[dD][89abAB][0-9a-f]{2}|\\u[dD][c-fC-F][0-9a-f]{2}|\\n|\\/){0,4}"
                .prop_map(|text| format!("\"{text}\"")),
        ];
        let leaf = prop_oneof![
            string.clone(),
            r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?",
            any::<f64>().prop_map(float),
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("NaN".to_owned()),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let member = (string.clone(), inner.clone()).prop_map(|(k, v)| format!("{k} :\t{v}"));
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(|v| format!("[ {}\n]", v.join(" ,"))),
                prop::collection::vec(member, 0..6).prop_map(|v| format!("{{\r{} }}", v.join(", "))),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_of_canonical_is_canonical(text in json_text()) {
            let json = parse(text.as_bytes()).unwrap();
            let first = text_of(&json);
            let second = text_of(&parse(first.as_bytes()).unwrap());
            prop_assert_eq!(first, second);
        }

        #[test]
        fn floats_read_back_exactly(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            let back: f64 = float(number).parse().unwrap();
            prop_assert_eq!(back.to_bits(), bits);
        }

        #[test]
        fn what_serde_json_takes_is_taken_and_agrees(text in ".{0,40}|[\\[\\]{}\":,0-9eE.+\\-truefalsn ]{0,12}") {
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text)
                && !value.is_number()
            {
                prop_assert!(parse(text.as_bytes()).is_ok(), "{}", text);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(json) = parse(&bytes) {
                let first = text_of(&json);
                prop_assert!(parse(first.as_bytes()).is_ok());
            }
        }
    }
}
