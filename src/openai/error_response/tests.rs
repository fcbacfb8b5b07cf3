use serde_json::json;

use super::*;

fn read(status: u16, headers: &[(&str, &str)], body: &str) -> OpenAiError {
    let now = Timestamp::from_seconds(1_795_400_000);
    let redactor = Redactor::new(["the-very-key-0123"]);
    let header = |name: &str| {
        let found = headers.iter().find(|(header, _)| *header == name)?;
        Some(found.1)
    };
    read_error(status, header, body.as_bytes(), now, &redactor)
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
            (got.code.as_str(), &*got.param, got.message.as_str()),
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
    assert!(
        got.message
            .starts_with("Incorrect API key provided: sk-…. ([key]) org-…, task-force disk-x [31m éé")
    );
    assert_eq!(got.message.chars().count(), 500);
    assert_eq!(&*got.request_id, "req_1");
}

#[test]
fn waits_are_read_in_every_form_and_capped() {
    let date = ("date", "Mon, 23 Nov 2026 10:00:00 GMT");
    type Headers<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Headers<'_>, Option<u64>); 12] = [
        (&[("retry-after", "7")], Some(7000)),
        (&[("retry-after", "0.5")], Some(500)),
        (&[("retry-after-ms", "1500"), ("retry-after", "7")], Some(1500)),
        (&[("retry-after", "86400")], Some(3_600_000)),
        (&[("retry-after", "-3")], None),
        (&[("retry-after", "soon")], None),
        (&[("retry-after", "NaN")], None),
        (
            &[("retry-after", "Mon, 23 Nov 2026 10:00:42 GMT"), date],
            Some(42_000),
        ),
        (&[("retry-after", "Mon, 23 Nov 2026 02:13:25 GMT")], Some(5000)),
        (
            &[("retry-after", "Monday, 23-Nov-26 10:00:42 GMT"), date],
            Some(42_000),
        ),
        (&[("retry-after", "Mon Nov 23 02:13:25 2026")], Some(5000)),
        (&[], None),
    ];
    for (headers, millis) in cases {
        let got = read(429, headers, "").retry_after;
        assert_eq!(got, millis.map(Duration::from_millis), "{headers:?}");
    }
}
