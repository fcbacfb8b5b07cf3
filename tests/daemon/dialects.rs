//! Dialects of OpenAI-compatible servers: a relay in front of the sandbox speaks each of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::appliance::{Appliance, assert_results, wait_for};
use crate::relay::{self, Answer};

type Ask<'a> = &'a dyn Fn() -> Answer;

/// Runs a job of some lots in two languages, and checks that it is done without a word.
fn assert_completes(appliance: &Appliance) {
    let lots = appliance.lots(6);
    let results = appliance.results(&appliance.job(&lots, &["en", "de"]));
    assert_results(&results, &lots, &["en", "de"], &[]);
    appliance.assert_sound();
    let alerts = "SELECT coalesce(group_concat(kind || ': ' || message), '') FROM alerts";
    assert_eq!(appliance.cell::<String>(alerts), "");
}

fn is_content(line: &str) -> bool {
    line.contains("/content")
}

/// The times of an object in ISO 8601, as Python's `isoformat` writes them.
fn in_iso_times(object: &mut Value) {
    for (name, value) in object.as_object_mut().into_iter().flatten() {
        if let (true, Some(seconds)) = (name.ends_with("_at"), value.as_i64()) {
            let time = batchkeeper::base::clock::Timestamp::from_seconds(seconds).to_string();
            *value = json!(time.trim_end_matches('Z'));
        }
    }
}

#[test]
fn iso_times_bare_arrays_and_metadata_that_is_not_echoed_are_understood() {
    assert_completes(&relay::appliance("", |line: &str, ask: Ask| match ask() {
        content if is_content(line) => content,
        answer => answer
            .each(|object| {
                in_iso_times(object);
                object.as_object_mut().unwrap().remove("metadata");
            })
            .rewrite(|value| match value["data"].is_array() {
                true => value["data"].to_string(),
                false => value.to_string(),
            }),
    }));
}

/// Such a server pages nothing, names no times, and refuses OpenAI's longest pages. It shows a create whose answer was
/// lost all the same.
#[test]
fn a_listing_without_paging_and_times_is_understood() {
    let creates = AtomicUsize::new(0);
    let appliance = relay::appliance("", move |line: &str, ask: Ask| {
        if line.starts_with("GET /v1/batches?") && line.contains("limit=100") {
            return Answer::refused(400, "limit must be at most 50");
        }
        if line.starts_with("GET /v1/files?") && line.contains("limit=100") {
            return Answer::refused(422, "limit must be at most 20");
        }
        if line.starts_with("POST /v1/batches ") && creates.fetch_add(1, Ordering::SeqCst) == 0 {
            ask();
            return Answer::refused(502, "bad gateway");
        }
        match ask() {
            content if is_content(line) => content,
            answer => answer
                .each(|object| {
                    object.as_object_mut().unwrap().remove("created_at");
                })
                .rewrite(|mut value| {
                    value.as_object_mut().unwrap().remove("has_more");
                    value.to_string()
                }),
        }
    });
    assert_completes(&appliance);
    let batches: u64 = appliance.cell("SELECT count(*) FROM openai_batches");
    assert_eq!(appliance.state()["creates"], json!(batches));
}

#[test]
fn states_of_other_words_are_understood() {
    assert_completes(&relay::appliance("", |line: &str, ask: Ask| match ask() {
        content if is_content(line) => content,
        answer => answer.each(|object| {
            let other = match object["status"].as_str() {
                Some("validating") => "SCHEDULING",
                Some("in_progress") => "RUNNING",
                Some("completed") => "SUCCESS",
                _ => return,
            };
            object["status"] = json!(other);
        }),
    }));
}

#[test]
fn a_body_that_is_a_text_of_json_is_read() {
    assert_completes(&relay::appliance("", |line: &str, ask: Ask| match ask() {
        content if is_content(line) => content.lines(|line| {
            let body = line["response"]["body"].to_string();
            line["response"]["body"] = json!(body);
        }),
        answer => answer,
    }));
}

#[test]
fn a_server_without_a_list_of_files_gets_its_inputs_again() {
    for status in [404, 405] {
        assert_completes(&relay::appliance("", move |line: &str, ask: Ask| {
            match line.starts_with("GET /v1/files?") {
                true => Answer::refused(status, "no such route"),
                false => ask(),
            }
        }));
    }
    // The answer of the first upload is lost.
    let uploads = AtomicUsize::new(0);
    let appliance = relay::appliance("", move |line: &str, ask: Ask| {
        if line.starts_with("GET /v1/files?") {
            return Answer::refused(405, "no such route");
        }
        let is_lost = line.starts_with("POST /v1/files ") && uploads.fetch_add(1, Ordering::SeqCst) == 0;
        match (ask(), is_lost) {
            (_, true) => Answer::refused(502, "bad gateway"),
            (answer, false) => answer,
        }
    });
    assert_completes(&appliance);
    let stray = appliance.state()["uploads"].clone();
    let batches: u64 = appliance.cell("SELECT count(*) FROM openai_batches");
    assert_eq!(stray, json!(batches + 1), "{}", appliance.state());
}

#[test]
fn a_refused_listing_names_its_call() {
    let appliance = relay::appliance("", |line: &str, ask: Ask| {
        match line.starts_with("GET /v1/files?") {
            true => Answer::refused(403, "files are not listed here"),
            false => ask(),
        }
    });
    appliance.job(&appliance.lots(1), &["en"]);
    let message = wait_for("an alert", || {
        let sql = "SELECT coalesce((SELECT message FROM alerts LIMIT 1), '')";
        Some(appliance.cell::<String>(sql)).filter(|it| !it.is_empty())
    });
    assert!(
        message.contains("GET /v1/files: HTTP 403") && message.contains("files are not listed here"),
        "{message}"
    );
}

/// The sizes of result files, as estimates.
fn with_estimated_sizes(line: &str, answer: Answer) -> Answer {
    match line.starts_with("GET /v1/files/") && !is_content(line) {
        true => answer.each(|file| file["bytes"] = json!(file["bytes"].as_u64().unwrap() + 1_234)),
        false => answer,
    }
}

#[test]
fn a_batch_is_complete_once_all_its_lines_are_found_whatever_size_is_stated() {
    let appliance = relay::appliance("", |line: &str, ask: Ask| with_estimated_sizes(line, ask()));
    // Some lines fail, so that the batches have both files.
    appliance.fault(&json!({"fault": "line_error", "match": "kind:description", "times": 2}));
    let lots = appliance.lots(8);
    let status = appliance.ended(&appliance.job(&lots, &["en", "de"]));
    assert_ne!(status["status"], "failed", "{status}");
    appliance.assert_sound();
    let both = "SELECT count(*) FROM openai_batches WHERE error_file_id IS NOT NULL";
    assert!(appliance.cell::<u64>(both) > 0, "{}", appliance.state());
    let accepted = "SELECT count(*) FROM events WHERE kind = 'other_size_accepted'";
    assert!(appliance.cell::<u64>(accepted) > 1);
}

#[test]
fn lines_that_the_server_itself_lost_are_accepted_after_three_downloads() {
    let appliance = relay::appliance("openai.size_check_interval = \"50ms\"", |line: &str, ask: Ask| {
        let answer = with_estimated_sizes(line, ask());
        if is_content(line) {
            let body = String::from_utf8(answer.body).unwrap();
            let kept = body.lines().take(5).map(|line| format!("{line}\n"));
            let body = kept.collect::<String>().into_bytes();
            return Answer { status: 200, body };
        }
        answer.each(|object| {
            if object["request_counts"]["total"] == 6 {
                object["request_counts"] = json!({"total": 5, "completed": 5, "failed": 0});
            }
        })
    });
    appliance.in_one_batch(|| appliance.job(&appliance.lots(6), &["en"]));
    wait_for("an accepted file", || {
        let sql = "SELECT count(*) FROM events WHERE kind = 'other_size_accepted'";
        (appliance.cell::<u64>(sql) > 0).then_some(())
    });
    let failures = "SELECT count(*) FROM batch_lines WHERE outcome = 'missing'";
    wait_for("a missing line", || {
        (appliance.cell::<u64>(failures) > 0).then_some(())
    });
}

#[test]
fn a_proxy_that_cuts_every_download_at_the_same_place_does_not_pass() {
    let appliance = relay::appliance("openai.size_check_interval = \"1ms\"", |line: &str, ask: Ask| {
        let answer = ask();
        if !is_content(line) {
            return answer;
        }
        let body = String::from_utf8(answer.body).unwrap();
        let kept = body.lines().take(5).map(|line| format!("{line}\n"));
        let body = kept.collect::<String>().into_bytes();
        Answer { status: 200, body }
    });
    let job = appliance.in_one_batch(|| appliance.job(&appliance.lots(6), &["en"]));
    let message = wait_for("an alert", || {
        let sql = "SELECT coalesce((SELECT message FROM alerts WHERE kind = 'results_unavailable'), '')";
        Some(appliance.cell::<String>(sql)).filter(|it| !it.is_empty())
    });
    assert!(
        message.contains("bytes") && message.contains("arrived"),
        "{message}"
    );
    let settled = "SELECT count(*) FROM batch_lines WHERE outcome IS NULL";
    assert_eq!(appliance.cell::<u64>(settled), 1);
    let answered = "SELECT count(*) FROM batch_lots WHERE vision_result IS NOT NULL";
    assert_eq!(appliance.cell::<u64>(answered), 5, "{}", appliance.status(&job));
    assert_eq!(
        appliance.cell::<u64>("SELECT count(*) FROM openai_batches WHERE stage = 'vision'"),
        1
    );
}
