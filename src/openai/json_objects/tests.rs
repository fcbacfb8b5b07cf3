use serde_json::json;

use super::*;

#[test]
fn null_absent_empty_and_wrong_kinds_mean_no_value() {
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
fn other_objects_are_refused() {
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
fn a_page_with_a_malformed_element_is_refused() {
    let good = json!({"id": "batch_1", "status": "completed"});
    let read = |value: Value| page(&value, Batch::from_json);
    assert!(read(json!({"data": [good, {"id": "batch_2"}], "has_more": false})).is_none());
    assert!(read(json!({"data": null, "has_more": false})).is_none());
    for (value, has_more, elements) in [
        (json!({"data": [good], "has_more": false}), Some(false), 1),
        (json!({"data": [good]}), None, 1),
        (json!({"data": []}), None, 0),
        (json!([good, good]), None, 2),
    ] {
        let page = read(value.clone()).unwrap();
        assert_eq!((page.has_more, page.data.len()), (has_more, elements), "{value}");
    }
}

#[test]
fn a_page_of_batches_is_read_without_errors() {
    let batch = json!({"id": "batch_1", "status": "failed", "errors": {"data": [{"code": "x"}]}});
    let bare = json!({"id": "batch_1", "status": "failed"});
    for (sent, has_more) in [
        (
            json!({"object": "list", "data": [batch], "has_more": true}),
            json!(true),
        ),
        (json!({"data": [batch], "count": 1}), json!(null)),
        (json!([batch]), json!(null)),
    ] {
        let read = batches_without_errors(sent.to_string().as_bytes()).unwrap();
        assert_eq!(read, json!({"data": [bare], "has_more": has_more}), "{sent}");
    }
    for wrong in [
        json!({"batches": []}),
        json!("x"),
        json!({"data": {"id": "batch_1"}}),
    ] {
        assert!(
            batches_without_errors(wrong.to_string().as_bytes()).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn states_and_times_of_compatible_servers_are_read() {
    for (stated, expected) in [
        ("scheduling", "validating"),
        ("QUEUED", "validating"),
        ("RUNNING", "in_progress"),
        ("In Progress", "in_progress"),
        ("SUCCESS", "completed"),
        ("TIMEOUT_EXCEEDED", "expired"),
        ("CANCELED", "cancelled"),
        ("parked", "parked"),
    ] {
        let batch = Batch::from_json(&json!({"id": "batch_1", "status": stated})).unwrap();
        assert_eq!(batch.status_text, expected);
        assert_eq!(
            batch.status.map(BatchStatus::as_str).unwrap_or("parked"),
            expected
        );
    }
    for (stated, expected) in [
        (json!("2026-11-23T02:13:20Z"), 1_795_400_000),
        (json!("2026-11-23T02:13:20.417+00:00"), 1_795_400_000),
        (json!("2026-11-23T02:13:20.417"), 1_795_400_000),
        (json!("2026-11-23 04:13:20+02:00"), 1_795_400_000),
        (json!("1795400000"), 1_795_400_000),
        (json!("yesterday"), 0),
    ] {
        let batch = json!({"id": "batch_1", "status": "completed", "created_at": stated});
        assert_eq!(Batch::from_json(&batch).unwrap().created_at, expected, "{stated}");
    }
}

#[test]
fn what_is_kept_of_an_object_is_limited() {
    let long = "x".repeat(600);
    let errors: Vec<Value> = (0..60_000)
        .map(|line| json!({"code": long, "param": long, "message": long, "line": line}))
        .collect();
    let mut metadata: serde_json::Map<String, Value> = (0..50)
        .map(|number| (format!("key {number}"), json!("value")))
        .collect();
    metadata.insert("a long value".into(), json!(long));
    let batch = Batch::from_json(&json!({
        "id": "batch_1", "status": long, "input_file_id": long, "model": long, "errors": errors, "metadata": metadata,
    }))
    .unwrap();
    assert_eq!(batch.status_text.len(), 256);
    assert_eq!((batch.input_file_id.as_str(), batch.model), ("", None));
    assert_eq!((batch.errors.len(), batch.metadata.len()), (50_000, 16));
    assert!(!batch.metadata.contains_key("a long value"));
    let error = &batch.errors[0];
    let lengths = [&error.code, &error.param, &error.message].map(|text| text.as_deref().map(str::len));
    assert_eq!(lengths, [Some(256), Some(256), Some(500)]);
    assert_eq!(
        Batch::from_json(&json!({"id": long, "status": "completed"})),
        None
    );
}

#[test]
fn an_id_or_a_time_that_cannot_be_one_has_no_value() {
    let with = |member: &str, value: Value| {
        let mut batch = json!({"id": "batch_1", "status": "completed", "created_at": 7, "expires_at": 9});
        batch[member] = value;
        Batch::from_json(&batch)
    };
    for id in ["batch_\u{0}1", "batch_\n1", &"x".repeat(MAX_WORD + 1), ""] {
        assert_eq!(with("id", json!(id)), None, "{id:?}");
    }
    for time in [json!(-1), json!(i64::MAX), json!(i64::MIN), json!(1e300)] {
        let created = with("created_at", time.clone()).unwrap();
        assert_eq!((created.created_at, created.expires_at), (0, Some(9)), "{time}");
        let expires = with("expires_at", time).unwrap();
        assert_eq!((expires.created_at, expires.expires_at), (7, None));
    }
    let counts = json!({"total": -1, "completed": u64::MAX, "failed": 1e300});
    assert_eq!(
        with("request_counts", counts).unwrap().counts,
        RequestCounts::default()
    );
    let usage = json!({"input_tokens": u64::MAX, "output_tokens": -5});
    let usage = with("usage", usage).unwrap().usage.unwrap();
    assert_eq!((usage.input, usage.output), (u64::MAX, u64::MAX));
}
