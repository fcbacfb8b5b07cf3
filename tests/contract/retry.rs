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
    assert!((1.1..1.6).contains(&share), "{dry} {share}");
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
