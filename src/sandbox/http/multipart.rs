//! Reads `multipart/form-data` (RFC 7578). The parts are slices of the body.

use std::io::BufRead;

/// One part of a form.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FormPart<'a> {
    pub(super) name: String,
    pub(super) filename: Option<String>,
    pub(super) content: &'a [u8],
}

/// The parts of a body; `None` if the body is incomplete or no form.
pub(super) fn parse<'a>(content_type: &str, body: &'a [u8]) -> Option<Vec<FormPart<'a>>> {
    let (kind, _) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let delimiter = format!("--{}", parameter(content_type, "boundary")?).into_bytes();
    let mut parts = Vec::new();
    let mut start = None;
    let mut at = 0;
    // A delimiter begins a line, and the search for line feeds is fast in a body of 200 MB.
    while at < body.len() {
        let rest = &body[at..];
        let mut reader = rest;
        let length = reader.skip_until(b'\n').ok()?;
        if rest.starts_with(&delimiter) {
            if let Some(start) = start {
                // The line break before a delimiter is part of the delimiter.
                let end = at.checked_sub(2).filter(|end| *end >= start)?;
                parts.push(part(&body[start..end])?);
            }
            if rest[delimiter.len()..].starts_with(b"--") {
                return Some(parts);
            }
            start = Some(at + length);
        }
        at += length;
    }
    None
}

fn part(bytes: &[u8]) -> Option<FormPart<'_>> {
    let mut at = 0;
    let mut disposition = None;
    loop {
        let mut reader = &bytes[at..];
        let length = reader.skip_until(b'\n').ok()?;
        if length == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&bytes[at..at + length]);
        let line = line.trim_end();
        at += length;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.trim().eq_ignore_ascii_case("content-disposition")
        {
            disposition = Some(value.to_owned());
        }
    }
    let disposition = disposition?;
    Some(FormPart {
        name: parameter(&disposition, "name")?,
        filename: parameter(&disposition, "filename"),
        content: &bytes[at..],
    })
}

/// A parameter of a header's value, with or without quotes.
fn parameter(value: &str, name: &str) -> Option<String> {
    value.split(';').skip(1).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim()
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_and_binary_stays_as_it_is() {
        let body = b"--x y\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
            --x y\r\ncontent-disposition: form-data; name=file; filename=\"a.jsonl\"\r\nContent-Type: application/jsonl\r\n\r\n\
            {\"a\":1}\n\xff--x y\n\r\n--x y--\r\n";
        let parts = parse("multipart/form-data; boundary=\"x y\"", body).unwrap();
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].content, b"batch");
        assert_eq!(parts[1].filename.as_deref(), Some("a.jsonl"));
        assert_eq!(parts[1].content, b"{\"a\":1}\n\xff--x y\n");
        assert_eq!(parse("multipart/form-data; boundary=\"x y\"", &body[..60]), None);
        assert_eq!(parse("application/json", body), None);
    }
}
