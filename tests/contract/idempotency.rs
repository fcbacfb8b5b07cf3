//! Idempotency: keys, signatures, and equal submissions.

use std::collections::BTreeSet;

use batchkeeper::base::thread_group;
use serde_json::{Value, json};

use crate::appliance::{Answer, Appliance, KEY, call, submission};
use crate::{SUBMIT, accepted, borrowed, refused, sign_with, v1};

const OTHER_KEY: &str = "a key that only the other client has";

fn with_window(window: &str) -> Appliance {
    Appliance::with(&format!(
        "clients = [{{name = \"default\", keys = [{KEY:?}]}}, {{name = \"other\", keys = [{OTHER_KEY:?}]}}]
         [limits]\ndedupe_window = {window:?}"
    ))
}

fn body(appliance: &Appliance, lots: usize) -> Value {
    submission(&appliance.lots(lots), &["en"])
}

fn keyed(key: &str) -> Vec<(&'static str, String)> {
    vec![("Idempotency-Key", key.to_owned())]
}

#[test]
fn the_same_key_and_body_is_the_same_job_also_after_a_restart() {
    let mut appliance = with_window("0");
    let body = body(&appliance, 2);
    let first = appliance.send(&body, &keyed("order 1"));
    accepted(&first);
    appliance.results(&accepted(&first));
    appliance.kill_daemon();
    appliance.start_daemon();
    for _ in 0..3 {
        let again = appliance.send(&body, &keyed("order 1"));
        assert_eq!((again.status, &again.body), (201, &first.body));
    }
    // Bodies are compared byte by byte: the same content in other bytes is another body.
    let mut spaced = serde_json::to_string_pretty(&body).unwrap().into_bytes();
    let signature = sign_with(KEY, &spaced);
    let headers = [
        ("X-Signature", signature.as_str()),
        ("Idempotency-Key", "order 1"),
    ];
    refused(&appliance.post(&headers, &spaced), 409, "IDEMPOTENCY_KEY_REUSED");
    // The conflict of the key is reported, even if the other body has an error too.
    spaced = b"{\"version\": 7}".to_vec();
    let signature = sign_with(KEY, &spaced);
    let headers = [
        ("X-Signature", signature.as_str()),
        ("Idempotency-Key", "order 1"),
    ];
    refused(&appliance.post(&headers, &spaced), 409, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(appliance.jobs(), 1);
    // Another key makes another job, and so does another client's use of the same key.
    let second = accepted(&appliance.send(&body, &keyed("order 2")));
    let text = body.to_string();
    let headers = [
        ("X-Signature", sign_with(OTHER_KEY, text.as_bytes())),
        ("X-Client-Id", "other".to_owned()),
        ("Idempotency-Key", "order 1".to_owned()),
    ];
    let third = accepted(&appliance.post(&borrowed(&headers), text.as_bytes()));
    assert_eq!(BTreeSet::from([accepted(&first), second, third]).len(), 3);
}

#[test]
fn a_refused_request_frees_its_key_and_odd_keys_are_refused() {
    let appliance = with_window("0");
    let mut wrong = body(&appliance, 2);
    wrong["version"] = json!("2.0.0");
    for _ in 0..2 {
        let answer = appliance.send(&wrong, &keyed("k"));
        refused(&answer, 400, "UNSUPPORTED_VERSION");
    }
    accepted(&appliance.send(&body(&appliance, 2), &keyed("k")));
    accepted(&appliance.send(&body(&appliance, 2), &keyed(&"k".repeat(255))));
    for key in ["", &"k".repeat(256)] {
        let answer = appliance.send(&body(&appliance, 2), &keyed(key));
        refused(&answer, 400, "INVALID_PARAMETER");
    }
    assert_eq!(appliance.jobs(), 2);
}

/// Sends the same request several times at the same moment, and returns the job ids of the answers.
fn send_simultaneously(
    appliance: &Appliance,
    headers: &[(&'static str, String)],
    body: &[u8],
) -> BTreeSet<String> {
    let send = |_| {
        let (url, headers, body) = (
            format!("{}{SUBMIT}", appliance.api),
            headers.to_vec(),
            body.to_vec(),
        );
        thread_group::spawn_ungrouped("client", move || {
            accepted(&call("POST", &url, &borrowed(&headers), &body))
        })
        .unwrap()
    };
    let clients: Vec<_> = (0..12).map(send).collect();
    clients.into_iter().map(|it| it.join().unwrap()).collect()
}

#[test]
fn simultaneous_repeats_are_one_job() {
    let appliance = with_window("1h");
    let text = body(&appliance, 20).to_string();
    let bytes = text.as_bytes();
    let signature = || ("X-Signature", sign_with(KEY, bytes));
    let key = ("Idempotency-Key", "at once".to_owned());
    let by_key = send_simultaneously(&appliance, &[signature(), key], bytes);
    assert_eq!((by_key.len(), appliance.jobs()), (1, 1));
    // A submission without a key equals that job as long as the job runs or is completed.
    let by_content = send_simultaneously(&appliance, &[signature()], bytes);
    assert_eq!((by_content, appliance.jobs()), (by_key, 1));
    let text = body(&appliance, 21).to_string();
    let v1 = v1(KEY, "POST", SUBMIT, text.as_bytes());
    let by_signature = send_simultaneously(&appliance, &v1, text.as_bytes());
    assert_eq!((by_signature.len(), appliance.jobs()), (1, 2));
}

#[test]
fn an_equal_submission_without_a_key_is_the_running_job() {
    let mut appliance = with_window("1h");
    let first = appliance.send(&body(&appliance, 2), &[]);
    let job = accepted(&first);
    // Submissions are equal by content, not by bytes. Unknown fields beside the lots do not count.
    let mut same = body(&appliance, 2);
    same["webhook_url"] = Value::Null;
    same["comment"] = json!("sent again after a time-out");
    let pretty = serde_json::to_string_pretty(&same).unwrap();
    let signature = sign_with(KEY, pretty.as_bytes());
    let again = appliance.post(&[("X-Signature", &signature)], pretty.as_bytes());
    assert_eq!((again.status, &again.body), (201, &first.body));
    appliance.results(&job);
    appliance.kill_daemon();
    appliance.start_daemon();
    assert_eq!(accepted(&appliance.send(&body(&appliance, 2), &[])), job);

    // Different lots, languages or webhooks make another job, and so does a key or another client.
    let mut others = vec![body(&appliance, 3)];
    others.push(submission(&appliance.lots(2), &["en", "ru"]));
    for webhook in ["a", "b"] {
        let mut other = body(&appliance, 2);
        other["webhook_url"] = json!(appliance.hook(webhook));
        others.push(other.clone());
        other["webhook_url"] = Value::Null;
        other["lots"][0]["webhook"] = json!(appliance.hook(webhook));
        others.push(other);
    }
    let mut jobs: BTreeSet<String> = others
        .iter()
        .map(|other| accepted(&appliance.send(other, &[])))
        .collect();
    jobs.insert(accepted(&appliance.send(&body(&appliance, 2), &keyed("its own"))));
    let text = body(&appliance, 2).to_string();
    let headers = [
        ("X-Signature", sign_with(OTHER_KEY, text.as_bytes())),
        ("X-Client-Id", "other".to_owned()),
    ];
    jobs.insert(accepted(&appliance.post(&borrowed(&headers), text.as_bytes())));
    jobs.insert(job);
    assert_eq!(jobs.len(), others.len() + 3);
}

#[test]
fn a_failed_or_cancelled_or_old_job_is_not_reused() {
    let appliance = with_window("1h");
    let send = |body: &Value| accepted(&appliance.send(body, &[]));
    let mut failing = body(&appliance, 2);
    for lot in failing["lots"].as_array_mut().unwrap() {
        lot["images"] = json!([format!("{}/nothing.jpg", appliance.sandbox)]);
    }
    let failed = send(&failing);
    assert_eq!(appliance.ended(&failed)["status"], "failed");
    assert_ne!(send(&failing), failed);

    let cancelled = send(&body(&appliance, 2));
    let path = format!("/api/v1/batch-jobs/{cancelled}/cancel");
    let headers = [("X-Signature", sign_with(KEY, cancelled.as_bytes()))];
    assert_eq!(appliance.ask("POST", &path, &headers).status, 200);
    assert_ne!(send(&body(&appliance, 2)), cancelled);

    let appliance = with_window("1ms");
    let send = |body: &Value| accepted(&appliance.send(body, &[]));
    let first = send(&body(&appliance, 2));
    appliance.results(&first);
    assert_ne!(send(&body(&appliance, 2)), first);
}

#[test]
fn a_v1_signature_of_a_post_is_accepted_once() {
    let mut appliance = with_window("0");
    let text = body(&appliance, 2).to_string();
    let bytes = text.as_bytes();
    let headers = v1(KEY, "POST", SUBMIT, bytes);
    let post = |appliance: &Appliance, headers: &[(&'static str, String)]| -> Answer {
        appliance.post(&borrowed(headers), bytes)
    };
    let first = post(&appliance, &headers);
    let job = accepted(&first);
    appliance.kill_daemon();
    appliance.start_daemon();
    let mut upper = headers.clone();
    upper[1].1 = format!("v1={}", headers[1].1[3..].to_uppercase());
    let mut keyed = headers.to_vec();
    keyed.push(("Idempotency-Key", "a key makes no new request of it".into()));
    for repeat in [headers.to_vec(), upper.to_vec(), keyed] {
        let again = post(&appliance, &repeat);
        assert_eq!((again.status, &again.body), (201, &first.body));
    }
    assert_eq!(appliance.jobs(), 1);

    // A request that repeats its key is also accepted once: without the key, its signature is a
    // replay.
    let text = body(&appliance, 4).to_string();
    let send =
        |headers: &[(&'static str, String)]| accepted(&appliance.post(&borrowed(headers), text.as_bytes()));
    let key = ("Idempotency-Key", "order".to_owned());
    let first_of_two = send(&[("X-Signature", sign_with(KEY, text.as_bytes())), key.clone()]);
    let [timestamp, signature] = v1(KEY, "POST", SUBMIT, text.as_bytes());
    for headers in [
        vec![timestamp.clone(), signature.clone(), key],
        vec![timestamp, signature],
    ] {
        assert_eq!(send(&headers), first_of_two);
    }
    assert_eq!(appliance.jobs(), 2);

    // A cancel request is accepted once too, whatever happened to the job since.
    let path = format!("/api/v1/batch-jobs/{job}/cancel");
    appliance.results(&job);
    let other = accepted(&appliance.send(&body(&appliance, 3), &[]));
    let path_of_other = path.replace(&job, &other);
    let headers = v1(KEY, "POST", &path_of_other, b"");
    let first = appliance.ask("POST", &path_of_other, &headers);
    let again = appliance.ask("POST", &path_of_other, &headers);
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(first.body, again.body);
    refused(
        &appliance.ask("POST", &path, &v1(KEY, "POST", &path, b"")),
        409,
        "JOB_NOT_CANCELLABLE",
    );
}

#[test]
fn a_dry_run_stores_nothing_and_shows_the_answer() {
    let appliance = with_window("1h");
    let mut body = submission(&appliance.lots(3), &["en", "ru", "de"]);
    body["lots"][2]["images"] = json!([]);
    let images = body["lots"][1]["images"].as_array_mut().unwrap();
    images.extend([json!("ftp://img.example/1.jpg"), json!({"url": "nowhere"})]);
    let text = body.to_string();
    let before = appliance.dump();
    for query in ["?dry_run=true", "?dry_run=1"] {
        let url = format!("{}{SUBMIT}{query}", appliance.api);
        let headers = [
            ("X-Signature", sign_with(KEY, text.as_bytes())),
            ("Idempotency-Key", "dry".to_owned()),
        ];
        let answer = call("POST", &url, &borrowed(&headers), text.as_bytes());
        let answer = (answer.status, answer.json());
        assert_eq!(answer.0, 200, "{}", answer.1);
        let answer = answer.1;
        assert_eq!(answer["dry_run"], true);
        assert_eq!(answer["total_lots"], 3);
        assert_eq!(answer["lots_without_images"], 1);
        assert_eq!(answer["unusable_images"], 2);
        assert_eq!(
            answer["requests"],
            json!({"vision": 2, "translation": 4, "total": 6})
        );
        assert_eq!(answer["batches"], json!({"vision": 1, "translation": 1}));
        assert!(answer["estimated_cost"]["usd"].is_string());
        assert!(answer["tokens"]["input"].as_u64().unwrap() > 0);
        assert_eq!(answer["tokens"]["output_at_most"], 6 * 2048);
    }
    // A dry run refuses what a real submission would refuse.
    let wrong = b"{\"version\": \"1.0.0\"}";
    let url = format!("{}{SUBMIT}?dry_run=true", appliance.api);
    let answer = call("POST", &url, &[("X-Signature", &sign_with(KEY, wrong))], wrong);
    refused(&answer, 400, "MISSING_FIELD");
    let url = format!("{}{SUBMIT}?dry_run=maybe", appliance.api);
    let signature = sign_with(KEY, text.as_bytes());
    let answer = call("POST", &url, &[("X-Signature", &signature)], text.as_bytes());
    refused(&answer, 400, "INVALID_PARAMETER");
    assert_eq!(appliance.dump(), before);
}
