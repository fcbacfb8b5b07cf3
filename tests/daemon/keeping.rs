//! Retention: verified backups, and jobs that are cleaned after their time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::appliance::{Appliance, assert_results, submission, wait_for};
use rusqlite::Connection;
use serde_json::{Value, json};

/// The files in a folder, sorted by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_backup_is_read_back_and_restored_with_one_recover() {
    let mut appliance = Appliance::start();
    let kept = appliance.lots(3);
    let first = appliance.job(&kept, &["en", "de"]);
    appliance.results(&first);
    let file = appliance.path("copies").join("one.db");
    let ran = appliance.run(&["backup", text(&file), "--json"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    let length = fs::metadata(&file).unwrap();
    assert_eq!(said["bytes"], json!(length.len()));
    assert_eq!(length.permissions().mode() & 0o777, 0o600);
    // One complete file and no other file beside it. An existing file is never overwritten.
    assert_eq!(files(&appliance.path("copies")), std::slice::from_ref(&file));
    let copy = Connection::open(&file).unwrap();
    let lots: i64 = copy
        .query_row("SELECT count(*) FROM batch_lots", [], |row| row.get(0))
        .unwrap();
    assert_eq!(lots, 3);
    drop(copy);
    let again = appliance.run(&["backup", text(&file)]);
    assert_eq!(again.status, 1);
    assert!(again.err.contains("is there already"), "{}", again.err);

    // A batch is created after the backup. Then the machine is lost.
    let second = appliance.job(&appliance.lots(2), &["en"]);
    appliance.results(&second);
    appliance.wait_until_ingested();
    appliance.kill_daemon();
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("{}{suffix}", text(&appliance.database()));
        fs::remove_file(name).ok();
    }
    fs::copy(&file, appliance.database()).unwrap();
    appliance.start_daemon();
    wait_for("the alert of the restore", || {
        let alerts = appliance.run(&["alerts"]);
        alerts.out.contains("restored_database").then_some(())
    });
    let recovered = appliance.run(&["recover", "--apply"]);
    assert_eq!(recovered.status, 0, "{}{}", recovered.out, recovered.err);
    assert!(
        recovered.out.contains("accepted after the backup"),
        "{}",
        recovered.out
    );
    assert_results(&appliance.results(&first), &kept, &["en", "de"], &[]);
    assert_eq!(
        appliance
            .read(&format!("/api/v1/batch-status/{second}"), &second)
            .status,
        404
    );
    // The client sends the lost job again.
    let third = appliance.job(&appliance.lots(2), &["en"]);
    appliance.results(&third);
    appliance.wait_until_ingested();
    let doctor = appliance.run(&["doctor"]);
    assert_eq!(doctor.status, 0, "{}", doctor.out);
    // What the lost job cost is counted, and the report says so.
    let report = appliance.run(&["report"]);
    assert_eq!(report.status, 0, "{}{}", report.out, report.err);
    let line = "Without a job: 2 lines of jobs that are not in this database";
    assert!(report.out.contains(line), "{}", report.out);
    let billed: i64 = appliance.cell("SELECT sum(openai_input_tokens) FROM openai_batches");
    let counted: i64 = appliance.cell("SELECT sum(input_tokens) FROM v_spending");
    assert_eq!(counted, billed);
}

#[test]
fn the_newest_backups_stay_and_other_files_are_never_removed() {
    let appliance = Appliance::start();
    let dir = appliance.path("copies");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("mine.db"), "not a backup").unwrap();
    let mut made = Vec::new();
    for _ in 0..4 {
        let ran = appliance.run(&["backup", "--dir", text(&dir), "--keep", "2", "--json"]);
        assert_eq!(ran.status, 0, "{}", ran.err);
        let said: Value = serde_json::from_str(&ran.out).unwrap();
        made.push(PathBuf::from(said["backup"].as_str().unwrap()));
    }
    assert_eq!(
        files(&dir),
        [made[2].clone(), made[3].clone(), dir.join("mine.db")]
    );
    // A backup that fails does not remove an older one.
    fs::write(appliance.path("no folder"), "").unwrap();
    let nowhere = appliance.path("no folder").join("inside");
    assert_eq!(
        appliance
            .run(&["backup", "--dir", text(&nowhere), "--keep", "1"])
            .status,
        1
    );
    assert_eq!(files(&dir).len(), 3);
    assert_eq!(appliance.run(&["backup"]).status, 2, "nobody said where");
    assert_eq!(appliance.run(&["backup", "a.db", "--keep", "1"]).status, 2);
    assert_eq!(appliance.run(&["backup", "--dir", "x", "--keep", "0"]).status, 2);
}

#[test]
fn files_at_openai_stay_until_a_backup_holds_their_results() {
    let mut appliance = Appliance::without_daemon("");
    let dir = appliance.path("copies");
    appliance.configure(&format!(
        "[backup]\ndir = {dir:?}\n[retention]\nremote_files = \"1ms\"\n[steps]\naudit = \"20ms\""
    ));
    appliance.start_daemon();
    let job = appliance.job(&appliance.lots(2), &["en"]);
    appliance.results(&job);
    appliance.wait_until_ingested();
    let late = || appliance.run(&["alerts"]).out.contains("backup_late");
    assert!(!late(), "a new database needs no backup yet");
    Connection::open(appliance.database())
        .unwrap()
        .execute_batch(
            "PRAGMA busy_timeout = 60000; UPDATE instance SET created_at = '2026-01-01T00:00:00.000Z'",
        )
        .unwrap();
    wait_for("the alert", || late().then_some(()));
    assert_eq!(appliance.run(&["backup"]).status, 0);
    wait_for("the alert's end", || (!late()).then_some(()));
    let cleaned = "SELECT count(*) FROM openai_batches WHERE cleaned_at IS NOT NULL";
    assert_eq!(appliance.cell::<i64>(cleaned), 0, "it may be a commit too old");
    Connection::open(appliance.database())
        .unwrap()
        .execute_batch(
            "PRAGMA busy_timeout = 60000; UPDATE backups SET snapshot_at = '2100-01-01T00:00:00.000Z'",
        )
        .unwrap();
    wait_for("the files' end", || {
        (appliance.cell::<i64>(cleaned) == 1).then_some(())
    });
}

#[test]
fn a_cleaned_job_still_answers_status_requests() {
    let mut appliance = Appliance::start();
    let mut lots = appliance.lots(120);
    lots[7]["images"] = json!([appliance.image("missing.jpg")]);
    let job = appliance.job(&lots, &["en", "de"]);
    appliance.results(&job);
    let cancelled = {
        assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
        let job = appliance.job(&appliance.lots(2), &["en"]);
        assert_eq!(appliance.run(&["jobs", "cancel", &job]).status, 0);
        assert_eq!(appliance.run(&["resume", "submissions"]).status, 0);
        job
    };
    appliance.wait_until_ingested();
    let costs = "SELECT group_concat(batch_id || ' ' || lines || ' ' || answered || ' ' || input_tokens || ' ' || output_tokens) FROM v_costs";
    let header =
        "SELECT total_lots || ' ' || processed_lots || ' ' || status FROM batch_jobs ORDER BY seq LIMIT 1";
    let report = |appliance: &Appliance| {
        let ran = appliance.run(&["report", "--json"]);
        assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
        let report: Value = serde_json::from_str(&ran.out).unwrap();
        (report["batches"].clone(), report["accounts"].clone())
    };
    let before = (
        appliance.cell::<String>(costs),
        appliance.cell::<String>(header),
        report(&appliance),
    );
    assert_eq!(account(&before.2.1, "descriptions"), [122, 119, 1, 2]);
    assert_eq!(account(&before.2.1, "translations"), [119, 119, 0, 0]);
    let status = appliance.status(&job);
    appliance.kill_daemon();
    appliance.configure("[retention]\nresults = \"1ms\"");
    appliance.start_daemon();
    wait_for("the end of its lots", || {
        let left = "SELECT count(*) FROM batch_jobs WHERE cleaned_at IS NULL";
        (appliance.cell::<i64>(left) == 0).then_some(())
    });
    for table in ["batch_lots", "lot_translations", "requests", "batch_lines"] {
        let rows: i64 = appliance.cell(&format!("SELECT count(*) FROM {table}"));
        assert_eq!(rows, 0, "{table}");
    }
    let after = (
        appliance.cell::<String>(costs),
        appliance.cell::<String>(header),
        report(&appliance),
    );
    assert_eq!(after, before);
    let mut now = appliance.status(&job);
    let removed = now.as_object_mut().unwrap().remove("results_removed_at");
    assert!(removed.is_some_and(|it| it.is_string()));
    assert_eq!(now, status);
    for (job, code) in [(&job, "RESULTS_REMOVED"), (&cancelled, "JOB_CANCELLED")] {
        let answer = appliance.read(&format!("/api/v1/batch-results/{job}"), job);
        assert_eq!((answer.status, &answer.json()["code"]), (410, &json!(code)));
        assert_eq!(answer.json()["results"]["lots"], json!([]));
        assert!(answer.json()["results_removed_at"].is_string());
    }
    let retry = appliance.run(&["jobs", "retry", &job, "--failed-lots"]);
    assert_eq!(retry.status, 1);
    assert!(retry.err.contains("was cleaned: its time"), "{}", retry.err);
    let recover = appliance.run(&["recover", "--apply"]);
    assert_eq!(recover.status, 0, "{}{}", recover.out, recover.err);
    appliance.assert_sound();
}

/// The accepted, answered, failed and cancelled items of one kind, from a report's accounts.
fn account(accounts: &Value, what: &str) -> [u64; 4] {
    let mut accounts = accounts.as_array().unwrap().iter();
    let account = accounts.find(|it| it["what"] == what).unwrap();
    assert_eq!(
        (&account["open"], &account["unexplained"]),
        (&json!(0), &json!(0))
    );
    ["accepted", "answered", "failed", "cancelled"].map(|name| account[name].as_u64().unwrap())
}

#[test]
fn imported_jobs_stay_in_the_accounts_when_they_are_cleaned() {
    let mut appliance = Appliance::without_daemon("");
    let id = |number: u32| format!("00000000-0000-4000-8000-{number:012}");
    let job = |number: u32, status: &str| {
        json!({"id": id(number), "status": status, "created_at": "2026-11-24T00:00:00",
               "updated_at": "2026-11-24T01:00:00", "languages": ["en"], "total_lots": 2})
    };
    let lot = |number: u32, lot: u32, text: Option<&str>| {
        json!({"batch_job_id": id(number), "lot_id": format!("L{lot}"), "additional_info": "a dent",
               "image_urls": [], "status": "completed", "vision_result": text})
    };
    // One job with a text and one without, one cancelled before it had a text, and one of which
    // only the header was imported.
    let dump = json!({
        "batch_jobs": [job(1, "completed"), job(2, "cancelled"), job(3, "completed")],
        "batch_lots": [lot(1, 0, Some("A dent.")), lot(1, 1, None), lot(2, 0, None), lot(2, 1, None)],
    });
    let file = appliance.path("dump.json");
    fs::write(&file, dump.to_string()).unwrap();
    let import = appliance.run(&["import-legacy", text(&file)]);
    assert_eq!(import.status, 0, "{}{}", import.out, import.err);
    let report = |appliance: &Appliance, more: &[&str]| {
        let ran = appliance.run(&[&["report", "--from", "2026-11-24"][..], more].concat());
        assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
        ran.out
    };
    let as_json =
        |appliance: &Appliance| -> Value { serde_json::from_str(&report(appliance, &["--json"])).unwrap() };
    let before = as_json(&appliance);
    assert_eq!(account(&before["accounts"], "jobs"), [2, 1, 0, 1]);
    assert_eq!(account(&before["accounts"], "lots"), [4, 1, 1, 2]);
    assert!(!report(&appliance, &[]).contains("cleaned"));
    appliance.configure("[retention]\nresults = \"1ms\"");
    appliance.start_daemon();
    wait_for("the end of their lots", || {
        let left = "SELECT count(*) FROM batch_jobs WHERE cleaned_at IS NULL";
        (appliance.cell::<i64>(left) == 0).then_some(())
    });
    let after = as_json(&appliance);
    assert_eq!(after["accounts"], before["accounts"]);
    assert_eq!(after["cleaned_jobs"], 2);
    let told = report(&appliance, &[]);
    assert!(
        told.contains("2 of the jobs are cleaned up: their time"),
        "{told}"
    );
}

#[test]
fn an_undelivered_webhook_keeps_its_job_until_an_operator_abandons_it() {
    let appliance = Appliance::with("[retention]\nresults = \"1ms\"");
    appliance.fault(&json!({"fault": "hook_status", "match": "nobody", "value": 500}));
    let mut body = submission(&appliance.lots(1), &["en"]);
    body["webhook_url"] = json!(appliance.hook("nobody"));
    let kept = appliance.submit(&body).json()["job_id"].clone();
    wait_for("the end of the attempts", || {
        let failed = "SELECT count(*) FROM webhook_deliveries WHERE state = 'failed'";
        (appliance.cell::<i64>(failed) == 1).then_some(())
    });
    let told = appliance.job(&appliance.lots(1), &["en"]);
    let cleaned = |job: &str| {
        wait_for("a cleaned job", || {
            let cleaned =
                format!("SELECT count(*) FROM batch_jobs WHERE id = '{job}' AND cleaned_at IS NOT NULL");
            (appliance.cell::<i64>(&cleaned) == 1).then_some(())
        })
    };
    cleaned(&told);
    let kept = kept.as_str().unwrap();
    assert_results(&appliance.results(kept), &appliance.lots(1), &["en"], &[]);
    let alerts = appliance.run(&["alerts"]);
    assert!(alerts.out.contains("webhooks abandon 1"), "{}", alerts.out);
    let ran = appliance.run(&["webhooks", "abandon", "1"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    cleaned(kept);
    let again = appliance.run(&["webhooks", "abandon", "1"]);
    assert_eq!(again.status, 1);
    assert!(again.err.contains("there is nothing to decide"), "{}", again.err);
}

#[test]
fn no_lot_fails_for_its_images_while_a_restore_stops_creates() {
    let appliance = Appliance::start();
    let database = Connection::open(appliance.database()).unwrap();
    database
        .execute_batch(
            "INSERT INTO pauses (scope, reason, since, openai_time)
             VALUES ('creates', 'a batch that is not here', '2026-11-25T00:00:00.000Z', 1)",
        )
        .unwrap();
    let mut lots = appliance.lots(2);
    lots[0]["images"] = json!([appliance.image("missing.jpg")]);
    let job = appliance.job(&lots, &["en"]);
    let due = "SELECT group_concat(r.images_due || l.status, ' ' ORDER BY l.position)
               FROM requests r JOIN batch_lots l ON l.id = r.lot";
    wait_for("the lot whose images are there", || {
        (appliance.cell::<String>(due) == "1pending 0pending").then_some(())
    });
    database.execute_batch("DELETE FROM pauses").unwrap();
    wait_for("the other one", || {
        appliance.cell::<String>(due).starts_with("0failed").then_some(())
    });
    appliance.results(&job);
}

#[test]
fn a_synchronous_job_reports_that_its_results_are_removed() {
    let at_once = "[synchronous]\nenabled = true\n[limits]\ndedupe_window = \"1h\"\n";
    let mut appliance = Appliance::with(at_once);
    let body = submission(&appliance.lots(1), &["en"]);
    assert_eq!(appliance.submit(&body).status, 200);
    appliance.kill_daemon();
    appliance.configure(&format!("{at_once}[retention]\nresults = \"1ms\""));
    appliance.start_daemon();
    wait_for("the end of its lot", || {
        let left = "SELECT count(*) FROM batch_lots";
        (appliance.cell::<i64>(left) == 0).then_some(())
    });
    let again = appliance.submit(&body);
    assert_eq!(
        (again.status, &again.json()["code"]),
        (410, &json!("RESULTS_REMOVED"))
    );
}

#[test]
fn free_pages_are_returned_to_the_disk() {
    let appliance = Appliance::start();
    let lots = appliance.lots(3);
    let job = appliance.job(&lots, &["en", "de"]);
    appliance.results(&job);
    let database = Connection::open(appliance.database()).unwrap();
    let length = || {
        database
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .unwrap();
        fs::metadata(appliance.database()).unwrap().len()
    };
    let before = length();
    // Large data is stored and deleted, and data that came later stays.
    database
        .execute_batch(
            "CREATE TABLE goes (bytes BLOB); INSERT INTO goes VALUES (zeroblob(16000000));
             CREATE TABLE stays (bytes BLOB); INSERT INTO stays VALUES (zeroblob(1000000));",
        )
        .unwrap();
    assert!(length() > before + 17_000_000);
    database.execute_batch("DROP TABLE goes").unwrap();
    // Four megabytes of free pages stay in the file.
    wait_for("a file without what is to spare", || {
        (length() < before + 6_000_000).then_some(())
    });
    database.execute_batch("DROP TABLE stays").unwrap();
    assert_results(&appliance.results(&job), &lots, &["en", "de"], &[]);
    appliance.wait_until_ingested();
    appliance.assert_sound();
}

#[test]
fn a_filling_disk_stops_intake_but_paid_results_are_ingested() {
    let mut appliance = Appliance::without_daemon("");
    appliance.fault(&json!({"fault": "stall_in_progress"}));
    appliance.start_daemon();
    let paid = appliance.in_one_batch(|| appliance.job(&appliance.lots(2), &["en"]));
    wait_for("the batch", || {
        let submitted = "SELECT count(*) FROM openai_batches WHERE state = 'submitted'";
        (appliance.cell::<i64>(submitted) == 1).then_some(())
    });
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let waiting = appliance.job(&appliance.lots(1), &["en"]);
    assert_eq!(appliance.run(&["resume", "submissions"]).status, 0);
    appliance.kill_daemon();
    let reserve = |size: &str| format!("[limits]\ndisk_reserve = {size:?}\n[steps]\naudit = \"20ms\"");
    appliance.configure(&reserve("1000000GB"));
    appliance.start_daemon();
    let refused = appliance.submit(&crate::appliance::submission(&appliance.lots(1), &["en"]));
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["code"], "STORAGE_UNAVAILABLE");
    assert!(refused.header("retry-after").is_some());
    let health = |api: &str| crate::appliance::call("GET", &format!("{api}/health"), &[], b"").status;
    assert_eq!(health(&appliance.api), 503);
    wait_for("the alert", || {
        let alerts = appliance.run(&["alerts"]);
        alerts.out.contains("disk_low").then_some(())
    });
    appliance.clear_faults();
    appliance.results(&paid);
    assert_eq!(appliance.status(&waiting)["status"], "pending");
    let made = "SELECT count(*) FROM openai_batches";
    assert_eq!(appliance.cell::<i64>(made), 1);
    appliance.kill_daemon();
    appliance.configure(&reserve("1kB"));
    appliance.start_daemon();
    assert_eq!(health(&appliance.api), 200);
    appliance.results(&waiting);
    wait_for("the alert's end", || {
        (appliance.run(&["alerts"]).status == 0).then_some(())
    });
}

#[test]
fn the_heartbeat_is_sent_while_all_is_well() {
    let mut appliance = Appliance::without_daemon("");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/beat", listener.local_addr().unwrap());
    appliance.configure(&format!(
        "[alerts]\nheartbeat_url = {url:?}\nheartbeat_interval = \"20ms\""
    ));
    appliance.start_daemon();
    for _ in 0..3 {
        let (mut stream, _) = listener.accept().unwrap();
        let mut start = [0; 10];
        std::io::Read::read_exact(&mut stream, &mut start).unwrap();
        assert_eq!(&start, b"GET /beat ");
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    }
    appliance.kill_daemon();
    // The address guard applies here too: a loopback address is refused unless it is allowed.
    appliance.configure(&format!(
        "[alerts]\nheartbeat_url = {url:?}\n[network]\nallow_private = false"
    ));
    let refused = appliance.run(&["check-config"]);
    assert_eq!(refused.status, 1);
    assert!(refused.err.contains("alerts.heartbeat_url"), "{}", refused.err);
}

/// Makes a database whose schema ends with the migration that created the tables.
fn make_earlier_schema(made: &Path, to: &Path) {
    let newest = Connection::open(made).unwrap();
    let history = "SELECT sql FROM sqlite_schema WHERE name = 'refinery_schema_history'";
    let history: String = newest.query_row(history, [], |row| row.get(0)).unwrap();
    let old = Connection::open(to).unwrap();
    for migration in [include_str!("../../migrations/V11__tables.sql"), &history] {
        old.execute_batch(migration).unwrap();
    }
    old.execute("ATTACH ? AS newest", [text(made)]).unwrap();
    old.execute_batch(
        "INSERT INTO refinery_schema_history SELECT * FROM newest.refinery_schema_history WHERE version <= 11;
         INSERT INTO instance SELECT * FROM newest.instance;
         INSERT INTO batch_jobs (id, client, origin, processing_mode, status, languages, total_lots, created_at,
                                 updated_at, completed_at)
         VALUES ('00000000-0000-4000-8000-000000000000', 'default', 'import', 'batch', 'failed', '[\"en\"]', 0,
                 '2026-11-24T00:00:00.000Z', '2026-11-24T00:00:00.000Z', '2026-11-24T00:00:00.000Z');
         INSERT INTO state_counts VALUES ('jobs', 'failed', 1);
         PRAGMA application_id = 0x626b7072;
         PRAGMA user_version = 11;",
    )
    .unwrap();
}

#[test]
fn a_schema_upgrade_leaves_a_backup() {
    let mut appliance = Appliance::start();
    appliance.kill_daemon();
    let old = appliance.path("old.db");
    make_earlier_schema(&appliance.database(), &old);
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", text(&appliance.database()))).ok();
    }
    fs::rename(&old, appliance.database()).unwrap();
    appliance.start_daemon();
    appliance.assert_sound();
    assert!(appliance.cell::<i64>("PRAGMA user_version") > 11);
    let job = "SELECT count(*) FROM batch_jobs";
    assert_eq!(appliance.cell::<i64>(job), 1);
    let folder = appliance.database();
    let copies: Vec<PathBuf> = files(folder.parent().unwrap())
        .into_iter()
        .filter(|path| text(path).contains(".db.schema-11."))
        .collect();
    assert_eq!(copies.len(), 1, "one, and none at the start of an empty database");
    let copy = Connection::open(&copies[0]).unwrap();
    let number = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((number("PRAGMA user_version"), number(job)), (11, 1));
    // The upgrade makes one backup, not one at each start.
    appliance.kill_daemon();
    appliance.start_daemon();
    assert_eq!(
        files(folder.parent().unwrap())
            .iter()
            .filter(|path| text(path).contains(".db.schema-"))
            .count(),
        1
    );
}

#[test]
fn one_command_converts_a_database_of_the_previous_program() {
    let mut appliance = Appliance::start();
    appliance.kill_daemon();
    let (old, new) = (appliance.path("old.db"), appliance.path("new.db"));
    let database = Connection::open(&old).unwrap();
    database
        .execute_batch(include_str!("../fixtures/schema_10.sql"))
        .unwrap();
    database
        .execute_batch(
            "INSERT INTO appliance (id, database_id, created_at) VALUES (1, 'of-old', '2026-11-24T00:00:00.000Z');
             INSERT INTO batch_jobs (id, client, origin, processing_mode, status, languages, total_lots, created_at,
                                     updated_at, completed_at)
             VALUES ('00000000-0000-4000-8000-000000000000', 'default', 'api', 'batch', 'failed', '[\"en\"]', 0,
                     '2026-11-24T00:00:00.000Z', '2026-11-24T00:00:00.000Z', '2026-11-24T00:00:00.000Z');",
        )
        .unwrap();
    drop(database);
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", text(&appliance.database()))).ok();
    }
    fs::copy(&old, appliance.database()).unwrap();
    let refused = appliance.run(&["doctor"]);
    assert_eq!(refused.status, 1);
    assert!(
        refused.err.contains("batchkeeper convert-database "),
        "{}",
        refused.err
    );
    let converted = appliance.run(&["convert-database", text(&old), text(&new)]);
    assert_eq!(converted.status, 0, "{}", converted.err);
    assert!(
        converted.out.contains("systemctl start batchkeeper"),
        "{}",
        converted.out
    );
    let again = appliance.run(&["convert-database", text(&old), text(&new)]);
    assert!(again.err.contains("is there already"), "{}", again.err);
    fs::rename(&new, appliance.database()).unwrap();
    appliance.start_daemon();
    appliance.assert_sound();
    let id = "SELECT database_id FROM instance";
    assert_eq!(appliance.cell::<String>(id), "of-old");
}

#[test]
fn an_operator_deletes_one_job_and_no_other() {
    let mut appliance = Appliance::without_daemon("[retention]\nresults = \"0s\"");
    appliance.start_daemon();
    let mut lots = appliance.lots(70);
    for (number, lot) in lots.iter_mut().enumerate() {
        lot["additional_info"] = format!("the seller said {number}").into();
    }
    let (erased, kept) = appliance.in_one_batch(|| {
        let erased = appliance.job(&lots, &["en", "de"]);
        (erased, appliance.job(&appliance.lots(3), &["en", "de"]))
    });
    let too_early = appliance.run(&["jobs", "delete", &erased, "--lots", "70"]);
    assert_eq!(too_early.status, 1);
    assert!(too_early.err.contains("it has not ended"), "{}", too_early.err);
    appliance.results(&erased);
    let before = appliance.results(&kept);
    appliance.wait_until_ingested();
    let texts =
        "SELECT (SELECT count(*) FROM batch_lots WHERE batch_lots.additional_info LIKE 'the seller said%')
                 + (SELECT count(*) FROM lot_translations t WHERE t.text LIKE '%the seller said%')";
    assert!(appliance.cell::<i64>(texts) >= 70);
    let cost: String = appliance.cell("SELECT group_concat(cost_usd) FROM v_job_costs");

    for arguments in [
        &["jobs", "delete", &erased][..],
        &["jobs", "delete", &erased, "--lots", "7"],
    ] {
        let asked = appliance.run(arguments);
        assert_eq!(asked.status, 1);
        let command = format!("batchkeeper jobs delete {erased} --lots 70");
        assert!(asked.err.contains(&command), "{}", asked.err);
    }
    let ran = appliance.run(&["jobs", "delete", &erased[..8], "--lots", "70"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let cleaned = "SELECT count(*) FROM batch_jobs WHERE cleaned_at IS NOT NULL";
    wait_for("the job's end", || {
        (appliance.cell::<i64>(cleaned) == 1).then_some(())
    });

    assert_eq!(appliance.cell::<i64>(texts), 0);
    assert_eq!(
        appliance
            .read(&format!("/api/v1/batch-results/{erased}"), &erased)
            .status,
        410
    );
    assert_eq!(appliance.status(&erased)["status"], "completed");
    assert_eq!(appliance.results(&kept), before);
    let requested = "SELECT count(*) FROM events WHERE kind = 'deletion_requested'";
    assert_eq!(appliance.cell::<i64>(requested), 1);
    let after: String = appliance.cell("SELECT group_concat(cost_usd) FROM v_job_costs");
    assert_eq!(after, cost, "what was paid stays");
    appliance.assert_sound();
}

#[test]
fn a_webhook_that_is_still_retried_can_be_abandoned_so_that_its_job_is_deleted() {
    let appliance = Appliance::with("[webhooks]\nretry_delays = [\"1h\"]");
    appliance.fault(&json!({"fault": "hook_status", "match": "broken", "value": 503}));
    let mut body = crate::appliance::submission(&appliance.lots(2), &["en"]);
    body["webhook_url"] = appliance.hook("broken").into();
    let job = appliance.submit(&body).json()["job_id"]
        .as_str()
        .unwrap()
        .to_owned();
    appliance.results(&job);
    appliance.wait_until_ingested();
    let waits =
        "SELECT count(*) FROM webhook_deliveries WHERE state = 'due' AND attempts = 1 AND in_flight = 0";
    wait_for("the first attempt", || {
        (appliance.cell::<i64>(waits) == 1).then_some(())
    });
    let delete = ["jobs", "delete", &job, "--lots", "2"];
    let ran = appliance.run(&delete);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains("a webhook is still due"), "{}", ran.err);
    assert_eq!(appliance.run(&["webhooks", "abandon", "1"]).status, 0);
    assert_eq!(
        appliance.run(&["webhooks", "abandon", "1"]).status,
        1,
        "it is decided"
    );
    assert_eq!(appliance.run(&delete).status, 0);
    let cleaned = "SELECT count(*) FROM batch_jobs WHERE cleaned_at IS NOT NULL";
    wait_for("the job's end", || {
        (appliance.cell::<i64>(cleaned) == 1).then_some(())
    });
    let again = appliance.run(&delete);
    assert_eq!(again.status, 1);
    assert!(again.err.contains("are deleted already"), "{}", again.err);
    appliance.assert_sound();
}
