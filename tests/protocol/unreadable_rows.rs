//! Rows that were changed by hand so that they cannot be read: each is set aside, and everything else goes on.

use std::time::Duration;

use crate::MINUTE;
use crate::world::{ALL_WORKERS, World};
use batchkeeper::domain::batch::BatchState;
use batchkeeper::domain::job::{JobStatus, Mode};
use batchkeeper::store::invariants;

/// The open alerts about rows that cannot be read.
fn unreadable(world: &World) -> Vec<String> {
    world.texts("SELECT subject FROM alerts WHERE kind = 'unreadable_row' AND closed_at IS NULL")
}

fn world() -> World {
    let mut world = World::with(|config| config.backup.late_after = Duration::ZERO);
    world.turns = ALL_WORKERS;
    world.check_every = 20;
    world
}

/// Changes a value of the first job with `state` reached, lets another job run, and repairs the value.
fn set_aside(state: Option<BatchState>, restarts: bool, value: &str, change: &str) {
    let mut world = world();
    let first = world.submit(&["dented door"], &["en"]);
    if let Some(state) = state {
        world.run_to(state);
    }
    let [table, row, column] = value.split(' ').collect::<Vec<_>>().try_into().expect("a value");
    let whole = world.texts(&format!(
        "SELECT coalesce(CAST({column} AS TEXT), '') FROM {table} WHERE id = {row}"
    ));
    let set = |world: &World, to: &str| {
        let sql = format!("UPDATE {table} SET {column} = {to} WHERE id = {row}");
        world.execute(&sql).expect("changed");
    };
    set(&world, change);
    if restarts {
        world.crash();
    }
    let second = world.submit(&["cracked lamp"], &["en"]);
    world.run_for(40 * MINUTE);
    assert_eq!(
        world.job(&second).status,
        JobStatus::Completed,
        "{value}\n{}",
        world.dump()
    );
    assert!(!world.job(&first).status.is_final(), "{value}\n{}", world.dump());
    assert_eq!(unreadable(&world), [value], "{}", world.dump());
    let findings = world.store().read(invariants::findings).expect("findings");
    let finding = findings
        .iter()
        .find(|it| it.invariant == "unreadable_row")
        .expect(value);
    assert_eq!(finding.subject, format!("{table} row {row}"));
    assert!(finding.finding.starts_with(column), "{finding:?}");
    set(&world, &format!("nullif('{}', '')", whole[0]));
    world.settle();
    world.run_for(15 * MINUTE);
    world.assert_answered(&first);
    assert_eq!(unreadable(&world), [""; 0], "{}", world.dump());
}

#[test]
fn a_batch_that_cannot_be_read_is_set_aside() {
    for state in [
        BatchState::Sealed,
        BatchState::Uploaded,
        BatchState::Submitted,
        BatchState::Ended,
    ] {
        for restarts in [false, true] {
            set_aside(
                Some(state),
                restarts,
                "openai_batches 1 next_at",
                "datetime('now')",
            );
        }
    }
    set_aside(
        Some(BatchState::Submitted),
        false,
        "openai_batches 1 openai_errors",
        "'['",
    );
    set_aside(
        Some(BatchState::Submitted),
        false,
        "openai_batches 1 failures",
        "-1",
    );
}

#[test]
fn a_lot_that_cannot_be_read_is_set_aside() {
    set_aside(None, false, "batch_lots 1 images", "'[1]'");
    set_aside(None, true, "batch_lots 1 images", "'https://'");
    set_aside(Some(BatchState::Planned), false, "batch_lots 1 images", "'['");
    set_aside(
        Some(BatchState::Planned),
        false,
        "batch_lots 1 missing_images",
        "'7'",
    );
}

#[test]
fn a_synchronous_call_and_a_webhook_that_cannot_be_read_are_set_aside() {
    let mut world = world();
    let first = world.submit_in(Mode::Synchronous, "a", &["dented door"], &["en"]);
    world
        .execute("UPDATE synchronous_calls SET next_at = '1 h' WHERE id = 1")
        .expect("changed");
    let second = world.submit_in(Mode::Synchronous, "a", &["cracked lamp"], &["en"]);
    world.run_for(2 * MINUTE);
    assert!(!world.job(&first).status.is_final());
    assert_eq!(
        world.job(&second).status,
        JobStatus::Completed,
        "{}",
        world.dump()
    );
    assert_eq!(unreadable(&world), ["synchronous_calls 1 next_at"]);
    world.run_for(30 * MINUTE);
    let webhooks = "UPDATE webhook_deliveries SET next_at = '' WHERE state = 'due'";
    world.submit(&["bent frame"], &["en"]);
    world.run_to(BatchState::Ended);
    world.execute(webhooks).expect("changed");
    world.settle();
}

#[test]
fn a_pause_or_a_limit_that_cannot_be_read_stops_nothing() {
    let mut world = world();
    world
        .execute(
            "INSERT INTO pauses (scope, reason, since, until) VALUES ('openai', 'a reason', 'yesterday', 'today');
             INSERT INTO queue_limits (model, tokens, learned_at) VALUES ('gpt-6-luna', 100000000, 'yesterday');
             INSERT INTO backups VALUES (1, 'a.db', 1, 'yesterday', 'yesterday');
             INSERT INTO failing_receivers VALUES ('client.test:443', 1, 'yesterday')",
        )
        .expect("changed");
    let job = world.submit(&["dented door"], &["en"]);
    world.settle();
    world.assert_answered(&job);
}
