//! A fault in OpenAI's answers harms only the lots that it hits.
//!
//! Each fault hits one line of a job. It first strikes once, and all lots must complete. Then it
//! strikes at every attempt: the lot must report the reason, and all other lots must complete.

use crate::appliance::{Appliance, assert_results, described, in_languages, wait_for};
use batchkeeper::domain::html::paragraphs;
use batchkeeper::sandbox::{ODD_UNICODE, expected_translation};
use serde_json::{Value, json};

const LANGUAGES: [&str; 2] = ["en", "ru"];
/// The lot whose line is hit, and the ends of its custom ids.
const STRUCK: usize = 3;
const VISION: &str = "_3$";
const TRANSLATION: &str = "_3_ru$";
const LOTS: usize = 6;

/// The outcome when a fault hits a line once.
#[derive(Clone, Copy, PartialEq)]
enum Once {
    /// The lot gets its text by a second attempt.
    Repaired,
    /// The lot gets its text by a second attempt with a raised limit; there is no third attempt.
    Raised,
    /// The fault changes nothing.
    Harmless,
    /// OpenAI's error is final: the lot fails at the first attempt.
    Final,
}

/// Runs one job with a fault on a lot's description, and one with the fault on its translation.
fn line_fault(fault: &str, once: Once, says: &str) {
    let appliance = Appliance::with("[batch]\nmax_attempts = 3");
    let lots = appliance.lots(LOTS);
    let lines = i64::try_from(2 * LOTS).unwrap();
    for (target, attempts) in [(VISION, 1), (TRANSLATION, 1), (VISION, 99), (TRANSLATION, 99)] {
        let order = json!({"fault": fault, "match": target, "times": attempts});
        appliance.fault(&order);
        let job = appliance.job(&lots, &LANGUAGES);
        let results = appliance.results(&job);
        appliance.wait_until_ingested();
        let sent = appliance.cell::<i64>(&format!(
            "SELECT count(*) FROM batch_lines l JOIN requests r ON r.id = l.request_id JOIN batch_jobs j ON j.seq = r.job \
             WHERE j.id = '{job}'"
        ));
        let case = format!("{fault} {target} {attempts}: {sent} lines");
        if once == Once::Harmless || (once != Once::Final && attempts == 1) {
            assert_results(&results, &lots, &LANGUAGES, &[]);
            let again = i64::from(once != Once::Harmless);
            assert_eq!(sent, lines + again, "{case}");
        } else {
            assert_results(&results, &lots, &LANGUAGES, &[STRUCK]);
            let again = match once {
                Once::Repaired => 2,
                Once::Raised => 1,
                Once::Harmless | Once::Final => 0,
            };
            let lot = &results["results"]["lots"][STRUCK];
            if target == VISION {
                assert_eq!(lot["status"], "failed", "{case}: {lot}");
                let error = lot["error_message"].as_str().unwrap();
                assert!(error.contains(says), "{case}: {error}");
                // The translation was never requested.
                assert_eq!(sent, lines - 1 + again, "{case}");
            } else {
                assert_eq!(
                    (&lot["status"], &lot["error_message"]),
                    (&json!("completed"), &Value::Null)
                );
                let english = in_languages(&described(&lots[STRUCK], &[]), &["en"]);
                assert_eq!(lot["descriptions"][0], english[0]);
                assert_eq!(lot["descriptions"][1]["damages"], Value::Null);
                let error = lot["descriptions"][1]["error"].as_str().unwrap();
                assert!(error.contains(says), "{case}: {error}");
                assert_eq!(sent, lines + again, "{case}");
            }
        }
        let struck = &appliance.state()["faults_struck"][fault];
        assert!(struck.as_i64() > Some(0), "{case}: the fault never struck");
        appliance.clear_faults();
        appliance.assert_sound();
    }
}

macro_rules! line_faults {
    ($($name:ident($once:ident, $says:literal);)*) => {$(
        #[test]
        fn $name() {
            line_fault(stringify!($name), Once::$once, $says);
        }
    )*};
}

line_faults! {
    line_429(Repaired, "rate_limit_exceeded");
    line_500(Repaired, "server_error");
    line_403(Final, "does not have access");
    bad_param(Final, "unsupported_parameter");
    image_timeout(Repaired, "IMAGE_UNREACHABLE");
    refusal_line(Final, "refused");
    nested_parts(Harmless, "");
    status_zero_lines(Repaired, "attempts");
    missing_lines(Repaired, "attempts");
    duplicate_lines(Harmless, "");
    extra_lines(Harmless, "");
    invalid_utf8_line(Repaired, "cannot be read");
    cut_line(Repaired, "cannot be read");
    truncated_line(Raised, "cut short");
}

/// Runs a job with these faults and checks that it completes with `executed` executed lines.
fn assert_completes(orders: &Value, executed: Option<i64>) {
    let appliance = Appliance::with("[batch]\nmax_attempts = 3");
    appliance.fault(orders);
    let lots = appliance.lots(LOTS);
    let job = appliance.job(&lots, &LANGUAGES);
    assert_results(&appliance.results(&job), &lots, &LANGUAGES, &[]);
    appliance.wait_until_ingested();
    let state = appliance.state();
    for order in orders.as_array().unwrap() {
        let fault = order["fault"].as_str().unwrap();
        let struck = state["faults_struck"][fault].as_i64();
        assert!(struck > Some(0), "{fault} never struck: {state}");
    }
    if let Some(executed) = executed {
        assert_eq!(state["executed"], executed, "{state}");
    }
    assert_eq!(state["custom_ids"], 2 * LOTS, "{state}");
    appliance.clear_faults();
    appliance.assert_sound();
    let open = "SELECT group_concat(kind || ': ' || message) FROM alerts WHERE closed_at IS NULL";
    assert_eq!(appliance.cell::<Option<String>>(open), None);
}

macro_rules! come_right {
    ($($name:ident($executed:expr): $order:tt;)*) => {$(
        #[test]
        fn $name() {
            assert_completes(&json!([$order]), $executed);
        }
    )*};
}

/// The number of executed lines if every line is executed once.
const ONCE: Option<i64> = Some(2 * LOTS as i64);

come_right! {
    all_failed(Some(3 * LOTS as i64)): {"fault": "all_failed", "times": 1};
    html_502_on_poll(ONCE): {"fault": "html_502_on_poll", "times": 5};
    content_502(ONCE): {"fault": "content_502", "times": 3};
    content_truncated(ONCE): {"fault": "content_truncated", "times": 3};
    file_lag(ONCE): {"fault": "file_lag", "times": 2};
    empty_string_ids(ONCE): {"fault": "empty_string_ids"};
    null_vs_absent(ONCE): {"fault": "null_vs_absent"};
    late_file_ids(ONCE): {"fault": "late_file_ids", "value": 200};
    too_few_counted(ONCE): {"fault": "counts_mismatch", "value": -1};
    too_many_counted(ONCE): {"fault": "counts_mismatch", "value": 1};
    nothing_counted_until_the_end(ONCE): {"fault": "zero_counts"};
    aliases_for_models(ONCE): {"fault": "snapshot_model", "value": false};
    fast_batch(ONCE): {"fault": "fast_batch"};
    // Half of a batch's lines were executed; the other half is sent again.
    expire_partial(ONCE): {"fault": "expire_partial", "times": 2};
    expire_server_error(ONCE): {"fault": "expire_server_error", "times": 2};
    expire_with_output(ONCE): {"fault": "expire_with_output"};
    token_limit_async(ONCE): {"fault": "token_limit_async", "times": 2};
    lost_upload_reply(ONCE): {"fault": "lost_upload_reply", "times": 2};
    broken_upload(ONCE): {"fault": "broken_upload", "times": 2};
    lost_create_reply(ONCE): {"fault": "lost_create_reply", "times": 2};
    file_lag_create(ONCE): {"fault": "file_lag_create", "times": 2};
    reject_create(ONCE): {"fault": "reject_create", "times": 2};
    rate_limited_calls(ONCE): {"fault": "refuse", "times": 4, "value": {"status": 429, "code": "rate_limit_exceeded"}};
    wrong_key(ONCE): {"fault": "unauthorized", "times": 2};
    no_money(ONCE): {"fault": "insufficient_quota", "times": 2};
}

#[test]
fn odd_line_ends_in_a_text_stay_in_it() {
    let appliance = Appliance::start();
    appliance.fault(&json!([
        {"fault": "odd_unicode", "match": VISION}, {"fault": "odd_unicode", "match": TRANSLATION},
    ]));
    let lots = appliance.lots(LOTS);
    let job = appliance.job(&lots, &LANGUAGES);
    let results = appliance.results(&job);
    assert_results(&results, &lots, &LANGUAGES, &[STRUCK]);
    let english = described(&lots[STRUCK], &[]) + ODD_UNICODE;
    let russian = expected_translation(&english, "ru") + ODD_UNICODE;
    let texts = &results["results"]["lots"][STRUCK]["descriptions"];
    assert_eq!(texts[0]["damages"], paragraphs(&english));
    assert_eq!(texts[1]["damages"], paragraphs(&russian));
    appliance.assert_sound();
}

#[test]
fn a_huge_text_is_accepted_and_a_larger_one_is_requested_again() {
    let appliance = Appliance::start();
    let lots = appliance.lots(LOTS);
    appliance.fault(&json!({"fault": "huge_line", "match": VISION, "times": 1, "value": 5_000_000}));
    let job = appliance.job(&lots, &["en"]);
    let results = appliance.results(&job);
    assert_results(&results, &lots, &["en"], &[STRUCK]);
    let text = results["results"]["lots"][STRUCK]["descriptions"][0]["damages"]
        .as_str()
        .unwrap();
    assert!(text.len() >= 5_000_000 && text.ends_with("damage</p>"));
    assert!(text.starts_with(paragraphs(&described(&lots[STRUCK], &[])).trim_end_matches("</p>")));

    appliance.fault(&json!({"fault": "huge_line", "match": VISION, "times": 1, "value": 20_000_000}));
    let job = appliance.job(&lots, &["en"]);
    assert_results(&appliance.results(&job), &lots, &["en"], &[]);
}

#[test]
fn the_line_that_openai_blames_for_a_refused_batch_fails_alone() {
    let appliance = Appliance::with("[images]\ncheck = false");
    let order = json!({"fault": "failed_validation_line", "times": 1, "value": STRUCK + 1});
    appliance.fault(&order);
    let lots = appliance.lots(LOTS);
    let job = appliance.job(&lots, &LANGUAGES);
    let results = appliance.results(&job);
    assert_results(&results, &lots, &LANGUAGES, &[STRUCK]);
    let lot = &results["results"]["lots"][STRUCK];
    assert_eq!(lot["status"], "failed");
    assert!(
        lot["error_message"]
            .as_str()
            .unwrap()
            .contains("OpenAI answered with an error"),
        "{lot}"
    );
    appliance.assert_sound();
}

#[test]
fn a_job_whose_attempts_all_fail_reports_why_and_the_next_job_continues() {
    let appliance = Appliance::with("[batch]\nmax_attempts = 3");
    appliance.fault(&json!({"fault": "all_failed"}));
    let lots = appliance.lots(LOTS);
    let job = appliance.job(&lots, &LANGUAGES);
    let status = appliance.ended(&job);
    assert_eq!(status["status"], "failed", "{status}");
    assert!(
        status["error_message"].as_str().unwrap().contains("server_error"),
        "{status}"
    );
    appliance.clear_faults();
    let job = appliance.job(&lots, &LANGUAGES);
    assert_results(&appliance.results(&job), &lots, &LANGUAGES, &[]);
    appliance.assert_sound();
}

#[test]
fn a_wrong_setting_fails_no_lot_and_its_alert_names_key_and_value() {
    let appliance = Appliance::start();
    appliance.fault(&json!({"fault": "all_404"}));
    let lots = appliance.lots(LOTS);
    let job = appliance.job(&lots, &LANGUAGES);
    let alerts = format!("{}/api/ops/alerts", appliance.ops);
    let message = wait_for("the alert", || {
        let alerts = crate::appliance::call("GET", &alerts, &[], b"").json();
        let mut alerts = alerts["alerts"].as_array().unwrap().iter();
        let alert = alerts.find(|alert| alert["kind"] == "misconfigured")?;
        Some(alert["message"].as_str().unwrap().to_owned())
    });
    assert!(
        message.contains("vision.model = \"gpt-6-luna\": model_not_found"),
        "{message}"
    );
    assert_ne!(appliance.status(&job)["status"], "failed");
    appliance.clear_faults();
    assert_results(&appliance.results(&job), &lots, &LANGUAGES, &[]);
    appliance.assert_sound();
}

#[test]
fn a_model_without_reasoning_effort_needs_no_other_setting() {
    let appliance = Appliance::with("[translation]\nmodel = \"gpt-4.1-mini\"");
    let lots = appliance.lots(LOTS);
    let job = appliance.job(&lots, &LANGUAGES);
    assert_results(&appliance.results(&job), &lots, &LANGUAGES, &[]);
    appliance.assert_sound();
}

#[test]
fn a_lot_that_always_fails_stops_no_other_lot() {
    // Long enough to notice a pause of the model.
    let appliance = Appliance::with("[batch]\nqueue_backoff = \"10m\"");
    appliance.fault(&json!({"fault": "line_500", "match": VISION}));
    let lots = appliance.lots(LOTS);
    let job = appliance.job(&lots, &LANGUAGES);
    assert_results(&appliance.results(&job), &lots, &LANGUAGES, &[STRUCK]);
    let next = appliance.job(&lots[..STRUCK], &LANGUAGES);
    assert_results(&appliance.results(&next), &lots[..STRUCK], &LANGUAGES, &[]);
    appliance.assert_sound();
}

#[test]
fn a_batch_that_openai_does_not_list_opens_an_alert_and_is_never_sent_again() {
    let stalls = json!({"fault": "stall_in_progress", "match": "vision"});
    for (before, fault, kind) in [
        (
            &stalls,
            json!({"fault": "refuse", "match": "GET /v1/batches/batch_", "value": 404}),
            "batch_gone",
        ),
        (&json!([]), json!({"fault": "content_502"}), "results_unavailable"),
        (&stalls, json!({"fault": "unauthorized"}), "openai_account"),
    ] {
        let appliance = Appliance::start();
        appliance.fault(before);
        let lots = appliance.lots(LOTS);
        let job = appliance.job(&lots, &LANGUAGES);
        wait_for("the batch", || {
            (!appliance.status(&job)["openai_batch_id"].is_null()).then_some(())
        });
        appliance.fault(&fault);
        let alerts = format!("{}/api/ops/alerts", appliance.ops);
        wait_for(kind, || {
            let alerts = crate::appliance::call("GET", &alerts, &[], b"").json();
            alerts["alerts"]
                .as_array()
                .unwrap()
                .iter()
                .any(|alert| alert["kind"] == kind)
                .then_some(())
        });
        assert_eq!(appliance.status(&job)["status"], "processing");
        appliance.clear_faults();
        assert_results(&appliance.results(&job), &lots, &LANGUAGES, &[]);
        appliance.assert_sound();
        assert_eq!(appliance.state()["executed"], 2 * LOTS, "{kind}");
        assert_eq!(
            appliance.run(&["alerts"]).status,
            0,
            "{kind}: the alert is closed"
        );
    }
}

#[test]
fn a_lost_batch_is_abandoned_by_the_operator_only() {
    // Without image checks, all lots are in one batch.
    let appliance = Appliance::with("[images]\ncheck = false");
    appliance.fault(&json!({"fault": "batch_gone", "match": "vision"}));
    let lots = appliance.lots(LOTS);
    let job = appliance.job(&lots, &LANGUAGES);
    wait_for("the alert", || {
        (appliance.run(&["alerts"]).out.contains("batch_gone")).then_some(())
    });
    assert_eq!(appliance.state()["creates"], 1);
    let command = format!("batchkeeper batches abandon 1 --bill-again {LOTS}");
    let refused = appliance.run(&["batches", "abandon", "1"]);
    assert!(
        refused.status == 1 && refused.err.contains(&command),
        "{}",
        refused.err
    );
    assert!(refused.err.contains(" USD"), "{}", refused.err);
    let wrong = appliance.run(&["batches", "abandon", "1", "--bill-again", "1"]);
    assert!(wrong.status == 1 && wrong.err.contains(&command), "{}", wrong.err);
    let lines = LOTS.to_string();
    let abandoned = appliance.run(&["batches", "abandon", "1", "--bill-again", &lines]);
    assert_eq!(abandoned.status, 0, "{}", abandoned.err);
    wait_for("the end of the batch", || {
        (appliance.cell::<i64>("SELECT count(*) FROM openai_batches WHERE abandoned_at IS NOT NULL") == 1)
            .then_some(())
    });
    let report = appliance.run(&["report"]).out;
    assert!(report.contains("abandoned; OpenAI does not list it"), "{report}");
    appliance.clear_faults();
    assert_results(&appliance.results(&job), &lots, &LANGUAGES, &[]);
    // Each request is executed once: the lost batch executed none.
    assert_eq!(appliance.state()["executed"], 3 * LOTS);
    assert_eq!(appliance.run(&["doctor"]).status, 0);
    let alerts = appliance.run(&["alerts"]);
    assert_eq!(alerts.status, 0, "{}", alerts.out);
}

#[test]
fn a_batch_that_openai_still_knows_is_cancelled_and_billed_once() {
    let appliance = Appliance::start();
    appliance.fault(&json!({"fault": "stall_in_progress", "match": "vision"}));
    let lots = appliance.lots(LOTS);
    let job = appliance.job(&lots, &LANGUAGES);
    wait_for("a batch at OpenAI", || {
        (!appliance.status(&job)["openai_batch_id"].is_null()).then_some(())
    });
    let lines = appliance.cell::<i64>("SELECT lines FROM openai_batches WHERE id = 1");
    let lines = lines.to_string();
    let refused = appliance.run(&["batches", "abandon", "1"]);
    assert!(
        refused.status == 1 && refused.err.contains("may still run") && refused.err.contains(&lines),
        "{}{}",
        refused.out,
        refused.err
    );
    let asked = appliance.run(&["batches", "abandon", "1", "--bill-again", &lines]);
    assert_eq!(asked.status, 0, "{}", asked.err);
    let unknown = appliance.run(&["batches", "abandon", "99"]);
    assert!(unknown.err.contains("there is no 99 here"), "{}", unknown.err);
    appliance.clear_faults();
    assert_results(&appliance.results(&job), &lots, &LANGUAGES, &[]);
    assert_eq!(appliance.state()["max_executions"], 1);
    appliance.assert_sound();
}

#[test]
fn a_second_batch_with_the_same_key_is_cancelled_and_duplicates_nothing() {
    let appliance = Appliance::start();
    appliance.fault(&json!([
        {"fault": "create_twice", "times": 1}, {"fault": "lost_create_reply", "times": 1},
        {"fault": "stall_in_progress", "match": "vision"},
    ]));
    let lots = appliance.lots(LOTS);
    let job = appliance.job(&lots, &LANGUAGES);
    // The alert opens while both run.
    wait_for("the end of the second one", || {
        (appliance.state()["batches"]["cancelled"] == 1).then_some(())
    });
    appliance.clear_faults();
    assert_results(&appliance.results(&job), &lots, &LANGUAGES, &[]);
    appliance.wait_until_ingested();
    let duplicates =
        appliance.cell::<i64>("SELECT count(*) FROM openai_batches WHERE duplicate_of IS NOT NULL");
    assert_eq!(duplicates, 1);
    let state = appliance.state();
    assert_eq!(state["batches"]["cancelled"], 1, "{state}");
    // The alert closes once the second batch is ingested.
    let told = "SELECT count(*) FROM alerts WHERE kind = 'duplicate_batch' AND closed_at IS NOT NULL";
    assert_eq!(appliance.cell::<i64>(told), 1);
    appliance.assert_sound();
}

#[test]
fn an_image_that_only_openai_cannot_fetch_fails_its_lot_alone() {
    let appliance = Appliance::with("[images]\ncheck = false");
    let mut lots = appliance.lots(LOTS);
    lots[STRUCK]["images"] = json!([appliance.image("missing.jpg"), appliance.image("truck.jpg")]);
    let job = appliance.job(&lots, &LANGUAGES);
    let results = appliance.results(&job);
    assert_results(&results, &lots, &LANGUAGES, &[STRUCK]);
    let lot = &results["results"]["lots"][STRUCK];
    assert!(
        lot["error_message"]
            .as_str()
            .unwrap()
            .starts_with("IMAGE_UNREACHABLE"),
        "{lot}"
    );
    appliance.assert_sound();
}
