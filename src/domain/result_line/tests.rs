use super::*;
use crate::domain::batch::Outcome;
use crate::domain::parameters::Setting;
use crate::domain::usage::TokenUsage;
use serde_json::{Value, json};

fn line(response: Value, error: Value) -> Answer {
    let line = json!({"id": "batch_req_1", "custom_id": "c", "response": response, "error": error});
    let read = read_line(line.to_string().as_bytes()).unwrap();
    assert_eq!(read.custom_id, "c");
    read.answer
}

fn body(status: u16, body: Value) -> Answer {
    let (answer, _) = read_body(status, &body);
    // Some compatible servers send the body as a text of JSON.
    if body.is_object() {
        let as_text = json!({"status_code": status, "body": body.to_string()});
        assert_eq!(line(as_text, Value::Null), answer);
    }
    let in_line = line(json!({"status_code": status, "body": body}), Value::Null);
    assert_eq!(answer, in_line, "both ways read the same");
    answer
}

fn api_error(status: u16, code: Value, param: Value, message: &str) -> Answer {
    let error = json!({"message": message, "type": "invalid_request_error", "param": param, "code": code});
    body(status, json!({ "error": error }))
}

fn message(parts: Value) -> Value {
    json!({"type": "message", "role": "assistant", "status": "completed", "content": parts})
}

fn output_text(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": []})
}

fn responses(output: Value) -> Answer {
    body(
        200,
        json!({"object": "response", "status": "completed", "error": null,
               "incomplete_details": null, "model": "m-2026",
               "text": {"format": {"type": "text"}}, "output": output}),
    )
}

fn chat(finish_reason: &str, message: Value) -> Answer {
    body(
        200,
        json!({"object": "chat.completion", "model": "m-2026",
               "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}]}),
    )
}

fn text(expected: &str) -> Answer {
    Answer::Text {
        text: expected.into(),
        model: Some("m-2026".into()),
    }
}

fn retry_code(answer: Answer) -> String {
    match answer {
        Answer::Retry { code, message } => {
            assert!(!message.is_empty());
            code
        }
        other => panic!("{other:?} is no retry"),
    }
}

fn malformed_code(answer: Answer) -> String {
    match answer {
        Answer::Malformed { code, message } => {
            assert!(!message.is_empty());
            code
        }
        other => panic!("{other:?} is not malformed"),
    }
}

fn blamed_setting(answer: &Answer) -> Setting {
    answer
        .setting()
        .unwrap_or_else(|| panic!("{answer:?} blames no setting"))
}

fn fail_code(answer: Answer) -> String {
    match answer {
        Answer::Fail { code, message } => {
            assert!(!message.is_empty());
            code
        }
        other => panic!("{other:?} is no failure"),
    }
}

#[test]
fn the_four_kinds_of_line() {
    let success = r#"{"id":"batch_req_1","custom_id":"s003-000017","response":{"status_code":200,
        "request_id":"0d6b","body":{"id":"resp_1","object":"response","status":"completed",
        "model":"gpt-6-luna-2026-09-22","error":null,"incomplete_details":null,"output":[
        {"id":"rs_1","type":"reasoning","summary":[]},
        {"id":"msg_1","type":"message","role":"assistant","status":"completed","content":[
        {"type":"output_text","text":"{\"fruit\":\"quince\"}","annotations":[],"logprobs":[]}]}],
        "usage":{"input_tokens":311,"input_tokens_details":{"cached_tokens":7,"cache_write_tokens":0},
        "output_tokens":9,"output_tokens_details":{"reasoning_tokens":3},"total_tokens":320}}},"error":null}"#;
    assert_eq!(
        read_line(success.as_bytes()).unwrap(),
        ResultLine {
            custom_id: "s003-000017".into(),
            answer: Answer::Text {
                text: "{\"fruit\":\"quince\"}".into(),
                model: Some("gpt-6-luna-2026-09-22".into()),
            },
            usage: TokenUsage {
                input: 311,
                cached: 7,
                output: 9,
                reasoning: 3,
            },
        }
    );
    let http_failure = r#"{"id":"batch_req_2","custom_id":"s003-000018","response":{"status_code":400,
        "request_id":"5f0e","body":{"error":{"message":"timeout while downloading the image",
        "type":"invalid_request_error","param":"url","code":"invalid_value"}}},"error":null}"#;
    assert_eq!(
        read_line(http_failure.as_bytes()).unwrap().answer,
        Answer::ImageUnreachable {
            message: "timeout while downloading the image".into()
        }
    );
    for code in ["batch_expired", "batch_cancelled"] {
        let never_run = format!(
            r#"{{"id":"batch_req_3","custom_id":"s003-000019","response":null,
                "error":{{"code":"{code}","message":"not executed"}}}}"#
        );
        let read = read_line(never_run.as_bytes()).unwrap();
        assert_eq!(read.custom_id, "s003-000019");
        assert_eq!(read.usage, TokenUsage::ZERO);
        assert_eq!(retry_code(read.answer), code);
    }
}

#[test]
fn errors_of_the_line_are_tried_again_unless_an_image_is_to_blame() {
    for code in [json!("request_timeout"), json!("some_new_code"), json!(504)] {
        let expected = code.as_str().unwrap_or("504").to_owned();
        let answer = line(Value::Null, json!({"code": code, "message": "m"}));
        assert_eq!(retry_code(answer), expected);
    }
    // R writes null as {}.
    let answer = line(json!({}), json!({"code": "batch_expired", "message": {}}));
    assert_eq!(retry_code(answer), "batch_expired");
    assert_eq!(
        line(Value::Null, json!({"code": "invalid_image_url", "message": "no"})),
        Answer::ImageUnreachable { message: "no".into() }
    );
    assert_eq!(malformed_code(line(Value::Null, Value::Null)), "no_answer");
    assert_eq!(malformed_code(line(json!({}), json!({}))), "no_answer");
    let with_status = |status| {
        line(
            json!({"status_code": status, "body": null}),
            json!({"code": "bad", "message": "m"}),
        )
    };
    assert_eq!(fail_code(with_status(400)), "bad");
    assert_eq!(retry_code(with_status(500)), "bad");
    assert_eq!(retry_code(with_status(0)), "bad");
}

#[test]
fn statuses_that_blame_no_request_are_tried_again() {
    for status in [0, 100, 302, 408, 409, 429, 500, 502, 503, 504, 520, 530, 999] {
        assert_eq!(retry_code(body(status, json!({}))), format!("http_{status}"));
        let html = json!("<html>Bad gateway</html>");
        assert_eq!(
            body(status, html),
            Answer::Retry {
                code: format!("http_{status}"),
                message: "<html>Bad gateway</html>".into()
            }
        );
    }
    assert_eq!(
        retry_code(api_error(429, json!("insufficient_quota"), Value::Null, "m")),
        "insufficient_quota"
    );
    assert_eq!(
        retry_code(line(json!({"status_code": 0, "body": null}), Value::Null)),
        "http_0"
    );
    for code in ["server_error", "rate_limit_exceeded"] {
        assert_eq!(retry_code(api_error(400, json!(code), Value::Null, "m")), code);
    }
    // The type stands in for a code that is null.
    let typed = json!({"error": {"message": "m", "type": "server_error", "param": null, "code": null}});
    assert_eq!(retry_code(body(400, typed)), "server_error");
}

#[test]
fn want_of_money_blames_no_request() {
    for (status, code) in [
        (400, "billing_hard_limit_reached"),
        (402, "credit_balance_exhausted"),
        (403, "insufficient_quota"),
    ] {
        let answer = api_error(status, json!(code), Value::Null, "m");
        assert!(matches!(answer, Answer::Retry { .. }), "{answer:?}");
    }
}

#[test]
fn errors_of_a_setting_name_it() {
    for (status, code, param, expected) in [
        (401, json!("invalid_api_key"), Value::Null, Setting::ApiKey),
        (403, json!(1010), Value::Null, Setting::ApiKey),
        (404, json!("model_not_found"), Value::Null, Setting::Model),
        (
            400,
            json!("unsupported_value"),
            json!("reasoning.effort"),
            Setting::ReasoningEffort,
        ),
        (400, Value::Null, json!("max_tokens"), Setting::MaxOutputTokens),
    ] {
        let answer = api_error(status, code, param, "m");
        assert_eq!(blamed_setting(&answer), expected);
        assert_eq!(answer.outcome().0, Outcome::Misconfigured);
    }
    assert_eq!(blamed_setting(&body(403, json!({}))), Setting::ApiKey);
}

#[test]
fn other_client_errors_fail() {
    for (status, code) in [
        (400, "context_length_exceeded"),
        (400, "invalid_prompt"),
        (400, "image_content_policy_violation"),
        (422, "unprocessable"),
    ] {
        assert_eq!(fail_code(api_error(status, json!(code), Value::Null, "m")), code);
    }
    let detail = |body_: Value| match body(400, body_) {
        Answer::Fail { message, .. } => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(detail(json!({"detail": "said here"})), "said here");
    assert_eq!(detail(json!({"detail": {"message": "said here"}})), "said here");
    assert_eq!(detail(json!({"error": {"detail": "said here"}})), "said here");
    assert_eq!(detail(json!({"error": "said here"})), "said here");
    // Clients read it: the account is not their affair.
    assert_eq!(
        detail(json!({"error": {"message": "limit of org-AbC123 by sk-proj-a*b_c"}})),
        "limit of org-… by sk-…"
    );
    assert_eq!(
        detail(json!({"error": {"code": "x"}, "detail": {"message": "said here", "code": null}})),
        "said here"
    );
}

#[test]
fn images_out_of_reach_are_known_by_code_parameter_or_message() {
    for (code, param, message) in [
        (json!("invalid_image_url"), Value::Null, "m"),
        (json!("failed_to_download_image"), Value::Null, "m"),
        (json!("image_file_not_found"), Value::Null, "m"),
        (
            json!("image_too_large"),
            Value::Null,
            "the downloaded image is too large",
        ),
        (json!("image_parse_error"), json!("input"), "the image is bad"),
        (json!("invalid_value"), json!("url"), "m"),
        (Value::Null, Value::Null, "Timeout while downloading the image."),
        (
            json!("invalid_value"),
            json!("input"),
            "Error while downloading https://img.example/1.jpg",
        ),
    ] {
        let expected = Answer::ImageUnreachable {
            message: message.into(),
        };
        assert_eq!(api_error(400, code.clone(), param, message), expected);
        let inside = json!({"object": "response", "status": "failed", "output": [],
                            "error": {"code": code, "message": message}});
        if !code.is_null() && code != "invalid_value" {
            assert_eq!(body(200, inside), expected);
        }
    }
    let answer = api_error(400, json!("invalid_value"), json!("input"), "the image is bad");
    assert_eq!(fail_code(answer), "invalid_value");
    let policy = json!("image_content_policy_violation");
    let answer = api_error(400, policy, Value::Null, "an image is not allowed");
    assert_eq!(fail_code(answer), "image_content_policy_violation");
    // The parameter names the image.
    let place = json!("input[0].content[3].image_url");
    for (message, expected) in [
        ("it is no image", "input[0].content[3].image_url: it is no image"),
        ("", "input[0].content[3].image_url: invalid_value"),
    ] {
        let answer = api_error(400, json!("invalid_value"), place.clone(), message);
        let message = expected.to_owned();
        assert_eq!(answer, Answer::ImageUnreachable { message });
    }
    // OpenAI's own trouble stays its own.
    let trouble = api_error(
        500,
        json!("invalid_image_url"),
        Value::Null,
        "downloading the image",
    );
    assert_eq!(retry_code(trouble), "invalid_image_url");
}

#[test]
fn the_text_is_what_the_messages_say() {
    let reasoning = json!({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}],
                           "content": [{"type": "reasoning_text", "text": "hmm"}]});
    let both = json!([output_text(" The bumper "), output_text("is dented.\u{0}\n")]);
    assert_eq!(
        responses(json!([reasoning, message(both)])),
        text("The bumper is dented.")
    );
    // Several messages: one text, as OpenAI's own libraries have it.
    let parts = |text| message(json!([output_text(text)]));
    assert_eq!(responses(json!([parts(""), parts("a"), parts("b")])), text("ab"));
    let phased = |phase: Value, text| {
        let mut item = parts(text);
        item["phase"] = phase;
        item
    };
    assert_eq!(
        responses(json!([
            phased(json!("commentary"), "Let me look."),
            phased(Value::Null, "Hm."),
            phased(json!("final_answer"), "Dented."),
        ])),
        text("Dented.")
    );
    assert_eq!(
        responses(json!([
            phased(json!("commentary"), "Let me look."),
            phased(Value::Null, "Dented."),
        ])),
        text("Dented.")
    );
    assert_eq!(chat("stop", json!({"content": " a "})), text("a"));
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
    assert_eq!(chat("stop", json!({"content": parts, "refusal": {}})), text("ab"));
    // A refusal beside a text does not undo the text.
    let refusal = json!({"type": "refusal", "refusal": "But not that."});
    assert_eq!(
        responses(json!([message(json!([output_text("a"), refusal]))])),
        text("a")
    );
}

#[test]
fn an_answer_without_text_is_none_and_never_the_format() {
    for answer in [
        responses(json!([])),
        responses(json!([message(json!([]))])),
        responses(json!([message(json!([output_text(" \u{0} \n")]))])),
        responses(json!([{"type": "reasoning", "summary": []}])),
        chat("stop", json!({"content": null, "refusal": null})),
        chat("tool_calls", json!({"content": null})),
    ] {
        assert_eq!(malformed_code(answer), "empty_text");
    }
    for malformed in [
        json!({}),
        json!("text"),
        json!([]),
        json!({"text": {"format": {"type": "text"}}}),
        json!({"choices": []}),
        json!({"choices": {"a": 1}}),
    ] {
        assert_eq!(malformed_code(body(200, malformed)), "malformed_body");
    }
}

#[test]
fn refusals_are_told() {
    let refused = Answer::Refusal {
        message: "I can't.".into(),
    };
    let part = json!({"type": "refusal", "refusal": " I can't. "});
    assert_eq!(responses(json!([message(json!([part]))])), refused);
    assert_eq!(
        chat("stop", json!({"content": null, "refusal": "I can't."})),
        refused
    );
    let long = json!({"content": null, "refusal": "й".repeat(501)});
    match chat("stop", long) {
        Answer::Refusal { message } => assert_eq!(message, "й".repeat(500)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn half_a_text_is_truncated_and_a_filtered_one_filtered() {
    let incomplete = |reason: Value| {
        body(
            200,
            json!({"object": "response", "status": "incomplete", "error": null,
                   "incomplete_details": reason, "output": [message(json!([output_text("half")]))]}),
        )
    };
    assert_eq!(
        incomplete(json!({"reason": "max_output_tokens"})),
        Answer::Truncated
    );
    assert_eq!(incomplete(json!({"reason": "content_filter"})), Answer::Filtered);
    assert_eq!(incomplete(Value::Null), Answer::Truncated);
    assert_eq!(chat("length", json!({"content": "half"})), Answer::Truncated);
    assert_eq!(
        chat("content_filter", json!({"content": "half"})),
        Answer::Filtered
    );
}

#[test]
fn a_run_that_failed_inside_a_200_is_no_success() {
    let failed = |status: &str, error: Value| {
        body(
            200,
            json!({"object": "response", "status": status, "error": error,
                   "output": [message(json!([output_text("some")]))]}),
        )
    };
    let error = |code: &str| json!({"code": code, "message": "m"});
    assert_eq!(
        retry_code(failed("failed", error("server_error"))),
        "server_error"
    );
    assert_eq!(
        retry_code(failed("failed", error("rate_limit_exceeded"))),
        "rate_limit_exceeded"
    );
    assert_eq!(
        fail_code(failed("failed", error("invalid_prompt"))),
        "invalid_prompt"
    );
    // Even where the status says otherwise.
    assert_eq!(
        fail_code(failed("completed", error("invalid_prompt"))),
        "invalid_prompt"
    );
    assert_eq!(retry_code(failed("failed", json!({"message": "m"}))), "failed");
    for status in ["failed", "queued", "in_progress", "cancelled", "new_status"] {
        let code = match failed(status, Value::Null) {
            Answer::Retry { code, .. } if status == "failed" => code,
            other => malformed_code(other),
        };
        assert_eq!(code, status);
    }
    assert_eq!(
        failed("completed", json!({})),
        Answer::Text {
            text: "some".into(),
            model: None
        }
    );
}

#[test]
fn tokens_are_counted_in_both_vocabularies() {
    let usage = |usage: Value| read_body(200, &json!({ "usage": usage })).1;
    let expected = TokenUsage {
        input: 10,
        cached: 4,
        output: 7,
        reasoning: 5,
    };
    assert_eq!(
        usage(
            json!({"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4},
                     "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 5}})
        ),
        expected
    );
    assert_eq!(
        usage(
            json!({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4},
                     "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 5}})
        ),
        expected
    );
    assert_eq!(
        usage(json!({"prompt_tokens": 10, "completion_tokens": 7, "prompt_tokens_details": null})),
        TokenUsage {
            cached: 0,
            reasoning: 0,
            ..expected
        }
    );
    for nonsense in [json!(null), json!({"input_tokens": "10"}), json!(7)] {
        assert_eq!(usage(nonsense), TokenUsage::ZERO);
    }
    let absurd = "{\"input_tokens\": -1, \"output_tokens\": 1e30}";
    let read = usage(serde_json::from_str(absurd).expect("JSON"));
    assert_eq!((read.input, read.output), (u64::MAX, u64::MAX));
}

fn line_saying(text: &str) -> String {
    format!(
        r#"{{"custom_id":"c","response":{{"status_code":200,"body":{{"choices":[{{"finish_reason":"stop","message":{{"content":"{text}"}}}}]}}}},"error":null}}"#
    )
}

fn said(line: &[u8]) -> String {
    match read_line(line).unwrap().answer {
        Answer::Text { text, model: None } => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn odd_texts_are_kept() {
    // U+2028 and its kind stand bare in strings.
    assert_eq!(
        said(line_saying("a\u{2028}b\u{2029}c\u{85}d").as_bytes()),
        "a\u{2028}b\u{2029}c\u{85}d"
    );
    assert_eq!(
        said(line_saying(r"\ud83d\ude97 \u043b").as_bytes()),
        "\u{1f697} л"
    );
    // A file may begin with a byte order mark.
    assert_eq!(said(format!("\u{feff}{}", line_saying("a")).as_bytes()), "a");
    // Bytes that are no character are replaced: the rest was paid for.
    assert_eq!(said(line_saying(r"a\ud83db").as_bytes()), "a\u{fffd}b");
    assert_eq!(said(line_saying(r"a\u0000b").as_bytes()), "ab");
    let large = "x".repeat(5_000_000);
    assert_eq!(said(line_saying(&large).as_bytes()), large);
}

#[test]
fn the_last_of_several_equal_keys_counts() {
    let line = br#"{"custom_id":"a","custom_id":"b","response":null,"error":null,
        "error":{"code":"batch_expired"}}"#;
    let read = read_line(line).unwrap();
    assert_eq!(read.custom_id, "b");
    assert_eq!(retry_code(read.answer), "batch_expired");
}

#[test]
fn broken_lines_name_their_request_where_they_can() {
    let whole = line_saying(r#"say \"custom_id\": \"other\" now"#);
    let mut invalid = whole.clone().into_bytes();
    let at = whole.find("say").unwrap();
    invalid[at] = 0xff;
    let broken = read_line(&invalid).unwrap_err();
    assert_eq!(broken.custom_id.as_deref(), Some("c"));
    assert_eq!(
        broken.message,
        format!("not a line of JSON: not valid UTF-8 at byte {at}")
    );
    for (bytes, custom_id) in [
        (&whole.as_bytes()[..whole.len() - 1], Some("c")),
        (
            br#"{"id":"x","custom_id" : "v_\u0041\"_1","resp"#,
            Some("v_A\"_1"),
        ),
        (br#"{"id":"x","custom_id":"v_1"#, None),
        (br#"{"id":"x","custom_id":7,"#, None),
        (br#"{"id":"x","custom_i"#, None),
        (b"", None),
        (b"\xff\xfe", None),
    ] {
        let broken = read_line(bytes).unwrap_err();
        assert_eq!(broken.custom_id.as_deref(), custom_id, "{broken}");
    }
    for (bytes, message) in [
        (&b"[]"[..], "the line is an array, not an object"),
        (b"null", "the line is null, not an object"),
        (b"{}", "the line has no custom_id"),
        (br#"{"custom_id":null}"#, "the line has no custom_id"),
        (br#"{"custom_id":5}"#, "the line has no custom_id"),
    ] {
        let broken = read_line(bytes).unwrap_err();
        assert_eq!((broken.message.as_str(), broken.custom_id), (message, None));
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
        drop(read_line(&bytes));
        let mut line = br#"{"custom_id":"c","response":"#.to_vec();
        line.extend(bytes);
        drop(read_line(&line));
    }
}
