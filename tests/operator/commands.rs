//! The command line as a whole: every command has help, prints JSON on request, and ends with
//! status 0, 1 or 2.

use crate::appliance::Appliance;
use serde_json::Value;

/// The names of all commands in the help.
fn commands(help: &str) -> Vec<&str> {
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let entries = rest.lines().take_while(|line| !line.is_empty());
    let mut names: Vec<&str> = entries
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn every_command_has_its_help() {
    let appliance = Appliance::without_daemon("");
    let whole = appliance.run(&["--help"]);
    assert_eq!(whole.status, 0);
    // The commands that the program must have.
    let wanted = [
        "adopt",
        "alerts",
        "backup",
        "batches",
        "check-config",
        "clock",
        "completions",
        "config",
        "convert-database",
        "demo",
        "doctor",
        "healthcheck",
        "import-legacy",
        "init",
        "jobs",
        "pause",
        "recover",
        "report",
        "resume",
        "sandbox",
        "serve",
        "sign",
        "version",
        "webhooks",
    ];
    assert_eq!(commands(&whole.out), wanted);
    for command in wanted {
        let ran = appliance.run(&[command, "--help"]);
        assert_eq!(ran.status, 0, "{command}: {}", ran.err);
        assert!(
            ran.out.contains(&format!("Usage: batchkeeper {command} ")),
            "{}",
            ran.out
        );
        assert!(ran.out.len() < whole.out.len() / 2, "{}", ran.out);
        assert!(ran.out.contains("--config <FILE>"), "{}", ran.out);
    }
    assert_eq!(appliance.run(&["frob", "--help"]).status, 2);
}

/// A command, its exit status, and a member of its JSON; `None` if the JSON is a list.
type Case<'a> = (&'a [&'a str], i32, Option<&'a str>);

#[test]
fn every_command_prints_json_and_returns_its_status() {
    let appliance = Appliance::start();
    let job = appliance.job(&appliance.lots(2), &["en"]);
    appliance.results(&job);
    appliance.wait_until_ingested();
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let open = appliance.job(&appliance.lots(1), &["en"]);
    let (body, dump, copy) = (
        appliance.path("body.json"),
        appliance.path("dump.json"),
        appliance.path("copy.db"),
    );
    std::fs::write(&body, r#"{"lots": []}"#).unwrap();
    std::fs::write(&dump, r#"{"batch_jobs": []}"#).unwrap();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (body, dump, copy) = (text(&body), text(&dump), text(&copy));
    let cases: &[Case<'_>] = &[
        (&["check-config"], 0, Some("good")),
        (&["config", "show"], 0, None),
        (&["version"], 0, Some("sqlite")),
        (&["jobs", "cancel", &open], 0, Some("status")),
        (&["resume", "submissions"], 0, Some("was_paused")),
        (&["sign", &body], 0, Some("signature")),
        (&["sign", "--job", &job], 0, Some("X-Signature")),
        (&["sign", "--webhook-secret"], 0, Some("webhook_secret")),
        (&["import-legacy", &dump], 0, Some("jobs")),
        (&["import-legacy", &dump, "--dry-run"], 0, Some("dry_run")),
        (&["recover"], 0, Some("findings")),
        (&["recover", "--apply"], 0, Some("linked")),
        (&["jobs"], 0, None),
        (&["jobs", "list"], 0, None),
        (
            &["jobs", "list", "--status", "completed", "--limit", "1"],
            0,
            None,
        ),
        (&["jobs", "show", &job], 0, Some("events")),
        (&["jobs", "show", &job[..8]], 0, Some("batches")),
        (&["jobs", "retry", &job, "--failed-lots"], 0, Some("lots")),
        (&["batches"], 0, None),
        (&["batches", "show", "1"], 0, Some("events")),
        (&["webhooks"], 0, None),
        (&["pause", "webhooks"], 0, Some("paused")),
        (&["alerts"], 1, None),
        (&["alerts", "list"], 1, None),
        (&["alerts", "show", "1"], 0, Some("notices")),
        (&["resume", "webhooks"], 0, Some("was_paused")),
        (&["alerts"], 0, None),
        (&["clock", "confirm"], 0, Some("confirmed_at")),
        (&["doctor"], 0, None),
        (&["report"], 0, Some("balances")),
        (&["backup", &copy], 0, Some("bytes")),
    ];
    for (command, status, member) in cases {
        let ran = appliance.run(&[command, &["--json"][..]].concat());
        assert_eq!(ran.status, *status, "{command:?}: {}{}", ran.out, ran.err);
        assert_eq!(ran.out.lines().count(), 1, "{command:?}: {}", ran.out);
        let said: Value = serde_json::from_str(&ran.out).unwrap();
        match member {
            None => assert!(said.is_array(), "{command:?}: {said}"),
            Some(member) => assert!(!said[member].is_null(), "{command:?}: {said}"),
        }
    }
    let refused: &[&[&str]] = &[
        &["jobs", "show", "nobody"],
        &["jobs", "show", &job[..7]],
        &["healthcheck"],
        &["jobs", "retry", &job],
        &["batches", "show", "99"],
        &["batches", "abandon", "99"],
        &["webhooks", "show", "99"],
        &["webhooks", "resend", "99"],
        &["webhooks", "abandon", "99"],
        &["alerts", "show", "99"],
        &["adopt", "--job", &job, "--batch", "batch_none"],
        &["sign", "/no/such/file"],
        &["import-legacy", "/no/such/file"],
    ];
    let wrong: &[&[&str]] = &[
        &["frob"],
        &["jobs", "frob"],
        &["jobs", "show"],
        &["jobs", "list", "--status", "lost"],
        &["completions", "csh"],
        &["batches", "show", "one"],
        &["adopt"],
        &["clock"],
        &["pause"],
        &["pause", "everything"],
        &["report", "--from", "yesterday"],
        &["serve", "--json"],
        &["backup"],
        &["doctor", "now"],
    ];
    for (status, commands) in [(1, refused), (2, wrong)] {
        for command in commands {
            let ran = appliance.run(command);
            assert_eq!(ran.status, status, "{command:?}: {}{}", ran.out, ran.err);
            assert!(ran.err.starts_with("batchkeeper: "), "{command:?}: {}", ran.err);
        }
    }
}

#[test]
fn commands_that_only_read_need_no_keys() {
    let appliance = Appliance::start();
    // As with a systemd credential that only the service can read.
    std::fs::remove_file(appliance.path("openai.key")).unwrap();
    let copy = appliance.path("copy.db");
    for command in [
        &["jobs"][..],
        &["pause", "submissions"],
        &["resume", "submissions"],
        &["doctor"],
        &["backup", copy.to_str().unwrap()],
    ] {
        let ran = appliance.run(command);
        assert_eq!(ran.status, 0, "{command:?}: {}{}", ran.out, ran.err);
    }
    for command in [&["check-config"][..], &["recover"], &["report"]] {
        let ran = appliance.run(command);
        assert_eq!(ran.status, 1, "{command:?}: {}", ran.out);
        assert!(ran.err.contains("api_key_file"), "{}", ran.err);
    }
}

#[test]
fn commands_that_only_read_do_not_wait_for_a_writer() {
    let appliance = Appliance::start();
    let job = appliance.job(&appliance.lots(1), &["en"]);
    appliance.results(&job);
    appliance.wait_until_ingested();
    let writer = rusqlite::Connection::open(appliance.database()).unwrap();
    writer
        .execute_batch("PRAGMA busy_timeout = 60000; BEGIN IMMEDIATE")
        .unwrap();
    for command in [
        &["jobs"][..],
        &["jobs", "show", &job],
        &["batches"],
        &["alerts"],
        &["doctor"],
    ] {
        let ran = appliance.run(command);
        assert_eq!(ran.status, 0, "{command:?}: {}{}", ran.out, ran.err);
    }
    // A command that writes names the file and the remedy.
    let ran = appliance.run(&["pause", "intake"]);
    assert_eq!(ran.status, 1, "{}", ran.out);
    let told = format!("{} is locked by another process", appliance.database().display());
    assert!(ran.err.contains(&told), "{}", ran.err);
    assert!(ran.err.contains("sqlite3"), "{}", ran.err);
    writer.execute_batch("COMMIT").unwrap();
    assert_eq!(appliance.run(&["pause", "intake"]).status, 0);
}

#[test]
fn open_items_come_first_and_omitted_rows_are_counted() {
    let mut appliance = Appliance::start();
    appliance.fault(&serde_json::json!({"fault": "stall_in_progress"}));
    let mut body = crate::appliance::submission(&appliance.lots(1), &["en"]);
    body["webhook_url"] = appliance.hook("told").into();
    let open = appliance.submit(&body).json()["job_id"].clone();
    let open = open.as_str().unwrap();
    crate::appliance::wait_for("its batch", || {
        let submitted = "SELECT count(*) FROM openai_batches WHERE state = 'submitted'";
        (appliance.cell::<i64>(submitted) == 1).then_some(())
    });
    appliance.kill_daemon();
    for list in ["jobs", "batches", "webhooks"] {
        let ran = appliance.run(&[list]);
        assert_eq!((ran.status, ran.out.lines().count()), (0, 2), "{}", ran.out);
    }
    // Items that came later and are finished.
    let database = rusqlite::Connection::open(appliance.database()).unwrap();
    for (table, columns, values) in [
        (
            "batch_jobs",
            "id, client, origin, processing_mode, status, languages, total_lots, created_at, updated_at, completed_at",
            "printf('old-%032d', n), 'default', 'api', 'batch', 'completed', '[]', 0, '2100', '2100', '2100'",
        ),
        (
            "openai_batches",
            "submission_key, stage, scheme, state, base_url, organization, project, model, parameters, next_at,
             created_at, error",
            "'old-' || n, 'vision', 'own', 'failed', '', '', '', '', '{}', '2100', '2100', 'refused'",
        ),
        (
            "webhook_deliveries",
            "batch_job_id, url, state, created_at, delivered_at",
            "printf('old-%032d', n), 'https://client.example/', 'delivered', '2100', '2100'",
        ),
    ] {
        database
            .execute_batch(&format!(
                "WITH RECURSIVE t (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 263)
                 INSERT INTO {table} ({columns}) SELECT {values} FROM t"
            ))
            .unwrap();
    }
    for (list, named, of) in [
        ("jobs", open, "v_jobs"),
        ("batches", "1 ", "v_batches"),
        ("webhooks", "1 ", "webhook_deliveries"),
    ] {
        let ran = appliance.run(&[list]);
        let lines: Vec<&str> = ran.out.lines().collect();
        assert_eq!((ran.status, lines.len()), (0, 202), "{list}: {}", ran.err);
        assert!(lines[1].starts_with(named), "{}", lines[1]);
        assert!(lines[201].starts_with("200 of 264"), "{}", lines[201]);
        assert!(lines[201].contains(&format!("FROM {of}")), "{}", lines[201]);
        let ran = appliance.run(&[list, "--json"]);
        let rows: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(rows.as_array().unwrap().len(), 200);
        assert!(ran.err.contains("200 of 264"), "{}", ran.err);
    }
}

#[test]
fn check_config_reports_what_serve_refuses() {
    let appliance = Appliance::without_daemon("");
    let config = std::fs::read_to_string(appliance.config()).unwrap();
    let mut table: toml::Table = toml::from_str(&config).unwrap();
    let with = |table: &toml::Table| {
        std::fs::write(appliance.config(), toml::to_string(table).unwrap()).unwrap();
    };
    // The key may be in the environment of the service only.
    let key_file = table["openai"]
        .as_table_mut()
        .unwrap()
        .remove("api_key_file")
        .unwrap();
    with(&table);
    let checked = appliance.run(&["check-config"]);
    assert_eq!(checked.status, 0, "{}", checked.err);
    assert!(
        checked.out.contains("warning: no OpenAI key here"),
        "{}",
        checked.out
    );
    table["openai"]
        .as_table_mut()
        .unwrap()
        .insert("api_key_file".into(), key_file);
    with(&table);
    let checked = appliance.run(&["check-config"]);
    assert!(!checked.out.contains("no OpenAI key"), "{}", checked.out);

    let refused = |named: &str| {
        for command in ["check-config", "serve"] {
            let ran = appliance.run(&[command]);
            assert_eq!(ran.status, 1, "{command}: {}", ran.out);
            assert!(ran.err.contains(named), "{command}: {}", ran.err);
        }
    };
    std::fs::write(appliance.path("openai.key"), "sk\u{7f}\n").unwrap();
    refused(&format!(
        "openai.api_key_file: {}",
        appliance.path("openai.key").display()
    ));
    std::fs::write(appliance.path("openai.key"), "sk-sandbox\n").unwrap();
    let database = table.insert("database".into(), "".into()).unwrap();
    with(&table);
    refused("database is empty");
    assert!(!std::path::Path::new(".lock").exists());
    table.insert("database".into(), database);
    table["openai"]
        .as_table_mut()
        .unwrap()
        .insert("base_url".into(), "zzz".into());
    with(&table);
    refused("openai.base_url = \"zzz\"");
    std::fs::write(appliance.config(), b"log = \"\xff\"").unwrap();
    let ran = appliance.run(&["check-config"]);
    assert!(
        ran.err.contains("UTF-8") && !ran.err.contains("--config"),
        "{}",
        ran.err
    );
    std::fs::remove_file(appliance.config()).unwrap();
    let ran = appliance.run(&["check-config"]);
    assert!(ran.err.contains("with --config FILE"), "{}", ran.err);
}

#[test]
fn check_config_asks_openai_with_the_parameters_of_both_stages() {
    let appliance = Appliance::without_daemon("[translation]\nmodel = \"gpt-4.1-mini\"");
    let probed = appliance.run(&["check-config", "--probe"]);
    assert_eq!(probed.status, 0, "{} {}", probed.out, probed.err);
    assert!(
        probed.out.contains("vision: gpt-6-luna answers")
            && probed.out.contains("translation: gpt-4.1-mini answers"),
        "{}",
        probed.out
    );
    let probed = appliance.run(&["check-config", "--probe", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&probed.out).unwrap();
    for probe in value["probes"].as_array().unwrap() {
        let cost: f64 = probe["cost"]["usd"].as_str().unwrap().parse().unwrap();
        assert!(cost > 0.0 && cost < 0.01, "{probe}");
    }
    let config = std::fs::read_to_string(appliance.config()).unwrap();
    let mut table: toml::Table = toml::from_str(&config).unwrap();
    table.insert(
        "vision".into(),
        toml::toml! { reasoning_effort = "immense" }.into(),
    );
    std::fs::write(appliance.config(), toml::to_string(&table).unwrap()).unwrap();
    let probed = appliance.run(&["check-config", "--probe"]);
    assert_eq!(probed.status, 1, "{}", probed.out);
    assert!(
        probed
            .out
            .contains("vision.reasoning_effort = \"immense\" is wrong"),
        "{}",
        probed.out
    );
}

#[test]
fn sign_shows_each_signature_that_a_client_may_use() {
    let mut appliance = Appliance::without_daemon("");
    let config = std::fs::read_to_string(appliance.config()).unwrap()
        + "\n[[clients]]\nname = \"modern\"\nkeys = [\"a key of the modern client\"]\nlegacy = false\n";
    std::fs::write(appliance.config(), config).unwrap();
    appliance.start_daemon();
    let body = crate::appliance::submission(&appliance.lots(1), &["en"]).to_string();
    let file = appliance.path("body.json");
    std::fs::write(&file, &body).unwrap();
    let file = file.to_str().unwrap();
    // Signature v1 comes first.
    let both = appliance.run(&["sign", file]);
    let lines: Vec<&str> = both.out.lines().collect();
    assert_eq!(lines.len(), 7, "{}", both.out);
    assert_eq!(lines[0], "X-Client-Id: default");
    assert!(
        lines[5].starts_with("X-Signature: ") && !lines[5].contains("v1="),
        "{}",
        lines[5]
    );
    let pause = appliance.run(&["pause"]);
    assert!(
        pause.err.contains("<intake|submissions|webhooks>"),
        "{}",
        pause.err
    );
    let read = appliance.run(&["sign", "--job", "J"]);
    assert_eq!(read.out.lines().count(), 1, "{}", read.out);
    let only = appliance.run(&["sign", file, "--client", "modern"]);
    let lines: Vec<&str> = only.out.lines().collect();
    assert_eq!(lines.len(), 4, "{}", only.out);
    assert_eq!(lines[0], "X-Client-Id: modern");
    assert!(
        lines[3].ends_with(".POST./api/v1/generate-descriptions.<body>"),
        "{}",
        lines[3]
    );
    let headers: Vec<(&str, &str)> = lines[..3]
        .iter()
        .map(|line| line.split_once(": ").unwrap())
        .collect();
    let taken = appliance.post(&headers, body.as_bytes());
    assert_eq!(taken.status, 201, "{}", taken.json());

    let job = taken.json()["job_id"].as_str().unwrap().to_owned();
    let ran = appliance.run(&["sign", "--job", &job, "--client", "modern", "--json"]);
    let said: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(said["X-Signature"], Value::Null);
    let header = |name| (name, said["v1"][name].as_str().unwrap());
    let headers = ["X-Client-Id", "X-Timestamp", "X-Signature"].map(header);
    let url = format!("{}/api/v1/batch-status/{job}", appliance.api);
    assert_eq!(crate::appliance::call("GET", &url, &headers, b"").status, 200);

    let nobody = appliance.run(&["sign", file, "--client", "nobody"]);
    assert_eq!(nobody.status, 1);
    assert!(nobody.err.contains("--client: default, modern"), "{}", nobody.err);
    assert!(appliance.run(&["sign", "--help"]).out.contains("--client <NAME>"));
}

#[test]
fn commands_report_their_real_effect() {
    let mut appliance = Appliance::start();
    // Not due yet: it is sent without a command.
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let mut body = crate::appliance::submission(&appliance.lots(2), &["en"]);
    body["webhook_url"] = appliance.hook("told").into();
    let job = appliance.submit(&body).json()["job_id"].clone();
    let resend = appliance.run(&["webhooks", "resend", "1"]);
    assert_eq!(resend.status, 1);
    let told = "not due before its job has ended";
    assert!(resend.err.contains(told), "{}", resend.err);
    appliance.kill_daemon();
    // The requests of the import are held already; those of the copy will be held.
    let dump = appliance.path("dump.json");
    let orphan = "00000000-0000-4000-8000-000000000001";
    let rows = serde_json::json!({
        "batch_jobs": [{"id": orphan, "status": "processing", "created_at": "2026-11-24T00:00:00",
                        "updated_at": "2026-11-24T00:00:00", "languages": ["en"], "total_lots": 1}],
        "batch_lots": [{"batch_job_id": orphan, "lot_id": "L", "additional_info": "a dent", "image_urls": [],
                        "status": "pending"}],
    });
    std::fs::write(&dump, rows.to_string()).unwrap();
    assert_eq!(
        appliance.run(&["import-legacy", dump.to_str().unwrap()]).status,
        0
    );
    for _ in 0..2 {
        let copy = appliance.run(&["recover", "--new-identity", "--json"]);
        let said: Value = serde_json::from_str(&copy.out).unwrap();
        assert_eq!(said["held"], 3, "{said}");
    }
    let retry = appliance.run(&["jobs", "retry", job.as_str().unwrap()]);
    assert!(
        retry.out.starts_with("2 held requests"),
        "{}{}",
        retry.out,
        retry.err
    );
}

/// Texts of strangers reach a terminal through commands: ids of a dump, operands that were pasted.
#[test]
fn no_command_prints_what_a_terminal_obeys() {
    let appliance = Appliance::start();
    let hostile = "\u{1b}[31m\u{9b}2J\u{202e}\u{7}";
    let dump = appliance.path("dump.sql");
    std::fs::write(
        &dump,
        format!("COPY public.\"{hostile}\" (id, {hostile}) FROM stdin;\n{hostile}\t1\n\\.\nINSERT INTO {hostile} VALUES ('{hostile}');\n"),
    )
    .unwrap();
    let dump = dump.to_str().unwrap();
    for arguments in [
        &["jobs", "show", hostile][..],
        &["batches", "show", hostile],
        &["webhooks", "show", hostile],
        &["import-legacy", dump],
        &["import-legacy", dump, "--json"],
        &["backup", &format!("/nowhere/{hostile}")],
        &["sign", hostile],
        &[hostile],
        &["jobs", "show", "--json", hostile],
    ] {
        let ran = appliance.run(arguments);
        for text in [&ran.out, &ran.err] {
            let obeyed = text
                .chars()
                .find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
            assert_eq!(obeyed, None, "{arguments:?}: {text:?}");
        }
        assert!(!(ran.out.is_empty() && ran.err.is_empty()), "{arguments:?}");
    }
}
