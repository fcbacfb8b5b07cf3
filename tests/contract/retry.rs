//! Operators' commands on jobs: cancel, and retry of failed lots.

use serde_json::{Value, json};

use crate::accepted;
use crate::appliance::{Appliance, submission, wait_for};

#[test]
fn failed_lots_are_sent_again_and_their_webhook_too() {
    let appliance = Appliance::with("[images]\ncheck = false");
    let lots = appliance.lots(4);
    let mut body = submission(&lots, &["en", "ru"]);
    body["webhook_url"] = json!(appliance.hook("retried"));
    body["lots"][3]["images"] = json!([]);
    let refuse = json!({"fault": "refusal_line", "match": "_1$", "times": 1});
    appliance.fault(&refuse);
    let job = accepted(&appliance.submit(&body));
    let first = appliance.results(&job);
    assert_eq!(first["processing_summary"]["failed_lots"], 2, "{first}");
    appliance.delivered("retried", 1);
    // The receiver gets the delivery before the row is updated.
    wait_for("the delivery's end", || {
        let delivered = "SELECT count(*) FROM webhook_deliveries WHERE state = 'delivered'";
        (appliance.cell::<i64>(delivered) == 1).then_some(())
    });
    appliance.wait_until_ingested();
    let before = appliance.dump();
    let dry = appliance.run(&["jobs", "retry", &job, "--failed-lots", "--dry-run"]);
    assert_eq!(dry.status, 0, "{}", dry.err);
    assert!(dry.out.starts_with("1 failed lots"), "{}", dry.out);
    assert!(
        dry.out
            .contains("1 vision and 0 translation requests would be sent"),
        "{}",
        dry.out
    );
    // The reservation: one description and one translation.
    let dry = appliance.run(&["jobs", "retry", &job, "--failed-lots", "--dry-run", "--json"]);
    let dry: Value = serde_json::from_str(&dry.out).unwrap();
    let reserved = dry["estimated_cost"]["usd"].as_str().unwrap();
    let each: f64 = appliance.cell("SELECT sum(cost_picodollars * 1.0 / lines) / 1e12 FROM v_costs");
    let share = reserved.parse::<f64>().unwrap() / each;
    assert!((1.1..1.8).contains(&share), "{dry} {share}");
    assert_eq!(appliance.dump(), before);
    appliance.clear_faults();
    let ran = appliance.run(&["jobs", "retry", &job, "--failed-lots"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let deliveries = appliance.delivered("retried", 2);
    let second = appliance.results(&job);
    assert_eq!(second["processing_summary"]["failed_lots"], 1, "{second}");
    // A lot with a text keeps it, and the lot without an image stays failed.
    for lot in [0, 2, 3] {
        assert_eq!(second["results"]["lots"][lot], first["results"]["lots"][lot]);
    }
    assert_eq!(second["results"]["lots"][1]["status"], "completed");
    let id = |delivery: &Value| -> Value {
        let headers = delivery["headers"].as_array().unwrap().iter();
        headers.clone().find(|it| it[0] == "webhook-id").unwrap()[1].clone()
    };
    assert_ne!(id(&deliveries[0]), id(&deliveries[1]));
    appliance.assert_sound();
    let nothing = appliance.run(&["jobs", "retry", &job, "--failed-lots"]);
    assert_eq!(nothing.status, 0);
    assert!(nothing.out.starts_with("0 failed lots"), "{}", nothing.out);
    assert!(nothing.out.contains("nothing to send"), "{}", nothing.out);
    assert!(!nothing.out.contains("paid"), "{}", nothing.out);
    assert_eq!(appliance.status(&job)["status"], "completed");
}

#[test]
fn failed_translations_of_a_completed_job_are_sent_again() {
    let appliance = Appliance::with("[images]\ncheck = false");
    let lots = appliance.lots(3);
    let mut body = submission(&lots, &["en", "ru", "de"]);
    body["webhook_url"] = json!(appliance.hook("translated"));
    // Two lots miss a language, and one has failed altogether.
    for (line, times) in [("_1_ru$", 1), ("_2_de$", 1)] {
        appliance.fault(&json!({"fault": "refusal_line", "match": line, "times": times}));
    }
    body["lots"][0]["images"] = json!([]);
    let job = accepted(&appliance.submit(&body));
    let first = appliance.results(&job);
    assert!(first.get("retried_at").is_none(), "{first}");
    assert_eq!(first["processing_summary"]["failed_lots"], 1, "{first}");
    appliance.delivered("translated", 1);
    wait_for("the delivery's end", || {
        let delivered = "SELECT count(*) FROM webhook_deliveries WHERE state = 'delivered'";
        (appliance.cell::<i64>(delivered) == 1).then_some(())
    });
    appliance.wait_until_ingested();
    let command = ["jobs", "retry", &job, "--failed-translations"];
    let before = appliance.dump();
    let dry = appliance.run(&[&command[..], &["--dry-run"]].concat());
    assert!(dry.out.starts_with("2 failed translations of 2 lots"), "{dry:?}");
    assert!(dry.out.contains("USD"), "{dry:?}");
    assert_eq!(appliance.dump(), before);
    let both = appliance.run(&[&command[..], &["--failed-lots"]].concat());
    assert_eq!(both.status, 2, "{both:?}");

    let ran = appliance.run(&command);
    assert_eq!(ran.status, 0, "{ran:?}");
    let deliveries = appliance.delivered("translated", 2);
    let second = appliance.results(&job);
    for lot in [1, 2] {
        let lot = &second["results"]["lots"][lot];
        assert_eq!(lot["status"], "completed");
        let mut texts = lot["descriptions"].as_array().unwrap().iter();
        assert!(texts.all(|text| text["damages"].is_string()), "{lot}");
    }
    assert_eq!(
        second["results"]["lots"][0], first["results"]["lots"][0],
        "{second}"
    );
    assert!(second["retried_at"].is_string(), "{second}");
    assert_eq!(second["changed_lots"], 2, "{second}");
    let id = |delivery: &Value| -> Value {
        let mut headers = delivery["headers"].as_array().unwrap().iter();
        headers.find(|it| it[0] == "webhook-id").unwrap()[1].clone()
    };
    assert_ne!(id(&deliveries[0]), id(&deliveries[1]));
    // Each description was made once, and each translation that was there.
    let lines: i64 = appliance.cell("SELECT count(*) FROM batch_lines");
    assert_eq!(lines, 2 + 4 + 2);
    let nothing = appliance.run(&command);
    assert!(nothing.out.starts_with("0 failed translations"), "{nothing:?}");
    appliance.assert_sound();
}

#[test]
fn an_operator_cancels_a_job() {
    let appliance = Appliance::with("[batch]\nmax_wait = \"1h\"");
    let job = accepted(&appliance.submit(&submission(&appliance.lots(2), &["en"])));
    assert_eq!(appliance.run(&["jobs", "cancel", &job]).status, 0);
    let status = appliance.status(&job);
    assert_eq!(status["status"], "cancelled");
    assert_eq!(status["error"], "cancelled by the operator");
    for id in [job.as_str(), "nobody"] {
        assert_eq!(appliance.run(&["jobs", "cancel", id]).status, 1);
    }
    let retry = appliance.run(&["jobs", "retry", &job, "--failed-lots"]);
    assert_eq!(retry.status, 1);
    assert!(retry.err.contains("cancelled"), "{}", retry.err);
    appliance.assert_sound();
}

#[test]
fn paused_submissions_wait_and_continue() {
    let appliance = Appliance::start();
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let job = accepted(&appliance.submit(&submission(&appliance.lots(2), &["en"])));
    let checked = "SELECT count(*) FROM requests WHERE images_due = 0";
    crate::appliance::wait_for("the images' checks", || {
        (appliance.cell::<i64>(checked) == 2).then_some(())
    });
    assert_eq!(appliance.cell::<i64>("SELECT count(*) FROM openai_batches"), 0);
    assert_eq!(appliance.run(&["resume", "submissions"]).status, 0);
    appliance.results(&job);
    appliance.assert_sound();
}
