//! The earlier service's paths, with their own answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::appliance::{Appliance, KEY, described, submission};
use crate::{accepted, sign_with};
use batchkeeper::sandbox::expected_translation;

fn members(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn read(appliance: &Appliance, job: &str, path: &str) -> (u16, Value) {
    let answer = appliance.read(&format!("/api/v1/jobs/{job}{path}"), job);
    (answer.status, answer.json())
}

#[test]
fn a_running_job_and_a_completed_one() {
    let appliance = Appliance::start();
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let lots = appliance.lots(3);
    let job = accepted(&appliance.submit(&submission(&lots, &["en", "ru"])));
    let (status, answer) = read(&appliance, &job, "/status");
    assert_eq!(status, 200);
    assert_eq!(
        members(&answer),
        BTreeSet::from(["job_id", "status", "created_at", "updated_at"])
    );
    assert_eq!(
        (&answer["job_id"], &answer["status"]),
        (&json!(job), &json!("pending"))
    );
    let (status, answer) = read(&appliance, &job, "");
    assert_eq!(status, 200);
    assert_eq!(
        members(&answer),
        BTreeSet::from(["job_id", "status", "message", "error"])
    );
    assert_eq!(answer["error"], Value::Null);
    assert_eq!(read(&appliance, &job, "/results").0, 202);

    assert_eq!(appliance.run(&["resume", "submissions"]).status, 0);
    let results = appliance.results(&job);
    assert_eq!(read(&appliance, &job, "/results"), (200, results));
    let (status, answer) = read(&appliance, &job, "");
    assert_eq!(status, 200);
    let expected = [
        "job_id",
        "status",
        "results",
        "total_lots",
        "processed_lots",
        "failed_lots",
    ];
    assert_eq!(members(&answer), BTreeSet::from(expected));
    assert_eq!(answer["status"], "completed");
    assert_eq!(
        (&answer["total_lots"], &answer["processed_lots"]),
        (&json!(3), &json!(3))
    );
    for (sent, lot) in lots.iter().zip(answer["results"].as_array().unwrap()) {
        let text = described(sent, &[]);
        let translations = json!({"en": text, "ru": expected_translation(&text, "ru")});
        assert_eq!(
            *lot,
            json!({
                "lot_id": sent["lot_id"], "status": "completed", "vision_result": text,
                "translations": translations, "error_message": null, "missing_images": [],
            })
        );
    }
}

#[test]
fn a_failed_job_and_a_cancelled_one() {
    let appliance = Appliance::with("[batch]\nmax_wait = \"1h\"");
    let mut body = submission(&appliance.lots(1), &["en"]);
    body["lots"][0]["images"] = json!([format!("{}/nothing.jpg", appliance.sandbox)]);
    let failed = accepted(&appliance.submit(&body));
    appliance.ended(&failed);
    let cancelled = accepted(&appliance.submit(&submission(&appliance.lots(2), &["en"])));
    let path = format!("/api/v1/batch-jobs/{cancelled}/cancel");
    let headers = [("X-Signature", sign_with(KEY, cancelled.as_bytes()))];
    assert_eq!(appliance.ask("POST", &path, &headers).status, 200);
    for (job, status, lots) in [(failed, "failed", 1), (cancelled, "cancelled", 2)] {
        let (code, answer) = read(&appliance, &job, "/status");
        assert_eq!((code, &answer["status"]), (200, &json!(status)));
        assert!(answer["error"].is_string());
        let (code, answer) = read(&appliance, &job, "");
        assert_eq!((code, &answer["status"]), (200, &json!(status)));
        assert!(answer["error"].is_string() && answer["message"].is_string());
        assert_eq!(answer["results"].as_array().unwrap().len(), lots);
        assert_eq!(read(&appliance, &job, "/results").0, 410);
    }
}
