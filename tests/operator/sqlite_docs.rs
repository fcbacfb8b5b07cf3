//! Tests of docs/reference/sqlite.md: every query in it works on a database with jobs, and a reader never
//! blocks the daemon.

use std::fs;

use crate::appliance::{Appliance, wait_for};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

const DOCUMENT: &str = include_str!("../../docs/reference/sqlite.md");
/// The last line of a query that must return no row.
const EMPTY: &str = "-- must be empty";

/// Opens the database as `sqlite3 -readonly` does.
fn reader(appliance: &Appliance) -> Connection {
    Connection::open_with_flags(appliance.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

/// The number of rows that a query returns.
fn rows(connection: &Connection, sql: &str) -> usize {
    let mut query = connection
        .prepare(sql)
        .unwrap_or_else(|error| panic!("{error}: {sql}"));
    let mut rows = query.query([]).unwrap();
    let mut count = 0;
    while rows
        .next()
        .unwrap_or_else(|error| panic!("{error}: {sql}"))
        .is_some()
    {
        count += 1;
    }
    count
}

#[test]
fn each_question_of_the_document_is_answered() {
    let appliance = Appliance::start();
    let mut lots = appliance.lots(5);
    lots[3]["images"] = json!([appliance.image("missing.jpg")]);
    let mut body = crate::appliance::submission(&lots, &["en", "de"]);
    body["webhook_url"] = json!(appliance.hook("told"));
    let job = appliance.submit(&body).json()["job_id"]
        .as_str()
        .unwrap()
        .to_owned();
    appliance.results(&job);
    appliance.delivered("told", 1);
    appliance.wait_until_ingested();
    // One webhook that is abandoned because its receiver does not exist, one batch at OpenAI, and a
    // pause.
    body["webhook_url"] = json!("http://127.0.0.1:1/gone");
    assert_eq!(appliance.submit(&body).status, 201);
    wait_for("an abandoned webhook", || {
        let given_up = "SELECT count(*) FROM alerts WHERE kind = 'webhook_failed'";
        (appliance.cell::<u32>(given_up) == 1).then_some(())
    });
    appliance.wait_until_ingested();
    appliance.fault(&json!({"fault": "stall_in_progress"}));
    appliance.job(&appliance.lots(2), &["en"]);
    let running = "SELECT count(*) FROM openai_batches WHERE state = 'submitted'";
    wait_for("a batch at OpenAI", || {
        (appliance.cell::<u32>(running) == 1).then_some(())
    });
    assert_eq!(appliance.run(&["pause", "webhooks"]).status, 0);

    let batch: String = appliance.cell("SELECT openai_batch_id FROM openai_batches WHERE id = 1");
    let database = reader(&appliance);
    let mut answered = 0;
    for block in DOCUMENT.split("```sql\n").skip(1) {
        let sql = block.split("\n```").next().unwrap();
        let sql = sql
            .replace("6908f1d2-39b9-4721-bb8a-dba18120df5f", &job)
            .replace("batch_68f1c0ffee", &batch);
        let found = rows(&database, sql.trim_end_matches(EMPTY).trim_end());
        assert_eq!(found == 0, sql.ends_with(EMPTY), "{sql}");
        answered += usize::from(found > 0);
    }
    assert_eq!(answered, 20);

    // Every view is in the document and has the columns that the document names.
    let mut views = database
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'view'")
        .unwrap();
    let views = views.query_map([], |row| row.get::<_, String>(0)).unwrap();
    for view in views.map(Result::unwrap) {
        let named = if view.starts_with("v_bad_") {
            "v_bad_…"
        } else {
            &view
        };
        let line = DOCUMENT
            .lines()
            .find(|line| line.starts_with(&format!("| `{named}` |")));
        let line = line.unwrap_or_else(|| panic!("{view} is not in the document"));
        let query = database.prepare(&format!("SELECT * FROM {view}")).unwrap();
        let columns: Vec<&str> = query.column_names().collect();
        let said = line
            .split('`')
            .skip(3)
            .step_by(2)
            .filter(|word| !word.contains(' ') && *word != "NULL");
        if named == "v_bad_…" {
            assert_eq!(columns, ["subject", "status", "finding"], "{view}");
            continue;
        }
        for column in said {
            assert!(columns.contains(&column), "{view} has no {column}");
        }
    }
}

#[test]
fn an_open_reader_blocks_no_other_connection_and_its_space_is_reused() {
    let appliance = Appliance::start();
    let wal = || fs::metadata(appliance.path("batchkeeper.db-wal")).unwrap().len();
    let work = || {
        for _ in 0..3 {
            let job = appliance.job(&appliance.lots(60), &["en", "de", "ru"]);
            appliance.results(&job);
        }
        appliance.wait_until_ingested();
    };
    work();
    // Within a transaction, as after a forgotten `BEGIN`.
    let looking = reader(&appliance);
    looking.execute_batch("BEGIN").unwrap();
    assert_eq!(
        rows(&looking, "SELECT * FROM v_jobs WHERE status = 'completed'"),
        3
    );
    let before = wal();
    work();
    work();
    let held = wal();
    assert!(held > before + 1_000_000, "{before} {held}");
    // The reader sees the old data; every other connection sees the new data.
    assert_eq!(rows(&looking, "SELECT * FROM v_jobs"), 3);
    assert_eq!(
        rows(
            &reader(&appliance),
            "SELECT * FROM v_jobs WHERE status = 'completed'"
        ),
        9
    );
    looking.execute_batch("COMMIT").unwrap();
    work();
    work();
    assert!(wal() <= held + 1_000_000, "{held} {}", wal());
    assert!(appliance.run(&["doctor"]).out.contains("nothing found"));
}
