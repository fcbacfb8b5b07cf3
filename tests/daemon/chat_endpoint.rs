//! A server that has `/v1/chat/completions` alone: batches and synchronous calls are made for that endpoint.

use serde_json::json;

use crate::appliance::{Appliance, assert_results, submission};

const CHAT: &str = "[openai]\nendpoint = \"/v1/chat/completions\"\n[synchronous]\nenabled = true";

#[test]
fn a_job_goes_through_chat_completions() {
    let appliance = Appliance::with(CHAT);
    let lots = appliance.lots(5);
    let job = appliance.job(&lots, &["en", "ru", "de"]);
    assert_results(&appliance.results(&job), &lots, &["en", "ru", "de"], &[]);
    // The sandbox refuses a line whose URL differs from its batch's endpoint, so that of the line shows both.
    let of_batches = "SELECT count(*) FROM openai_batches WHERE parameters LIKE '%/v1/chat/completions%'";
    assert_eq!(
        appliance.cell::<i64>(of_batches),
        appliance.cell::<i64>("SELECT count(*) FROM openai_batches")
    );
    assert!(appliance.cell::<i64>("SELECT sum(input_tokens) FROM openai_batches") > 0);
    appliance.assert_sound();
}

#[test]
fn one_lot_is_answered_by_a_synchronous_chat_call() {
    let appliance = Appliance::with(CHAT);
    let lots = appliance.lots(1);
    let answer = appliance.submit(&submission(&lots, &["en", "ru"]));
    assert_eq!(answer.status, 200, "{}", answer.json());
    let languages = answer.json()["lots"][0]["descriptions"].clone();
    assert_eq!(languages.as_array().map(Vec::len), Some(2));
    assert!(
        languages[1]["damages"]
            .as_str()
            .is_some_and(|text| text.contains("повреждения"))
    );
    assert_eq!(appliance.cell::<i64>("SELECT count(*) FROM openai_batches"), 0);
}

#[test]
fn refusals_cuts_and_wrong_settings_are_read_in_their_chat_form() {
    let appliance = Appliance::with(CHAT);
    for (fault, said) in [("refusal_line", "refused"), ("truncated_line", "cut short")] {
        appliance.clear_faults();
        appliance.fault(&json!({"fault": fault, "match": "kind:description"}));
        let job = appliance.job(&appliance.lots(2), &["en"]);
        let status = appliance.ended(&job);
        assert_eq!(status["status"], "failed", "{fault}: {status}");
        let reason: String = appliance.cell(&format!(
            "SELECT error_message FROM batch_lots WHERE batch_job_id = '{job}' LIMIT 1"
        ));
        assert!(reason.contains(said), "{fault}: {reason}");
    }
}

/// A batch that was planned for one endpoint stays one of it.
#[test]
fn a_change_of_the_endpoint_changes_no_planned_batch() {
    let mut appliance = Appliance::start();
    appliance.fault(&json!({"fault": "delay", "match": "POST /v1/files", "value": 3_000, "times": 1}));
    let lots = appliance.lots(3);
    let job = appliance.job(&lots, &["en", "de"]);
    crate::appliance::wait_for("a sealed batch", || {
        (appliance.cell::<i64>("SELECT count(*) FROM openai_batches WHERE state = 'sealed'") > 0)
            .then_some(())
    });
    appliance.kill_daemon();
    appliance.configure(CHAT);
    appliance.start_daemon();
    assert_results(&appliance.results(&job), &lots, &["en", "de"], &[]);
    let forms = "SELECT count(*) FROM openai_batches WHERE stage = ? AND parameters LIKE '%chat%'";
    for (stage, chat) in [("vision", 0), ("translation", 1)] {
        assert_eq!(
            appliance.cell::<i64>(&forms.replace('?', &format!("'{stage}'"))),
            chat,
            "{stage}"
        );
    }
    appliance.assert_sound();
}
