//! Placeholders for texts that differ between runs.

use std::cell::RefCell;
use std::collections::HashMap;

/// Forms of such texts: `#` is a digit, `%` a hexadecimal digit, `@` a letter or digit.
const FORMS: [(&str, &str); 9] = [
    ("20##-##-##T##:##:##.###Z", "time with ms"),
    ("20##-##-##T##:##:##Z", "time"),
    ("20##-##-##", "day"),
    ("20##-##", "month"),
    ("%%%%%%%%-%%%%-%%%%-%%%%-%%%%%%%%%%%%", "uuid"),
    ("batch_%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%", "batch"),
    ("msg_%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%", "message"),
    ("file-@@@@@@@@@@@@@@@@@@@@@@", "file"),
    ("%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%", "hex"),
];
/// Forms whose placeholders have no number, because it does not matter which of them it is.
const ALIKE: [&str; 4] = ["time with ms", "time", "day", "month"];
/// Members of JSON whose values differ between runs.
const MEMBERS: [(&str, &str); 4] = [
    ("creation_time", "duration"),
    ("total_processing_time", "duration"),
    ("seconds_since_tick", "seconds"),
    ("in_a_tick", "bool"),
];

/// The placeholders of one test: the same text has the same placeholder everywhere.
#[derive(Default)]
pub struct Names {
    /// Texts that the test named, and their placeholders.
    known: RefCell<Vec<(String, String)>>,
    /// Texts found so far, by form; a text's index is its number.
    met: RefCell<HashMap<&'static str, Vec<String>>>,
}

impl Names {
    /// Names a text.
    pub fn know(&self, text: &str, name: &str) {
        self.replace(text, &format!("<{name}>"));
    }

    /// Keeps a text unchanged, although it has the form of a variable one.
    pub fn keep(&self, text: &str) {
        self.replace(text, text);
    }

    fn replace(&self, text: &str, placeholder: &str) {
        let mut known = self.known.borrow_mut();
        known.push((text.to_owned(), placeholder.to_owned()));
        // Longer texts first: a text may begin with another one.
        known.sort_by_key(|(text, _)| usize::MAX - text.len());
    }

    /// Names a job: its id, and its id without hyphens, as in custom ids.
    pub fn job(&self, id: &str, name: &str) {
        self.know(id, &format!("job {name}"));
        self.know(&id.replace('-', ""), &format!("job {name}, bare"));
    }

    /// The text with placeholders.
    pub fn plain(&self, text: &str) -> String {
        let mut plain = String::with_capacity(text.len());
        let mut at = 0;
        while let Some(letter) = text[at..].chars().next() {
            let rest = &text[at..];
            let before = text[..at].chars().next_back();
            if let Some((length, placeholder)) = self.placeholder(before, rest) {
                plain.push_str(&placeholder);
                at += length;
            } else {
                plain.push(letter);
                at += letter.len_utf8();
            }
        }
        plain
    }

    /// The placeholder for the beginning of `rest`, and the length of the text that it replaces.
    fn placeholder(&self, before: Option<char>, rest: &str) -> Option<(usize, String)> {
        if before == Some('"') {
            return member(rest).or_else(|| self.named(before, rest));
        }
        self.named(before, rest)
    }

    fn named(&self, before: Option<char>, rest: &str) -> Option<(usize, String)> {
        let known = self.known.borrow();
        if let Some((text, name)) = known.iter().find(|(text, _)| rest.starts_with(text)) {
            return Some((text.len(), name.clone()));
        }
        if before.is_some_and(|letter| letter.is_ascii_alphanumeric()) {
            return None;
        }
        let (form, name) = FORMS.iter().find(|(form, _)| has_form(rest, form))?;
        // A dated model is no day, and a day is no month.
        if ["day", "month"].contains(name) && before == Some('-') {
            return None;
        }
        if ALIKE.contains(name) {
            return Some((form.len(), format!("<{name}>")));
        }
        let mut met = self.met.borrow_mut();
        let met = met.entry(name).or_default();
        let text = &rest[..form.len()];
        let number = met.iter().position(|it| it == text).unwrap_or_else(|| {
            met.push(text.to_owned());
            met.len() - 1
        });
        Some((form.len(), format!("<{name}-{}>", number + 1)))
    }
}

/// A member whose value differs: its name is kept.
fn member(rest: &str) -> Option<(usize, String)> {
    MEMBERS.iter().find_map(|(member, name)| {
        let value = rest.strip_prefix(member)?.strip_prefix("\":")?;
        let length = value.find([',', '}'])?;
        let placeholder = format!("{member}\":\"<{name}>\"");
        Some((member.len() + 2 + length, placeholder))
    })
}

/// Whether a text begins with this form, and no letter or digit follows.
fn has_form(text: &str, form: &str) -> bool {
    let bytes = text.as_bytes();
    let fits = |(at, sign): (usize, u8)| {
        bytes.get(at).is_some_and(|byte| match sign {
            b'#' => byte.is_ascii_digit(),
            b'%' => byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'),
            b'@' => byte.is_ascii_alphanumeric(),
            sign => *byte == sign,
        })
    };
    let ends = bytes
        .get(form.len())
        .is_none_or(|byte| !byte.is_ascii_alphanumeric());
    ends && form.bytes().enumerate().all(fits)
}

#[test]
fn only_variable_texts_are_replaced() {
    let names = Names::default();
    names.job("6908f1d2-39b9-4721-bb8a-dba18120df5f", "first");
    names.know("127.0.0.1:4567", "api");
    names.keep("2020-01-02T03:04:05Z");
    let text = "v_6908f1d239b94721bb8adba18120df5f_0 00000000-0000-4000-8000-000000000000 \
                00000000-0000-4000-8000-000000000001 00000000-0000-4000-8000-000000000000 \
                2026-11-24T02:24:00Z 2026-11-24T02:24:00.123Z 2026-11-24 2026-11 \
                gpt-6-luna-2026-09-22 2020-01-02T03:04:05Z \
                http://127.0.0.1:4567/ 127.0.0.1:1 {\"creation_time\":\"0.02s\",\"a\":1} \
                batchkeeper-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.jsonl \
                aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa день";
    let expected = "v_<job first, bare>_0 <uuid-1> <uuid-2> <uuid-1> \
                <time> <time with ms> <day> <month> gpt-6-luna-2026-09-22 2020-01-02T03:04:05Z \
                http://<api>/ 127.0.0.1:1 {\"creation_time\":\"<duration>\",\"a\":1} \
                batchkeeper-<hex-1>.jsonl aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa день";
    assert_eq!(names.plain(text), expected);
}
