//! A database of the program before this one is converted while a batch is in each state: its work goes on,
//! and no batch is made twice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use batchkeeper::domain::batch::BatchState;
use batchkeeper::store::convert::convert;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::world::openai::{Fault, Op};
use crate::world::{ALL_WORKERS, World};

/// Tables that had another name: old, new.
const TABLES: [(&str, &str); 7] = [
    ("appliance", "instance"),
    ("direct_calls", "synchronous_calls"),
    ("lots_taken", "daily_lots"),
    ("minutes", "minute_stats"),
    ("once", "idempotency_keys"),
    ("sums", "counters"),
    ("totals", "state_counts"),
];
/// Columns that had another name: the old table, old, new.
const COLUMNS: [(&str, &str, &str); 15] = [
    ("alert_notices", "told_at", "notified_at"),
    ("alert_notices", "what", "change"),
    ("appliance", "listed_to", "listed_until"),
    ("once", "at", "used_at"),
    ("once", "token", "key"),
    ("openai_batches", "error_taken", "error_ingested"),
    ("openai_batches", "output_taken", "output_ingested"),
    ("openai_batches", "said_cached_tokens", "openai_cached_tokens"),
    ("openai_batches", "said_input_tokens", "openai_input_tokens"),
    ("openai_batches", "said_output_tokens", "openai_output_tokens"),
    (
        "openai_batches",
        "said_reasoning_tokens",
        "openai_reasoning_tokens",
    ),
    ("requests", "image_rounds", "image_failures"),
    ("requests", "raised", "cap_raised"),
    ("webhook_deliveries", "again", "resend_number"),
    ("webhook_deliveries", "under_way", "in_flight"),
];

/// The database as the program before this one would have written it.
fn as_schema_10(copy: &Path) -> PathBuf {
    let old_file = copy.with_file_name("old.db");
    std::fs::remove_file(&old_file).ok();
    let old = Connection::open(&old_file).unwrap();
    old.execute_batch(include_str!("../fixtures/schema_10.sql"))
        .unwrap();
    old.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)
        .unwrap();
    old.pragma_update(None, "foreign_keys", false).unwrap();
    old.execute("ATTACH ? AS new", [copy.to_str().unwrap()]).unwrap();
    let names = |sql: &str| -> Vec<String> {
        let mut query = old.prepare(sql).unwrap();
        let names = query.query_map([], |row| row.get(0)).unwrap();
        names.collect::<Result<_, _>>().unwrap()
    };
    // The daemon writes the prices at its start.
    let tables = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name <> 'prices'";
    for table in names(tables) {
        let new_table = TABLES.iter().find(|(old, _)| *old == table);
        let new_table = new_table.map_or(table.as_str(), |(_, new)| *new);
        // The old rows of this column are derived from their lines; the new schema has another for it.
        let columns = names(&format!(
            "SELECT name FROM pragma_table_info('{table}', 'main') WHERE name <> 'uniform_error'"
        ));
        let new_columns: Vec<&str> = columns
            .iter()
            .map(|column| {
                let renamed = COLUMNS.iter().find(|(of, old, _)| *of == table && old == column);
                renamed.map_or(column.as_str(), |(_, _, new)| *new)
            })
            .collect();
        let sql = format!(
            "INSERT INTO main.{table} (\"{}\") SELECT \"{}\" FROM new.{new_table}",
            columns.join("\", \""),
            new_columns.join("\", \"")
        );
        old.execute(&sql, []).expect(&sql);
    }
    old_file
}

/// Puts the converted database in the place of the world's own, and starts on it.
fn convert_in_place(world: &mut World) {
    let copy = world.back_up();
    let old = as_schema_10(&copy);
    let new = copy.with_file_name("converted.db");
    std::fs::remove_file(&new).ok();
    let now = batchkeeper::base::clock::Clock::now(&*world.clock).wall;
    let converted = convert(&old, &new, now).unwrap();
    assert_eq!(converted.findings, []);
    world.restore(&new);
}

#[test]
fn work_goes_on_in_a_converted_database() {
    for state in [
        BatchState::Planned,
        BatchState::Sealed,
        BatchState::Uploaded,
        BatchState::Creating,
        BatchState::Submitted,
        BatchState::Ended,
        BatchState::Ingested,
    ] {
        let mut world = World::new();
        world.turns = ALL_WORKERS;
        let job = world.submit(&["dented door", "cracked lamp"], &["en", "de"]);
        if state == BatchState::Creating {
            // Its answer is lost: the batch is at OpenAI, and the row does not know its id.
            world.openai.state().fail(Op::Create, Fault::ReplyLost);
        }
        world.run_to(state);
        convert_in_place(&mut world);
        world.settle();
        world.run_for(Duration::from_mins(5));
        world.assert_answered(&job);
        world.assert_at_rest();
        assert_eq!(world.made(), 2, "{state}\n{}", world.dump());
    }
}

#[test]
fn a_batch_that_failed_and_a_job_that_ended_stay_as_they_are() {
    let mut world = World::new();
    world.turns = ALL_WORKERS;
    let ended = world.submit(&["worn seat"], &["en"]);
    world.settle();
    let job = world.submit(&["dented door"], &["en"]);
    let batch = world.run_to(BatchState::Uploaded);
    world.abandon(batch.id);
    world.run_to(BatchState::Failed);
    let failed = "SELECT count(*) FROM openai_batches WHERE state = 'failed'";
    assert_eq!(world.number(failed), 1);
    convert_in_place(&mut world);
    assert_eq!(world.number(failed), 1);
    world.settle();
    world.run_for(Duration::from_mins(5));
    world.assert_answered(&ended);
    world.assert_answered(&job);
    world.assert_at_rest();
    assert_eq!(world.made(), 2);
}

#[test]
fn an_open_alert_names_the_commands_of_this_program() {
    let world = World::new();
    let copy = world.store().path().with_file_name("copy.db");
    world
        .execute(&format!("VACUUM INTO '{}'", copy.display()))
        .unwrap();
    let old = as_schema_10(&copy);
    Connection::open(&old)
        .unwrap()
        .execute_batch(
            "INSERT INTO alerts (kind, subject, message, opened_at)
             VALUES ('batch_gone', 'batch:1', 'if it is lost: batchkeeper batches give-up 1', '2026-11-01T00:00:00.000Z'),
                    ('webhook_failed', 'delivery:1', 'batchkeeper webhooks give-up 1', '2026-11-01T00:00:00.000Z')",
        )
        .unwrap();
    let new = copy.with_file_name("converted.db");
    let now = batchkeeper::base::clock::Clock::now(&*world.clock).wall;
    convert(&old, &new, now).unwrap();
    let converted = Connection::open(&new).unwrap();
    let stale = "SELECT count(*) FROM alerts WHERE message LIKE '%give-up%'";
    let current = "SELECT count(*) FROM alerts WHERE message LIKE '% abandon 1'";
    let count = |sql: &str| converted.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((count(stale), count(current)), (0, 2));
}
