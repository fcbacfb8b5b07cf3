//! The command line in use: settings from the environment, the configuration in force, jobs found by a part of their
//! id, and completions.

use serde_json::{Value, json};

use crate::appliance::{Appliance, Ran, submission, wait_for};

fn parsed(ran: &Ran) -> Value {
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

/// The row of a key in `config show --json`.
fn shown<'a>(keys: &'a Value, key: &str) -> &'a Value {
    let mut rows = keys.as_array().unwrap().iter();
    rows.find(|row| row["key"] == key).unwrap()
}

#[test]
fn the_environment_overrides_the_file_and_config_show_says_so() {
    let mut appliance = Appliance::without_daemon("[batch]\nmax_requests = 2");
    let environment = [
        ("BATCHKEEPER_BATCH__MAX_REQUESTS", "3"),
        ("BATCHKEEPER_ALERTS__HEARTBEAT_URL", "https://beats.example/T0KEN"),
    ];
    let ran = appliance.run_with(&["config", "show", "--json"], &environment);
    assert!(
        !ran.out.contains("T0KEN") && !ran.out.contains("keys-of"),
        "{}",
        ran.out
    );
    let keys = parsed(&ran);
    for (key, value, source) in [
        ("batch.max_requests", json!(3), "BATCHKEEPER_BATCH__MAX_REQUESTS"),
        ("batch.max_wait", json!("150ms"), "file"),
        ("batch.max_attempts", json!(5), "default"),
        (
            "alerts.heartbeat_url",
            json!("(secret)"),
            "BATCHKEEPER_ALERTS__HEARTBEAT_URL",
        ),
        ("clients[0].keys", json!("(secret)"), "file"),
    ] {
        let expected = json!({"key": key, "value": value, "source": source});
        assert_eq!(shown(&keys, key), &expected);
    }
    let wrong = appliance.run_with(&["config", "show"], &[("BATCHKEEPER_BATCH__MAX_REQUEST", "3")]);
    assert_eq!(wrong.status, 1);
    assert!(wrong.err.contains("max_request"), "{}", wrong.err);

    // The daemon obeys it: seven lots in batches of three.
    appliance.start_daemon_with(&environment[..1]);
    let job = appliance.in_one_batch(|| appliance.job(&appliance.lots(7), &["en"]));
    appliance.results(&job);
    let sizes = "SELECT group_concat(lines) FROM (SELECT lines FROM openai_batches WHERE stage = 'vision' ORDER BY id)";
    assert_eq!(appliance.cell::<String>(sizes), "3,3,1");
}

#[test]
fn a_job_is_found_by_the_start_of_its_id_and_shown_whole() {
    let appliance = Appliance::start();
    let mut lots = appliance.lots(2);
    lots[1]["images"] = json!([{"url": "https://nowhere.invalid/a.jpg"}]);
    let mut body = submission(&lots, &["en"]);
    body["webhook_url"] = appliance.hook("told").into();
    let answer = appliance.submit(&body).json();
    let job = answer["job_id"].as_str().unwrap();
    appliance.ended(job);
    appliance.delivered("told", 1);
    appliance.wait_until_ingested();

    let whole = parsed(&appliance.run(&["jobs", "show", &job[..8], "--json"]));
    assert_eq!(whole["id"], job);
    assert_eq!(whole["batches"][0]["stage"], "vision");
    assert_eq!(whole["batches"][0]["lines_of_job"], 1);
    assert_eq!(whole["failed_lots"][0]["lot_id"], lots[1]["lot_id"]);
    assert_eq!(whole["webhooks"][0]["url"], appliance.hook("told"));
    let text = appliance.run(&["jobs", "show", &job[..8]]).out;
    for part in ["batches", "webhooks", "failed lots", "events"] {
        assert!(text.contains(&format!("\n\n{part}\n")), "{part}: {text}");
    }

    // A second job whose id begins alike.
    let twin = format!("{}{}", &job[..20], "f".repeat(16));
    let database = rusqlite::Connection::open(appliance.database()).unwrap();
    database
        .execute(
            "INSERT INTO batch_jobs (id, client, origin, processing_mode, status, languages, total_lots, created_at,
                updated_at, completed_at)
             VALUES (?, 'other', 'api', 'batch', 'failed', '[]', 0, '2026-01-01T00:00:00Z',
                '2026-01-01T00:00:00Z', '2026-01-01T00:00:00Z')",
            [&twin],
        )
        .unwrap();
    let both = appliance.run(&["jobs", "show", &job[..20]]);
    assert_eq!(both.status, 1);
    assert!(both.err.contains(job) && both.err.contains(&twin), "{}", both.err);

    for (options, expected) in [
        (&["--client", "other"][..], &[twin.as_str()][..]),
        (&["--status", "completed"], &[job]),
        (&["--status", "completed", "--client", "other"], &[]),
        (&["--limit", "1"], &[job]),
    ] {
        let ran = appliance.run(&[&["jobs", "list", "--json"], options].concat());
        let ids: Vec<String> = parsed(&ran)
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids, expected, "{options:?}");
    }
}

#[test]
fn what_is_no_dump_and_a_folder_in_use_are_refused() {
    let appliance = Appliance::start();
    let file = appliance.path("package.json");
    std::fs::write(&file, r#"{"name": "a program", "jobs": []}"#).unwrap();
    let ran = appliance.run(&["import-legacy", file.to_str().unwrap()]);
    assert_eq!(ran.status, 1, "{}", ran.out);
    assert!(ran.err.contains("batch_jobs"), "{}", ran.err);

    // The test's own sandbox runs in this folder.
    let state = appliance.path("sandbox");
    let state = state.to_str().unwrap();
    let ran = appliance.run(&["sandbox", "--listen", "127.0.0.1:0", "--state", state]);
    assert_eq!(ran.status, 1, "{}", ran.out);
    assert!(
        ran.err.contains("another sandbox uses this folder"),
        "{}",
        ran.err
    );

    for (scope, paused, resumed) in [
        ("intake", "intake is paused\n", "intake is no longer paused\n"),
        (
            "submissions",
            "submissions are paused\n",
            "submissions are no longer paused\n",
        ),
    ] {
        assert_eq!(appliance.run(&["pause", scope]).out, paused);
        assert_eq!(appliance.run(&["resume", scope]).out, resumed);
    }
}

#[test]
fn healthcheck_tells_a_healthy_daemon_from_one_that_cannot_work() {
    let mut appliance = Appliance::start();
    let address = appliance.api.strip_prefix("http://").unwrap().to_owned();
    let environment = [("BATCHKEEPER_LISTEN", address.as_str())];
    let asked = |appliance: &Appliance| appliance.run_with(&["healthcheck"], &environment);
    wait_for("health", || (asked(&appliance).status == 0).then_some(()));
    assert_eq!(asked(&appliance).out, "healthy\n");
    appliance.kill_daemon();
    let ran = asked(&appliance);
    assert_eq!(ran.status, 1);
    assert!(ran.err.contains(&address), "{}", ran.err);
}

#[test]
fn every_shell_has_its_completions_and_the_version_its_parts() {
    let appliance = Appliance::without_daemon("");
    for shell in ["bash", "zsh", "fish"] {
        let ran = appliance.run(&["completions", shell]);
        assert_eq!(ran.status, 0, "{}", ran.err);
        assert!(ran.out.contains("convert-database"), "{shell}");
    }
    let version = parsed(&appliance.run(&["version", "--json"]));
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["schema"].as_i64() >= Some(13), "{version}");
    assert!(version["sqlite"].as_str().unwrap().starts_with("3."), "{version}");
    // Help fits a terminal of 80 columns.
    for command in [
        &["--help"][..],
        &["jobs", "retry", "--help"],
        &["recover", "--help"],
    ] {
        let help = appliance.run(command).out;
        let longest = help.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(80), "{command:?}: {help}");
    }
}
