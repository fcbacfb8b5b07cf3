//! Checks JSON without recursion, so deep nesting cannot overflow the stack.

use super::document::{Document, Span};

/// The deepest nesting that is allowed. Python raises `RecursionError` at 1,000 stack frames, a few of which
/// belong to its caller. This number is near that.
pub const MAX_DEPTH: usize = 990;

/// The most digits of an integer (`sys.int_info.default_max_str_digits` of Python 3.11).
pub const MAX_INTEGER_DIGITS: usize = 4300;

/// The most members of all objects that are open at one place of the text. Python has no such limit; here it
/// bounds the memory of [`write_canonical`](super::write_canonical), which sorts them.
pub const MAX_OPEN_MEMBERS: usize = 1_000_000;

/// The most containers of 256 bytes or more. The largest job of the contract has some five million, if its image
/// URLs are long; each takes 8 bytes in the [`Document`].
const MAX_LONG_CONTAINERS: usize = 6_000_000;

/// Why a text is refused, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {offset}")]
pub struct JsonError {
    /// The offset in bytes from the start of the text.
    pub offset: usize,
    /// The problem at that offset.
    pub problem: JsonProblem,
}

/// A problem of a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonProblem {
    /// The text is not UTF-8.
    #[error("not valid UTF-8")]
    NotUtf8,
    /// The text begins with U+FEFF.
    #[error("a byte order mark is not allowed")]
    ByteOrderMark,
    /// No value begins here.
    #[error("a value is expected")]
    ExpectedValue,
    /// A member's name is missing here.
    #[error("a member's name in double quotes is expected")]
    ExpectedName,
    /// A colon is missing here.
    #[error("':' is expected")]
    ExpectedColon,
    /// The array must continue or end here.
    #[error("',' or ']' is expected")]
    ExpectedCommaOrBracket,
    /// The object must continue or end here.
    #[error("',' or '}}' is expected")]
    ExpectedCommaOrBrace,
    /// Something follows the value.
    #[error("something follows the value")]
    TrailingData,
    /// A string does not end.
    #[error("a string does not end")]
    UnterminatedString,
    /// A string has a control character without an escape.
    #[error("a control character must be escaped")]
    ControlCharacter,
    /// A backslash does not begin a valid escape.
    #[error("an invalid escape")]
    BadEscape,
    /// An integer has more than [`MAX_INTEGER_DIGITS`] digits.
    #[error("an integer of more than {MAX_INTEGER_DIGITS} digits")]
    IntegerTooLong,
    /// Arrays and objects are nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// An object, with those around it, has more than [`MAX_OPEN_MEMBERS`] members.
    #[error("an object of more than {MAX_OPEN_MEMBERS} members")]
    TooManyMembers,
    /// The text has 4 GiB or more.
    #[error("a text of 4 GiB or more")]
    TooLong,
    /// The text has more values than the caller allows.
    #[error("too many values")]
    TooManyValues,
}

/// Checks one JSON text. It accepts exactly the UTF-8 texts that Python 3.11's `json.loads` accepts.
///
/// # Errors
///
/// The first problem, with its offset.
pub fn parse(text: &[u8]) -> Result<Document<'_>, JsonError> {
    parse_within(text, usize::MAX)
}

/// Checks one JSON text from outside, with at most `max_values` values.
///
/// # Errors
///
/// The first problem, with its offset.
pub fn parse_within(text: &[u8], max_values: usize) -> Result<Document<'_>, JsonError> {
    let text = std::str::from_utf8(text).map_err(|error| JsonError {
        offset: error.valid_up_to(),
        problem: JsonProblem::NotUtf8,
    })?;
    let mut checker = Checker {
        bytes: text.as_bytes(),
        at: 0,
        values_left: max_values,
        open_members: 0,
    };
    if u32::try_from(text.len()).is_err() {
        return checker.fail(JsonProblem::TooLong);
    }
    if text.starts_with('\u{feff}') {
        return checker.fail(JsonProblem::ByteOrderMark);
    }
    let long = checker.document()?;
    Ok(Document::new(text, long))
}

struct Checker<'a> {
    bytes: &'a [u8],
    at: usize,
    values_left: usize,
    /// The members so far of the objects that are open.
    open_members: usize,
}

/// An array or object that is not closed yet.
struct OpenContainer {
    is_object: bool,
    /// Its members so far.
    members: usize,
    /// Its place in the list of spans.
    span: usize,
}

impl Checker<'_> {
    /// Checks the whole text. Returns the spans of its long containers, in the order of their beginnings.
    fn document(&mut self) -> Result<Vec<Span>, JsonError> {
        let mut open: Vec<OpenContainer> = Vec::new();
        let mut spans: Vec<Span> = Vec::new();
        loop {
            self.skip_space();
            let start = self.at;
            if let Some(is_object) = self.value_start(open.len())? {
                let span = spans.len();
                if span >= MAX_LONG_CONTAINERS {
                    return self.fail(JsonProblem::TooManyValues);
                }
                spans.push(Span::new(start, start));
                let members = usize::from(is_object);
                self.open_members += members;
                open.push(OpenContainer {
                    is_object,
                    members,
                    span,
                });
                continue;
            }
            // The value is complete: go on in its container, and close each container that ends here.
            loop {
                self.skip_space();
                let Some(container) = open.last_mut() else {
                    if self.at == self.bytes.len() {
                        return Ok(spans);
                    }
                    return self.fail(JsonProblem::TrailingData);
                };
                if self.take(b',') {
                    if container.is_object {
                        if self.open_members >= MAX_OPEN_MEMBERS {
                            return self.fail(JsonProblem::TooManyMembers);
                        }
                        self.open_members += 1;
                        container.members += 1;
                        self.name()?;
                    }
                    break;
                }
                let (closing, problem) = match container.is_object {
                    true => (b'}', JsonProblem::ExpectedCommaOrBrace),
                    false => (b']', JsonProblem::ExpectedCommaOrBracket),
                };
                if !self.take(closing) {
                    return self.fail(problem);
                }
                // A short container holds short ones only, so it is the last of the list.
                if let Some(span) = spans.get_mut(container.span) {
                    *span = Span::new(span.start(), self.at);
                    if !span.is_long() {
                        spans.truncate(container.span);
                    }
                }
                self.open_members -= container.members;
                open.pop();
            }
        }
    }

    /// Checks a whole value, or the beginning of a container with children: `Some` says whether that is an
    /// object.
    fn value_start(&mut self, depth: usize) -> Result<Option<bool>, JsonError> {
        self.values_left = match self.values_left.checked_sub(1) {
            Some(left) => left,
            None => return self.fail(JsonProblem::TooManyValues),
        };
        let Some(byte) = self.bytes.get(self.at) else {
            return self.fail(JsonProblem::ExpectedValue);
        };
        if matches!(byte, b'[' | b'{') && depth >= MAX_DEPTH {
            return self.fail(JsonProblem::TooDeep);
        }
        match byte {
            b'[' => {
                self.at += 1;
                self.skip_space();
                if !self.take(b']') {
                    return Ok(Some(false));
                }
            }
            b'{' => {
                self.at += 1;
                self.skip_space();
                if !self.take(b'}') {
                    self.name()?;
                    return Ok(Some(true));
                }
            }
            b'"' => self.string()?,
            b'n' => self.word("null")?,
            b't' => self.word("true")?,
            b'f' => self.word("false")?,
            b'N' => self.word("NaN")?,
            b'I' => self.word("Infinity")?,
            b'-' if self.bytes.get(self.at + 1) == Some(&b'I') => self.word("-Infinity")?,
            b'-' | b'0'..=b'9' => self.number()?,
            _ => return self.fail(JsonProblem::ExpectedValue),
        }
        Ok(None)
    }

    fn fail<T>(&self, problem: JsonProblem) -> Result<T, JsonError> {
        let offset = self.at;
        Err(JsonError { offset, problem })
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.bytes.get(self.at) == Some(&byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn word(&mut self, word: &str) -> Result<(), JsonError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return self.fail(JsonProblem::ExpectedValue);
        }
        self.at += word.len();
        Ok(())
    }

    /// A member's name and its colon.
    fn name(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.bytes.get(self.at) != Some(&b'"') {
            return self.fail(JsonProblem::ExpectedName);
        }
        self.string()?;
        self.skip_space();
        if !self.take(b':') {
            return self.fail(JsonProblem::ExpectedColon);
        }
        Ok(())
    }

    /// A string, from its opening quote.
    fn string(&mut self) -> Result<(), JsonError> {
        let opening = self.at;
        self.at += 1;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(..b' ') => return self.fail(JsonProblem::ControlCharacter),
                Some(_) => self.at += 1,
                None => {
                    self.at = opening;
                    return self.fail(JsonProblem::UnterminatedString);
                }
            }
        }
        self.at += 1;
        Ok(())
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        let length = match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', digits @ ..] if digits.len() >= 4 && digits.iter().take(4).all(u8::is_ascii_hexdigit) => 6,
            _ => return self.fail(JsonProblem::BadEscape),
        };
        self.at += length;
        Ok(())
    }

    /// Reads `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?`. It does not read an incomplete part, such as
    /// the point of `1.`, and the caller fails there.
    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        let digits_start = start + usize::from(self.take(b'-'));
        let integer = self.digits(digits_start);
        let whole = match self.bytes.get(digits_start) {
            Some(b'0') => 1,
            Some(b'1'..=b'9') => integer,
            _ => {
                self.at = start;
                return self.fail(JsonProblem::ExpectedValue);
            }
        };
        let mut end = digits_start + whole;
        let mut is_integer = true;
        if self.bytes.get(end) == Some(&b'.') {
            let fraction = self.digits(end + 1);
            if fraction > 0 {
                end += 1 + fraction;
                is_integer = false;
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(end) {
            let sign = usize::from(matches!(self.bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = self.digits(end + 1 + sign);
            if exponent > 0 {
                end += 1 + sign + exponent;
                is_integer = false;
            }
        }
        if is_integer && whole > MAX_INTEGER_DIGITS {
            self.at = start;
            return self.fail(JsonProblem::IntegerTooLong);
        }
        self.at = end;
        Ok(())
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

    fn problem(text: &[u8]) -> (usize, JsonProblem) {
        let error = parse(text).expect_err(&String::from_utf8_lossy(text));
        (error.offset, error.problem)
    }

    #[test]
    fn errors_have_the_offset() {
        for (text, offset, expected) in [
            (&b""[..], 0, JsonProblem::ExpectedValue),
            (b"\xef\xbb\xbf[]", 0, JsonProblem::ByteOrderMark),
            (b"[\"\xff\"]", 2, JsonProblem::NotUtf8),
            (b"[\"\xed\xa0\x80\"]", 2, JsonProblem::NotUtf8),
            (b"[1 2]", 3, JsonProblem::ExpectedCommaOrBracket),
            (b"[1.]", 2, JsonProblem::ExpectedCommaOrBracket),
            (b"[1e+]", 2, JsonProblem::ExpectedCommaOrBracket),
            (b"[01]", 2, JsonProblem::ExpectedCommaOrBracket),
            (b"[-]", 1, JsonProblem::ExpectedValue),
            (b"[-Inf]", 1, JsonProblem::ExpectedValue),
            (b"{\"a\" 1}", 5, JsonProblem::ExpectedColon),
            (b"{\"a\":1,}", 7, JsonProblem::ExpectedName),
            (b"{\"a\":1]", 6, JsonProblem::ExpectedCommaOrBrace),
            (b"{1:1}", 1, JsonProblem::ExpectedName),
            (b"[] []", 3, JsonProblem::TrailingData),
            (b"[\"a]", 1, JsonProblem::UnterminatedString),
            (b"\"\\x\"", 1, JsonProblem::BadEscape),
            (b"\"\\", 1, JsonProblem::BadEscape),
            (b"\"\\u12", 1, JsonProblem::BadEscape),
            (b"\"\0\"", 1, JsonProblem::ControlCharacter),
            (b"nul", 0, JsonProblem::ExpectedValue),
            (b"\x0c1", 0, JsonProblem::ExpectedValue),
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
        assert_eq!(problem(&nested(MAX_DEPTH + 1)), (MAX_DEPTH, JsonProblem::TooDeep));
        assert_eq!(problem(&nested(1_000_000)), (MAX_DEPTH, JsonProblem::TooDeep));
        assert_eq!(problem(&objects(100_000)), (5 * MAX_DEPTH, JsonProblem::TooDeep));
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
            JsonProblem::IntegerTooLong
        );
    }

    #[test]
    fn members_are_counted_while_their_objects_are_open() {
        let closed = format!("[{}{{}}]", "{\"a\":1},".repeat(10));
        assert!(parse(closed.as_bytes()).is_ok());
        let object = |members: usize| format!("{{{}\"a\":1}}", "\"a\":1,".repeat(members - 1));
        assert!(parse(object(MAX_OPEN_MEMBERS).as_bytes()).is_ok());
        assert_eq!(
            problem(object(MAX_OPEN_MEMBERS + 1).as_bytes()).1,
            JsonProblem::TooManyMembers
        );
        let around = format!("{{\"o\":{}}}", object(MAX_OPEN_MEMBERS));
        assert_eq!(problem(around.as_bytes()).1, JsonProblem::TooManyMembers);
    }

    #[test]
    fn values_are_counted() {
        assert!(parse_within(b"[1,{\"a\":2}]", 4).is_ok());
        let error = parse_within(b"[1,{\"a\":2}]", 3).unwrap_err();
        assert_eq!(error.problem, JsonProblem::TooManyValues);
    }
}
