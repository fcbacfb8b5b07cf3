//! Checks the OpenAPI documents. The program serves every documented path, method, status and code;
//! every answer has its documented form; and the examples work.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::appliance::{Answer, Appliance, KEY, call, submission, wait_for};
use crate::{SUBMIT, borrowed, sign_with, v1};

/// A schema within a document, and the document that resolves its references.
pub(crate) struct Schema<'d> {
    pub(crate) document: &'d Value,
}

impl<'d> Schema<'d> {
    pub(crate) fn resolve(&self, schema: &'d Value) -> &'d Value {
        match schema["$ref"].as_str() {
            Some(reference) => {
                let found = self.document.pointer(reference.trim_start_matches('#'));
                self.resolve(found.unwrap_or_else(|| panic!("{reference} leads nowhere")))
            }
            None => schema,
        }
    }

    /// The first difference between a value and its schema. Keywords that the documents do not use
    /// are ignored.
    pub(crate) fn complaint(&self, schema: &'d Value, value: &Value) -> Option<String> {
        let schema = self.resolve(schema);
        if let Some(any) = schema["anyOf"].as_array() {
            let fits = any.iter().any(|one| self.complaint(one, value).is_none());
            return (!fits).then(|| format!("{value} is none of {any:?}"));
        }
        let is = |name: &str| match name {
            "null" => value.is_null(),
            "string" => value.is_string(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            other => panic!("there is no type {other}"),
        };
        let typed = match &schema["type"] {
            Value::Null => true,
            Value::String(name) => is(name),
            names => names
                .as_array()
                .unwrap()
                .iter()
                .any(|it| is(it.as_str().unwrap())),
        };
        let listed = schema["enum"].as_array().is_none_or(|it| it.contains(value));
        let constant = schema["const"].is_null() || schema["const"] == *value;
        let least = schema["minimum"]
            .as_f64()
            .is_none_or(|it| value.as_f64().is_none_or(|value| value >= it));
        let most = schema["maximum"]
            .as_f64()
            .is_none_or(|it| value.as_f64().is_none_or(|value| value <= it));
        if !(typed && listed && constant && least && most) {
            return Some(format!("{value} is no {schema}"));
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap();
            if value.get(name).is_none() {
                return Some(format!("{name} is missing in {value}"));
            }
        }
        for (name, member) in value.as_object().into_iter().flatten() {
            let of = match schema["properties"].get(name) {
                Some(of) => of,
                // An answer has no member that the document does not list.
                None if schema["properties"].is_object() => {
                    return Some(format!("{name} is unknown in {value}"));
                }
                None if schema["additionalProperties"].is_object() => &schema["additionalProperties"],
                None => continue,
            };
            if let Some(complaint) = self.complaint(of, member) {
                return Some(format!("{name}: {complaint}"));
            }
        }
        let elements = value.as_array().into_iter().flatten();
        elements
            .filter(|_| schema["items"].is_object())
            .find_map(|element| self.complaint(&schema["items"], element))
    }
}

/// Path, method, status, error code.
type DocumentedAnswer = (String, String, u16, String);

/// Everything that the document lists. Shared responses are left out: they come from the listener,
/// and `tests/network/listener.rs` tests them.
fn documented(document: &Value) -> BTreeSet<DocumentedAnswer> {
    let mut all = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for (status, response) in operation["responses"].as_object().unwrap() {
                if response.get("$ref").is_some() {
                    continue;
                }
                let status: u16 = status.parse().unwrap();
                let codes = response["x-codes"].as_array().cloned().unwrap_or(vec![json!("")]);
                for code in codes {
                    let code = code.as_str().unwrap().to_owned();
                    all.insert((path.clone(), method.to_uppercase(), status, code));
                }
            }
        }
    }
    all
}

/// Checks answers against a document, and remembers them.
pub(crate) struct Witness {
    pub(crate) document: Value,
    seen: BTreeSet<DocumentedAnswer>,
}

impl Witness {
    pub(crate) fn of(listener: &str) -> Self {
        let answer = call("GET", &format!("{listener}/openapi.json"), &[], b"");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let document = answer.json();
        assert_eq!(document["openapi"], "3.1.0");
        Self {
            document,
            seen: BTreeSet::new(),
        }
    }

    #[track_caller]
    fn check(&mut self, method: &str, path: &str, answer: &Answer) {
        let operation = &self.document["paths"][path][method.to_lowercase()];
        let response = &operation["responses"][answer.status.to_string()];
        let text = String::from_utf8_lossy(&answer.body);
        assert!(
            response.is_object(),
            "{method} {path} gives {} {text}",
            answer.status
        );
        let schema = Schema {
            document: &self.document,
        };
        let response = schema.resolve(response);
        let media_type = answer.header("content-type").unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default();
        let of = &response["content"][media_type]["schema"];
        assert!(
            of.is_object(),
            "{method} {path}: {media_type} is not in the document"
        );
        let body = match media_type {
            "application/json" => answer.json(),
            _ => Value::from(text.as_ref()),
        };
        if let Some(complaint) = schema.complaint(of, &body) {
            panic!("{method} {path} {}: {complaint}", answer.status);
        }
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let value = answer.header(&name.to_lowercase());
            assert!(
                value.is_some() || header["required"] != true,
                "{method} {path}: {name}"
            );
        }
        let code = if answer.status < 400 {
            ""
        } else {
            body["code"].as_str().unwrap_or("")
        };
        // An example of an error has the words and the members of the real one.
        let names = |of: &Value| of.as_object().map(|it| it.keys().cloned().collect::<Vec<_>>());
        let examples = self.examples(&response["content"][media_type]);
        for example in examples
            .iter()
            .filter(|it| !code.is_empty() && it["code"] == code)
        {
            assert_eq!(example["error"], body["error"], "{method} {path}: {code}");
            assert_eq!(names(example), names(&body), "{method} {path}: {code}");
        }
        self.seen
            .insert((path.to_owned(), method.to_owned(), answer.status, code.to_owned()));
    }

    /// The examples of a media type.
    pub(crate) fn examples<'d>(&'d self, media: &'d Value) -> Vec<&'d Value> {
        let schema = Schema {
            document: &self.document,
        };
        let named = media["examples"]
            .as_object()
            .into_iter()
            .flat_map(|it| it.values());
        let mut all: Vec<_> = named.map(|it| &schema.resolve(it)["value"]).collect();
        all.extend(media.get("example"));
        all
    }

    /// Checks that a body has examples and that they fit its schema.
    pub(crate) fn check_examples(&self, what: &str, content: &Value) {
        let schema = Schema {
            document: &self.document,
        };
        for (media_type, media) in content.as_object().unwrap() {
            let examples = self.examples(media);
            assert!(!examples.is_empty(), "{what}: {media_type} has no example");
            for example in examples {
                assert_eq!(schema.complaint(&media["schema"], example), None, "{what}");
            }
        }
    }

    fn assert_complete(&self) {
        let documented = documented(&self.document);
        let unseen: Vec<_> = documented.difference(&self.seen).collect();
        assert!(unseen.is_empty(), "documented, but not served: {unseen:#?}");
    }
}

const JOB_READS: [&str; 6] = [
    "/api/v1/batch-status/{job_id}",
    "/api/v1/batch-results/{job_id}",
    "/api/v1/batch-results/{job_id}/download",
    "/api/v1/jobs/{job_id}",
    "/api/v1/jobs/{job_id}/status",
    "/api/v1/jobs/{job_id}/results",
];
const LIST: &str = "/api/v1/batch-jobs";
const LOT: &str = "/api/v1/lots/{lot_id}";
const DELIVERIES: &str = "/api/v1/jobs/{job_id}/deliveries";
const RESEND: &str = "/api/v1/jobs/{job_id}/deliveries/{delivery_id}/resend";
const TEST_EVENT: &str = "/api/v1/webhooks/test";
pub(crate) const CANCEL: &str = "/api/v1/batch-jobs/{job_id}/cancel";
const UNKNOWN_JOB: &str = "00000000-0000-4000-8000-000000000000";

fn config(limits: &str) -> String {
    format!("[batch]\nmax_wait = \"300ms\"\n[limits]\nmax_body = \"3MB\"\n{limits}")
}

impl Appliance {
    pub(crate) fn v1(&self, method: &str, target: &str, body: &[u8]) -> Answer {
        let headers = v1(KEY, method, target, body);
        call(
            method,
            &format!("{}{target}", self.api),
            &borrowed(&headers),
            body,
        )
    }
}

#[test]
fn every_client_answer_is_documented_and_every_documented_answer_is_served() {
    let mut appliance = Appliance::with(&config(""));
    let mut witness = Witness::of(&appliance.api);
    let post = |appliance: &Appliance, body: &[u8], more: &[(&'static str, String)]| {
        let mut headers = vec![("X-Signature", sign_with(KEY, body))];
        headers.extend_from_slice(more);
        appliance.post(&borrowed(&headers), body)
    };
    let send = |appliance: &Appliance, body: &Value| post(appliance, body.to_string().as_bytes(), &[]);
    let id = |answer: &Answer| answer.json()["job_id"].as_str().unwrap().to_owned();
    let at = |path: &str, job: &str| path.replace("{job_id}", job);

    // Submissions, beginning with the document's own examples.
    let examples =
        witness.document["paths"][SUBMIT]["post"]["requestBody"]["content"]["application/json"]["examples"]
            .clone();
    let schema = Value::clone(&witness.document["components"]["schemas"]["Submission"]);
    for (name, example) in examples.as_object().unwrap() {
        let of = Schema {
            document: &witness.document,
        };
        assert_eq!(of.complaint(&schema, &example["value"]), None, "{name}");
        let refused = example["summary"].as_str();
        let refused = refused.and_then(|it| it.strip_prefix("Refused: "));
        let expected = refused.unwrap_or_default();
        let answer = send(&appliance, &example["value"]);
        let code = answer.json()["code"].as_str().unwrap_or("").to_owned();
        assert_eq!(code, expected, "{name}");
        witness.check("POST", SUBMIT, &answer);
    }
    let good = submission(&appliance.lots(2), &["en", "ru"]);
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let image = |url: &str| json!([{"lot_id": "a", "images": [url]}]);
    let many: Vec<Value> = (0..50_001).map(|lot| json!({"lot_id": lot})).collect();
    for body in [
        with("version", Value::Null),
        with("version", json!("2")),
        with("lots", json!([])),
        with("lots", json!(many)),
        with("lots", image("ftp://img.example/1.jpg")),
        with("lots", json!([{"lot_id": ""}])),
        with("webhook_url", json!("ftp://client.example")),
        with("languages", json!(["?"])),
    ] {
        witness.check("POST", SUBMIT, &send(&appliance, &body));
    }
    let text = good.to_string();
    let bytes = text.as_bytes();
    witness.check("POST", SUBMIT, &post(&appliance, b"{", &[]));
    witness.check("POST", SUBMIT, &post(&appliance, &vec![b' '; 3_000_001], &[]));
    witness.check("POST", SUBMIT, &appliance.post(&[], bytes));
    witness.check("POST", SUBMIT, &appliance.post(&[("X-Signature", "00")], bytes));
    let media_type = [("Content-Type", "text/plain".to_owned())];
    witness.check("POST", SUBMIT, &post(&appliance, bytes, &media_type));
    let key = [("Idempotency-Key", "k".to_owned())];
    let completed = post(&appliance, bytes, &key);
    witness.check("POST", SUBMIT, &completed);
    witness.check("POST", SUBMIT, &post(&appliance, b"{}", &key));
    witness.check(
        "POST",
        SUBMIT,
        &appliance.v1("POST", &format!("{SUBMIT}?dry_run=true"), bytes),
    );

    // Jobs in every state.
    let completed = id(&completed);
    let failed = id(&send(
        &appliance,
        &with("lots", image(&format!("{}/no.jpg", appliance.sandbox))),
    ));
    appliance.results(&completed);
    appliance.ended(&failed);
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let running = id(&send(&appliance, &good));
    let cancelled = id(&send(&appliance, &good));
    for _ in 0..2 {
        let answer = appliance.v1("POST", &at(CANCEL, &cancelled), b"{\"reason\": \"sold\"}");
        witness.check("POST", CANCEL, &answer);
    }
    witness.check(
        "POST",
        CANCEL,
        &appliance.v1("POST", &at(CANCEL, &completed), b""),
    );
    witness.check(
        "POST",
        CANCEL,
        &appliance.v1("POST", &at(CANCEL, UNKNOWN_JOB), b""),
    );
    for body in ["{", "{\"event\": \"batch_job_completed\"}"] {
        witness.check(
            "POST",
            CANCEL,
            &appliance.v1("POST", &at(CANCEL, &running), body.as_bytes()),
        );
    }
    let unsigned = |appliance: &Appliance, method: &str, path: &str, headers: &[(&str, &str)]| {
        call(method, &format!("{}{path}", appliance.api), headers, b"")
    };
    for path in JOB_READS {
        for job in [&running, &completed, &failed, &cancelled, UNKNOWN_JOB] {
            witness.check("GET", path, &appliance.get(&at(path, job)));
        }
        let twice = [("X-Client-Id", "default"), ("X-Client-Id", "other")];
        witness.check(
            "GET",
            path,
            &unsigned(&appliance, "GET", &at(path, &completed), &twice),
        );
        if path.contains("results") {
            let answer = appliance.get(&format!("{}?limit=x", at(path, &completed)));
            witness.check("GET", path, &answer);
        }
    }
    let database = rusqlite::Connection::open(appliance.database()).unwrap();
    database
        .execute(
            "UPDATE batch_jobs SET cleaning_since = completed_at WHERE id = ?",
            [&completed],
        )
        .unwrap();
    for path in JOB_READS {
        witness.check("GET", path, &appliance.get(&at(path, &completed)));
    }
    for query in [
        "",
        "?limit=3&offset=1&status=completed",
        "?created_after=2020-01-01T00:00:00Z",
        "?limit=1&cursor=",
        "?status=done",
    ] {
        witness.check("GET", LIST, &appliance.get(&format!("{LIST}{query}")));
    }
    let lot = |id: &str| LOT.replace("{lot_id}", id);
    for path in ["LOT-0000", "LOT-0000?limit=x", "none"] {
        witness.check("GET", LOT, &appliance.get(&lot(path)));
    }
    for (method, path) in
        JOB_READS
            .map(|path| ("GET", path))
            .into_iter()
            .chain([("GET", LIST), ("GET", LOT), ("POST", CANCEL)])
    {
        let target = at(path, &completed).replace("{lot_id}", "LOT-0000");
        witness.check(method, path, &unsigned(&appliance, method, &target, &[]));
        let wrong = [("X-Signature", "00")];
        witness.check(method, path, &unsigned(&appliance, method, &target, &wrong));
    }
    check_webhooks(&appliance, &mut witness);
    let health = |appliance: &Appliance| unsigned(appliance, "GET", "/health", &[]);
    witness.check("GET", "/health", &health(&appliance));
    for path in ["/openapi.json", "/docs"] {
        witness.check("GET", path, &unsigned(&appliance, "GET", path, &[]));
    }

    // The intake is paused. Then nothing can be stored, because another connection holds the write
    // lock.
    assert_eq!(appliance.run(&["pause", "intake"]).status, 0);
    witness.check("POST", SUBMIT, &send(&appliance, &good));
    assert_eq!(appliance.run(&["resume", "intake"]).status, 0);
    {
        let mut other = rusqlite::Connection::open(appliance.database()).unwrap();
        let _held = other
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
            .unwrap();
        witness.check("POST", SUBMIT, &send(&appliance, &good));
        witness.check("POST", CANCEL, &appliance.v1("POST", &at(CANCEL, &running), b""));
        let resend = at(RESEND, &completed).replace("{delivery_id}", "1");
        witness.check("POST", RESEND, &appliance.v1("POST", &resend, b"{}"));
        let url = json!({"url": appliance.hook("full")}).to_string();
        witness.check(
            "POST",
            TEST_EVENT,
            &appliance.v1("POST", TEST_EVENT, url.as_bytes()),
        );
        witness.check("GET", "/health", &health(&appliance));
    }

    // Limits.
    appliance.kill_daemon();
    let spent = "[budgets]\ntotal = { per_day = \"0\" }";
    appliance.configure(&config(&format!("submit = 1\nread = 1\n{spent}")));
    appliance.start_daemon();
    for _ in 0..2 {
        let new = with("languages", json!(["en", "fr"]));
        witness.check("POST", SUBMIT, &send(&appliance, &new));
        witness.check("GET", LIST, &appliance.get(LIST));
        witness.check("GET", LOT, &appliance.get(&lot("LOT-0000")));
    }
    for path in JOB_READS {
        witness.check("GET", path, &appliance.get(&at(path, &completed)));
    }
    witness.check("POST", CANCEL, &appliance.v1("POST", &at(CANCEL, &running), b""));
    let list = at(DELIVERIES, &completed);
    witness.check("GET", DELIVERIES, &appliance.get(&list));
    check_test_events(&appliance, &mut witness);
    let resend = at(RESEND, &completed).replace("{delivery_id}", "1");
    witness.check("POST", RESEND, &appliance.v1("POST", &resend, b""));
    check_synchronous_jobs(&mut witness);
    witness.assert_complete();
}

/// What a client asks about its webhooks.
fn check_webhooks(appliance: &Appliance, witness: &mut Witness) {
    let mut body = submission(&appliance.lots(2), &["en"]);
    body["webhook_url"] = json!(appliance.hook("documented"));
    let job = appliance.submit(&body).json()["job_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let cancel = CANCEL.replace("{job_id}", &job);
    let list = DELIVERIES.replace("{job_id}", &job);
    let first = appliance.get(&list).json()["deliveries"][0]["id"].clone();
    let resend =
        |job: &str, delivery: &str| RESEND.replace("{job_id}", job).replace("{delivery_id}", delivery);
    let path = resend(&job, &first.to_string());
    witness.check("POST", RESEND, &appliance.v1("POST", &path, b"1"));
    assert_eq!(appliance.v1("POST", &cancel, b"").status, 200);
    wait_for("the webhook's end", || {
        let delivery = appliance.get(&list).json()["deliveries"][0].clone();
        (delivery["status"] == "delivered").then_some(())
    });
    for (target, body) in [
        (path.clone(), "2"),
        (path.clone(), "3"),
        (resend(&job, "0"), ""),
        (resend(UNKNOWN_JOB, "1"), ""),
        (path.clone(), "{"),
        (path.clone(), "{\"event\": \"batch_job_completed\"}"),
    ] {
        witness.check("POST", RESEND, &appliance.v1("POST", &target, body.as_bytes()));
    }
    let database = rusqlite::Connection::open(appliance.database()).unwrap();
    let clean = "UPDATE batch_jobs SET cleaning_since = completed_at WHERE id = ?";
    assert_eq!(database.execute(clean, [&job]), Ok(1));
    witness.check("POST", RESEND, &appliance.v1("POST", &path, b"4"));
    for target in [
        &list,
        &format!("{list}?limit=x"),
        &DELIVERIES.replace("{job_id}", UNKNOWN_JOB),
    ] {
        witness.check("GET", DELIVERIES, &appliance.get(target));
    }
    for (method, path, target) in [
        ("GET", DELIVERIES, list.as_str()),
        ("POST", RESEND, path.as_str()),
        ("POST", TEST_EVENT, TEST_EVENT),
    ] {
        let url = format!("{}{target}", appliance.api);
        let body: &[u8] = if method == "GET" { b"" } else { b"{}" };
        witness.check(method, path, &call(method, &url, &[], body));
        let wrong = [("X-Signature", "00")];
        witness.check(method, path, &call(method, &url, &wrong, body));
    }
}

/// Test events, until the limit of a minute.
fn check_test_events(appliance: &Appliance, witness: &mut Witness) {
    let url = |url: &str| json!({"url": url}).to_string();
    let good = url(&appliance.hook("tested"));
    let send = |body: &str| appliance.v1("POST", TEST_EVENT, body.as_bytes());
    for body in [
        "{",
        "{}",
        "{\"event\": \"test\"}",
        &url("ftp://client.example"),
        &good,
    ] {
        witness.check("POST", TEST_EVENT, &send(body));
    }
    assert_eq!(appliance.run(&["pause", "webhooks"]).status, 0);
    for number in 0..10 {
        let body = url(&appliance.hook(&format!("paused{number}")));
        witness.check("POST", TEST_EVENT, &send(&body));
    }
    assert_eq!(appliance.run(&["resume", "webhooks"]).status, 0);
}

/// Jobs with one lot, answered synchronously.
fn check_synchronous_jobs(witness: &mut Witness) {
    let synchronous = "[synchronous]\nenabled = true";
    let mut appliance = Appliance::with(synchronous);
    let direct = "POST /v1/responses";
    let one = |appliance: &Appliance, key: &str| {
        let keyed = [("Idempotency-Key", key.to_owned())];
        appliance.send(&submission(&appliance.lots(1), &["en"]), &keyed)
    };
    witness.check("POST", SUBMIT, &one(&appliance, "well"));
    let mut unreachable = submission(&appliance.lots(1), &["en"]);
    unreachable["lots"][0]["images"] = json!([appliance.image("no-such.jpg")]);
    witness.check("POST", SUBMIT, &appliance.submit(&unreachable));
    appliance.kill_daemon();
    appliance.configure(&format!("{synchronous}\ntimeout = \"2s\""));
    appliance.start_daemon();
    appliance.fault(&json!({"fault": "late_reply", "value": 6000, "times": 1, "match": direct}));
    let late = one(&appliance, "late");
    witness.check("POST", SUBMIT, &late);
    let job = late.json()["job_id"].as_str().unwrap().to_owned();
    let cancel = CANCEL.replace("{job_id}", &job);
    assert_eq!(appliance.v1("POST", &cancel, b"").status, 200);
    witness.check("POST", SUBMIT, &one(&appliance, "late"));
    appliance.fault(&json!({"fault": "unauthorized"}));
    witness.check("POST", SUBMIT, &one(&appliance, "refused"));
}

#[test]
fn every_operator_answer_is_documented() {
    let appliance = Appliance::start();
    let job = appliance.job(&appliance.lots(2), &["en"]);
    appliance.results(&job);
    assert_eq!(appliance.run(&["pause", "webhooks"]).status, 0);
    let mut witness = Witness::of(&appliance.ops);
    let paths: Vec<String> = witness.document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    for path in paths {
        let answer = call("GET", &format!("{}{path}", appliance.ops), &[], b"");
        witness.check("GET", &path, &answer);
        let answer = call("PUT", &format!("{}{path}", appliance.ops), &[], b"");
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
    }
    let other = rusqlite::Connection::open(appliance.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = wait_for("a new health check", || {
        let answer = call("GET", &format!("{}/health", appliance.ops), &[], b"");
        (answer.status != 200).then_some(answer)
    });
    witness.check("GET", "/health", &answer);
    witness.assert_complete();
}
