//! The fuzz targets' checks: the conditions that must hold for every input, each over one input.
//! The tests run them over the corpora too (`tests/house/fuzz_corpus.rs`).

use std::collections::HashSet;
use std::io::Cursor;
use std::net::IpAddr;

use batchkeeper::base::clock::Timestamp;
use batchkeeper::domain::html::paragraphs;
use batchkeeper::domain::job::{
    MAX_METADATA_KEY_CHARS, MAX_METADATA_KEYS, MAX_OWN_CHARS, SubmissionRules, UnusableUrl, check_submission,
};
use batchkeeper::domain::result_line::{Answer, read_line};
use batchkeeper::domain::signature::{Key, Message, SignedRequest, is_fresh, sign, v1_hex, verify};
use batchkeeper::http::request_head::{end_of_head, parse};
use batchkeeper::openai::jsonl::{LineContent, LineReader};
use batchkeeper::outbound::SsrfGuard;
use batchkeeper::python_json::{self, Document};

/// A request head: however the bytes are split, an accepted head has no forbidden bytes.
pub fn request_head(data: &[u8]) {
    let whole = end_of_head(data, 0);
    for split in [1, data.len() / 2, data.len().saturating_sub(1)] {
        let Some(early) = data.get(..split) else {
            continue;
        };
        // The end of the head is the same when the bytes arrive in two parts.
        if let Ok(None) = end_of_head(early, 0) {
            assert_eq!(end_of_head(data, split), whole);
        }
    }
    let Ok(Some(end)) = whole else {
        return;
    };
    let Ok(head) = parse(&data[..end], 64) else {
        return;
    };
    assert!(head.target.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(head.target.starts_with('/') || head.target == "*");
    assert!(head.headers.iter().filter(|(name, _)| name == "host").count() <= 1);
    for (name, value) in &head.headers {
        assert!(!name.is_empty() && name.is_ascii() && !name.contains([':', ' ']));
        assert!(!value.contains(['\r', '\n', '\0']));
        assert!(!["content-length", "transfer-encoding", "connection"].contains(&name.as_str()));
    }
}

/// A submission's body: an accepted submission keeps the contract's limits.
pub fn submission(data: &[u8]) {
    let Ok(document) = python_json::parse_within(data, 100_000) else {
        return;
    };
    let url = |url: &str| match SsrfGuard::DenyPrivate.check_url(url) {
        Ok(_) => Ok(()),
        Err(problem) => Err(UnusableUrl(problem.to_string())),
    };
    let rules = SubmissionRules {
        max_languages: 10,
        max_images: 100,
        ignores_invalid_own_fields: false,
        check_image_url: &url,
        check_webhook_url: &url,
    };
    let Ok(submission) = check_submission(document.root(), &rules) else {
        return;
    };
    assert!((1..=10).contains(&submission.languages.len()));
    assert!((1..=50_000).contains(&submission.lots.len()));
    assert!(submission.webhooks().len() <= 100);
    assert!(submission.metadata.len() <= MAX_METADATA_KEYS);
    for (key, value) in &submission.metadata {
        assert!((1..=MAX_METADATA_KEY_CHARS).contains(&key.chars().count()));
        assert!(value.chars().count() <= MAX_OWN_CHARS);
    }
    let mut ids = HashSet::new();
    for lot in &submission.lots {
        assert!((1..=100).contains(&lot.lot_id.chars().count()));
        assert!(ids.insert(lot.lot_id.as_ref()));
        assert!(lot.additional_info.len() <= 16 * 1024);
        assert!(lot.images.len() <= 100);
        assert!(lot.reference.as_deref().unwrap_or_default().chars().count() <= MAX_OWN_CHARS);
        assert!(lot.images.iter().all(|image| url(image).is_ok()));
    }
}

fn form(document: &Document<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    python_json::write_canonical(document.root(), &mut |piece| out.extend_from_slice(piece));
    out
}

/// Canonical JSON is ASCII, parses to the same value, and is its own canonical form. Our parser
/// accepts every text that serde_json accepts.
pub fn canonical(data: &[u8]) {
    let Ok(value) = python_json::parse(data) else {
        if let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) {
            panic!("serde_json accepts it: {value}");
        }
        return;
    };
    let once = form(&value);
    assert!(once.is_ascii());
    let again = python_json::parse(&once).expect("its own form");
    assert_eq!(form(&again), once);
}

/// A result file: every line is read or refused, and the offsets add up.
pub fn result_line(data: &[u8]) {
    let mut reader = LineReader::new(Cursor::new(data), 0, 4096);
    let mut before = 0;
    while let Some(line) = reader.next_line().expect("memory") {
        assert!(line.next_offset > before && line.next_offset <= data.len() as u64);
        before = line.next_offset;
        let LineContent::Bytes(bytes) = line.content else {
            continue;
        };
        assert!(bytes.len() <= 4096 && !bytes.contains(&b'\n'));
        if let Ok(read) = read_line(bytes)
            && let Answer::Text { text, .. } = read.answer
        {
            let html = paragraphs(&text);
            for tag in html.split('<').skip(1) {
                let known = ["p>", "/p>", "br>"];
                assert!(known.iter().any(|known| tag.starts_with(known)), "{html}");
            }
        }
    }
    assert_eq!(reader.offset(), data.len() as u64);
}

/// Signature headers: only the right signature is accepted, in every spelling.
pub fn signature(data: &[u8]) {
    let key = Key::new("a key of 16 bytes or more").expect("long enough");
    let keys = [key.clone()];
    let text = String::from_utf8_lossy(data);
    let (timestamp, presented) = text.split_once('\n').unwrap_or(("", &text));
    let genuine = sign(&key, Message::Bytes(b"body"));
    let trimmed = presented.trim();
    let bare = match trimmed.get(..7) {
        Some(prefix) if prefix.eq_ignore_ascii_case("sha256=") => &trimmed[7..],
        _ => trimmed,
    };
    let expected = bare.eq_ignore_ascii_case(&genuine);
    assert_eq!(verify(presented, &keys, &[Message::Bytes(b"body")]), expected);
    let request = SignedRequest {
        timestamp,
        method: "POST",
        target: "/a?b",
        body: data,
    };
    assert!(!request.verify(presented, &keys) || v1_hex(presented).is_some());
    assert!(request.verify(&request.sign(&key), &keys));
    let now = Timestamp::from_seconds(1_795_400_000);
    if is_fresh(timestamp, now) {
        let sent: i64 = timestamp.parse().expect("a number");
        assert!(sent.abs_diff(1_795_400_000) <= 300);
    }
}

/// URLs: the guard accepts no URL with a refused address.
pub fn url_guard(data: &[u8]) {
    let Ok(url) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(parsed) = SsrfGuard::DenyPrivate.check_url(url) else {
        return;
    };
    assert!(!url.contains(char::is_whitespace) && !url.contains('\\'));
    assert!(parsed.port > 0 && !parsed.host.is_empty());
    assert!(parsed.host != "localhost" && !parsed.host.ends_with(".localhost"));
    assert!(
        parsed
            .address
            .is_none_or(|address| SsrfGuard::DenyPrivate.allows(address))
    );
    if let Ok(address) = parsed.host.parse::<IpAddr>() {
        assert_eq!(parsed.address, Some(address));
    }
}
