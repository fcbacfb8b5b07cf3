//! An OpenAI-compatible server with habits of its own: a relay in front of the sandbox rewrites its JSON.

use serde_json::{Value, json};

use crate::appliance::{Appliance, assert_results, wait_for};
use crate::relay;

/// What a relay makes of an answer's JSON. It gets the request line.
type Rewrite = fn(&str, Value) -> String;

/// An appliance whose daemon asks the relay.
fn appliance(rewrite: Rewrite) -> Appliance {
    relay::appliance("", move |line: &str, ask: &dyn Fn() -> relay::Answer| {
        match ask() {
            content if line.contains("/content") => content,
            answer => answer.rewrite(|value| rewrite(line, value)),
        }
    })
}

/// Rewrites an object, and each object of a listing.
fn each(mut value: Value, change: &dyn Fn(&mut Value)) -> String {
    match value["data"].as_array_mut() {
        Some(list) => list.iter_mut().for_each(change),
        None => change(&mut value),
    }
    value.to_string()
}

#[test]
fn a_server_with_other_names_and_sizes_of_nothing_is_understood() {
    let appliance = appliance(|_, value| {
        each(value, &|object| {
            let name = object["object"].as_str().unwrap_or_default().to_owned();
            object["object"] = json!(match name.as_str() {
                "file" => "file_object",
                "batch" => "Batch.Job",
                other => other,
            });
            if name == "file" {
                object["bytes"] = json!(0);
            }
            if let Some(status) = object["status"].as_str() {
                object["status"] = json!(status.to_uppercase().replace('_', "-"));
            }
        })
    });
    let lots = appliance.lots(3);
    let results = appliance.results(&appliance.job(&lots, &["en", "de"]));
    assert_results(&results, &lots, &["en", "de"], &[]);
    appliance.assert_sound();
    assert_eq!(appliance.cell::<i64>("SELECT count(*) FROM alerts"), 0);
}

/// Checks that an alert of a kind opens for a job, and quotes what the server sent.
fn quoted(rewrite: Rewrite, kind: &str, quote: &str) {
    let appliance = appliance(rewrite);
    appliance.job(&appliance.lots(2), &["en"]);
    let message = wait_for(kind, || {
        let sql = format!("SELECT coalesce((SELECT message FROM alerts WHERE kind = '{kind}'), '')");
        Some(appliance.cell::<String>(&sql)).filter(|it| !it.is_empty())
    });
    assert!(message.contains(quote), "{message}");
    assert!(message.contains("batchkeeper batches"), "{message}");
}

#[test]
fn a_state_that_is_not_known_is_quoted() {
    let rewrite: Rewrite = |line, value| {
        let is_poll = line.starts_with("GET /v1/batches/");
        each(value, &|object| {
            if is_poll {
                object["status"] = json!("JOB_STATE_PARKED");
            }
        })
    };
    quoted(rewrite, "unknown_state", "JOB_STATE_PARKED");
}

#[test]
fn an_answer_to_a_poll_that_is_no_batch_is_quoted() {
    let wrapped: Rewrite = |line, value| match line.starts_with("GET /v1/batches/") {
        true => json!({"wrapped": value, "note": "see the manual"}).to_string(),
        false => value.to_string(),
    };
    quoted(wrapped, "unknown_state", "see the manual");
    let html: Rewrite = |line, value| match line.starts_with("GET /v1/batches/") {
        true => "<html>Please sign in to the portal</html>".to_owned(),
        false => value.to_string(),
    };
    quoted(html, "unknown_state", "Please sign in to the portal");
}

#[test]
fn an_answer_to_an_upload_that_is_no_file_is_quoted_unless_the_file_is_listed() {
    let listed = appliance(|line, value| match line.starts_with("POST /v1/files ") {
        true => json!({"stored": true}).to_string(),
        false => value.to_string(),
    });
    listed.results(&listed.job(&listed.lots(2), &["en"]));
    let hidden: Rewrite = |line, value| match line {
        line if line.starts_with("POST /v1/files ") => json!({"stored": true}).to_string(),
        line if line.starts_with("GET /v1/files?") => json!({"data": [], "has_more": false}).to_string(),
        _ => value.to_string(),
    };
    quoted(hidden, "upload_failed", "\"stored\":true");
}
