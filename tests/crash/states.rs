//! SIGKILL in each state of the submission protocol, once in the vision stage and once in the
//! translation stage of the same job.

use std::time::Duration;

use batchkeeper::base::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use super::rig::{Expected, OfCommit, Options, Rig, Strike, pause, until};

const LANGUAGES: [&str; 3] = ["en", "ru", "de"];
const ALL_DONE: &str = "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM batch_jobs WHERE completed_at IS NULL)";

/// A place in a batch's life.
struct Place {
    /// The faults that hold a batch of this stage at the place.
    faults: fn(stage: &str) -> Value,
    /// The condition on `openai_batches` that is true at the place.
    row: &'static str,
    /// The thread that the shim stops before each of its transactions, if no fault holds the batch.
    stopped: Option<&'static str>,
    /// The number of requests that a batch waits for; `None` if it waits a short time only.
    requests: Option<usize>,
    lots: usize,
    languages: &'static [&'static str],
    expected: Expected,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            faults: |_| json!([]),
            row: "",
            stopped: None,
            requests: None,
            lots: 5,
            languages: &LANGUAGES,
            expected: Expected { batches: Some(2) },
        }
    }
}

impl Place {
    fn stop(&self) -> Option<Strike<'static>> {
        self.stopped.map(Strike::Hold)
    }

    /// If no fault holds the batch, it may pass the place too quickly: then this submits another
    /// job.
    fn kill_when(&self, rig: &mut Rig, condition: &str) {
        while !rig.kill_when(condition, ALL_DONE) {
            let quick = self.expected.batches.is_none() && rig.jobs.len() < 20;
            assert!(quick, "the condition never became true: {condition}");
            rig.submit(self.lots, self.languages);
        }
    }
}

/// Matches the body of a create of that stage.
fn create_of(stage: &str) -> String {
    format!("\"stage\":\"{stage}\"")
}

/// Matches the first line of an input file of that stage.
fn line_of(stage: &str) -> String {
    format!("\"custom_id\":\"{}_", &stage[..1])
}

fn kill_at(place: &Place) {
    let mut rig = Rig::new(Options {
        shim: place.stopped.is_some(),
        requests: place.requests,
        ..Options::default()
    });
    rig.faults(&(place.faults)("vision"));
    if let Some(stop) = place.stop() {
        rig.strike(stop);
    }
    rig.submit(place.lots, place.languages);
    for (stage, next) in [("vision", Some("translation")), ("translation", None)] {
        let condition = format!(
            "SELECT 1 FROM openai_batches WHERE stage = '{stage}' AND {}",
            place.row
        );
        match place.stopped {
            Some(_) => rig.kill_between(&condition),
            None => place.kill_when(&mut rig, &condition),
        }
        rig.no_faults();
        if let Some(next) = next {
            rig.faults(&(place.faults)(next));
            if let Some(stop) = place.stop() {
                rig.plan().strike(stop);
            }
        }
        rig.start();
    }
    rig.finish(place.expected);
}

#[test]
fn planned_with_a_part_of_its_lines() {
    kill_at(&Place {
        row: "state = 'planned' AND (SELECT count(*) FROM batch_lines WHERE batch_id = openai_batches.id) BETWEEN 1 AND 599",
        stopped: Some("submitter"),
        lots: 600,
        languages: &["ru"],
        expected: Expected::default(),
        ..Place::default()
    });
}

#[test]
fn sealed_and_being_uploaded() {
    kill_at(&Place {
        faults: |stage| json!([{"fault": "delay", "value": 1000, "match": line_of(stage)}]),
        row: "state = 'sealed'",
        ..Place::default()
    });
}

#[test]
fn uploaded_and_the_answer_lost() {
    kill_at(&Place {
        faults: |stage| json!([{"fault": "lost_upload_reply", "match": line_of(stage), "times": 1}]),
        row: "state = 'sealed' AND failures > 0",
        ..Place::default()
    });
}

#[test]
fn uploaded() {
    kill_at(&Place {
        faults: |stage| json!([{"fault": "file_lag_create", "match": create_of(stage)}]),
        row: "state = 'uploaded' AND failures > 0",
        ..Place::default()
    });
}

#[test]
fn creating_while_openai_accepts_nothing() {
    kill_at(&Place {
        faults: |stage| json!([{"fault": "refuse", "value": 503, "match": create_of(stage)}]),
        row: "state = 'creating' AND failures > 0",
        ..Place::default()
    });
}

#[test]
fn creating_and_the_create_arrives_after_the_restart() {
    kill_at(&Place {
        faults: |stage| json!([{"fault": "delay", "value": 2000, "match": create_of(stage)}]),
        row: "state = 'creating'",
        ..Place::default()
    });
}

#[test]
fn creating_and_created_before_the_answer_arrives() {
    kill_at(&Place {
        faults: |stage| json!([{"fault": "late_reply", "value": 2000, "match": create_of(stage)}]),
        row: "state = 'creating'",
        ..Place::default()
    });
}

#[test]
fn creating_and_the_answer_lost() {
    kill_at(&Place {
        faults: |stage| json!([{"fault": "lost_create_reply", "match": create_of(stage)}]),
        row: "state = 'creating' AND failures > 0",
        ..Place::default()
    });
}

#[test]
fn creating_and_the_listing_lags_behind() {
    // The sandbox draws the lag when the batch is created, and keeps it when the faults are
    // deleted.
    kill_at(&Place {
        faults: |stage| {
            json!([
                {"fault": "list_lag", "value": 1000, "match": stage},
                {"fault": "lost_create_reply", "match": create_of(stage)},
            ])
        },
        row: "state = 'creating' AND failures > 0",
        ..Place::default()
    });
}

#[test]
fn submitted() {
    kill_at(&Place {
        faults: |stage| json!([{"fault": "stall_in_progress", "match": stage}]),
        row: "state = 'submitted' AND openai_status = 'in_progress'",
        ..Place::default()
    });
}

#[test]
fn expired_with_its_files_not_named_yet() {
    kill_at(&Place {
        faults: |stage| {
            json!([
                {"fault": "expire_partial", "match": stage, "times": 1},
                {"fault": "late_file_ids", "value": 2000, "match": stage},
            ])
        },
        row: "state = 'submitted' AND openai_status = 'expired'",
        expected: Expected::default(),
        ..Place::default()
    });
}

#[test]
fn ended_with_nothing_spooled() {
    kill_at(&Place {
        faults: |_| json!([{"fault": "delay", "value": 3000, "match": "/content"}]),
        row: "state = 'ended' AND output_bytes IS NULL",
        ..Place::default()
    });
}

#[test]
fn ended_with_one_of_two_files_spooled() {
    kill_at(&Place {
        faults: |stage| {
            json!([
                {"fault": "line_500", "match": format!("{}_", &stage[..1]), "times": 1},
                {"fault": "delay", "value": 3000, "match": "_error.jsonl"},
            ])
        },
        row: "state = 'ended' AND output_bytes IS NOT NULL AND error_file_id IS NOT NULL AND error_bytes IS NULL",
        expected: Expected { batches: None },
        ..Place::default()
    });
}

#[test]
fn ended_and_half_ingested() {
    kill_at(&Place {
        row: "state = 'ended' AND output_ingested > 0 AND output_ingested < output_bytes",
        stopped: Some("ingester"),
        requests: Some(700),
        lots: 700,
        languages: &["ru"],
        ..Place::default()
    });
}

#[test]
fn ingested_and_half_settled() {
    kill_at(&Place {
        row: "state = 'ended' AND output_ingested = output_bytes AND settled_to > 0",
        stopped: Some("ingester"),
        requests: Some(450),
        lots: 450,
        languages: &["ru"],
        ..Place::default()
    });
}

#[test]
fn answered_before_the_finisher_ran() {
    let mut rig = Rig::new(Options {
        shim: true,
        ..Options::default()
    });
    rig.strike(Strike::Commit("finisher", 1, OfCommit::Ahead));
    rig.submit_and_be_killed(2, &LANGUAGES);
    let answered = "SELECT count(*) FROM batch_jobs WHERE completed_at IS NULL AND open_vision = 0 AND open_translations = 0";
    assert_eq!(rig.number(answered), 1);
    rig.start();
    rig.finish(Place::default().expected);
}

#[test]
fn webhook_due_again() {
    let mut rig = Rig::new(Options::default());
    rig.faults(&json!([{"fault": "hook_status", "value": 500}]));
    rig.submit(3, &LANGUAGES);
    let due =
        "SELECT 1 FROM webhook_deliveries WHERE state = 'due' AND response_status = 500 AND attempts >= 2";
    assert!(rig.kill_when(due, "SELECT 1 WHERE 0"));
    rig.no_faults();
    rig.start();
    rig.finish(Place::default().expected);
    assert!(rig.number("SELECT attempts FROM webhook_deliveries") >= 3);
}

#[test]
fn webhook_being_sent() {
    let mut rig = Rig::new(Options::default());
    rig.faults(&json!([{"fault": "delay", "value": 3000, "match": "/hooks/"}]));
    rig.submit(3, &LANGUAGES);
    let sent = "SELECT 1 FROM delivery_attempts WHERE ended_at IS NULL";
    assert!(rig.kill_when(sent, "SELECT 1 WHERE 0"));
    rig.no_faults();
    rig.start();
    rig.finish(Place::default().expected);
    // The attempt was repeated immediately with the same id. The lost attempt stays recorded
    // without an end.
    assert_eq!(rig.number("SELECT attempts FROM webhook_deliveries"), 2);
    assert_eq!(
        rig.number("SELECT count(*) FROM delivery_attempts WHERE ended_at IS NULL"),
        1
    );
}

#[test]
fn while_the_database_is_created() {
    let mut rig = Rig::without_daemon(Options::default());
    for round in 0..30 {
        rig.forget_database();
        rig.start_blindly();
        let database = rig.database();
        until("a database", || database.exists().then_some(()));
        pause(Duration::from_micros(250 * round));
        rig.kill();
        rig.start();
        rig.kill();
    }
    rig.start();
    rig.submit(3, &LANGUAGES);
    rig.finish(Place::default().expected);
}

#[test]
fn a_submission_is_stored_whole_or_not_at_all() {
    let mut rig = Rig::new(Options::default());
    let clock = SystemClock::new();
    let started = clock.now().steady;
    rig.submit(200, &["en"]);
    let undisturbed = clock.now().steady.saturating_sub(started);
    // The kills are spread over the time that this machine needs now, and a little more.
    for tenth in 0..=12 {
        rig.submit_and_kill(200, &["en"], |_| pause(undisturbed * tenth / 10));
    }
    let stored = rig.jobs.len();
    rig.submit_and_kill(200, &["en"], |client| {
        until("the answer", || client.is_finished().then_some(()));
    });
    assert_eq!(rig.jobs.len(), stored + 1);
    rig.finish(Expected::default());
}
