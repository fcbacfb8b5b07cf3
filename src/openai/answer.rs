//! What OpenAI's answers mean: its objects, tolerant of what has been seen on the wire, and its
//! refusals. Pure: knows no HTTP library.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::{Batch, BatchError, FileObject, OpenAiError, Page, RequestCounts};
use crate::base::clock::Timestamp;
use crate::domain::openai::BatchStatus;
use crate::domain::openai::without_secrets;
use crate::domain::usage::TokenUsage;

/// The longest message that is kept of a refusal, in characters.
const MESSAGE_LIMIT: usize = 500;
/// The same for codes, parameters and ids.
const WORD_LIMIT: usize = 128;
/// OpenAI may ask to wait for longer; nobody here would.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A string with something in it. `null`, absence, an empty string and the `{}` that R writes for
/// null all mean "none".
fn text(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// Edge proxies write codes as numbers.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        _ => text(value),
    }
}

fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        // A compatible server's 1795400000.25.
        let seconds = value.as_f64()?;
        format!("{seconds:.0}").parse().ok()
    })
}

fn count(value: &Value) -> Option<u64> {
    whole(value).and_then(|number| u64::try_from(number).ok())
}

impl FileObject {
    /// From a File object; nothing where it has no id or says that it is something else.
    pub fn from_json(value: &Value) -> Option<Self> {
        Some(Self {
            id: object_id(value, "file")?,
            bytes: count(&value["bytes"]),
            created_at: whole(&value["created_at"]).unwrap_or(0),
            filename: text(&value["filename"]).unwrap_or_default(),
        })
    }
}

impl Batch {
    /// From a Batch object; nothing where it has no id or no status, or says that it is
    /// something else. A status that nobody knows is kept as text.
    pub fn from_json(value: &Value) -> Option<Self> {
        let status_text = text(&value["status"])?;
        Some(Self {
            id: object_id(value, "batch")?,
            status: status(&status_text),
            status_text,
            input_file_id: text(&value["input_file_id"]).unwrap_or_default(),
            output_file_id: text(&value["output_file_id"]),
            error_file_id: text(&value["error_file_id"]),
            created_at: whole(&value["created_at"]).unwrap_or(0),
            expires_at: whole(&value["expires_at"]),
            model: text(&value["model"]),
            counts: counts(&value["request_counts"]),
            usage: usage(&value["usage"]),
            errors: batch_errors(&value["errors"]),
            metadata: metadata(&value["metadata"]),
        })
    }
}

fn object_id(value: &Value, kind: &str) -> Option<String> {
    match text(&value["object"]) {
        Some(object) if object != kind => None,
        _ => text(&value["id"]),
    }
}

fn status(text: &str) -> Option<BatchStatus> {
    match text {
        // Spelt so by compatible servers.
        "canceled" => Some(BatchStatus::Cancelled),
        "canceling" => Some(BatchStatus::Cancelling),
        _ => text.parse().ok(),
    }
}

fn counts(value: &Value) -> RequestCounts {
    let field = |name: &str| count(&value[name]).unwrap_or(0);
    RequestCounts {
        total: field("total"),
        completed: field("completed"),
        failed: field("failed"),
    }
}

/// The tokens of a whole batch. All zeros stand for "not known yet".
fn usage(value: &Value) -> Option<TokenUsage> {
    let tokens = TokenUsage {
        input: count(&value["input_tokens"])?,
        cached: count(&value["input_tokens_details"]["cached_tokens"]).unwrap_or(0),
        output: count(&value["output_tokens"])?,
        reasoning: count(&value["output_tokens_details"]["reasoning_tokens"]).unwrap_or(0),
    };
    (tokens != TokenUsage::ZERO).then_some(tokens)
}

fn batch_errors(value: &Value) -> Vec<BatchError> {
    let list = value["data"].as_array().or_else(|| value.as_array());
    list.into_iter()
        .flatten()
        .filter(|entry| entry.is_object())
        .map(|entry| BatchError {
            code: word(&entry["code"]),
            message: text(&entry["message"]).map(|message| without_secrets(&message)),
            param: text(&entry["param"]),
            line: count(&entry["line"]),
        })
        .collect()
}

/// The string values of a metadata object; it may be null.
pub(super) fn metadata(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// A page of a listing, its order kept. One element that makes no sense spoils the page: it may
/// be the very one that is looked for, and "not listed" is evidence.
pub(super) fn page<T>(value: &Value, element: impl Fn(&Value) -> Option<T>) -> Option<Page<T>> {
    let data = value["data"].as_array()?;
    let data = data.iter().map(element).collect::<Option<Vec<T>>>()?;
    Some(Page {
        // Where it is not said, only an empty page is the last one.
        has_more: value["has_more"].as_bool().unwrap_or(!data.is_empty()),
        data,
    })
}

/// A page of batches as it comes, without what each was refused for: that may be a line's worth for
/// every line of its input, and a listing is read for something else.
pub(super) fn batches_without_errors(source: impl io::Read) -> serde_json::Result<Value> {
    #[derive(Deserialize)]
    struct Listed {
        data: Vec<Lean>,
        #[serde(default)]
        has_more: Value,
    }
    #[derive(Deserialize)]
    struct Lean {
        #[serde(default, rename = "errors")]
        _errors: IgnoredAny,
        #[serde(flatten)]
        batch: Map<String, Value>,
    }
    let listed: Listed = serde_json::from_reader(source)?;
    let data: Vec<_> = listed.data.into_iter().map(|lean| lean.batch).collect();
    Ok(json!({"data": data, "has_more": listed.has_more}))
}

/// Keeps keys and organizations out of the texts that are stored, shown and logged.
pub(super) struct Redactor {
    key: String,
}

impl Redactor {
    pub(super) fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
        }
    }

    /// `text` without secrets and control characters, cut to `limit` characters.
    pub(super) fn clean(&self, text: &str, limit: usize) -> String {
        let text = if self.key.is_empty() {
            text.to_owned()
        } else {
            text.replace(&self.key, "[key]")
        };
        let text = without_secrets(&text);
        let printable = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>();
        let words = printable.split_whitespace().collect::<Vec<_>>().join(" ");
        words.chars().take(limit).collect()
    }

    /// A message for people.
    pub(super) fn message(&self, text: &str) -> String {
        self.clean(text, MESSAGE_LIMIT)
    }

    /// A code, a parameter, an id.
    pub(super) fn word(&self, text: &str) -> String {
        self.clean(text, WORD_LIMIT)
    }
}

/// Reads an answer that is no 2xx. `header` gives a header's value by its lower-case name; `body`
/// may be cut.
pub(super) fn refusal<'a>(
    status: u16,
    header: impl Fn(&str) -> Option<&'a str>,
    body: &[u8],
    now: Timestamp,
    redactor: &Redactor,
) -> OpenAiError {
    let (code, param, mut message) = complaint(body);
    if let Some(location) = header("location").filter(|_| (300..400).contains(&status)) {
        message = format!("redirect to {location}, not followed");
    }
    if message.is_empty() {
        message = "no explanation".to_owned();
    }
    OpenAiError {
        status,
        code: redactor.word(&code),
        param: redactor.word(&param),
        message: redactor.message(&message),
        retry_after: retry_after(&header, now),
        request_id: redactor.word(header("x-request-id").unwrap_or_default()),
    }
}

/// Code, param and message out of the shapes of errors that have been seen: OpenAI's envelope,
/// its text under `detail`, integer codes and `{"status": …}` of the edge, OAuth's pair of
/// strings, HTML.
fn complaint(body: &[u8]) -> (String, String, String) {
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(body).into_owned();
        return (String::new(), String::new(), text);
    };
    let error = &value["error"];
    let detail = &value["detail"];
    // Of a code that is null, the type is worth something where it is more than "…_error".
    let kind = text(&error["type"]).filter(|kind| !kind.ends_with("_error"));
    let code = word(&error["code"])
        .or_else(|| text(error))
        .or(kind)
        .or_else(|| word(&detail["code"]));
    let message = [
        &error["message"],
        &error["detail"],
        &value["error_description"],
        &detail["message"],
        detail,
        &value["message"],
        error,
        &value["status"],
    ]
    .into_iter()
    .find_map(text)
    .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let param = text(&error["param"]).or_else(|| text(&detail["param"]));
    (code.unwrap_or_default(), param.unwrap_or_default(), message)
}

/// `retry-after-ms` before `Retry-After`; the latter in seconds (with a fraction or not) or as a
/// date, which is held against the answer's own `Date` where there is one: the two clocks differ.
fn retry_after<'a>(header: &impl Fn(&str) -> Option<&'a str>, now: Timestamp) -> Option<Duration> {
    let wait = header("retry-after-ms")
        .and_then(|text| seconds(text, 1000.0))
        .or_else(|| {
            let text = header("retry-after")?;
            seconds(text, 1.0).or_else(|| {
                let until = http_date(text)?;
                let now = header("date").and_then(http_date).unwrap_or(now);
                Some(until.since(now))
            })
        })?;
    Some(wait.min(LONGEST_WAIT))
}

fn seconds(text: &str, per_second: f64) -> Option<Duration> {
    let number = text.trim().parse::<f64>().ok().filter(|n| n.is_finite())?;
    let seconds = (number / per_second).clamp(0.0, LONGEST_WAIT.as_secs_f64());
    Duration::try_from_secs_f64(seconds).ok()
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7; the obsolete forms are not read).
fn http_date(text: &str) -> Option<Timestamp> {
    let time = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text.trim())
        .ok()?;
    Some(Timestamp::from_millis(time.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, headers: &[(&str, &str)], body: &str) -> OpenAiError {
        let now = Timestamp::from_seconds(1_795_400_000);
        let redactor = Redactor::new("the-very-key-0123");
        let header = |name: &str| {
            let found = headers.iter().find(|(header, _)| *header == name)?;
            Some(found.1)
        };
        refusal(status, header, body.as_bytes(), now, &redactor)
    }

    #[test]
    fn every_shape_of_error_gives_its_code_param_and_message() {
        let cases = [
            (
                r#"{"error":{"message":"No such File object: file-x","type":"invalid_request_error","param":"id","code":null},"detail":{"message":"No such","code":null}}"#,
                ("", "id", "No such File object: file-x"),
            ),
            (
                r#"{"error":{"detail":"bad window","type":"invalid_request_error","param":"completion_window","code":"invalid_value"}}"#,
                ("invalid_value", "completion_window", "bad window"),
            ),
            (
                r#"{"error":{"message":"bad gateway","type":"cf_bad_gateway","param":null,"code":502}}"#,
                ("502", "", "bad gateway"),
            ),
            (
                r#"{"error":{"message":"over","type":"insufficient_quota","param":null,"code":null}}"#,
                ("insufficient_quota", "", "over"),
            ),
            (r#"{"status":"rate limited"}"#, ("", "", "rate limited")),
            (
                r#"{"error":"invalid_grant","error_description":"no token"}"#,
                ("invalid_grant", "", "no token"),
            ),
            (r#"{"detail":"Not Found"}"#, ("", "", "Not Found")),
            (
                "<html>\r\n<head><title>502 Bad Gateway</title></head>",
                ("", "", "<html> <head><title>502 Bad Gateway</title></head>"),
            ),
            ("[1]", ("", "", "[1]")),
            ("", ("", "", "no explanation")),
            (
                r#"{"error":{"message":"cu"#,
                ("", "", r#"{"error":{"message":"cu"#),
            ),
        ];
        for (body, expected) in cases {
            let got = read(400, &[], body);
            assert_eq!(
                (got.code.as_str(), got.param.as_str(), got.message.as_str()),
                expected,
                "{body}"
            );
        }
    }

    #[test]
    fn messages_carry_no_secrets_no_control_characters_and_an_end() {
        let got = read(
            401,
            &[("x-request-id", "req_1\u{7}")],
            &json!({"error": {
                "message": format!(
                    "Incorrect API key provided: sk-proj-ab***yz. (the-very-key-0123) \
                     org-AbC123, task-force disk-x\u{1b}[31m {}", "é".repeat(600)),
                "code": "invalid_api_key", "param": null}})
            .to_string(),
        );
        assert!(got.message.starts_with(
            "Incorrect API key provided: sk-…. ([key]) org-…, task-force disk-x [31m éé"
        ));
        assert_eq!(got.message.chars().count(), 500);
        assert_eq!(got.request_id, "req_1");
    }

    #[test]
    fn waits_are_read_in_every_form_and_capped() {
        let date = ("date", "Mon, 23 Nov 2026 10:00:00 GMT");
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Headers<'_>, Option<u64>); 10] = [
            (&[("retry-after", "7")], Some(7000)),
            (&[("retry-after", "0.5")], Some(500)),
            (
                &[("retry-after-ms", "1500"), ("retry-after", "7")],
                Some(1500),
            ),
            (&[("retry-after", "86400")], Some(3_600_000)),
            (&[("retry-after", "-3")], Some(0)),
            (&[("retry-after", "soon")], None),
            (&[("retry-after", "NaN")], None),
            (
                &[("retry-after", "Mon, 23 Nov 2026 10:00:42 GMT"), date],
                Some(42_000),
            ),
            (
                &[("retry-after", "Mon, 23 Nov 2026 02:13:25 GMT")],
                Some(5000),
            ),
            (&[], None),
        ];
        for (headers, millis) in cases {
            let got = read(429, headers, "").retry_after;
            assert_eq!(got, millis.map(Duration::from_millis), "{headers:?}");
        }
    }

    #[test]
    fn what_is_null_absent_empty_or_of_a_wrong_kind_means_none() {
        let bare = Batch::from_json(&json!({"id": "batch_1", "status": "canceled"})).unwrap();
        for none in [json!(null), json!(""), json!({}), json!([])] {
            let batch = Batch::from_json(&json!({
                "id": "batch_1", "object": "batch", "status": "canceled",
                "output_file_id": none, "error_file_id": none, "model": none, "errors": none,
                "metadata": none, "expires_at": none, "request_counts": none,
                "created_at": none, "input_file_id": none,
            }))
            .unwrap();
            assert_eq!(batch, bare);
        }
        assert_eq!(bare.status, Some(BatchStatus::Cancelled));
        let odd = Batch::from_json(&json!({"id": "batch_1", "status": "paused"})).unwrap();
        assert_eq!((odd.status_text.as_str(), odd.status), ("paused", None));
    }

    #[test]
    fn what_is_no_batch_or_file_is_refused() {
        for value in [
            json!(null),
            json!([]),
            json!("batch_1"),
            json!({"error": {"message": "x"}}),
            json!({"id": "", "status": "completed"}),
            json!({"id": "batch_1"}),
            json!({"id": "file-1", "object": "file", "status": "processed"}),
        ] {
            assert_eq!(Batch::from_json(&value), None, "{value}");
        }
        assert_eq!(
            FileObject::from_json(&json!({"id": "b", "object": "batch"})),
            None
        );
    }

    #[test]
    fn the_errors_of_a_failed_batch_are_read() {
        let batch = Batch::from_json(&json!({"id": "b", "status": "failed", "errors":
            {"object": "list", "data": [
                {"code": "invalid_json_line", "message": "m of org-AbC123.", "param": null, "line": 3},
                {"code": 7}, "noise", {}]}}))
        .unwrap();
        assert_eq!(batch.errors.len(), 3);
        assert_eq!(batch.errors[0].line, Some(3));
        assert_eq!(batch.errors[0].message.as_deref(), Some("m of org-…."));
        assert_eq!(batch.errors[1].code.as_deref(), Some("7"));
    }

    #[test]
    fn a_page_with_one_odd_element_is_no_page() {
        let good = json!({"id": "batch_1", "status": "completed"});
        let read = |value: Value| page(&value, Batch::from_json);
        assert!(read(json!({"data": [good, {"id": "batch_2"}], "has_more": false})).is_none());
        assert!(read(json!({"data": null, "has_more": false})).is_none());
        assert!(
            !read(json!({"data": [good], "has_more": false}))
                .unwrap()
                .has_more
        );
        assert!(read(json!({"data": [good]})).unwrap().has_more);
        assert!(!read(json!({"data": []})).unwrap().has_more);
    }
}
