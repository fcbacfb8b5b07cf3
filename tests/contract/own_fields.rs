//! The client's own fields: `metadata` of a job and `reference` of a lot are given back wherever the job or the lot is
//! shown, and mean nothing else.

use serde_json::{Value, json};

use crate::appliance::{Appliance, KEY, submission, wait_for};
use crate::{SUBMIT, accepted, borrowed, refused, sign_with, v1};

const STRICT_KEY: &str = "the key of a client without legacy signatures";

fn metadata() -> Value {
    json!({"order": "1001", "shop": "Köln <b>\u{1F697}</b>", "empty": ""})
}

/// A submission with the client's own fields; the last lot has no reference.
fn with_own_fields(appliance: &Appliance, lots: usize) -> Value {
    let mut body = submission(&appliance.lots(lots), &["en", "ru"]);
    body["metadata"] = metadata();
    let lots = body["lots"].as_array_mut().unwrap();
    let named = lots.len().max(2) - 1;
    for (number, lot) in lots.iter_mut().take(named).enumerate() {
        lot["reference"] = json!(format!("shelf {number}\n\"<i>"));
    }
    body
}

/// The references of a list of lots.
fn references(lots: &Value) -> Vec<Option<&str>> {
    let lots = lots.as_array().unwrap().iter();
    lots.map(|lot| lot.get("reference").map(|it| it.as_str().unwrap()))
        .collect()
}

#[test]
fn metadata_and_references_are_given_back_with_their_job_and_lot() {
    let appliance = Appliance::start();
    let mut body = with_own_fields(&appliance, 2);
    body["webhook_url"] = json!(appliance.hook("own"));
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let sent = appliance.submit(&body);
    let job = accepted(&sent);
    assert_eq!(sent.json()["warnings"], json!([]));
    let plain = appliance.job(&appliance.lots(3), &["en"]);
    let waiting = [
        format!("/api/v1/batch-status/{job}"),
        format!("/api/v1/batch-results/{job}"),
        format!("/api/v1/batch-results/{job}?partial=true"),
        format!("/api/v1/jobs/{job}"),
        format!("/api/v1/jobs/{job}/status"),
    ];
    for path in waiting {
        assert_eq!(appliance.get(&path).json()["metadata"], metadata(), "{path}");
    }
    let listed = appliance.get("/api/v1/batch-jobs").json();
    assert_eq!(listed["jobs"][1]["metadata"], metadata());
    assert!(listed["jobs"][0].get("metadata").is_none(), "{listed}");
    appliance.wait_until_images_are_checked();
    assert_eq!(appliance.run(&["resume", "submissions"]).status, 0);

    let results = appliance.results(&job);
    let expected = [Some("shelf 0\n\"<i>"), None];
    assert_eq!(results["metadata"], metadata());
    assert_eq!(references(&results["results"]["lots"]), expected);
    for path in [
        format!("/api/v1/batch-results/{job}/download"),
        format!("/api/v1/jobs/{job}/results"),
    ] {
        assert_eq!(appliance.get(&path).json(), results, "{path}");
    }
    let older = appliance.get(&format!("/api/v1/jobs/{job}")).json();
    assert_eq!(older["metadata"], metadata());
    assert_eq!(references(&older["results"]), expected);
    let webhook = &appliance.delivered("own", 1)[0];
    let webhook: Value = serde_json::from_str(webhook["body"].as_str().unwrap()).unwrap();
    assert_eq!(webhook["metadata"], metadata());
    assert_eq!(references(&webhook["lots"]), expected);
    // A job without them has no such member.
    appliance.results(&plain);
    for path in ["batch-status", "batch-results", "jobs"] {
        let answer = appliance.get(&format!("/api/v1/{path}/{plain}"));
        let text = String::from_utf8(answer.body).unwrap();
        assert!(
            !text.contains("metadata") && !text.contains("reference"),
            "{text}"
        );
    }

    // They are the client's text, and go with the other texts.
    appliance.wait_until_ingested();
    wait_for("the webhook's end", || {
        let open = "SELECT count(*) FROM webhook_deliveries WHERE state <> 'delivered'";
        (appliance.cell::<i64>(open) == 0).then_some(())
    });
    let deleted = appliance.run(&["jobs", "delete", &job, "--lots", "2"]);
    assert_eq!(deleted.status, 0, "{deleted:?}");
    assert_eq!(appliance.cell::<i64>("SELECT count(*) FROM job_metadata"), 0);
    assert!(appliance.status(&job).get("metadata").is_none());
    wait_for("the end of the cleaning", || {
        let lots = format!("SELECT count(*) FROM batch_lots WHERE batch_job_id = '{job}'");
        (appliance.cell::<i64>(&lots) == 0).then_some(())
    });
}

#[test]
fn a_synchronous_answer_and_a_cancelled_job_have_them_too() {
    let appliance = Appliance::with("[synchronous]\nenabled = true");
    let mut body = with_own_fields(&appliance, 1);
    body["lots"][0]["reference"] = json!("");
    let answer = appliance.send(&body, &[]);
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!(answer.json()["metadata"], metadata());
    assert_eq!(references(&answer.json()["lots"]), [Some("")]);

    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let body = with_own_fields(&appliance, 2);
    let job = accepted(&appliance.send(&body, &[]));
    let path = format!("/api/v1/batch-jobs/{job}/cancel");
    let headers = [("X-Signature", sign_with(KEY, job.as_bytes()))];
    assert_eq!(appliance.ask("POST", &path, &headers).status, 200);
    let gone = appliance.get(&format!("/api/v1/batch-results/{job}"));
    let gone = refused(&gone, 410, "JOB_CANCELLED");
    assert_eq!(gone["metadata"], metadata());
    assert_eq!(references(&gone["results"]["lots"]).len(), 2);
}

#[test]
fn they_are_no_part_of_an_equal_submission() {
    let appliance = Appliance::with("[limits]\ndedupe_window = \"1h\"\n[batch]\nmax_wait = \"1h\"");
    let body = with_own_fields(&appliance, 2);
    let first = appliance.send(&body, &[]);
    let job = accepted(&first);
    let mut other = body.clone();
    other["metadata"] = json!({"order": "1002"});
    other["lots"][1]["reference"] = json!("another shelf");
    let mut none = body.clone();
    none.as_object_mut().unwrap().remove("metadata");
    none["lots"][0]["reference"] = Value::Null;
    for equal in [&other, &none] {
        let again = appliance.send(equal, &[]);
        assert_eq!(accepted(&again), job);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
    }
    assert_eq!(appliance.status(&job)["metadata"], metadata());
    // An unknown field of a lot still makes another submission.
    let mut another = body.clone();
    another["lots"][0]["references"] = json!("x");
    assert_ne!(accepted(&appliance.send(&another, &[])), job);
    // Under a key, the bytes count.
    let key = [("Idempotency-Key", "own fields".to_owned())];
    accepted(&appliance.send(&body, &key));
    refused(&appliance.send(&other, &key), 409, "IDEMPOTENCY_KEY_REUSED");
}

#[test]
fn what_is_no_metadata_or_reference_is_refused_or_for_earlier_programs_ignored() {
    let appliance = Appliance::with(&format!(
        "clients = [{{name = \"default\", keys = [{KEY:?}]}},
                    {{name = \"strict\", keys = [{STRICT_KEY:?}], legacy = false}}]
         [batch]\nmax_wait = \"1h\""
    ));
    let signed = |key: &str, client: &str, body: &Value| {
        let text = body.to_string();
        let mut headers = v1(key, "POST", SUBMIT, text.as_bytes()).to_vec();
        headers.push(("X-Client-Id", client.to_owned()));
        appliance.post(&borrowed(&headers), text.as_bytes())
    };
    let strict = |body: &Value| signed(STRICT_KEY, "strict", body);
    // The same client, but its program is no earlier one: it signs with signature v1.
    let with_v1 = |body: &Value| signed(KEY, "default", body);
    let good = submission(&appliance.lots(2), &["en"]);
    let many: Value = (0..17)
        .map(|key| (key.to_string(), json!("v")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let mut jobs = 0;
    for odd in [
        json!("order 1001"),
        json!(7),
        json!([]),
        json!({"order": 1001}),
        json!({"order": null}),
        json!({"order": {"id": "1001"}}),
        json!({"": "x"}),
        json!({"k".repeat(65): "x"}),
        json!({"k": "v".repeat(513)}),
        json!({"k": "\0"}),
        many,
    ] {
        let mut body = good.clone();
        body["metadata"] = odd;
        for answer in [strict(&body), with_v1(&body)] {
            let error = refused(&answer, 400, "INVALID_PARAMETER");
            let message = error["message"].as_str().unwrap();
            assert!(message.starts_with("`metadata"), "{message}");
        }
        let answer = appliance.send(&body, &[]);
        let job = accepted(&answer);
        jobs += 1;
        let warning = answer.json()["warnings"][0].as_str().unwrap().to_owned();
        assert!(
            warning.starts_with("The field `metadata` was ignored: `"),
            "{warning}"
        );
        assert!(appliance.status(&job).get("metadata").is_none());
    }
    for odd in [
        json!(7),
        json!(["a"]),
        json!({"a": "b"}),
        json!(false),
        json!("r".repeat(513)),
        json!("\0"),
    ] {
        let mut body = good.clone();
        body["lots"][1]["reference"] = odd;
        body["lots"][0]["reference"] = json!("ж".repeat(512));
        for answer in [strict(&body), with_v1(&body)] {
            let error = refused(&answer, 422, "INVALID_LOT");
            assert_eq!(error["details"]["position"], 1, "{error}");
        }
        let answer = appliance.send(&body, &[]);
        accepted(&answer);
        jobs += 1;
        let warnings = answer.json()["warnings"].clone();
        assert_eq!(warnings.as_array().unwrap().len(), 1, "{warnings}");
        let warning = warnings[0].as_str().unwrap();
        assert!(
            warning.starts_with("The field `lots[].reference` was ignored: Lot 1: `"),
            "{warning}"
        );
    }
    // The largest that are allowed, of both clients; null is as good as absent.
    let keys = (0..16).map(|key| (format!("{key:ж>64}"), json!("ж".repeat(512))));
    let mut body = good;
    body["metadata"] = keys.collect::<serde_json::Map<_, _>>().into();
    body["lots"][0]["reference"] = json!("ж".repeat(512));
    for answer in [strict(&body), appliance.send(&body, &[])] {
        accepted(&answer);
        assert_eq!(answer.json()["warnings"], json!([]));
    }
    body["metadata"] = Value::Null;
    body["lots"][0]["reference"] = Value::Null;
    accepted(&strict(&body));
    assert_eq!(appliance.jobs(), jobs + 3);
}
