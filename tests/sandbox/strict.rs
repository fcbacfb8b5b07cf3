//! The calls and inputs that the simulated OpenAI refuses or flags.

use super::*;

/// A world with small limits.
fn limited(folder: &Path) -> World {
    World::with(
        folder,
        SandboxSettings {
            max_upload_bytes: 5_000,
            creates_per_hour: 3,
            ..settings()
        },
    )
}

#[test]
fn keys_uploads_and_ids_are_checked() {
    let folder = folder();
    let mut world = limited(folder.path());
    // Keys and projects.
    world.key = "sk-x";
    assert_eq!(
        world.get("/v1/batches").error(),
        (401, "invalid_api_key".into(), String::new())
    );
    world.key = "sk-a";
    let other = world.send("GET", "/v1/batches", &[("openai-project", "proj_b")], b"");
    assert_eq!(other.error().1, "mismatched_project");
    // Uploads.
    let purpose = world.upload_parts(&[("purpose", "party")], "in.jsonl", b"{}");
    assert_eq!(purpose.error(), (400, String::new(), "purpose".into()));
    assert_eq!(purpose.json()["detail"]["code"], Value::Null);
    for name in ["in.json", "in", ""] {
        assert_eq!(
            world.upload_parts(&[("purpose", "batch")], name, b"{}").status,
            400,
            "{name}"
        );
    }
    assert_eq!(
        world
            .upload_parts(&[("purpose", "batch")], "in.jsonl", &[b'x'; 5_001])
            .status,
        413
    );
    for (anchor, seconds, status) in [
        ("created_at", "3600", 200),
        ("created_at", "3599", 400),
        ("created_at", "2592001", 400),
        ("now", "3600", 400),
    ] {
        let parts = [
            ("purpose", "batch"),
            ("expires_after[anchor]", anchor),
            ("expires_after[seconds]", seconds),
        ];
        assert_eq!(
            world.upload_parts(&parts, "in.jsonl", b"{}").status,
            status,
            "{anchor} {seconds}"
        );
    }
    // Unknown files and batches.
    for (method, path) in [
        ("GET", "/v1/files/file-x"),
        ("GET", "/v1/files/file-x/content"),
        ("DELETE", "/v1/files/file-x"),
    ] {
        let answer = world.send(method, path, &[], b"");
        assert_eq!(answer.error(), (404, String::new(), "id".into()));
        assert!(
            answer.json()["detail"]["message"]
                .as_str()
                .unwrap()
                .contains("No such File object: file-x")
        );
    }
    assert_eq!(world.get("/v1/batches/batch_x").status, 404);
    assert_eq!(world.state()["flags"], json!([]));
}

#[test]
fn the_body_of_a_create_is_checked() {
    let folder = folder();
    let world = limited(folder.path());
    let file = world.upload(&vision_lines(1));
    let with = |change: fn(&mut Value)| {
        let mut body = new_batch(&file, "t");
        change(&mut body);
        world.post("/v1/batches", &body).error()
    };
    let expected = |code: &str, param: &str| (400, code.to_owned(), param.to_owned());
    for (got, code, param) in [
        (
            with(|b| drop(b.as_object_mut().unwrap().remove("endpoint"))),
            "missing_required_parameter",
            "endpoint",
        ),
        (
            with(|b| drop(b.as_object_mut().unwrap().remove("input_file_id"))),
            "missing_required_parameter",
            "input_file_id",
        ),
        (
            with(|b| b["endpoint"] = json!("/v1/party")),
            "invalid_value",
            "endpoint",
        ),
        (
            with(|b| b["completion_window"] = json!("48h")),
            "invalid_value",
            "completion_window",
        ),
        (
            with(|b| b["metadata"]["n"] = json!(1)),
            "invalid_type",
            "metadata.n",
        ),
        (
            with(|b| b["metadata"]["n"] = json!("x".repeat(513))),
            "string_above_max_length",
            "metadata.n",
        ),
        (
            with(|b| {
                b["metadata"] = (0..17)
                    .map(|n| (n.to_string(), json!("x")))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
            "object_above_max_properties",
            "metadata",
        ),
        (
            with(|b| b["output_expires_after"] = json!({"anchor": "created_at", "seconds": 1})),
            "invalid_value",
            "output_expires_after",
        ),
        (with(|b| b["input_file_id"] = json!("file-x")), "", "file_id"),
    ] {
        assert_eq!(got, expected(code, param));
    }
    assert_eq!(world.state()["flags"], json!([]));
}

#[test]
fn creates_are_limited_and_oddities_are_flagged() {
    let folder = folder();
    let mut world = limited(folder.path());
    let file = world.upload(&vision_lines(1));
    // The rate limit accepts three creates, refuses the fourth, and accepts it an hour later.
    let first = world.create(&file, "a").json()["id"].as_str().unwrap().to_owned();
    assert_eq!(world.create(&file, "b").status, 200);
    // A second create with the same `submission` is accepted, but flagged.
    assert_eq!(world.create(&file, "b").status, 200);
    assert_eq!(
        world.create(&file, "c").error(),
        (429, "rate_limit_exceeded".into(), String::new())
    );
    assert_eq!(world.state()["duplicate_submissions"][0]["submission"], "b");
    world.wait(3_601);
    assert_eq!(world.create(&file, "c").status, 200);
    // A batch that is final cannot be cancelled.
    let cancel = format!("/v1/batches/{first}/cancel");
    assert_eq!(
        world.send("POST", &cancel, &[], b"").error(),
        (409, String::new(), String::new())
    );
    // Limits, unknown query parameters, idempotency keys.
    for (limit, status) in [("0", 400), ("101", 400), ("x", 400), ("1", 200), ("100", 200)] {
        assert_eq!(world.get(&format!("/v1/batches?limit={limit}")).status, status);
    }
    assert_eq!(world.get("/v1/batches?status=completed").status, 200);
    world.send("POST", "/v1/batches", &[("idempotency-key", "k")], b"{}");
    let flags = world.state()["flags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flag| flag["flag"].as_str().unwrap().to_owned())
        .collect::<BTreeSet<_>>();
    assert_eq!(
        flags,
        [
            "duplicate_submission",
            "idempotency_key",
            "unknown_query_parameter"
        ]
        .map(String::from)
        .into()
    );
    // Another project sees neither the batch nor the file.
    world.key = "sk-b";
    assert_eq!(world.get(&format!("/v1/batches/{first}")).status, 404);
    assert_eq!(world.get(&format!("/v1/files/{file}")).status, 404);
    assert_eq!(world.get("/v1/batches").json()["data"], json!([]));
}

/// An input with one error, and the error's code, param and line.
type InvalidInput = (String, &'static str, Option<&'static str>, Option<u64>);

fn invalid_inputs() -> Vec<InvalidInput> {
    let good = vision_body("x", &[]);
    let mut other = good.clone();
    other["model"] = json!("gpt-4.1-mini");
    let mut unknown = good.clone();
    unknown["model"] = json!("gpt-9");
    let mut streaming = good.clone();
    streaming["stream"] = json!(true);
    let first = line("a", &good);
    vec![
        (format!("\u{feff}{first}"), "invalid_json_line", None, Some(1)),
        (format!("{first}\nnonsense\n"), "invalid_json_line", None, Some(2)),
        (format!("{first}\n\n"), "invalid_json_line", None, Some(2)),
        (
            format!(
                "{first}\n{}",
                json!({"custom_id": "b", "url": "/v1/responses", "body": good})
            ),
            "missing_required_parameter",
            Some("method"),
            Some(2),
        ),
        (
            first.replace("POST", "GET"),
            "invalid_value",
            Some("method"),
            Some(1),
        ),
        (
            first.replace("/v1/responses", "/v1/embeddings"),
            "invalid_url",
            Some("url"),
            Some(1),
        ),
        (
            format!("{first}\n{first}"),
            "duplicate_custom_id",
            Some("custom_id"),
            Some(2),
        ),
        (
            format!("{first}\n{}", line("b", &other)),
            "mismatched_model",
            Some("body.model"),
            Some(2),
        ),
        (
            line("a", &unknown),
            "model_not_found",
            Some("body.model"),
            Some(1),
        ),
        (
            line("a", &streaming),
            "streaming_unsupported",
            Some("body.stream"),
            Some(1),
        ),
        (vision_lines(4), "too_many_tasks", None, None),
    ]
}

#[test]
fn inputs_are_checked_line_by_line() {
    let folder = folder();
    let world = World::with(
        folder.path(),
        SandboxSettings {
            max_lines: 3,
            unknown_file: UnknownFile::FailLater,
            ..settings()
        },
    );
    for (input, code, param, number) in invalid_inputs() {
        let id = world.batch(&input, "t");
        world.wait(60);
        let batch = world.poll(&id);
        assert_eq!(batch["status"], "failed", "{input}");
        let errors = batch["errors"]["data"].as_array().unwrap();
        assert_eq!(errors.len(), 1, "{errors:?}");
        let error = &errors[0];
        assert_eq!(
            (&error["code"], &error["param"], &error["line"]),
            (&json!(code), &json!(param), &json!(number))
        );
        assert_eq!(batch["request_counts"]["total"], 0);
    }
    let id = world.create("file-x", "t").json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.wait(60);
    assert_eq!(world.poll(&id)["errors"]["data"][0]["param"], "file_id");
    assert_eq!(world.state()["executed"], 0);
}

#[test]
fn an_upload_that_is_no_jsonl_is_refused() {
    let folder = folder();
    let world = World::new(folder.path());
    for content in ["", "\n", "not JSON\n", "custom_id,method\n"] {
        let answer = world.upload_parts(&[("purpose", "batch")], "input.jsonl", content.as_bytes());
        assert_eq!(answer.status, 400, "{content:?}");
        assert_eq!(answer.json()["error"]["param"], "file");
    }
}

#[test]
fn an_image_that_is_an_object_has_the_wrong_type() {
    let folder = folder();
    let world = World::new(folder.path());
    let mut body = vision_body("x", &["http://127.0.0.1:1/a.jpg"]);
    let image = &mut body["input"][0]["content"][1]["image_url"];
    assert!(image.is_string(), "{body}");
    *image = json!({"url": "http://127.0.0.1:1/a.jpg"});
    let answer = world.post("/v1/responses", &body);
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (400, &json!("invalid_type"))
    );
}

#[test]
fn the_queue_of_a_model_has_a_limit() {
    let folder = folder();
    let mut settings = settings();
    settings.models[0].enqueued_tokens = Some(8_000);
    let world = World::with(folder.path(), settings);
    let lines = vision_lines(2);
    let first = world.batch(&lines, "a");
    world.wait(2);
    assert_eq!(world.poll(&first)["status"], "in_progress");
    let second = world.batch(&lines, "b");
    world.wait(2);
    let refused = world.poll(&second);
    assert_eq!(refused["errors"]["data"][0]["code"], "token_limit_exceeded");
    assert!(
        refused["errors"]["data"][0]["message"]
            .as_str()
            .unwrap()
            .contains("Limit: 8,000 enqueued tokens")
    );
    world.wait(60);
    // The first batch has ended, although no call has read it since.
    let third = world.batch(&lines, "c");
    world.wait(2);
    assert_eq!(world.poll(&third)["status"], "in_progress");
}
