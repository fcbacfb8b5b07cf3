//! A server that lists no batches (`openai.batch_listing = "none"`): operators decide what a list would show.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::appliance::{Appliance, assert_results, call, wait_for};
use crate::relay::{self, Answer};

type Ask<'a> = &'a dyn Fn() -> Answer;

const NONE: &str = "openai.batch_listing = \"none\"";

/// What becomes of the first create.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstCreate {
    Answered,
    /// It takes effect, and its answer is lost.
    LostAnswer,
    /// It never arrives, and the caller cannot know.
    LostCall,
}

/// An appliance beside a server without a list of batches.
fn appliance(first: FirstCreate) -> Appliance {
    let creates = AtomicUsize::new(0);
    relay::appliance(NONE, move |line: &str, ask: Ask| {
        assert!(!line.starts_with("GET /v1/batches?"), "a list was asked for");
        let is_first = line.starts_with("POST /v1/batches ") && creates.fetch_add(1, Ordering::SeqCst) == 0;
        match first {
            FirstCreate::LostAnswer if is_first => {
                ask();
                Answer::refused(502, "bad gateway")
            }
            FirstCreate::LostCall if is_first => Answer::refused(502, "bad gateway"),
            _ => ask(),
        }
    })
}

fn alert(appliance: &Appliance, kind: &str) -> String {
    wait_for(kind, || {
        let sql = format!(
            "SELECT coalesce((SELECT message FROM alerts WHERE kind = '{kind}' AND closed_at IS NULL), '')"
        );
        Some(appliance.cell::<String>(&sql)).filter(|it| !it.is_empty())
    })
}

fn assert_one_batch_a_submission(appliance: &Appliance) {
    appliance.assert_sound();
    let state = appliance.state();
    assert_eq!(state["max_answers"], 1, "{state}");
    assert_eq!(state["duplicate_submissions"], json!([]), "{state}");
}

#[test]
fn a_job_goes_through_without_a_list() {
    let appliance = appliance(FirstCreate::Answered);
    let lots = appliance.lots(6);
    assert_results(
        &appliance.results(&appliance.job(&lots, &["en", "de"])),
        &lots,
        &["en", "de"],
        &[],
    );
    assert_one_batch_a_submission(&appliance);
    let warning = appliance.run(&["check-config"]);
    assert!(warning.out.contains("openai.batch_listing"), "{warning:?}");
}

#[test]
fn an_unanswered_create_waits_until_an_operator_names_its_batch() {
    let appliance = appliance(FirstCreate::LostAnswer);
    let lots = appliance.lots(3);
    let job = appliance.in_one_batch(|| appliance.job(&lots, &["en"]));
    let message = alert(&appliance, "create_unclear");
    assert!(message.contains("batches resolve 1 --created"), "{message}");
    assert_eq!(appliance.state()["creates"], 1);
    let listed = call(
        "GET",
        &format!("{}/v1/batches", appliance.sandbox),
        &[("Authorization", "Bearer sk-sandbox")],
        b"",
    );
    let made = listed.json()["data"][0]["id"].as_str().unwrap().to_owned();
    let unknown = appliance.run(&["batches", "resolve", "1", "--created", "batch_unknown"]);
    assert_eq!(unknown.status, 1, "{unknown:?}");
    let both = appliance.run(&["batches", "resolve", "1", "--created", &made, "--not-created"]);
    assert_eq!(both.status, 2, "{both:?}");
    let resolved = appliance.run(&["batches", "resolve", "1", "--created", &made]);
    assert_eq!(resolved.status, 0, "{resolved:?}");
    assert_results(&appliance.results(&job), &lots, &["en"], &[]);
    assert_one_batch_a_submission(&appliance);
    let event: String = appliance.cell("SELECT detail FROM events WHERE kind = 'resolved'");
    assert!(event.contains(&made), "{event}");
    let audited = "SELECT group_concat(subject) FROM operator_actions WHERE action = 'resolve_create' AND outcome_of IS NULL";
    assert!(
        appliance
            .cell::<String>(audited)
            .contains(&format!("1 --created {made}"))
    );
    let again = appliance.run(&["batches", "resolve", "1", "--not-created"]);
    assert_eq!(again.status, 1, "{again:?}");
}

#[test]
fn an_unanswered_create_is_repeated_if_an_operator_says_so() {
    let appliance = appliance(FirstCreate::LostCall);
    let lots = appliance.lots(3);
    let job = appliance.in_one_batch(|| appliance.job(&lots, &["en"]));
    alert(&appliance, "create_unclear");
    assert_eq!(appliance.state()["creates"], 0);
    let resolved = appliance.run(&["batches", "resolve", "1", "--not-created"]);
    assert_eq!(resolved.status, 0, "{resolved:?}");
    assert_results(&appliance.results(&job), &lots, &["en"], &[]);
    assert_one_batch_a_submission(&appliance);
}

#[test]
fn creates_stop_after_a_restore_until_an_operator_accepts_it() {
    let mut appliance = appliance(FirstCreate::Answered);
    let lots = appliance.lots(2);
    appliance.results(&appliance.job(&lots, &["en"]));
    let backup = appliance.path("backup.db");
    let made = appliance.run(&["backup", backup.to_str().unwrap()]);
    assert_eq!(made.status, 0, "{made:?}");
    appliance.results(&appliance.job(&appliance.lots(3), &["en"]));
    appliance.kill_daemon();
    for ending in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{ending}", appliance.database().display())).ok();
    }
    fs::copy(&backup, appliance.database()).unwrap();
    appliance.start_daemon();
    let message = alert(&appliance, "restored_database");
    assert!(message.contains("recover --accept-unlisted"), "{message}");
    let creates = appliance.state()["creates"].clone();
    let job = appliance.job(&lots, &["de"]);
    appliance.wait_until_images_are_checked();
    let compared = appliance.run(&["recover"]);
    assert_eq!(compared.status, 1, "{compared:?}");
    assert_eq!(appliance.state()["creates"], creates);
    let accepted = appliance.run(&["recover", "--accept-unlisted"]);
    assert_eq!(accepted.status, 0, "{accepted:?}");
    appliance.results(&job);
    let events: i64 = appliance.cell("SELECT count(*) FROM events WHERE kind = 'unlisted_accepted'");
    assert_eq!(events, 1);
    // The next start is an ordinary one.
    appliance.kill_daemon();
    appliance.start_daemon();
    appliance.results(&appliance.job(&appliance.lots(4), &["en"]));
}
