//! Stopping by a signal, and one daemon for each database.

use std::time::Duration;

use batchkeeper::base::clock::{Clock, SystemClock};
use serde_json::json;

use super::rig::{Expected, Options, Rig, until};

/// The longest time that a stop may take, also on a slow machine.
const SECONDS: Duration = Duration::from_mins(1);

#[test]
fn sigterm_ends_the_daemon_soon_and_loses_nothing() {
    let mut rig = Rig::new(Options::default());
    let clock = SystemClock::new();
    rig.faults(&json!([{"fault": "delay", "value": 100, "match": "/v1/"}]));
    rig.submit(20, &["en", "ru"]);
    for condition in [
        "SELECT 1 FROM openai_batches WHERE state IN ('sealed', 'uploaded', 'creating')",
        "SELECT 1 FROM openai_batches WHERE state IN ('submitted', 'ended')",
        "SELECT 1 FROM openai_batches WHERE stage = 'translation'",
    ] {
        rig.wait_for(condition);
        let asked = clock.now().steady;
        let status = rig.terminate();
        let took = clock.now().steady.saturating_sub(asked);
        assert_eq!(status.code(), Some(0));
        assert!(took < SECONDS, "{took:?}");
        // The database was closed: the next start has no WAL to recover.
        assert!(!rig.path("data/batchkeeper.db-wal").exists());
        rig.start();
    }
    rig.no_faults();
    rig.finish(Expected { batches: Some(2) });
}

#[test]
fn a_second_daemon_refuses_to_start() {
    let mut rig = Rig::new(Options::default());
    rig.submit(2, &["en"]);
    let (status, said) = rig.command(&["serve"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains("another batchkeeper serves this database"),
        "{said}"
    );
    rig.finish(Expected { batches: Some(1) });
    // A killed daemon leaves no lock behind.
    rig.kill();
    rig.start();
}

#[test]
fn a_second_sigterm_ends_the_daemon_immediately() {
    let mut rig = Rig::new(Options::default());
    rig.faults(&json!([{"fault": "delay", "value": 180_000, "match": "\"custom_id\"", "times": 1}]));
    rig.submit(3, &["en"]);
    until("the upload", || rig.no_fault_is_left().then_some(()));
    rig.ask_to_end();
    until("the answer to the first signal", || {
        rig.said().contains("event=stopping").then_some(())
    });
    let clock = SystemClock::new();
    let asked = clock.now().steady;
    assert_eq!(rig.terminate().code(), Some(130));
    let took = clock.now().steady.saturating_sub(asked);
    assert!(took < SECONDS, "{took:?}");
    rig.kills += 1;
    rig.start();
    rig.finish(Expected { batches: Some(1) });
}
