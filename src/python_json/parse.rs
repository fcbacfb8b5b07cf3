//! The reader: text to tree, without recursion, so that no nesting can overflow the stack.

use super::{Json, Text};

/// The deepest nesting that is read. Python gives up (`RecursionError`) when its stack is 1,000
/// frames deep, a few of which are its caller's; the fixed number here is near that.
pub const MAX_DEPTH: usize = 990;

/// The most digits of an integer (`sys.int_info.default_max_str_digits` of Python 3.11).
pub const MAX_INTEGER_DIGITS: usize = 4300;

/// Why a text is not read, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset}")]
pub struct JsonError {
    /// The offset in bytes from the start of the text.
    pub offset: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is not UTF-8.
    #[error("not valid UTF-8")]
    NotUtf8,
    /// It starts with U+FEFF.
    #[error("a byte order mark is not allowed")]
    ByteOrderMark,
    /// No value starts here.
    #[error("a value is expected")]
    ExpectedValue,
    /// A member's name in quotes should stand here.
    #[error("a member's name in double quotes is expected")]
    ExpectedName,
    /// A colon should stand here.
    #[error("':' is expected")]
    ExpectedColon,
    /// An array should go on or end here.
    #[error("',' or ']' is expected")]
    ExpectedCommaOrBracket,
    /// An object should go on or end here.
    #[error("',' or '}}' is expected")]
    ExpectedCommaOrBrace,
    /// Something follows the value.
    #[error("something follows the value")]
    TrailingData,
    /// A string does not end.
    #[error("a string does not end")]
    UnterminatedString,
    /// A control character stands bare in a string.
    #[error("a control character must be escaped")]
    ControlCharacter,
    /// A backslash is followed by what is no escape.
    #[error("an invalid escape")]
    BadEscape,
    /// An integer has more than [`MAX_INTEGER_DIGITS`] digits.
    #[error("an integer of more than {MAX_INTEGER_DIGITS} digits")]
    IntegerTooLong,
    /// Arrays and objects are nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// It holds more values than the caller allows.
    #[error("too many values")]
    TooManyValues,
}

/// Reads one JSON text: takes what Python 3.11's `json.loads` takes of a UTF-8 text and refuses
/// what that refuses.
///
/// # Errors
///
/// The first problem, with its place.
pub fn parse(text: &[u8]) -> Result<Json<'_>, JsonError> {
    parse_within(text, usize::MAX)
}

/// As [`parse`], for texts of strangers: refuses one of more than `max_values` values, since a
/// hostile text of two bytes a value (`[1,1,…]`) would make a tree of twelve times its size.
///
/// # Errors
///
/// The first problem, with its place.
pub fn parse_within(text: &[u8], max_values: usize) -> Result<Json<'_>, JsonError> {
    let text = std::str::from_utf8(text).map_err(|error| JsonError {
        offset: error.valid_up_to(),
        problem: Problem::NotUtf8,
    })?;
    let mut reader = Reader {
        text,
        bytes: text.as_bytes(),
        at: 0,
        values_left: max_values,
    };
    if text.starts_with('\u{feff}') {
        return reader.fail(Problem::ByteOrderMark);
    }
    reader.document()
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    values_left: usize,
}

/// A container that is not closed yet. Its children so far wait in a list shared by all open
/// containers, so that a closed one is allocated once, in its exact size.
enum Open<'a> {
    Array { start: usize },
    Object { start: usize, name: Text<'a> },
}

/// What stands where a value is expected.
enum Start<'a> {
    Whole(Json<'a>),
    Array,
    Object(Text<'a>),
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Json<'a>, JsonError> {
        let mut open: Vec<Open<'a>> = Vec::new();
        let mut elements: Vec<Json<'a>> = Vec::new();
        let mut members: Vec<(Text<'a>, Json<'a>)> = Vec::new();
        loop {
            let mut value = match self.start(open.len())? {
                Start::Whole(value) => value,
                Start::Array => {
                    let start = elements.len();
                    open.push(Open::Array { start });
                    continue;
                }
                Start::Object(name) => {
                    let start = members.len();
                    open.push(Open::Object { start, name });
                    continue;
                }
            };
            // The value is whole: put it where it belongs, and close what ends with it.
            loop {
                self.skip_space();
                match open.last_mut() {
                    None if self.at == self.bytes.len() => return Ok(value),
                    None => return self.fail(Problem::TrailingData),
                    Some(Open::Array { start }) => {
                        elements.push(value);
                        if self.take(b',') {
                            break;
                        }
                        if !self.take(b']') {
                            return self.fail(Problem::ExpectedCommaOrBracket);
                        }
                        value = Json::Array(elements.drain(*start..).collect());
                    }
                    Some(Open::Object { start, name }) => {
                        members.push((*name, value));
                        if self.take(b',') {
                            *name = self.name()?;
                            break;
                        }
                        if !self.take(b'}') {
                            return self.fail(Problem::ExpectedCommaOrBrace);
                        }
                        value = Json::Object(members.drain(*start..).collect());
                    }
                }
                open.pop();
            }
        }
    }

    fn start(&mut self, depth: usize) -> Result<Start<'a>, JsonError> {
        self.skip_space();
        self.values_left = match self.values_left.checked_sub(1) {
            Some(left) => left,
            None => return self.fail(Problem::TooManyValues),
        };
        let Some(byte) = self.bytes.get(self.at) else {
            return self.fail(Problem::ExpectedValue);
        };
        if matches!(byte, b'[' | b'{') && depth >= MAX_DEPTH {
            return self.fail(Problem::TooDeep);
        }
        Ok(match byte {
            b'[' => {
                self.at += 1;
                self.skip_space();
                if !self.take(b']') {
                    return Ok(Start::Array);
                }
                Start::Whole(Json::Array(Box::default()))
            }
            b'{' => {
                self.at += 1;
                self.skip_space();
                if !self.take(b'}') {
                    return Ok(Start::Object(self.name()?));
                }
                Start::Whole(Json::Object(Box::default()))
            }
            b'"' => Start::Whole(Json::String(self.string()?)),
            b'n' => Start::Whole(self.word("null", Json::Null)?),
            b't' => Start::Whole(self.word("true", Json::Bool(true))?),
            b'f' => Start::Whole(self.word("false", Json::Bool(false))?),
            b'N' => Start::Whole(self.word("NaN", Json::Number("NaN"))?),
            b'I' => Start::Whole(self.word("Infinity", Json::Number("Infinity"))?),
            b'-' if self.bytes.get(self.at + 1) == Some(&b'I') => {
                Start::Whole(self.word("-Infinity", Json::Number("-Infinity"))?)
            }
            b'-' | b'0'..=b'9' => Start::Whole(Json::Number(self.number()?)),
            _ => return self.fail(Problem::ExpectedValue),
        })
    }

    fn fail<T>(&self, problem: Problem) -> Result<T, JsonError> {
        let offset = self.at;
        Err(JsonError { offset, problem })
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn word(&mut self, word: &str, value: Json<'a>) -> Result<Json<'a>, JsonError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return self.fail(Problem::ExpectedValue);
        }
        self.at += word.len();
        Ok(value)
    }

    /// A member's name and its colon.
    fn name(&mut self) -> Result<Text<'a>, JsonError> {
        self.skip_space();
        if self.bytes.get(self.at) != Some(&b'"') {
            return self.fail(Problem::ExpectedName);
        }
        let name = self.string()?;
        self.skip_space();
        if !self.take(b':') {
            return self.fail(Problem::ExpectedColon);
        }
        Ok(name)
    }

    /// A string, from its opening quote.
    fn string(&mut self) -> Result<Text<'a>, JsonError> {
        let opening = self.at;
        self.at += 1;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(..b' ') => return self.fail(Problem::ControlCharacter),
                Some(_) => self.at += 1,
                None => {
                    self.at = opening;
                    return self.fail(Problem::UnterminatedString);
                }
            }
        }
        let raw = self.text.get(opening + 1..self.at).unwrap_or_default();
        self.at += 1;
        Ok(Text::checked(raw))
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        let length = match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', digits @ ..]
                if digits.len() >= 4 && digits.iter().take(4).all(u8::is_ascii_hexdigit) =>
            {
                6
            }
            _ => return self.fail(Problem::BadEscape),
        };
        self.at += length;
        Ok(())
    }

    /// `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?`. What follows a part that is not complete
    /// (`1.`, `1e`) is left for the caller to stumble over, which no caller takes.
    fn number(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        let digits_start = start + usize::from(self.take(b'-'));
        let integer = self.digits(digits_start);
        let whole = match self.bytes.get(digits_start) {
            Some(b'0') => 1,
            Some(b'1'..=b'9') => integer,
            _ => {
                self.at = start;
                return self.fail(Problem::ExpectedValue);
            }
        };
        let mut end = digits_start + whole;
        let mut exact = true;
        if self.bytes.get(end) == Some(&b'.') {
            let fraction = self.digits(end + 1);
            if fraction > 0 {
                end += 1 + fraction;
                exact = false;
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(end) {
            let sign = usize::from(matches!(self.bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = self.digits(end + 1 + sign);
            if exponent > 0 {
                end += 1 + sign + exponent;
                exact = false;
            }
        }
        if exact && whole > MAX_INTEGER_DIGITS {
            self.at = start;
            return self.fail(Problem::IntegerTooLong);
        }
        self.at = end;
        Ok(self.text.get(start..end).unwrap_or_default())
    }

    /// How many digits stand there.
    fn digits(&self, from: usize) -> usize {
        let rest = self.bytes.get(from..).unwrap_or_default();
        rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &[u8]) -> (usize, Problem) {
        let error = parse(text).expect_err(&String::from_utf8_lossy(text));
        (error.offset, error.problem)
    }

    #[test]
    fn errors_name_the_place() {
        for (text, offset, expected) in [
            (&b""[..], 0, Problem::ExpectedValue),
            (b"\xef\xbb\xbf[]", 0, Problem::ByteOrderMark),
            (b"[\"\xff\"]", 2, Problem::NotUtf8),
            (b"[\"\xed\xa0\x80\"]", 2, Problem::NotUtf8),
            (b"[1 2]", 3, Problem::ExpectedCommaOrBracket),
            (b"[1.]", 2, Problem::ExpectedCommaOrBracket),
            (b"[1e+]", 2, Problem::ExpectedCommaOrBracket),
            (b"[01]", 2, Problem::ExpectedCommaOrBracket),
            (b"[-]", 1, Problem::ExpectedValue),
            (b"[-Inf]", 1, Problem::ExpectedValue),
            (b"{\"a\" 1}", 5, Problem::ExpectedColon),
            (b"{\"a\":1,}", 7, Problem::ExpectedName),
            (b"{\"a\":1]", 6, Problem::ExpectedCommaOrBrace),
            (b"{1:1}", 1, Problem::ExpectedName),
            (b"[] []", 3, Problem::TrailingData),
            (b"[\"a]", 1, Problem::UnterminatedString),
            (b"\"\\x\"", 1, Problem::BadEscape),
            (b"\"\\", 1, Problem::BadEscape),
            (b"\"\\u12", 1, Problem::BadEscape),
            (b"\"\0\"", 1, Problem::ControlCharacter),
            (b"nul", 0, Problem::ExpectedValue),
            (b"\x0c1", 0, Problem::ExpectedValue),
        ] {
            assert_eq!(problem(text), (offset, expected));
        }
        assert_eq!(
            parse(b"[1,]").unwrap_err().to_string(),
            "a value is expected at byte 3"
        );
    }

    #[test]
    fn nesting_is_bounded_and_never_overflows_the_stack() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        let objects = |depth: usize| [b"{\"a\":".repeat(depth), vec![b'}'; 1]].concat();
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(
            problem(&nested(MAX_DEPTH + 1)),
            (MAX_DEPTH, Problem::TooDeep)
        );
        assert_eq!(problem(&nested(1_000_000)), (MAX_DEPTH, Problem::TooDeep));
        assert_eq!(
            problem(&objects(100_000)),
            (5 * MAX_DEPTH, Problem::TooDeep)
        );
    }

    #[test]
    fn integers_have_4300_digits_at_most_but_floats_any_number() {
        let digits = "1".repeat(MAX_INTEGER_DIGITS);
        assert!(parse(digits.as_bytes()).is_ok());
        assert!(parse(format!("-{digits}").as_bytes()).is_ok());
        assert!(parse(format!("{digits}1.5").as_bytes()).is_ok());
        assert!(parse(format!("{digits}1e1").as_bytes()).is_ok());
        assert_eq!(
            problem(format!("{digits}1").as_bytes()).1,
            Problem::IntegerTooLong
        );
    }

    #[test]
    fn values_are_counted() {
        assert!(parse_within(b"[1,{\"a\":2}]", 4).is_ok());
        let error = parse_within(b"[1,{\"a\":2}]", 3).unwrap_err();
        assert_eq!(error.problem, Problem::TooManyValues);
    }
}
