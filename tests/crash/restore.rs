//! A restored backup: OpenAI has moved on since it was taken.

use std::time::Duration;

use serde_json::json;

use super::rig::{Expected, Options, Rig, Strike, pause};

const LANGUAGES: [&str; 2] = ["en", "ru"];

/// Restores the backup, starts the daemon, and repairs with `recover`.
fn restore_and_recover(rig: &mut Rig) {
    assert_eq!(rig.terminate().code(), Some(0));
    let creates = rig.sandbox_state()["creates"].clone();
    rig.restore("backup.db");
    rig.start();
    rig.wait_for("SELECT 1 FROM pauses WHERE scope = 'creates' AND until IS NULL");
    rig.wait_for("SELECT 1 FROM alerts WHERE kind = 'restored_database' AND closed_at IS NULL");
    rig.no_faults();
    // Gives the daemon time to do something wrong.
    pause(Duration::from_millis(500));
    assert_eq!(rig.sandbox_state()["creates"], creates);
    let (status, said) = rig.command(&["recover"]);
    assert_eq!(status, Some(1), "{said}");
    let (status, said) = rig.command(&["recover", "--apply"]);
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn a_backup_from_before_the_translation_batch_was_created() {
    let mut rig = Rig::new(Options::default());
    rig.faults(&json!([
        {"fault": "stall_in_progress", "match": "vision"},
    ]));
    rig.submit(5, &LANGUAGES);
    rig.wait_for("SELECT 1 FROM openai_batches WHERE state = 'submitted'");
    rig.back_up("backup.db");
    assert_eq!(rig.terminate().code(), Some(0));
    rig.no_faults();
    rig.faults(&json!([{"fault": "stall_in_progress", "match": "translation"}]));
    rig.start();
    rig.wait_for("SELECT 1 FROM openai_batches WHERE state = 'submitted' AND stage = 'translation'");
    restore_and_recover(&mut rig);
    rig.finish(Expected { batches: Some(2) });
}

#[test]
fn a_backup_from_before_any_batch() {
    let mut rig = Rig::new(Options::default());
    rig.faults(&json!([{"fault": "delay", "value": 300, "match": "\"custom_id\":\"v_"}]));
    rig.submit(5, &LANGUAGES);
    assert!(rig.kill_when("SELECT 1 FROM openai_batches", "SELECT 1 WHERE 0"));
    // The database as it was a moment earlier: the job is stored, and none of its requests is
    // claimed.
    rig.back_up("backup.db");
    rig.forget_batches("backup.db");
    rig.start();
    rig.wait_for("SELECT 1 FROM openai_batches WHERE state = 'submitted' AND stage = 'translation'");
    restore_and_recover(&mut rig);
    rig.finish(Expected { batches: Some(2) });
}

#[test]
fn a_backup_from_while_a_batch_was_planned() {
    let mut rig = Rig::new(Options {
        shim: true,
        ..Options::default()
    });
    rig.strike(Strike::Hold("submitter"));
    rig.submit(600, &["ru"]);
    rig.kill_between(
        "SELECT 1 FROM openai_batches WHERE state = 'planned'
                AND (SELECT count(*) FROM batch_lines WHERE batch_id = openai_batches.id) BETWEEN 1 AND 599",
    );
    rig.back_up("backup.db");
    rig.faults(&json!([{"fault": "stall_in_progress", "match": "vision"}]));
    rig.start();
    rig.wait_for("SELECT 1 FROM openai_batches WHERE state = 'submitted'");
    restore_and_recover(&mut rig);
    rig.finish(Expected::default());
}
