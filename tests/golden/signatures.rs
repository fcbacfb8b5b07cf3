//! Signatures of constant texts, byte for byte, and compared with those of `hand.rs`.

use crate::appliance::{Appliance, KEY, call};
use crate::fixtures::Fixtures;
use crate::{AGENT, STEADY, SUBMIT, hand, inside};

const NEW_KEY: &str = "the key that comes after the first one";
const JOB: &str = "6908f1d2-39b9-4721-bb8a-dba18120df5f";
/// 2026-11-24T02:24:00Z.
const SECONDS: i64 = 1_795_487_040;

/// Bodies of submissions, as clients write them.
const BODIES: [(&str, &str); 4] = [
    (
        "compact",
        "{\"version\":\"1.0.0\",\"languages\":[\"en\"],\
         \"lots\":[{\"lot_id\":\"a\",\"images\":[\"https://img.example/1.jpg\"]}]}",
    ),
    (
        "spaced, members in no order",
        "{ \"lots\": [ {\"images\": [ {\"url\": \"https://img.example/1.jpg\"} ], \
         \"lot_id\": \"11-12345\",\n  \
         \"additional_info\": \"\\\"Dent\\\" & 'scratch' \\\\ \\/ <b>\\n\\t\"} ], \
         \"languages\": [\"en\", \"ru\"], \"version\": \"1.0.0\" }",
    ),
    (
        "Cyrillic and emoji, raw and escaped",
        "{\"version\": \"1.0.0\", \"languages\": [\"ru\"], \"lots\": [{\"lot_id\": \"лот № 3\", \
         \"additional_info\": \"Не бит 🚗 \\u041d\\u0435 \\ud83d\\ude97 \\u2028 \\u007f \u{85}\", \
         \"images\": [\"https://img.example/фото.jpg\"], \"я\": 1, \"a\": 2, \"🚗\": 3}]}",
    ),
    (
        "numbers, and a member twice",
        "{\"version\": \"1.0.0\", \"languages\": [\"en\"], \
         \"lots\": [{\"lot_id\": 7, \"lot_id\": 8, \"images\": [], \"n\": \
         [1, -0, 1.0, 1.50, 1e3, 1E-7, 123456789012345678901234567890, 1e400, NaN, true, null]}]}",
    ),
];

/// The output of `sign`. Its signature v1 has the current time: a placeholder replaces a correct
/// one.
fn printed(out: &str, method: &str, target: &str, body: &[u8]) -> String {
    let line = |begins: &str| out.lines().find_map(|line| line.strip_prefix(begins));
    let Some(timestamp) = line("X-Timestamp: ") else {
        return out.to_owned();
    };
    let right = hand::v1(KEY, timestamp, method, target, body);
    out.replace(&right, "<v1 of the request>")
        .replace(timestamp, "<timestamp>")
}

/// The body with its signature as the first member.
fn with_signature(body: &str, out: &str) -> String {
    let member = out
        .lines()
        .find(|line| line.starts_with("\"signature\": "))
        .unwrap();
    format!("{{{member}, {}", body.strip_prefix('{').unwrap())
}

#[test]
fn the_signatures_of_fixed_texts() {
    let mut appliance = Appliance::with(STEADY);
    let mut fixtures = Fixtures::of("signatures");
    let mut text = String::new();
    for (title, body) in BODIES {
        let path = appliance.path("body.json");
        std::fs::write(&path, body).unwrap();
        let ran = appliance.run(&["sign", path.to_str().unwrap()]);
        assert_eq!(ran.status, 0, "{}", ran.err);
        let raw = format!("X-Signature: {}\n", hand::legacy(KEY, body.as_bytes()));
        assert!(ran.out.contains(&format!("\n{raw}")), "{}", ran.out);
        let out = printed(&ran.out, "POST", SUBMIT, body.as_bytes());
        // The daemon verifies the same signatures.
        let signed = with_signature(body, &ran.out);
        let url = format!("{}{SUBMIT}?dry_run=true", appliance.api);
        let answer = call("POST", &url, &[], signed.as_bytes());
        let code = answer.json()["code"].clone();
        text.push_str(&format!(
            "=== {title}\n{body}\n\n{out}\n{} {code}\n\n",
            answer.status
        ));
    }
    for arguments in [
        &["sign", "--job", JOB][..],
        &["sign", "--webhook-secret"],
        &["sign", "--job", JOB, "--json"],
    ] {
        let ran = appliance.run(arguments);
        assert_eq!(ran.status, 0, "{}", ran.err);
        text.push_str(&format!("=== {}\n{}\n", arguments.join(" "), ran.out));
    }
    // A client that may not use the earlier service's signatures.
    appliance.configure(&format!(
        "clients = [{{name = \"default\", keys = [{KEY:?}], webhook_key = {NEW_KEY:?}, legacy = false}}]"
    ));
    for arguments in [&["sign", "--job", JOB][..], &["sign", "--webhook-secret"]] {
        let ran = appliance.run(arguments);
        assert_eq!(ran.status, 0, "{}", ran.err);
        let out = printed(&ran.out, "GET", &format!("/api/v1/batch-status/{JOB}"), b"");
        text.push_str(&format!("=== without legacy: {}\n{out}\n", arguments.join(" ")));
    }
    appliance.kill_daemon();
    fixtures.add("commands.txt", text);
    fixtures.add("vectors.txt", vectors());
    fixtures.check();
}

/// Signatures at a fixed time.
fn vectors() -> String {
    let mut text = String::new();
    let timestamp = SECONDS.to_string();
    let list = "/api/v1/batch-jobs?limit=5&created_after=2020-01-01T00%3A00%3A00Z";
    for (method, target, body) in [
        ("POST", SUBMIT, BODIES[2].1),
        ("GET", list, ""),
        (
            "POST",
            "/api/v1/batch-jobs/6908f1d2-39b9-4721-bb8a-dba18120df5f/cancel",
            "{\"reason\": \"sold\"}",
        ),
    ] {
        let signature = inside::v1(KEY, &timestamp, method, target, body.as_bytes());
        assert_eq!(
            signature,
            hand::v1(KEY, &timestamp, method, target, body.as_bytes())
        );
        text.push_str(&format!(
            "=== v1 at {timestamp}: {method} {target}\n{body}\n\n{signature}\n\n"
        ));
    }
    let id = hand::webhook_id(JOB, "batch_job_completed", "https://client.example/hook");
    let body = "{\"event\":\"batch_job_completed\",\"lots\":[{\"lot_id\":\"\\u043b\\u043e\\u0442\"}]}";
    for (keys, prefix, attempt) in [(&[KEY][..], "", 1), (&[NEW_KEY, KEY], "sha256=", 7)] {
        let headers = inside::headers(keys, prefix, &id, attempt, SECONDS, body.as_bytes());
        let lines = headers.iter().map(|(name, value)| {
            let value = value.replace(AGENT, "<batchkeeper and its version>");
            format!("{name}: {value}\n")
        });
        text.push_str(&format!(
            "=== a webhook at {timestamp}, {} keys\n{body}\n\n{}\n",
            keys.len(),
            lines.collect::<String>()
        ));
        let right: Vec<_> = keys
            .iter()
            .map(|key| hand::standard_webhook(key, &id, &timestamp, body.as_bytes()))
            .collect();
        assert!(text.contains(&format!("webhook-signature: {}\n", right.join(" "))));
    }
    text
}
