//! The limits on a client's requests and lots.

use serde_json::json;

use crate::appliance::{Answer, Appliance, KEY, submission};
use crate::{accepted, borrowed, refused, sign_with};

const OTHER_KEY: &str = "a key that only the other client has";

fn clients() -> String {
    format!(
        "clients = [{{name = \"default\", keys = [{KEY:?}]}}, {{name = \"other\", keys = [{OTHER_KEY:?}]}}]"
    )
}

fn wait(answer: &Answer) -> u64 {
    answer.header("retry-after").unwrap().parse().unwrap()
}

#[test]
fn submissions_and_reads_are_counted_apart_and_per_client() {
    let appliance = Appliance::with(&format!("{}\n[limits]\nsubmit = 2\nread = 3", clients()));
    let send = || appliance.submit(&submission(&appliance.lots(2), &["en"]));
    let job = accepted(&send());
    accepted(&send());
    let answer = send();
    refused(&answer, 429, "RATE_LIMITED");
    assert!((1..=60).contains(&wait(&answer)));
    let path = format!("/api/v1/batch-status/{job}");
    for _ in 0..3 {
        assert_eq!(appliance.read(&path, &job).status, 200);
    }
    let answer = appliance.read(&path, &job);
    refused(&answer, 429, "RATE_LIMITED");
    assert!((1..=60).contains(&wait(&answer)));
    refused(&appliance.get("/api/v1/batch-jobs"), 429, "RATE_LIMITED");
    // A request with a wrong signature does not count, and the other client has limits of its own.
    let text = submission(&appliance.lots(2), &["en"]).to_string();
    let other = |signature: String| {
        let headers = [("X-Signature", signature), ("X-Client-Id", "other".to_owned())];
        appliance.post(&borrowed(&headers), text.as_bytes())
    };
    for _ in 0..5 {
        refused(&other("00".into()), 403, "INVALID_SIGNATURE");
    }
    accepted(&other(sign_with(OTHER_KEY, text.as_bytes())));
}

#[test]
fn lots_of_a_day_are_counted_across_restarts() {
    let mut appliance = Appliance::with(&format!("{}\n[limits]\nlots_per_day = 10", clients()));
    let send = |appliance: &Appliance, lots: usize, key: &str| {
        let keyed = [("Idempotency-Key", key.to_owned())];
        appliance.send(&submission(&appliance.lots(lots), &["en"]), &keyed)
    };
    accepted(&send(&appliance, 4, "a"));
    accepted(&send(&appliance, 5, "b"));
    appliance.kill_daemon();
    appliance.start_daemon();
    let answer = send(&appliance, 2, "c");
    let refusal = refused(&answer, 429, "RATE_LIMITED");
    assert!(
        refusal["message"].as_str().unwrap().contains("9 were taken"),
        "{refusal}"
    );
    assert!((1..=86_400).contains(&wait(&answer)));
    // A repeat does not count again. A submission that still fits is accepted. Another client has a
    // day's limit of its own.
    accepted(&send(&appliance, 5, "b"));
    accepted(&send(&appliance, 1, "c"));
    refused(&send(&appliance, 1, "d"), 429, "RATE_LIMITED");
    let text = submission(&appliance.lots(10), &["en"]).to_string();
    let headers = [
        ("X-Signature", sign_with(OTHER_KEY, text.as_bytes())),
        ("X-Client-Id", "other".to_owned()),
    ];
    accepted(&appliance.post(&borrowed(&headers), text.as_bytes()));
    assert_eq!(appliance.jobs(), 4);
}

#[test]
fn a_paused_intake_sends_retry_after_and_still_answers_repeats() {
    let appliance = Appliance::start();
    let body = submission(&appliance.lots(2), &["en"]);
    let keyed = [("Idempotency-Key", "k".to_owned())];
    let job = accepted(&appliance.send(&body, &keyed));
    assert_eq!(appliance.run(&["pause", "intake"]).status, 0);
    let answer = appliance.send(&body, &[]);
    refused(&answer, 503, "OVERLOADED");
    assert!(wait(&answer) > 0);
    assert_eq!(accepted(&appliance.send(&body, &keyed)), job);
    assert_eq!(appliance.results(&job)["job_id"], json!(job));
    assert_eq!(appliance.run(&["alerts"]).status, 1);
    assert_eq!(appliance.run(&["resume", "intake"]).status, 0);
    accepted(&appliance.send(&body, &[]));
    assert_eq!(appliance.run(&["alerts"]).status, 0);
}
