//! Keys stay secret. The test uses a canary for each key, runs a job through faults with the most
//! verbose log, and searches everything that the program wrote.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::appliance::{Appliance, KEY, call, sign_bytes, submission, wait_for};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use batchkeeper::config::Config;
use serde_json::json;

const SECOND: &str = "canary-of-the-second-key-0123456789";
const FILED: &str = "canary-of-a-key-in-a-file-0123456789";
const TOKEN: &str = "canary-of-the-operators-token-0123456789";
/// The sandbox accepts no other key.
const API_KEY: &str = "sk-sandbox";

/// Every form in which a secret could be written.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    vec![
        secret.as_bytes().to_vec(),
        STANDARD.encode(secret).into_bytes(),
        STANDARD.encode(format!("operator:{secret}")).into_bytes(),
        hex.into_bytes(),
    ]
}

/// Checks that `content` holds no secret in any form.
fn clean(what: &str, content: &[u8]) {
    for secret in [KEY, SECOND, FILED, TOKEN, API_KEY] {
        for form in forms(secret) {
            let found = content.windows(form.len()).any(|window| window == form);
            assert!(!found, "{what} holds {secret:?}");
        }
    }
}

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else {
            into.push(path);
        }
    }
}

#[test]
fn no_key_is_written_or_sent_anywhere() {
    let mut appliance = Appliance::without_daemon("");
    fs::write(appliance.path("filed.key"), FILED).unwrap();
    fs::write(appliance.path("ops.token"), TOKEN).unwrap();
    appliance.configure(&format!(
        "log = \"debug\"\nops_token_file = {token:?}\n\
         [[clients]]\nname = \"default\"\nkeys = [{KEY:?}, {SECOND:?}]\n\
         [[clients]]\nname = \"other\"\nkey_files = [{filed:?}]\n",
        token = appliance.path("ops.token"),
        filed = appliance.path("filed.key"),
    ));
    appliance.start_daemon();

    // A job with every kind of fault, including a refused key.
    for fault in [
        "unauthorized",
        "lost_upload_reply",
        "lost_create_reply",
        "html_502_on_poll",
        "content_truncated",
    ] {
        appliance.fault(&json!({"fault": fault, "times": 1}));
    }
    let mut body = submission(&appliance.lots(3), &["en", "ru"]);
    body["webhook_url"] = json!(appliance.hook("told"));
    let answer = appliance.submit(&body);
    assert_eq!(answer.status, 201);
    let job = answer.json()["job_id"].as_str().unwrap().to_owned();
    appliance.results(&job);
    appliance.delivered("told", 1);
    appliance.wait_until_ingested();

    let mut said: Vec<(String, Vec<u8>)> = Vec::new();
    // Refused requests, some with a key in the place of a signature.
    for signature in [KEY, FILED, "v1=00", ""] {
        let read = call(
            "GET",
            &format!("{}/api/v1/batch-status/{job}", appliance.api),
            &[("X-Signature", signature)],
            b"",
        );
        assert!(matches!(read.status, 401 | 403), "{}", read.status);
        said.push((format!("the refusal of {signature:?}"), read.body));
    }
    for path in [
        "/",
        "/health",
        "/api/ops/summary",
        "/api/ops/batches",
        "/api/ops/webhooks",
        "/api/ops/alerts",
        "/metrics",
    ] {
        for (header, known) in [
            (format!("Bearer {TOKEN}"), true),
            (format!("Bearer {KEY}"), false),
        ] {
            let url = format!("{}{path}", appliance.ops);
            let seen = call("GET", &url, &[("Authorization", &header)], b"");
            assert_eq!(seen.status == 401, !known, "{path}");
            said.push((path.to_owned(), seen.body));
        }
    }
    for command in ["jobs", "batches", "alerts", "doctor", "check-config", "recover"] {
        let ran = appliance.run(&[command]);
        said.push((command.to_owned(), format!("{}{}", ran.out, ran.err).into()));
    }
    said.push((
        "the results".into(),
        appliance.read(&format!("/api/v1/batch-results/{job}"), &job).body,
    ));
    let config = Config::load(&appliance.config()).unwrap();
    said.push((
        "the configuration's Debug".into(),
        format!("{config:?} {config:#?}").into(),
    ));
    said.push((
        "the webhook".into(),
        json!(appliance.delivered("told", 1)).to_string().into(),
    ));
    said.push(("the sandbox's state".into(), appliance.state().to_string().into()));

    let log = wait_for("the log", || {
        let log = appliance.printed();
        log.contains("DEBUG").then_some(log)
    });
    // The log must not be empty: the requests and the refused call are in it.
    assert!(log.contains(&job) && log.contains("401"));
    said.push(("the log".into(), log.into()));
    for (what, content) in &said {
        clean(what, content);
    }

    let own = ["openai.key", "filed.key", "ops.token", "config.toml"];
    let mut written = Vec::new();
    files(appliance.config().parent().unwrap(), &mut written);
    let names: Vec<_> = written.iter().map(|path| path.display().to_string()).collect();
    for expected in ["batchkeeper.db", "batchkeeper.db-wal", "ledger.jsonl"] {
        assert!(names.iter().any(|name| name.ends_with(expected)), "{names:?}");
    }
    for path in written {
        if !own.iter().any(|own| path.ends_with(own)) {
            clean(&path.display().to_string(), &fs::read(&path).unwrap());
        }
    }
    let signature = sign_bytes(job.as_bytes());
    assert_eq!(signature.len(), 64, "a signature is not the key");
}

#[test]
fn new_files_are_private_and_open_files_are_reported_at_start() {
    let mut appliance = Appliance::without_daemon("");
    let state = appliance.path("state");
    // The folder does not exist yet, as after an installation.
    appliance.configure(&format!("database = {:?}", state.join("batchkeeper.db")));
    fs::set_permissions(appliance.path("openai.key"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(appliance.config(), fs::Permissions::from_mode(0o600)).unwrap();
    appliance.start_daemon();
    wait_for("the comparison", || {
        appliance.printed().contains("event=compared").then_some(())
    });
    // The batch stays at OpenAI, so that its input stays in the spool.
    appliance.fault(&json!({"fault": "refuse", "times": 1_000_000}));
    appliance.job(&appliance.lots(2), &["en"]);
    let spool = state.join("spool");
    let first = wait_for("a file in the spool", || fs::read_dir(&spool).unwrap().next());
    assert!(first.is_ok());

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&spool), 0o700);
    let mut made = Vec::new();
    files(&state, &mut made);
    assert!(made.len() >= 4, "{made:?}");
    for path in made {
        // A temporary file may be renamed during this check.
        if let Ok(found) = fs::metadata(&path) {
            assert_eq!(found.permissions().mode() & 0o777, 0o600, "{path:?}");
        }
    }
    let told: Vec<String> = appliance
        .printed()
        .lines()
        .filter_map(|line| Some(line.split_once("event=exposed ")?.1.to_owned()))
        .collect();
    let key = appliance.path("openai.key").display().to_string();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with(&key) && told[0].contains("chmod 0640"));
}

/// Files that another user has prepared are not used, and what is not the program's own stays.
#[test]
fn prepared_files_and_foreign_ones_are_left_alone() {
    let mut appliance = Appliance::without_daemon("");
    let (folder, spool) = (appliance.path("elsewhere"), appliance.path("spool"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("old.input.jsonl"), "theirs").unwrap();
    symlink(&folder, &spool).unwrap();
    let ran = appliance.run(&["serve"]);
    assert_eq!(ran.status, 1, "{}", ran.err);
    assert!(ran.err.contains("no symbolic link"), "{}", ran.err);

    fs::remove_file(&spool).unwrap();
    fs::create_dir(&spool).unwrap();
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o750)).unwrap();
    fs::write(spool.join("notes.txt"), "theirs").unwrap();
    appliance.start_daemon();
    assert_eq!(fs::read(spool.join("notes.txt")).unwrap(), b"theirs");
    assert_eq!(fs::metadata(&spool).unwrap().permissions().mode() & 0o7777, 0o750);
    assert!(folder.join("old.input.jsonl").exists());

    let target = appliance.path("target");
    fs::write(&target, "kept").unwrap();
    let copy = appliance.path("copy.db");
    let partial = appliance.path("copy.db.partial");
    symlink(&target, &partial).unwrap();
    let ran = appliance.run(&["backup", copy.to_str().unwrap()]);
    assert_eq!(ran.status, 1, "{}", ran.out);
    assert_eq!(fs::read(&target).unwrap(), b"kept");
    fs::remove_file(&partial).unwrap();
    fs::write(&partial, "").unwrap();
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o666)).unwrap();
    let ran = appliance.run(&["backup", copy.to_str().unwrap()]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o600);
}
