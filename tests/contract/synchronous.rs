//! Synchronous jobs: a job with one lot is answered in the same request.

use std::thread;

use batchkeeper::base::thread_group;
use serde_json::{Value, json};

use crate::appliance::{Answer, Appliance, described, in_languages, submission, wait_for};
use crate::refused;

const LANGUAGES: [&str; 3] = ["de", "en", "ru"];

fn with(config: &str) -> Appliance {
    Appliance::with(&format!("[synchronous]\nenabled = true\n{config}"))
}

fn ask(appliance: &Appliance) -> (Vec<Value>, Answer) {
    let lots = appliance.lots(1);
    let answer = appliance.send(&submission(&lots, &LANGUAGES), &[]);
    (lots, answer)
}

/// Orders a fault for all synchronous calls of OpenAI: slow or refused answers.
fn fault(appliance: &Appliance, mut order: Value) {
    order["match"] = json!("POST /v1/responses");
    appliance.fault(&order);
}

fn id_of(answer: &Answer) -> String {
    answer.json()["job_id"].as_str().unwrap().to_owned()
}

/// Checks that the job continues in a batch and completes.
fn continues_in_a_batch(appliance: &Appliance, answer: &Answer, lots: &[Value]) {
    let results = appliance.results(&id_of(answer));
    let expected = in_languages(&described(&lots[0], &[]), &LANGUAGES);
    assert_eq!(results["results"]["lots"][0]["descriptions"], expected);
    appliance.assert_sound();
}

#[test]
fn one_lot_is_described_and_translated_while_the_client_waits() {
    let appliance = with("");
    let mut body = submission(&appliance.lots(1), &LANGUAGES);
    body["webhook_url"] = json!(appliance.hook("at-once"));
    let answer = appliance.send(&body, &[]);
    assert_eq!(answer.status, 200, "{}", answer.json());
    let said = answer.json();
    assert_eq!(said["version"], "1.0.0");
    assert_eq!(said["processing_mode"], "synchronous");
    assert_eq!(
        (&said["warnings"], &said["pending_languages"]),
        (&json!([]), &json!([]))
    );
    let lot = &said["lots"][0];
    assert_eq!(
        (&lot["status"], &lot["processed_images"]),
        (&json!("completed"), &json!(2))
    );
    let expected = in_languages(&described(&appliance.lots(1)[0], &[]), &LANGUAGES);
    assert_eq!(lot["descriptions"], expected);

    // It is a job like any other: it can be read, sends its webhook and is counted. It has no
    // batch.
    let results = appliance.results(&id_of(&answer));
    assert_eq!(results["results"]["lots"][0]["descriptions"], expected);
    let delivered = appliance.delivered("at-once", 1);
    let event: Value = serde_json::from_str(delivered[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(event["event"], "batch_job_completed");
    assert_eq!(appliance.cell::<u32>("SELECT count(*) FROM openai_batches"), 0);
    let calls = "SELECT count(*) FROM synchronous_calls
                 WHERE outcome = 'answered' AND output_tokens > 0 AND response_id IS NOT NULL";
    assert_eq!(appliance.cell::<u32>(calls), 3);
    appliance.assert_sound();
}

#[test]
fn a_client_that_prefers_to_poll_has_a_batch_job() {
    let appliance = with("");
    let body = submission(&appliance.lots(1), &["en"]);
    let one_line = [("Prefer", "wait=5, respond-async".to_owned())];
    let two_lines = [
        ("Prefer", "wait=5".to_owned()),
        ("Prefer", "respond-async".to_owned()),
    ];
    for prefers in [&one_line[..], &two_lines] {
        let answer = appliance.send(&body, prefers);
        assert_eq!(answer.status, 201, "{}", answer.json());
        assert_eq!(answer.json()["processing_mode"], "batch");
        appliance.results(&id_of(&answer));
    }
}

#[test]
fn a_repeat_without_a_key_needs_one_slot() {
    let appliance = with("per_client = 1\n[limits]\ndedupe_window = \"1h\"");
    let body = submission(&appliance.lots(1), &LANGUAGES);
    let (first, again) = (appliance.send(&body, &[]), appliance.send(&body, &[]));
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(first.json(), again.json());
}

#[test]
fn a_repeat_is_answered_from_the_same_job() {
    let appliance = with("");
    let body = submission(&appliance.lots(1), &LANGUAGES);
    let key = [("Idempotency-Key", "order 7".to_owned())];
    let (first, again) = (appliance.send(&body, &key), appliance.send(&body, &key));
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(first.json(), again.json());
    assert_eq!(appliance.cell::<u32>("SELECT count(*) FROM synchronous_calls"), 3);
}

#[test]
fn simultaneous_repeats_are_one_job_and_share_its_slot() {
    let appliance = with("[limits]\ndedupe_window = \"1h\"");
    let keyed = submission(&appliance.lots(1), &LANGUAGES);
    let equal = submission(&appliance.lots(2)[1..], &LANGUAGES);
    let key = [("Idempotency-Key", "order 8".to_owned())];
    for (body, headers) in [(&keyed, &key[..]), (&equal, &[])] {
        fault(&appliance, json!({"fault": "delay", "value": 1000, "times": 1}));
        // All six requests wait for the same job.
        let answers: Vec<Answer> = thread::scope(|scope| {
            let send = || appliance.send(body, headers);
            let sent: Vec<_> = (0..6).map(|_| scope.spawn(send)).collect();
            sent.into_iter().map(|it| it.join().unwrap()).collect()
        });
        for answer in &answers {
            assert_eq!(answer.status, 200, "{}", answer.json());
            assert_eq!(answer.json(), answers[0].json());
        }
    }
    assert_eq!(appliance.jobs(), 2);
    let calls = "SELECT count(*) FROM synchronous_calls";
    assert_eq!(appliance.cell::<u32>(calls), 6);
    appliance.assert_sound();
}

#[test]
fn a_repeat_needs_a_slot_only_while_it_waits() {
    let appliance = with("per_client = 1");
    let done = submission(&appliance.lots(1), &LANGUAGES);
    let key = [("Idempotency-Key", "done".to_owned())];
    let first = appliance.send(&done, &key);
    // The call is refused and repeated until the faults are cleared.
    fault(&appliance, json!({"fault": "refuse", "value": 429}));
    let slow = submission(&appliance.lots(2)[1..], &LANGUAGES);
    let slow_key = ("Idempotency-Key", "slow".to_owned());
    let waits = || appliance.send(&slow, std::slice::from_ref(&slow_key));
    thread::scope(|scope| {
        let asked = scope.spawn(waits);
        wait_for("the call", || {
            let begun = "SELECT count(*) FROM synchronous_calls WHERE started_at IS NOT NULL";
            (appliance.cell::<u32>(begun) > 3).then_some(())
        });
        // The only slot is in use. Known answers are still returned, and so is the address to poll.
        let again = appliance.send(&done, &key);
        assert_eq!((again.status, again.json()), (200, first.json()));
        let prefers = ("Prefer", "respond-async".to_owned());
        let accepted = appliance.send(&slow, &[slow_key.clone(), prefers]);
        assert_eq!(accepted.status, 201, "{}", accepted.json());
        let job = id_of(&accepted);
        assert_eq!(accepted.json()["status"], "accepted");
        assert_eq!(accepted.json()["processing_mode"], "batch");
        assert!(appliance.status(&job)["completed_at"].is_null());
        // Two repeats may wait with it. One more gets the address to poll, too.
        let more = [(); 3].map(|()| scope.spawn(waits));
        wait_for("the waiting repeats", || {
            more.iter().any(|it| it.is_finished()).then_some(())
        });
        appliance.clear_faults();
        let mut answers = more.map(|it| it.join().unwrap());
        answers.sort_by_key(|it| it.status);
        let [answered, also, polls] = answers;
        assert_eq!(also.json(), answered.json());
        assert_eq!((answered.status, id_of(&answered)), (200, job.clone()));
        assert_eq!((polls.status, id_of(&polls)), (201, job));
        assert_eq!(asked.join().unwrap().json(), answered.json());
    });
    assert_eq!(appliance.jobs(), 2);
    appliance.assert_sound();
}

#[test]
fn an_answer_that_could_not_be_stored_immediately_is_not_lost() {
    let appliance = with("concurrency = 1");
    fault(&appliance, json!({"fault": "delay", "value": 3000, "times": 1}));
    thread::scope(|scope| {
        let asked = scope.spawn(|| ask(&appliance).1);
        wait_for("a call", || {
            let begun = "SELECT count(*) FROM synchronous_calls WHERE started_at IS NOT NULL";
            (appliance.cell::<u32>(begun) > 0).then_some(())
        });
        let other = rusqlite::Connection::open(appliance.database()).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        wait_for("the storage error", || {
            let printed = appliance.printed();
            let mut lines = printed.lines();
            lines
                .any(|line| line.contains("worker=synchronous") && line.contains("locked"))
                .then_some(())
        });
        other.execute_batch("COMMIT").unwrap();
        let answer = asked.join().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.json());
    });
    let calls = "SELECT count(*) FROM synchronous_calls WHERE outcome = 'answered'";
    assert_eq!(appliance.cell::<u32>(calls), 3);
    appliance.assert_sound();
}

#[test]
fn a_translation_that_fails_is_an_error_of_its_language() {
    let appliance = with("");
    let text = described(&appliance.lots(1)[0], &[]);
    let begins: String = text.chars().take(24).collect();
    appliance.fault(&json!({"fault": "bad_param", "times": 1, "match": begins}));
    let (_, answer) = ask(&appliance);
    assert_eq!(answer.status, 200, "{}", answer.json());
    let said = answer.json();
    let descriptions = said["lots"][0]["descriptions"].as_array().unwrap();
    let failed: Vec<&Value> = descriptions.iter().filter(|it| it["damages"].is_null()).collect();
    assert_eq!(failed.len(), 1, "{said}");
    assert_ne!(failed[0]["language"], "en");
    assert!(failed[0]["error"].as_str().unwrap().contains("unsupported"));
    assert_eq!(said["warnings"].as_array().unwrap().len(), 1);
}

#[test]
fn after_the_timeout_the_work_continues() {
    let appliance = with("timeout = \"300ms\"");
    fault(
        &appliance,
        json!({"fault": "late_reply", "value": 900, "times": 1}),
    );
    let (lots, answer) = ask(&appliance);
    let body = refused(&answer, 504, "OPENAI_TIMEOUT");
    assert_eq!(body["status"], "processing");
    continues_in_a_batch(&appliance, &answer, &lots);
}

#[test]
fn a_synchronous_job_waits_for_a_rate_limit() {
    let appliance = with("");
    fault(&appliance, json!({"fault": "refuse", "value": 429, "times": 2}));
    let (lots, answer) = ask(&appliance);
    assert_eq!(answer.status, 200, "{}", answer.json());
    let expected = in_languages(&described(&lots[0], &[]), &LANGUAGES);
    assert_eq!(answer.json()["lots"][0]["descriptions"], expected);
    let attempts = "SELECT sum(attempts) FROM requests";
    assert_eq!(appliance.cell::<u32>(attempts), 0);
}

#[test]
fn a_wait_that_openai_requested_ends_in_time() {
    let appliance = with("");
    fault(
        &appliance,
        json!({"fault": "refuse", "value": {"status": 429, "retry_after": 1}, "times": 1}),
    );
    let (_, answer) = ask(&appliance);
    assert_eq!(answer.status, 200, "{}", answer.json());
    wait_for("the end of the pause", || {
        (appliance.cell::<u32>("SELECT count(*) FROM pauses") == 0).then_some(())
    });
}

#[test]
fn after_repeated_synchronous_failures_one_attempt_is_left_for_a_batch() {
    let appliance = with("");
    fault(&appliance, json!({"fault": "refuse", "value": 500}));
    let (lots, answer) = ask(&appliance);
    refused(&answer, 502, "OPENAI_API_ERROR");
    continues_in_a_batch(&appliance, &answer, &lots);
    let calls = "SELECT count(*) FROM synchronous_calls";
    assert_eq!(appliance.cell::<u32>(calls), 4);
}

#[test]
fn a_job_waits_while_the_account_is_refused() {
    let appliance = with("");
    // Only this call is refused: a pause after another refused call would prevent it.
    fault(&appliance, json!({"fault": "unauthorized"}));
    let (lots, answer) = ask(&appliance);
    let body = refused(&answer, 502, "OPENAI_API_ERROR");
    // The job waits, and a program can see the reason.
    assert_eq!(body["status"], "processing");
    assert_eq!(body["details"]["status"], "processing");
    appliance.clear_faults();
    continues_in_a_batch(&appliance, &answer, &lots);
}

#[test]
fn a_job_waits_without_a_call_while_submissions_are_paused() {
    let appliance = with("");
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let (lots, answer) = ask(&appliance);
    refused(&answer, 502, "OPENAI_API_ERROR");
    let asked = "SELECT count(*) FROM synchronous_calls";
    assert_eq!(appliance.cell::<u32>(asked), 0);
    assert_eq!(appliance.run(&["resume", "submissions"]).status, 0);
    continues_in_a_batch(&appliance, &answer, &lots);
}

#[test]
fn a_repeat_after_the_timeout_gets_the_same_answer() {
    let appliance = with("timeout = \"3s\"\n[limits]\nsynchronous = 0");
    appliance.fault(&json!({"fault": "unauthorized"}));
    let lots = appliance.lots(1);
    let body = submission(&lots, &LANGUAGES);
    let key = [("Idempotency-Key", "order 9".to_owned())];
    let first = appliance.send(&body, &key);
    let late = wait_for("the end of its time", || {
        let again = appliance.send(&body, &key);
        (again.status != 502).then_some(again)
    });
    let said = refused(&late, 504, "OPENAI_TIMEOUT");
    assert_eq!(said["job_id"], first.json()["job_id"]);
    assert!(["pending", "processing"].contains(&said["status"].as_str().unwrap()));
    appliance.clear_faults();
    continues_in_a_batch(&appliance, &first, &lots);
    assert_eq!(appliance.send(&body, &key).status, 200);
}

#[test]
fn an_error_of_the_lot_is_final() {
    let appliance = with("");
    appliance.fault(&json!({"fault": "refusal_line"}));
    let (_, answer) = ask(&appliance);
    let body = refused(&answer, 502, "OPENAI_API_ERROR");
    assert_eq!(
        (&body["status"], &body["details"]["status"]),
        (&json!("failed"), &json!("failed"))
    );
    assert_eq!(appliance.status(&id_of(&answer))["status"], "failed");
}

#[test]
fn unreachable_images_are_named() {
    let appliance = with("");
    let mut lots = appliance.lots(1);
    let gone = appliance.image("no-such.jpg");
    lots[0]["images"] = json!([gone]);
    let answer = appliance.send(&submission(&lots, &["en"]), &[]);
    refused(&answer, 422, "IMAGE_UNREACHABLE");
    assert_eq!(answer.json()["missing_images"], json!([gone]));
    assert_eq!(appliance.cell::<u32>("SELECT count(*) FROM synchronous_calls"), 0);
}

#[test]
fn images_that_cannot_be_used_are_named_with_a_warning() {
    let appliance = with("");
    let mut lots = appliance.lots(1);
    let (good, gone) = (appliance.image("truck.jpg"), appliance.image("no-such.jpg"));
    let unusable = "ftp://img.example/1.jpg";
    lots[0]["images"] = json!([unusable, good]);
    let answer = appliance.send(&submission(&lots, &["en"]), &[]);
    assert_eq!(answer.status, 200, "{}", answer.json());
    let said = answer.json();
    assert_eq!(said["lots"][0]["missing_images"], json!([unusable]));
    assert_eq!(said["lots"][0]["processed_images"], 1);
    assert_eq!(said["warnings"], json!(["1 of 2 images cannot be fetched"]));
    lots[0]["images"] = json!([gone, unusable]);
    let answer = appliance.send(&submission(&lots, &["en"]), &[]);
    refused(&answer, 422, "IMAGE_UNREACHABLE");
    assert_eq!(answer.json()["missing_images"], json!([unusable, gone]));
}

#[test]
fn the_waiting_jobs_of_a_client_are_limited() {
    let appliance = with("per_client = 1");
    // The call is refused and repeated until the faults are cleared.
    fault(&appliance, json!({"fault": "refuse", "value": 429}));
    let api = appliance.api.clone();
    let body = submission(&appliance.lots(1), &["en"]).to_string();
    let first = thread_group::spawn_ungrouped("first", move || {
        let signature = crate::appliance::sign_bytes(body.as_bytes());
        let url = format!("{api}{}", crate::SUBMIT);
        crate::appliance::call("POST", &url, &[("X-Signature", &signature)], body.as_bytes())
    })
    .unwrap();
    wait_for("the first call", || {
        (appliance.cell::<u32>("SELECT count(*) FROM synchronous_calls") > 0).then_some(())
    });
    let jobs = "SELECT count(*) FROM batch_jobs";
    let (_, second) = ask(&appliance);
    refused(&second, 503, "OVERLOADED");
    assert!(second.header("retry-after").is_some());
    assert_eq!(appliance.cell::<u32>(jobs), 1);
    appliance.clear_faults();
    assert_eq!(first.join().unwrap().status, 200);
}

#[test]
fn a_call_interrupted_by_a_crash_is_counted() {
    let mut appliance = with("");
    fault(
        &appliance,
        json!({"fault": "late_reply", "value": 30_000, "times": 1}),
    );
    let api = appliance.api.clone();
    let lots = appliance.lots(1);
    let body = submission(&lots, &LANGUAGES).to_string();
    let client = thread_group::spawn_ungrouped("client", move || {
        let signature = crate::appliance::sign_bytes(body.as_bytes());
        let url = format!("{api}{}", crate::SUBMIT);
        std::panic::catch_unwind(|| {
            crate::appliance::call("POST", &url, &[("X-Signature", &signature)], body.as_bytes())
        })
    })
    .unwrap();
    wait_for("the call", || {
        let begun = "SELECT count(*) FROM synchronous_calls WHERE started_at IS NOT NULL";
        (appliance.cell::<u32>(begun) == 1).then_some(())
    });
    appliance.kill_daemon();
    assert!(client.join().is_ok());
    appliance.clear_faults();
    appliance.start_daemon();
    let job: String = appliance.cell("SELECT id FROM batch_jobs");
    let results = appliance.results(&job);
    let expected = in_languages(&described(&lots[0], &[]), &LANGUAGES);
    assert_eq!(results["results"]["lots"][0]["descriptions"], expected);
    let lost = "SELECT count(*) FROM synchronous_calls WHERE outcome = 'missing'";
    assert_eq!(appliance.cell::<u32>(lost), 1);
    appliance.assert_sound();
}
