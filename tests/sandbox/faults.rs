//! The faults of the simulated OpenAI.

use super::*;

#[test]
fn a_window_that_closes_leaves_partial_results() {
    let folder = folder();
    let world = World::new(folder.path());
    world.fault(json!({"fault": "stall_in_progress", "match": "slow"}));
    let slow = world.batch(&vision_lines(4), "slow");
    world.fault(json!({"fault": "expire_partial", "value": 0.25, "match": "quick"}));
    let quick = world.batch(&vision_lines(4), "quick");
    world.wait(700);
    let quick = world.poll(&quick);
    assert_eq!(quick["status"], "expired");
    assert_eq!(world.results(&quick, "output_file_id").len(), 1);
    assert_eq!(
        world.results(&quick, "error_file_id")[0]["error"]["code"],
        "batch_expired"
    );
    assert_eq!(world.poll(&slow)["status"], "in_progress");
    world.wait(86_400);
    let slow = world.poll(&slow);
    assert_eq!(slow["status"], "expired");
    assert_eq!(slow["finalizing_at"], slow["expires_at"].as_i64().unwrap() + 1);
    assert_eq!(slow["output_file_id"], Value::Null);
    // Deleting the faults ends a stall that has no end of its own.
    let stalled = world.batch(&vision_lines(1), "slow");
    world.wait(3_600);
    assert_eq!(world.poll(&stalled)["status"], "in_progress");
    world.send("DELETE", "/sandbox/faults", &[], b"");
    world.wait(2);
    assert_eq!(world.poll(&stalled)["status"], "completed");
}

#[test]
fn lost_replies_and_broken_connections() {
    let folder = folder();
    let world = World::new(folder.path());
    for (fault, files) in [("broken_upload", 0), ("lost_upload_reply", 1)] {
        world.fault(json!({"fault": fault, "times": 1, "match": "in.jsonl"}));
        assert!(
            world
                .upload_parts(&[("purpose", "batch")], "in.jsonl", b"{}")
                .broken
        );
        let list = world.get("/v1/files?purpose=batch&order=desc").json();
        assert_eq!(list["data"].as_array().unwrap().len(), files);
    }
    let file = world.upload(&vision_lines(3));
    world.fault(json!([{"fault": "lost_create_reply", "times": 1, "match": "t1"}, {"fault": "list_lag", "times": 1, "value": 5000}]));
    assert!(world.create(&file, "t1").broken);
    assert_eq!(world.get("/v1/batches").json()["data"], json!([]));
    world.wait(6);
    let found = world.get("/v1/batches").json()["data"][0].clone();
    assert_eq!(found["metadata"]["submission"], "t1");
    world.fault(json!({"fault": "reject_create", "times": 1, "value": {"status": 400, "code": "billing_hard_limit_reached"}}));
    assert_eq!(world.create(&file, "t2").error().1, "billing_hard_limit_reached");
    world.fault(json!({"fault": "file_lag_create", "times": 1}));
    assert_eq!(
        world.create(&file, "t2").error(),
        (400, String::new(), "file_id".into())
    );
    world.fault(json!({"fault": "create_twice", "times": 1}));
    assert_eq!(world.create(&file, "t2").status, 200);
    let list = world.get("/v1/batches").json();
    assert_eq!(list["data"].as_array().unwrap().len(), 3);
    assert_eq!(world.state()["duplicate_submissions"], json!([]));
}

#[test]
fn refused_and_cut_answers() {
    let folder = folder();
    let world = World::new(folder.path());
    world.batch(&vision_lines(3), "t1");
    let id = world.batch(&vision_lines(3), "t2");
    let id = id.as_str();
    world.fault(json!([{"fault": "html_502_on_poll", "times": 1}, {"fault": "unauthorized", "times": 1, "match": "GET /v1/models"},
        {"fault": "refuse", "times": 1, "match": "/v1/models", "value": {"status": 429, "code": "rate_limit_exceeded", "retry_after": 7}}]));
    assert_eq!(world.get(&format!("/v1/batches/{id}")).status, 502);
    assert_eq!(world.get("/v1/models").status, 401);
    let limited = world.get("/v1/models");
    assert!(limited.headers.contains(&("Retry-After".into(), "7".into())));
    world.wait(60);
    let done = world.poll(id);
    let content = format!("/v1/files/{}/content", done["output_file_id"].as_str().unwrap());
    world.fault(json!([{"fault": "content_502", "times": 1}, {"fault": "content_truncated", "times": 1}]));
    assert_eq!(world.get(&content).status, 502);
    let cut = world.get(&content);
    let whole = world.get(&content);
    assert!(cut.broken && !whole.broken);
    assert_eq!(cut.bytes.len(), whole.bytes.len() / 2);
    world.fault(json!({"fault": "batch_gone", "match": id}));
    assert_eq!(world.get(&format!("/v1/batches/{id}")).status, 404);
    world.fault(json!({"fault": "list_loop"}));
    let last = world.get("/v1/batches").json();
    let after = last["last_id"].as_str().unwrap().to_owned();
    assert_eq!(
        world.get(&format!("/v1/batches?after={after}")).json()["has_more"],
        true
    );
    assert_eq!(
        world.post("/sandbox/faults", &json!({"fault": "party"})).status,
        400
    );
}

/// The faults of the lines `v_10` to `v_23`.
const LINE_FAULTS: [&str; 14] = [
    "line_429",
    "line_500",
    "line_403",
    "image_timeout",
    "truncated_line",
    "refusal_line",
    "nested_parts",
    "odd_unicode",
    "missing_lines",
    "duplicate_lines",
    "extra_lines",
    "cut_line",
    "invalid_utf8_line",
    "status_zero_lines",
];

/// The lines of a result file that are valid JSON.
fn valid_lines(content: &[u8]) -> Vec<Value> {
    content
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

#[test]
fn each_fault_of_a_line_has_its_effect() {
    let folder = folder();
    let world = World::new(folder.path());
    for (n, fault) in LINE_FAULTS.iter().enumerate() {
        world.fault(json!({"fault": fault, "times": 1, "match": format!("v_{}", n + 10)}));
    }
    world.fault(json!({"fault": "huge_line", "value": 300_000, "match": "v_30"}));
    let id = world.batch(&vision_lines(31), "t");
    world.wait(60);
    let done = world.poll(&id);
    assert_eq!(
        done["request_counts"],
        json!({"total": 31, "completed": 27, "failed": 4})
    );
    let content = world.get(&format!(
        "/v1/files/{}/content",
        done["output_file_id"].as_str().unwrap()
    ));
    let read = valid_lines(&content.bytes);
    let of = |n: usize| {
        read.iter()
            .filter(|line| line["custom_id"] == format!("v_{n}"))
            .collect::<Vec<_>>()
    };
    let errors = world.results(&done, "error_file_id");
    let statuses = errors
        .iter()
        .map(|line| line["response"]["status_code"].as_u64().unwrap())
        .collect::<BTreeSet<_>>();
    assert_eq!(statuses, [400, 403, 429, 500].into());
    assert_eq!(of(14)[0]["response"]["body"]["status"], "incomplete");
    assert_eq!(
        of(15)[0]["response"]["body"]["output"][0]["content"][0]["type"],
        "refusal"
    );
    assert_eq!(
        text_of(of(16)[0]),
        expected_description("lot 16", &["http://h/images/truck.jpg"])
    );
    assert_eq!(of(16)[0]["response"]["body"]["output"][0]["phase"], "commentary");
    assert!(text_of(of(17)[0]).ends_with(batchkeeper::sandbox::ODD_UNICODE));
    assert!(
        content
            .bytes
            .windows(3)
            .any(|bytes| bytes == "\u{2028}".as_bytes())
    );
    assert_eq!(of(18).len(), 0);
    assert_eq!(of(19).len(), 2);
    assert_eq!(
        read.iter()
            .filter(|line| line["custom_id"] == "v_20-extra")
            .count(),
        1
    );
    assert_eq!((of(21).len(), of(22).len()), (0, 0));
    assert_eq!(of(23)[0]["response"]["status_code"], 0);
    assert!(text_of(of(30)[0]).len() >= 300_000);
    let state = world.state();
    assert_eq!(
        (
            &state["executed"],
            &state["max_executions"],
            &state["max_answers"]
        ),
        (&json!(31), &json!(1), &json!(1))
    );
    assert_eq!(state["faults_struck"].as_object().unwrap().len(), 15);
}

impl World {
    /// A batch of four lines that ran with these faults alone.
    fn run_with(&self, fault: Value) -> Value {
        self.send("DELETE", "/sandbox/faults", &[], b"");
        self.fault(fault);
        let id = self.batch(&vision_lines(4), "t");
        self.wait(2_000);
        self.poll(&id)
    }

    /// Panics if there is a flag other than that of the tests' equal submissions.
    fn check_flags(&self) {
        let flags = self.state()["flags"].clone();
        assert!(
            flags
                .as_array()
                .unwrap()
                .iter()
                .all(|flag| flag["flag"] == "duplicate_submission"),
            "{flags}"
        );
    }
}

#[test]
fn each_fault_of_a_batch_has_its_effect() {
    let folder = folder();
    let world = World::new(folder.path());
    let run = |fault: Value| world.run_with(fault);
    let batch = run(json!({"fault": "all_failed"}));
    assert_eq!(
        (&batch["status"], &batch["output_file_id"]),
        (&json!("completed"), &Value::Null)
    );
    assert_eq!(world.results(&batch, "error_file_id").len(), 4);
    let batch = run(json!([{"fault": "all_404"}, {"fault": "empty_string_ids"}]));
    assert_eq!(batch["output_file_id"], "");
    assert_eq!(
        world.results(&batch, "error_file_id")[0]["response"]["status_code"],
        404
    );
    let batch = run(json!({"fault": "counts_mismatch"}));
    assert_eq!(batch["request_counts"]["completed"], 3);
    let batch = run(json!({"fault": "expire_with_output"}));
    assert_eq!(
        (&batch["status"], &batch["request_counts"]["completed"]),
        (&json!("expired"), &json!(0))
    );
    assert_eq!(world.results(&batch, "output_file_id").len(), 4);
    let batch = run(json!({"fault": "expire_server_error"}));
    assert_eq!(
        world.results(&batch, "error_file_id")[0]["response"]["status_code"],
        500
    );
    let batch = run(json!({"fault": "failed_validation_line", "value": 3}));
    assert_eq!(batch["errors"]["data"][0]["line"], 3);
    let batch = run(json!({"fault": "token_limit_async", "value": 1234567}));
    assert!(
        batch["errors"]["data"][0]["message"]
            .as_str()
            .unwrap()
            .contains("1,234,567")
    );
    world.check_flags();
}

#[test]
fn each_fault_of_a_batch_object_has_its_effect() {
    let folder = folder();
    let world = World::new(folder.path());
    let run = |fault: Value| world.run_with(fault);
    let batch = run(json!({"fault": "late_file_ids", "value": 3_600_000}));
    assert_eq!(
        (&batch["status"], &batch["output_file_id"]),
        (&json!("completed"), &Value::Null)
    );
    world.wait(3_600);
    assert!(world.poll(batch["id"].as_str().unwrap())["output_file_id"].is_string());
    let batch = run(
        json!([{"fault": "shuffle_output", "value": false}, {"fault": "snapshot_model", "value": false}, {"fault": "null_vs_absent"}]),
    );
    assert!(batch.get("failed_at").is_none());
    let output = world.results(&batch, "output_file_id");
    assert_eq!(output[0]["custom_id"], "v_0");
    assert_eq!(output[0]["response"]["body"]["model"], "gpt-6-luna");
    world.send("DELETE", "/sandbox/faults", &[], b"");
    world.fault(json!({"fault": "fast_batch"}));
    let id = world.batch(&vision_lines(1), "t");
    assert_eq!(world.poll(&id)["status"], "completed");
    world.check_flags();
}

#[test]
fn webhooks_and_images() {
    let folder = folder();
    let world = World::new(folder.path());
    world.fault(json!([{"fault": "hook_status", "times": 1, "value": 503}, {"fault": "delay", "times": 1, "value": 20, "match": "/hooks/"}]));
    for status in [503, 200] {
        let answer = world.send(
            "POST",
            "/hooks/one?x=1",
            &[("webhook-id", "msg_1")],
            b"{\"raw\":\xff}",
        );
        assert_eq!(answer.status, status);
    }
    let seen = world.get("/sandbox/hooks/one").json();
    assert_eq!(seen["count"], 2);
    assert_eq!(seen["deliveries"][0]["body_base64"], "eyJyYXciOv99");
    assert_eq!(
        seen["deliveries"][1]["headers"][1],
        json!(["webhook-id", "msg_1"])
    );
    assert_eq!(world.get("/sandbox/hooks/none").json()["count"], 0);
    assert_eq!(world.send("POST", "/hooks/..", &[], b"").status, 404);
    let image = world.get("/images/truck.jpg");
    assert!(image.bytes.starts_with(&[0xFF, 0xD8]));
    assert_eq!(world.get("/images/boat.jpg").status, 404);
    let ledger = world.get("/sandbox/ledger");
    assert!(
        String::from_utf8(ledger.bytes)
            .unwrap()
            .lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
}

#[test]
fn a_hostile_openai_states_absurd_tokens_and_answers_with_a_known_id() {
    let folder = folder();
    let world = World::new(folder.path());
    world.fault(
        json!([{"fault": "absurd_usage", "match": "v_0"}, {"fault": "create_known_id", "match": "second"}]),
    );
    let first = world.batch(&vision_lines(2), "first");
    assert_eq!(world.batch(&vision_lines(2), "second"), first);
    assert_eq!(
        world.get("/v1/batches").json()["data"].as_array().unwrap().len(),
        2
    );
    world.wait(60);
    let lines = world.results(&world.poll(&first), "output_file_id");
    let usage = |id: &str| {
        let line = lines.iter().find(|line| line["custom_id"] == id).unwrap();
        line["response"]["body"]["usage"]["input_tokens"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(usage("v_0"), 9_000_000_000_000_000_000);
    assert!(usage("v_1") < 1_000);
}
