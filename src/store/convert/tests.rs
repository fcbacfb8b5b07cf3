use std::fs;
use std::path::PathBuf;

use super::*;
use crate::domain::alert::AlertSubject;
use crate::store::{Store, alerts, batches, figures};

/// The schema of the program before this one.
const SCHEMA_10: &str = include_str!("../../../tests/fixtures/schema_10.sql");
/// A job, a batch in each state, and a row with each word that the conversion changes.
const ROWS: &str = "
    INSERT INTO appliance (id, database_id, created_at, listed_to)
        VALUES (1, '0123456789abcdef0123456789abcdef', '2026-11-24T00:00:00.000Z', 1795400000);
    INSERT INTO batch_jobs (seq, id, client, origin, processing_mode, status, languages, total_lots, created_at, updated_at)
        VALUES (7, '6908f1d2-39b9-4721-bb8a-dba18120df5f', 'shop', 'api', 'batch', 'processing', '[\"en\"]', 8,
                '2026-11-24T00:00:00.000Z', '2026-11-24T00:00:00.000Z');
    WITH state (id, name) AS (VALUES (1, 'planned'), (2, 'sealed'), (3, 'uploaded'), (4, 'creating'), (5, 'submitted'),
                                     (6, 'ended'), (7, 'ingested'), (8, 'failed'))
    INSERT INTO openai_batches (id, submission_key, stage, scheme, state, openai_batch_id, base_url, organization, project,
                                model, parameters, lines, input_file_id, output_file_id, output_bytes, output_taken, error,
                                next_at, created_at, ingested_at, said_input_tokens)
        SELECT id, 'key-' || id, 'vision', 'own', name, CASE WHEN id > 4 THEN 'batch_' || id END,
               'https://api.openai.com/v1', 'org', 'proj', 'gpt-5-mini', '{\"frozen\": ' || id || '}', 1, 'file-' || id,
               'file-out-' || id, 9, 9, iif(id = 8, 'refused', NULL), '2026-11-24T00:00:00.000Z',
               '2026-11-24T00:00:00.000Z', iif(id = 7, '2026-11-24T01:00:00.000Z', NULL), iif(id = 7, 0, NULL)
        FROM state;
    INSERT INTO batch_lots (id, batch_job_id, position, lot_id, additional_info, images, status)
        SELECT id, '6908f1d2-39b9-4721-bb8a-dba18120df5f', id - 1, 'LOT-' || id, '', '[]', 'pending' FROM openai_batches;
    INSERT INTO requests (id, lot, job, stage, language, state, attempts, raised, image_rounds, since)
        SELECT id, id, 7, 'vision', '', iif(id < 7, 'claimed', 'waiting'), 2, 1, 3, '2026-11-24T00:00:00.000Z'
        FROM batch_lots;
    UPDATE batch_jobs SET open_vision = 8, openai_batch_id = 'batch_5';
    INSERT INTO batch_links SELECT id, 7 FROM openai_batches;
    INSERT INTO batch_lines (batch_id, request_id) SELECT id, id FROM openai_batches;
    UPDATE batch_lines SET settled = 1, outcome = 'not_run' WHERE batch_id > 6;
    INSERT INTO direct_calls (request_id, next_at, started_at, ended_at, outcome)
        VALUES (7, '2026-11-24T00:00:00.000Z', '2026-11-24T00:00:00.000Z', '2026-11-24T00:00:09.000Z', 'passing');
    INSERT INTO once (client, kind, token, body_sha256, job, at)
        VALUES ('shop', 'key', 'order-1', 'abc', 7, '2026-11-24T00:00:00.000Z');
    INSERT INTO lots_taken VALUES ('shop', '2026-11-24', 8);
    INSERT INTO webhook_deliveries (batch_job_id, url, host, state, again, created_at)
        VALUES ('6908f1d2-39b9-4721-bb8a-dba18120df5f', 'https://shop.test/', 'shop.test:443', 'scheduled', 2,
                '2026-11-24T00:00:00.000Z');
    INSERT INTO alerts (id, kind, subject, message, opened_at) VALUES
        (1, 'alerts_not_told', 'alerts.webhook_url', 'see: batchkeeper alerts', '2026-11-24T00:00:00.000Z'),
        (2, 'batch_gone', 'batch:5', 'lost? batchkeeper batches abandon 5', '2026-11-24T00:00:00.000Z');
    INSERT INTO alert_notices (alert, what, state, created_at, told_at)
        VALUES (2, 'opened', 'told', '2026-11-24T00:00:00.000Z', '2026-11-24T00:00:00.000Z');
    INSERT INTO pauses (scope, reason, since) VALUES ('direct', 'Retry-After', '2026-11-24T00:00:00.000Z'),
        ('model:gpt-5-mini', 'refused', '2026-11-24T00:00:00.000Z');
    INSERT INTO minutes VALUES ('2026-11-24T00:00', 'lots_failed', 1, 5);";

struct Scene {
    folder: tempfile::TempDir,
    old: PathBuf,
    new: PathBuf,
    now: Timestamp,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let old = folder.path().join("old #1.db");
        let connection = Connection::open(&old).expect("a database");
        connection.execute_batch(SCHEMA_10).expect("the old schema");
        connection.execute_batch(ROWS).expect("old rows");
        let new = folder.path().join("new.db");
        let now = Timestamp::from_seconds(1_795_400_000);
        Self {
            folder,
            old,
            new,
            now,
        }
    }

    fn convert(&self) -> Stored<Converted> {
        convert(&self.old, &self.new, self.now)
    }

    /// Why nothing is converted; nothing is left behind then.
    fn refusal(&self) -> String {
        let before = fs::read(&self.old).expect("the old file");
        let error = self.convert().expect_err("a refusal").to_string();
        assert_eq!(fs::read(&self.old).expect("the old file"), before);
        assert!(!beside(&self.new, PARTIAL).exists());
        error
    }

    fn old_row(&self, sql: &str) -> i64 {
        let old = Connection::open(&self.old).expect("the old database");
        old.query_row(sql, [], |row| row.get(0)).expect(sql)
    }
}

#[test]
fn every_row_is_copied_under_its_new_names() {
    let scene = Scene::new();
    let before = fs::read(&scene.old).expect("the old file");
    let converted = scene.convert().expect("converted");
    assert_eq!(fs::read(&scene.old).expect("the old file"), before);
    assert_eq!(converted.findings, []);
    let all: i64 = scene.old_row(
        "SELECT (SELECT count(*) FROM openai_batches) + (SELECT count(*) FROM requests) + (SELECT count(*) FROM sums)
              + (SELECT count(*) FROM totals)",
    );
    assert!(converted.rows > usize::try_from(all).expect("a number"));
    let store = Store::open(&scene.new, scene.now).expect("a store");
    assert_eq!(store.database_id(), "0123456789abcdef0123456789abcdef");
    for id in 1..=8 {
        let row = store.read(|view| batches::get(view, id)).expect("a batch");
        assert_eq!(row.key, format!("key-{id}"));
        assert_eq!(row.identity.project, "proj");
        assert_eq!(row.output.ingested, 9);
        assert_eq!(row.openai_batch_id, (id > 4).then(|| format!("batch_{id}")));
    }
    let new = Connection::open(&scene.new).expect("the new database");
    for (query, wanted) in [
        (
            "SELECT group_concat(parameters, '') FROM openai_batches WHERE id IN (2, 5)",
            "{\"frozen\": 2}{\"frozen\": 5}",
        ),
        (
            "SELECT DISTINCT attempts || cap_raised || image_failures FROM requests",
            "213",
        ),
        (
            "SELECT client || key || body_sha256 || job || used_at FROM idempotency_keys",
            "shoporder-1abc72026-11-24T00:00:00.000Z",
        ),
        (
            "SELECT resend_number || host FROM webhook_deliveries",
            "2shop.test:443",
        ),
        ("SELECT outcome || request_id FROM synchronous_calls", "passing7"),
        ("SELECT client || lots FROM daily_lots", "shop8"),
        (
            "SELECT change || state || notified_at FROM alert_notices",
            "openednotified2026-11-24T00:00:00.000Z",
        ),
        (
            "SELECT what || number || millis FROM minute_stats",
            "lots_failed15",
        ),
        (
            "SELECT listed_until || (compared_at IS NULL) FROM instance",
            "17953964001",
        ),
        (
            "SELECT openai_input_tokens || '' FROM openai_batches WHERE id = 7",
            "0",
        ),
    ] {
        let found: String = new.query_row(query, [], |row| row.get(0)).expect(query);
        assert_eq!(found, wanted, "{query}");
    }
}

#[test]
fn alerts_pauses_and_counters_are_those_of_the_new_program() {
    let scene = Scene::new();
    scene.convert().expect("converted");
    let store = Store::open(&scene.new, scene.now).expect("a store");
    let open = store.read(|view| alerts::list(view, true, 9)).expect("alerts");
    assert_eq!(open[1].kind, AlertKind::NotificationFailed);
    assert_eq!(open[0].subject, AlertSubject::Batch(5));
    assert_eq!(open[0].message, "lost? batchkeeper batches abandon 5");
    let figures = store.read(figures::figures).expect("figures");
    let scopes = [PauseScope::Model("gpt-5-mini".into()), PauseScope::Synchronous];
    assert_eq!(figures.pauses, scopes);
    let batches: u64 = figures.batches.iter().map(|(_, number)| number).sum();
    assert_eq!(batches, 8);
    // The triggers count what comes after the conversion.
    let write = |sql: &str| store.write(scene.now, |tx| Ok(tx.execute(sql, [])?));
    write("UPDATE openai_batches SET state = 'failed', error = 'x' WHERE id = 2").expect("a change");
    let findings = store.read(crate::store::invariants::findings).expect("findings");
    let counts = findings.iter().filter(|it| it.invariant == "v_bad_state_counts");
    assert_eq!(counts.count(), 0);
}

#[test]
fn what_cannot_be_converted_is_refused() {
    let scene = Scene::new();
    // A daemon serves it.
    let lock = DaemonLock::take(&scene.old).expect("the lock");
    assert!(scene.refusal().contains("stop it first"));
    drop(lock);
    let change = |sql: &str| {
        let old = Connection::open(&scene.old).expect("the old database");
        old.execute_batch(sql).expect(sql);
    };
    // Another schema.
    change("PRAGMA user_version = 9");
    assert!(scene.refusal().contains("has schema 9"));
    change("PRAGMA user_version = 10");
    // A kind of alert that no program had.
    change("INSERT INTO alerts (kind, subject, message, opened_at) VALUES ('odd', 'a', 'b', 'c')");
    assert!(scene.refusal().contains("odd"), "{}", scene.refusal());
    change("DELETE FROM alerts WHERE kind = 'odd'");
    // An unknown column.
    change("ALTER TABLE requests ADD COLUMN odd TEXT");
    assert!(scene.refusal().contains("requests.odd"));
    change("ALTER TABLE requests DROP COLUMN odd");
    scene.convert().expect("converted");
    // The new file is there by now, and needs no conversion.
    assert!(
        scene
            .convert()
            .expect_err("a refusal")
            .to_string()
            .contains("is there already")
    );
    let other = scene.folder.path().join("other.db");
    let error = convert(&scene.new, &other, scene.now).expect_err("a refusal");
    assert!(error.to_string().contains("it needs no conversion"));
}

#[test]
fn a_finding_of_the_old_database_is_reported_and_converted() {
    let scene = Scene::new();
    let old = Connection::open(&scene.old).expect("the old database");
    old.execute_batch("UPDATE totals SET number = 5 WHERE what = 'jobs'")
        .expect("a wrong counter");
    drop(old);
    let converted = scene.convert().expect("converted");
    assert_eq!(converted.findings, [("v_bad_state_counts", 1)]);
}

#[test]
fn an_old_database_is_not_served_and_the_command_is_named() {
    let scene = Scene::new();
    let error = Store::open(&scene.old, scene.now)
        .err()
        .expect("a refusal")
        .to_string();
    let command = format!(
        "batchkeeper convert-database {0} {0}.converted",
        scene.old.display()
    );
    assert!(error.contains(&command), "{error}");
}
