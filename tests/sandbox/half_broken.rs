//! Faults that leave things half done: effects without their answer, batches and files that are odd for a while.

use super::*;

/// A world with these faults, and an uploaded input of four lines.
fn with(faults: Value) -> (tempfile::TempDir, World, String) {
    let folder = folder();
    let world = World::new(folder.path());
    let file = world.upload(&vision_lines(4));
    world.fault(faults);
    (folder, world, file)
}

/// The batch of four lines that ran with these faults.
fn run(faults: Value) -> (tempfile::TempDir, World, Value) {
    let (folder, world, file) = with(faults);
    let id = world.create(&file, "t").json()["id"].as_str().unwrap().to_owned();
    world.wait(2_000);
    let batch = world.poll(&id);
    (folder, world, batch)
}

#[test]
fn a_call_may_take_effect_and_be_refused_or_cut() {
    for fault in [
        json!({"fault": "refuse_late", "times": 1, "value": {"status": 503, "message": "again, {request_id}"}}),
        json!({"fault": "cut_reply", "times": 1}),
        json!({"fault": "late_create", "value": 90_000, "times": 1}),
    ] {
        let (_folder, world, file) = with(fault.clone());
        let answer = world.create(&file, "t");
        match fault["fault"].as_str() {
            Some("refuse_late") => {
                let message = answer.json()["error"]["message"].clone();
                assert_eq!(answer.status, 503);
                assert!(message.as_str().unwrap().starts_with("again, req_"), "{message}");
            }
            _ => assert!(answer.broken),
        }
        let listed = || world.get("/v1/batches").json()["data"].as_array().unwrap().len();
        let is_late = fault["fault"] == "late_create";
        assert_eq!(listed(), usize::from(!is_late));
        world.wait(91);
        assert_eq!(listed(), 1, "{fault}");
    }
}

#[test]
fn a_call_may_never_arrive_or_meet_a_proxy() {
    let faults = json!([{"fault": "lost_call", "times": 1, "skip": 1}, {"fault": "html_page", "times": 1, "value": 503,
                         "match": ["GET", "/v1/files/"]}]);
    let (_folder, world, file) = with(faults);
    assert_eq!(world.get(&format!("/v1/files/{file}")).status, 503);
    assert_eq!(world.get("/v1/models").status, 200);
    assert!(world.create(&file, "t").broken);
    assert_eq!(world.get("/v1/batches").json()["data"], json!([]));
}

#[test]
fn an_input_may_be_unknown_to_the_validation_alone() {
    let (_folder, world, file) = with(json!({"fault": "file_lag_fail", "value": 5_000}));
    let young = world.create(&file, "t").json()["id"].as_str().unwrap().to_owned();
    world.wait(5);
    let failed = world.poll(&young);
    assert_eq!(
        (&failed["status"], &failed["errors"]["data"][0]["param"]),
        (&json!("failed"), &json!("file_id"))
    );
    let old = world.create(&file, "t").json()["id"].as_str().unwrap().to_owned();
    world.wait(5);
    assert_eq!(world.poll(&old)["status"], "in_progress");
}

#[test]
fn a_validation_may_fail_without_an_explanation() {
    for (errors, shown) in [
        (json!(null), json!(null)),
        (json!([]), json!({"object": "list", "data": []})),
        (
            json!([{"code": "odd"}]),
            json!({"object": "list", "data": [{"code": "odd", "message": null, "param": null, "line": null}]}),
        ),
    ] {
        let (_folder, _world, batch) = run(json!({"fault": "failed_validation", "value": errors}));
        assert_eq!((&batch["status"], &batch["errors"]), (&json!("failed"), &shown));
    }
    let (_folder, _world, batch) = run(json!({"fault": "blame_line", "match": "lot 2"}));
    assert_eq!(batch["errors"]["data"][0]["line"], 3);
    let (_folder, _world, batch) = run(json!({"fault": "poison_line", "match": "lot 2"}));
    assert_eq!(batch["errors"]["data"][0]["line"], Value::Null);
    for full in [
        json!({"fault": "queue_lines", "value": 3}),
        json!({"fault": "queue_tokens", "value": 50}),
        json!({"fault": "queue_tokens", "value": {"inputs": 50}}),
    ] {
        let (_folder, _world, batch) = run(full);
        assert_eq!(batch["errors"]["data"][0]["code"], "token_limit_exceeded");
    }
}

#[test]
fn a_batch_may_end_as_failed_with_its_files() {
    let (_folder, world, file) = with(json!({"fault": "unknown_status", "value": {"ended": "failed"}}));
    let id = world.create(&file, "t").json()["id"].as_str().unwrap().to_owned();
    assert_eq!(world.poll(&id)["status"], "validating");
    world.wait(2_000);
    let batch = world.poll(&id);
    assert_eq!(batch["status"], "failed");
    assert!(batch["output_file_id"].is_string(), "{batch}");
}

#[test]
fn a_batch_may_show_what_is_not_so() {
    let (_folder, world, batch) = run(json!([
        {"fault": "unknown_status", "value": {"final": "archived"}},
        {"fault": "counts_mismatch", "value": {"completed": -2, "failed": 1, "total": 3}},
        {"fault": "usage_differs", "value": "none"},
        {"fault": "late_output_id", "value": 3_000_000},
        {"fault": "no_created_at"},
        {"fault": "unended_file"},
        {"fault": "line_500", "match": "v_3"}
    ]));
    assert_eq!(batch["status"], "archived");
    assert_eq!(
        batch["request_counts"],
        json!({"total": 7, "completed": 1, "failed": 2})
    );
    assert_eq!(batch["usage"]["total_tokens"], 0);
    assert_eq!(batch["output_file_id"], Value::Null);
    assert_eq!(world.results(&batch, "error_file_id").len(), 1);
    assert_eq!(world.get("/v1/batches").json()["data"][0]["created_at"], 0);
    world.wait(3_000);
    let batch = world.poll(batch["id"].as_str().unwrap());
    let output = batch["output_file_id"].as_str().unwrap();
    let content = world.get(&format!("/v1/files/{output}/content"));
    assert_eq!(content.bytes.last(), Some(&b'}'));
}

#[test]
fn another_program_may_cancel_a_batch_or_fill_the_list() {
    let (_folder, world, batch) = run(json!([{"fault": "cancelled_elsewhere", "value": 1},
                                             {"fault": "run_time", "value": 0}, {"fault": "short_pages", "value": 3}]));
    assert_eq!(batch["status"], "cancelled");
    assert_eq!(world.results(&batch, "output_file_id").len(), 1);
    let lines = json!([{"custom_id": "theirs"}]);
    let foreign = json!({"lines": lines, "count": 6, "metadata": {"submission": "ours"}});
    assert_eq!(world.post("/sandbox/batches/seed", &foreign).status, 200);
    let page = world.get("/v1/batches?limit=100").json();
    assert_eq!(page["data"].as_array().unwrap().len(), 3);
    let after = page["last_id"].as_str().unwrap();
    let rest = world.get(&format!("/v1/batches?limit=100&after={after}")).json();
    assert_eq!(rest["has_more"], true);
}

#[test]
fn a_file_may_become_whole_later() {
    for (fault, says_half) in [("partial_content", false), ("partial_file", true)] {
        let (_folder, world, file) = with(json!({"fault": fault, "value": 60_000}));
        let read = || {
            let bytes = world.get(&format!("/v1/files/{file}")).json()["bytes"].as_u64();
            let content = world.get(&format!("/v1/files/{file}/content")).bytes.len() as u64;
            (bytes.unwrap(), content)
        };
        let (bytes, content) = read();
        world.wait(61);
        let (whole, all) = read();
        assert_eq!((whole, content), (all, all / 2));
        assert_eq!(bytes, if says_half { content } else { whole });
    }
    let (_folder, world, file) = with(json!({"fault": "content_cut", "times": 1}));
    let content = || world.get(&format!("/v1/files/{file}/content"));
    let (cut, whole) = (content(), content());
    assert!(!cut.broken);
    assert_eq!(cut.bytes.len(), whole.bytes.len() / 2);
}

#[test]
fn lines_may_fail_for_a_time_or_in_both_files() {
    let (_folder, world, batch) = run(json!([
        {"fault": "line_error", "match": ["kind:description", "text:lot 0"], "value": {"status": 429, "message": "{request_id}"}},
        {"fault": "failed_inside", "match": "text:lot 1", "value": "rate_limit_exceeded"},
        {"fault": "both_files", "match": "text:lot 2"},
        {"fault": "truncated_line", "match": "text:lot 3", "value": 4096},
        {"fault": "reasoning_item", "match": "text:lot 3"}
    ]));
    let output = world.results(&batch, "output_file_id");
    let body = |id: &str| {
        let line = output.iter().find(|line| line["custom_id"] == id).unwrap();
        line["response"]["body"].clone()
    };
    assert_eq!(body("v_1")["status"], "failed");
    assert_eq!(body("v_1")["error"]["code"], "rate_limit_exceeded");
    assert_eq!(body("v_2")["status"], "completed");
    assert_eq!(body("v_3")["status"], "incomplete");
    assert_eq!(body("v_3")["output"][0]["type"], "reasoning");
    let errors = world.results(&batch, "error_file_id");
    let message = |line: &Value| line["response"]["body"]["error"]["message"].clone();
    let ids: BTreeSet<_> = errors
        .iter()
        .map(|line| line["custom_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, BTreeSet::from(["v_0", "v_2"]));
    assert!(
        errors
            .iter()
            .any(|line| message(line).as_str().unwrap().starts_with("req_"))
    );
    let (_folder, world, batch) = run(json!({"fault": "line_500", "for_ms": 1_000_000}));
    assert_eq!(batch["request_counts"]["failed"], 0, "the time was over");
    drop(world);
}

#[test]
fn every_fault_is_described() {
    let page = std::fs::read_to_string("docs/how-to/sandbox.md").unwrap();
    for fault in batchkeeper::sandbox::Fault::ALL {
        assert!(
            page.contains(&format!("`{fault}`")),
            "docs/how-to/sandbox.md lacks {fault}"
        );
    }
}
