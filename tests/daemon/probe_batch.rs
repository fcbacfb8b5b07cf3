//! What a server does not offer is said at once: by `check-config --probe-batch`, by alerts and by `/health`.

use serde_json::{Value, json};

use crate::appliance::{Appliance, call, wait_for};
use crate::relay::{self, Answer};

type Ask<'a> = &'a dyn Fn() -> Answer;

/// The result of the probe of an appliance, by its call.
fn probe(appliance: &Appliance) -> (i32, Value) {
    let ran = appliance.run(&["check-config", "--probe-batch", "--json"]);
    let value = serde_json::from_str::<Value>(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    (ran.status, value["batch_probe"].clone())
}

fn check<'a>(probe: &'a Value, call: &str) -> &'a Value {
    let checks = probe["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["call"] == call);
    found.unwrap_or_else(|| panic!("no {call}: {probe}"))
}

#[test]
fn the_probe_finds_every_call_of_the_sandbox_and_leaves_nothing_behind() {
    let mut appliance = Appliance::without_daemon("");
    let (status, probe) = probe(&appliance);
    assert_eq!(status, 0, "{probe}");
    for check in probe["checks"].as_array().unwrap() {
        assert_eq!(check["ok"], true, "{check}");
    }
    assert_eq!(probe["checks"].as_array().unwrap().len(), 9, "{probe}");
    assert_eq!(appliance.state()["files"], json!({}), "{}", appliance.state());
    // It has no metadata of ours, so that no start takes it for a batch that a backup misses.
    appliance.start_daemon();
    let lots = appliance.lots(2);
    appliance.results(&appliance.job(&lots, &["en"]));
    let text = appliance.run(&["check-config", "--probe-batch"]).out;
    assert!(
        text.contains("what the server offers:") && text.contains("cost"),
        "{text}"
    );
}

#[test]
fn the_probe_names_what_is_refused_and_deletes_its_files_all_the_same() {
    let appliance = relay::appliance("", |line: &str, ask: Ask| {
        if line.starts_with("POST /v1/batches ") {
            return Answer::refused(404, "no such route");
        }
        match line.starts_with("GET /v1/files?") {
            true => Answer::refused(405, "not allowed"),
            false => ask(),
        }
    });
    let (status, probe) = probe(&appliance);
    assert_eq!(status, 1, "{probe}");
    let create = check(&probe, "POST /batches");
    assert_eq!((&create["ok"], &create["needed"]), (&json!(false), &json!(true)));
    assert!(
        create["message"]
            .as_str()
            .unwrap()
            .contains("POST /v1/batches: HTTP 404"),
        "{create}"
    );
    assert_eq!(check(&probe, "GET /files")["needed"], false);
    assert_eq!(check(&probe, "DELETE /files/{id}")["ok"], true);
    assert_eq!(appliance.state()["files"], json!({}), "{}", appliance.state());
}

#[test]
fn a_list_of_batches_that_is_refused_is_said_at_once_and_in_the_health() {
    let appliance = relay::appliance("", |line: &str, ask: Ask| {
        match line.starts_with("GET /v1/batches?") {
            true => Answer::refused(405, "batches are not listed"),
            false => ask(),
        }
    });
    let health = wait_for("a health that is not healthy", || {
        let answer = call("GET", &format!("{}/health", appliance.ops), &[], b"");
        (answer.json()["status"] != "healthy").then_some(answer)
    });
    assert_eq!(
        (health.status, &health.json()["status"]),
        (200, &json!("degraded"))
    );
    let message = health.json()["checks"]["sending"]["message"].to_string();
    for part in [
        "GET /v1/batches: HTTP 405",
        "batches are not listed",
        "--probe-batch",
    ] {
        assert!(message.contains(part), "{message}");
    }
}
