//! A checked JSON text, and its values, which are read from the text when they are asked for.
//!
//! No tree is built: a hostile text such as `[[],[],…]` would make one of twenty times its size. The document
//! holds the ends of its long containers, so that a reader can pass over them. The end of a short one is found
//! by reading it.

use super::text::Text;

/// A container of fewer bytes is read to find its end.
const LONG: usize = 256;

/// Where a container stands in the text. The text has less than 4 GiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        let place = |at| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            start: place(start),
            end: place(end),
        }
    }

    pub(super) fn start(self) -> usize {
        self.start as usize
    }

    pub(super) fn end(self) -> usize {
        self.end as usize
    }

    pub(super) fn is_long(self) -> bool {
        self.end() - self.start() >= LONG
    }
}

/// A JSON text that was checked.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    text: &'a str,
    /// The long containers, in the order of their beginnings.
    long: Vec<Span>,
}

/// One value of a document. Containers are read when they are asked for their children.
#[derive(Clone, Copy, Debug)]
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
    Array(Elements<'a>),
    /// The members in their order, with duplicates. Of duplicates, the last one counts.
    Object(Members<'a>),
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str, long: Vec<Span>) -> Self {
        Self { text, long }
    }

    /// The value that the text is.
    pub fn root(&self) -> Json<'_> {
        self.value(self.after_space(0))
    }

    /// The value that begins at `at`.
    pub(super) fn value(&self, at: usize) -> Json<'_> {
        match self.byte(at) {
            b'n' => Json::Null,
            b't' => Json::Bool(true),
            b'f' => Json::Bool(false),
            b'"' => Json::String(self.string(at)),
            b'[' => Json::Array(Elements {
                document: self,
                next: self.first_child(at),
            }),
            b'{' => Json::Object(Members {
                document: self,
                next: self.first_child(at),
            }),
            _ => Json::Number(self.text.get(at..self.end_of_word(at)).unwrap_or_default()),
        }
    }

    /// The string whose opening quote stands at `at`.
    pub(super) fn string(&self, at: usize) -> Text<'_> {
        Text::checked(
            self.text
                .get(at + 1..self.end_of_string(at) - 1)
                .unwrap_or_default(),
        )
    }

    fn byte(&self, at: usize) -> u8 {
        self.text.as_bytes().get(at).copied().unwrap_or_default()
    }

    fn after_space(&self, mut at: usize) -> usize {
        while matches!(self.byte(at), b' ' | b'\t' | b'\n' | b'\r') {
            at += 1;
        }
        at
    }

    /// The first element, or the first member's name, of the container that begins at `at`; `None` if it is
    /// empty.
    fn first_child(&self, at: usize) -> Option<usize> {
        let first = self.after_space(at + 1);
        (!matches!(self.byte(first), b']' | b'}')).then_some(first)
    }

    /// The next child of a container, after the value that begins at `at`; `None` if that is its last.
    fn next_child(&self, at: usize) -> Option<usize> {
        let end = self.after_space(self.end(at));
        (self.byte(end) == b',').then(|| self.after_space(end + 1))
    }

    /// The value of the member whose name stands at `at`.
    fn member_value(&self, at: usize) -> usize {
        let colon = self.after_space(self.end_of_string(at));
        self.after_space(colon + 1)
    }

    /// The end of the value that begins at `at`.
    fn end(&self, at: usize) -> usize {
        match self.byte(at) {
            b'"' => self.end_of_string(at),
            b'[' | b'{' => match self.long.binary_search_by_key(&at, |span| span.start()) {
                Ok(found) => self.long.get(found).map_or(at, |span| span.end()),
                Err(_) => self.end_of_short(at),
            },
            _ => self.end_of_word(at),
        }
    }

    fn end_of_string(&self, opening: usize) -> usize {
        let bytes = self.text.as_bytes();
        let mut at = opening + 1;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            match memchr::memchr2(b'"', b'\\', rest) {
                Some(found) if rest.get(found) == Some(&b'"') => return at + found + 1,
                // The byte after the backslash is no end of the string.
                Some(found) => at += found + 2,
                None => return bytes.len(),
            }
        }
    }

    /// The end of a number, `null`, `true` or `false`.
    fn end_of_word(&self, start: usize) -> usize {
        let rest = self.text.as_bytes().get(start..).unwrap_or_default();
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        start + rest.iter().take_while(|byte| is_part(byte)).count()
    }

    fn end_of_short(&self, start: usize) -> usize {
        let (mut at, mut depth) = (start, 0_usize);
        loop {
            match self.byte(at) {
                b'"' => at = self.end_of_string(at) - 1,
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 {
                return at;
            }
        }
    }
}

impl<'a> Json<'a> {
    /// The member of this name, if this is an object that has it. It may be `null`. Of duplicates, this is
    /// the last one, as in Python.
    pub fn get(self, key: &str) -> Option<Json<'a>> {
        let named = self.as_object()?.filter(|(name, _)| name.is(key));
        named.last().map(|(_, value)| value)
    }

    /// The member of this name; `None` if it is absent or `null`.
    pub fn field(self, key: &str) -> Option<Json<'a>> {
        self.get(key).filter(|value| !matches!(value, Json::Null))
    }

    /// The members of these names, read in one pass; `None` for one that is absent or `null`. The names of
    /// other members are given to `other`.
    pub fn fields<const N: usize>(
        self,
        keys: [&str; N],
        mut other: impl FnMut(Text<'a>),
    ) -> [Option<Json<'a>>; N] {
        let mut found = [None; N];
        for (name, value) in self.as_object().into_iter().flatten() {
            let at = keys.iter().position(|key| name.is(key));
            match at.and_then(|at| found.get_mut(at)) {
                Some(place) => *place = Some(value).filter(|value| !matches!(value, Json::Null)),
                None => other(name),
            }
        }
        found
    }

    /// The elements of an array.
    pub fn as_array(self) -> Option<Elements<'a>> {
        match self {
            Json::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The members of an object.
    pub fn as_object(self) -> Option<Members<'a>> {
        match self {
            Json::Object(members) => Some(members),
            _ => None,
        }
    }

    /// A string's text.
    pub fn as_text(self) -> Option<Text<'a>> {
        match self {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// A number as written.
    pub fn as_number(self) -> Option<&'a str> {
        match self {
            Json::Number(text) => Some(text),
            _ => None,
        }
    }

    /// A number without point and exponent that fits into 64 bits.
    pub fn as_u64(self) -> Option<u64> {
        match self.as_number()? {
            "-0" => Some(0),
            text => text.parse().ok(),
        }
    }

    /// `true` or `false`.
    pub fn as_bool(self) -> Option<bool> {
        match self {
            Json::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The kind of the value with its article, for messages.
    pub fn kind(self) -> &'static str {
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

/// The elements of an array, in their order.
#[derive(Clone, Copy, Debug)]
pub struct Elements<'a> {
    document: &'a Document<'a>,
    /// Where the next element begins.
    next: Option<usize>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Json<'a>;

    fn next(&mut self) -> Option<Json<'a>> {
        let at = self.next?;
        self.next = self.document.next_child(at);
        Some(self.document.value(at))
    }
}

/// The members of an object, in their order and with duplicates.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    document: &'a Document<'a>,
    /// Where the next member's name begins.
    next: Option<usize>,
}

impl<'a> Members<'a> {
    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.next.is_none()
    }

    /// The document that the members stand in.
    pub(super) fn document(&self) -> &'a Document<'a> {
        self.document
    }

    /// The beginnings of the next member's name and value.
    pub(super) fn next_span(&mut self) -> Option<(usize, usize)> {
        let name = self.next?;
        let value = self.document.member_value(name);
        self.next = self.document.next_child(value);
        Some((name, value))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Text<'a>, Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.next_span()?;
        Some((self.document.string(name), self.document.value(value)))
    }
}
