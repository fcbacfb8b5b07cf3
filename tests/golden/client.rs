//! The client's HTTP contract: every call and its answer in every stage of a job.

use serde_json::{Value, json};

use crate::appliance::{Appliance, KEY, call, submission, wait_for};
use crate::fixtures::Fixtures;
use crate::names::Names;
use crate::talk::{Ask, Talk};
use crate::{STEADY, SUBMIT, UNCHECKED, hand, names_of};

const OTHER_KEY: &str = "a key that only the other client has";
const UNKNOWN_JOB: &str = "00000000-0000-4000-8000-000000000000";
/// Constant texts that have the form of variable ones; no placeholder replaces them.
const FIXED: [&str; 4] = [
    UNKNOWN_JOB,
    "2020-01-01T00:00:00Z",
    "2020-01-02",
    "2026-11-24T02:24:00Z",
];

fn config(more: &str) -> String {
    format!(
        "clients = [{{name = \"default\", keys = [{KEY:?}]}}, {{name = \"other\", keys = [{OTHER_KEY:?}]}}]\n\
         limits.max_body = \"100kB\"\n{STEADY}{UNCHECKED}{more}"
    )
}

/// A request with signature v1.
fn v1(method: &str, target: &str, body: &[u8]) -> Ask {
    let headers = hand::v1_headers(KEY, method, target, body, 0);
    Ask::new(method, target).with(headers).body(body)
}

/// A read with signature v1.
fn get(target: &str) -> Ask {
    v1("GET", target, b"")
}

/// A request signed over this text, as the earlier service's clients do.
fn legacy(method: &str, target: &str, signed: &str) -> Ask {
    let signature = hand::legacy(KEY, signed.as_bytes());
    Ask::new(method, target).with(vec![("X-Signature", signature)])
}

/// A submission signed over its body, as the earlier service's clients do.
fn submit(body: &Value) -> Ask {
    post(body.to_string().as_bytes())
}

fn post(body: &[u8]) -> Ask {
    let signature = hand::legacy(KEY, body);
    let ask = Ask::new("POST", SUBMIT).with(vec![("X-Signature", signature)]);
    ask.body(body)
}

/// Three lots: one with two images, one whose Russian text the model will refuse, one without a usable image.
fn lots() -> Vec<Value> {
    vec![
        json!({"lot_id": "LOT-0001",
               "additional_info": "1990 Volvo V70, <dent> & \"scratch\", не бит 🚗",
               "images": [{"url": "https://img.example/1.jpg"}, "https://img.example/2.jpg"]}),
        json!({"lot_id": 2, "images": ["https://img.example/3.jpg", "ftp://img.example/4.jpg"]}),
        json!({"lot_id": "лот 3", "additional_info": "no photograph",
               "images": ["ftp://img.example/5.jpg"]}),
    ]
}

/// The reads of a job, in every shape.
fn read_all(talk: &mut Talk<'_>, stage: &str, job: &str) {
    for (what, target) in [
        ("status", format!("/api/v1/batch-status/{job}")),
        ("results", format!("/api/v1/batch-results/{job}")),
        ("download", format!("/api/v1/batch-results/{job}/download")),
        ("older status", format!("/api/v1/jobs/{job}/status")),
        ("older job", format!("/api/v1/jobs/{job}")),
        ("older results", format!("/api/v1/jobs/{job}/results")),
    ] {
        talk.ask(&format!("{what}, {stage}"), &get(&target));
    }
}

/// The reads of a running job.
fn read_running(talk: &mut Talk<'_>, stage: &str, job: &str) {
    for path in ["batch-status", "batch-results"] {
        let ask = get(&format!("/api/v1/{path}/{job}"));
        talk.ask(&format!("{path}, {stage}"), &ask);
    }
}

/// Submissions that are refused.
fn refusals(talk: &mut Talk<'_>) {
    let good = submission(&lots()[..1], &["en", "ru"]);
    let with = |member: &str, value: Value| {
        let mut body = good.clone();
        body[member] = value;
        submit(&body)
    };
    let lot = |lot: Value| with("lots", json!([lots()[0], lot]));
    let image = json!(["https://img.example/1.jpg"]);
    let text = good.to_string();
    let bytes = text.as_bytes();
    let header = |name: &'static str, value: &str| vec![(name, value.to_owned())];
    let stale = hand::v1_headers(KEY, "POST", SUBMIT, bytes, 301);
    let asks = [
        ("no JSON", post(b"{\"version\": \"1.0.0\",")),
        ("no object", post(b"[]")),
        (
            "another media type",
            post(bytes).with(header("Content-Type", "text/plain")),
        ),
        ("too long a body", post(&vec![b' '; 100_001])),
        ("no signature", Ask::new("POST", SUBMIT).body(bytes)),
        (
            "a wrong signature",
            Ask::new("POST", SUBMIT)
                .with(header("X-Signature", "00"))
                .body(bytes),
        ),
        (
            "an old signature",
            Ask::new("POST", SUBMIT).with(stale).body(bytes),
        ),
        (
            "another client's signature",
            post(bytes).with(header("X-Client-Id", "other")),
        ),
        (
            "an unknown client",
            post(bytes).with(header("X-Client-Id", "nobody")),
        ),
        ("an empty key", post(bytes).with(header("Idempotency-Key", ""))),
        (
            "too long a key",
            post(bytes).with(header("Idempotency-Key", &"k".repeat(256))),
        ),
        ("a webhook of ours", with("event", json!("batch_job_completed"))),
        ("no version", with("version", Value::Null)),
        ("another version", with("version", json!("2.0.0"))),
        ("languages of another type", with("languages", json!("en"))),
        ("no language", with("languages", json!([]))),
        ("a language that is none", with("languages", json!(["en", "?"]))),
        ("a language twice", with("languages", json!(["en", "EN"]))),
        ("lots of another type", with("lots", json!({}))),
        ("no lot", with("lots", json!([]))),
        ("a lot that is no object", lot(json!(7))),
        ("a lot without an id", lot(json!({"images": image}))),
        (
            "a lot with an empty id",
            lot(json!({"lot_id": "", "images": image})),
        ),
        (
            "a lot's id of another type",
            lot(json!({"lot_id": 1.5, "images": image})),
        ),
        ("a lot twice", lot(lots()[0].clone())),
        (
            "a lot's text of another type",
            lot(json!({"lot_id": "a", "additional_info": 1})),
        ),
        (
            "too long a text",
            lot(json!({"lot_id": "a", "additional_info": "ы".repeat(8193)})),
        ),
        (
            "images of another type",
            lot(json!({"lot_id": "a", "images": "https://img.example/1.jpg"})),
        ),
        ("no usable image at all", with("lots", json!([lots()[2]]))),
        ("a webhook that is no URL", with("webhook_url", json!("hook"))),
        (
            "a webhook in a private network",
            with("webhook_url", json!("http://192.168.0.1/hook")),
        ),
        (
            "a lot's webhook",
            lot(json!({"lot_id": "a", "images": image, "webhook": "ftp://a.example"})),
        ),
    ];
    for (title, ask) in asks {
        talk.ask(title, &ask);
    }
    for query in ["dry_run=maybe", "dry_run=true&dry_run=true"] {
        let target = format!("{SUBMIT}?{query}");
        let ask = v1("POST", &target, bytes);
        talk.ask(query, &ask);
    }
}

/// The listener's own errors, and unknown paths.
fn elsewhere(mut talk: Talk<'_>) -> String {
    for (method, target) in [
        ("GET", "/health"),
        ("HEAD", "/health"),
        ("GET", "/health/"),
        ("GET", "/"),
        ("GET", "/api/v2/jobs"),
        ("GET", "//health"),
        ("DELETE", "/health"),
        ("GET", SUBMIT),
        ("POST", "/api/v1/batch-jobs"),
    ] {
        talk.ask(&format!("{method} {target}"), &Ask::new(method, target));
    }
    talk.text()
}

/// Reads that are refused.
fn refused_reads(mut talk: Talk<'_>, job: &str) -> String {
    let status = format!("/api/v1/batch-status/{job}");
    let wrong = Ask::new("GET", &status).with(vec![("X-Signature", "00".to_owned())]);
    let others = legacy("GET", &status, job).with(vec![("X-Client-Id", "other".to_owned())]);
    let mut other = Ask::new("GET", &status).with(vec![("X-Client-Id", "other".to_owned())]);
    let signature = hand::legacy(OTHER_KEY, job.as_bytes());
    other.headers.push(("X-Signature", signature));
    talk.ask("no signature", &Ask::new("GET", &status));
    talk.ask("a wrong signature", &wrong);
    talk.ask("the signature of one client, the name of another", &others);
    talk.ask("another client's job", &other);
    talk.ask(
        "no such job",
        &get(&format!("/api/v1/batch-status/{UNKNOWN_JOB}")),
    );
    talk.ask("no id", &get("/api/v1/batch-status/job"));
    for query in ["limit=x", "offset=1.5", "limit=1&limit=2"] {
        let ask = get(&format!("/api/v1/batch-results/{job}?{query}"));
        talk.ask(query, &ask);
    }
    talk.text()
}

/// The list of jobs.
fn list(mut talk: Talk<'_>) -> String {
    const LIST: &str = "/api/v1/batch-jobs";
    for query in [
        "",
        "?limit=1",
        "?limit=1&offset=1",
        "?limit=0&offset=-1",
        "?limit=1000&offset=99999999999999999999",
        "?status=completed",
        "?status=&created_before=",
        "?created_after=2020-01-01T00:00:00Z&created_before=2020-01-02",
        "?status=done",
        "?limit=many",
        "?created_after=yesterday",
        "?limit=1&limit=1",
    ] {
        let ask = get(&format!("{LIST}{query}"));
        talk.ask(&format!("list {query}"), &ask);
    }
    let signed = legacy("GET", "/api/v1/batch-jobs?limit=1", "/api/v1/batch-jobs?limit=1");
    talk.ask("signed as earlier", &signed);
    talk.ask("no signature", &Ask::new("GET", LIST));
    talk.ask("no body", &v1("HEAD", LIST, b""));
    talk.text()
}

/// Has the operator's command run.
fn operator(appliance: &Appliance, arguments: &[&str]) {
    let ran = appliance.run(arguments);
    assert_eq!(ran.status, 0, "{}{}", ran.out, ran.err);
}

/// Waits until the newest batch of a job stands so.
fn batch_is(appliance: &Appliance, job: &str, status: &str, state: &str) {
    wait_for(&format!("a {state} batch of a {status} job"), || {
        let found = appliance.status(job);
        let batches = found["openai_batch_ids"].as_array().unwrap();
        let last = batches.last().is_some_and(|it| it["state"] == state);
        (last && found["status"] == status).then_some(())
    });
}

/// The conversations about jobs.
struct Talks<'n> {
    submissions: Talk<'n>,
    polls: Talk<'n>,
    cancels: Talk<'n>,
}

impl<'n> Talks<'n> {
    fn with(listener: &str, names: &'n Names) -> Self {
        Self {
            submissions: Talk::with(listener, names),
            polls: Talk::with(listener, names),
            cancels: Talk::with(listener, names),
        }
    }

    /// Two jobs are submitted. Nothing is sent to OpenAI yet. Gives their ids.
    fn submit(&mut self, appliance: &Appliance) -> [String; 2] {
        let talk = &mut self.submissions;
        let mut body = submission(&lots(), &["en", "ru"]);
        talk.ask("a dry run before any job", &dry_run(&body));
        operator(appliance, &["pause", "submissions"]);
        body["webhook_url"] = json!(appliance.hook("completed"));
        body["lots"][1]["webhook"] = json!(appliance.hook("own"));
        let key = || vec![("Idempotency-Key", "order 7 № 1".to_owned())];
        let first = submit(&body).with(key());
        let completed = talk.submit("a submission with a key", &first, "completed");
        talk.ask("the same again", &first);
        let other = submit(&json!({})).with(key());
        talk.ask("another body with that key", &other);
        body["webhook_url"] = json!(appliance.hook("cancelled"));
        body["lots"][1]["webhook"] = Value::Null;
        let second = v1("POST", SUBMIT, body.to_string().as_bytes());
        let cancelled = talk.submit("a submission with signature v1", &second, "cancelled");
        talk.ask("the same signature again", &second);
        refusals(talk);
        read_all(&mut self.polls, "pending", &completed);
        [completed, cancelled]
    }

    /// Cancels the second job.
    fn cancel(&mut self, job: &str) {
        let talk = &mut self.cancels;
        let target = format!("/api/v1/batch-jobs/{job}/cancel");
        let post = |body: &str| v1("POST", &target, body.as_bytes());
        talk.ask("no signature", &Ask::new("POST", &target));
        talk.ask("another method", &get(&target));
        talk.ask("a webhook of ours", &post("{\"event\": \"batch_job_completed\"}"));
        talk.ask("no JSON", &post("{"));
        talk.ask("signed as earlier", &legacy("POST", &target, job));
        talk.ask("once more", &post("{\"reason\": \"sold\"}"));
        let unknown = format!("/api/v1/batch-jobs/{UNKNOWN_JOB}/cancel");
        talk.ask("no such job", &v1("POST", &unknown, b""));
        read_all(&mut self.polls, "cancelled", job);
    }

    /// Takes the first job through every stage. The first attempt of its webhook fails.
    fn complete(&mut self, appliance: &Appliance, job: &str) {
        appliance.fault(&json!({"fault": "stall_in_progress"}));
        operator(appliance, &["resume", "submissions"]);
        batch_is(appliance, job, "processing", "running");
        read_running(&mut self.polls, "processing", job);

        // The descriptions arrive; the translations wait.
        operator(appliance, &["pause", "submissions"]);
        appliance.clear_faults();
        batch_is(appliance, job, "translating", "completed");
        read_running(&mut self.polls, "translating", job);

        let refuses = json!({"fault": "refusal_line", "match": "_1_ru$"});
        let fails = json!({"fault": "hook_status", "match": "POST /hooks/completed", "times": 1});
        appliance.fault(&refuses);
        appliance.fault(&fails);
        operator(appliance, &["resume", "submissions"]);
        appliance.ended(job);
        appliance.wait_until_ingested();
        read_all(&mut self.polls, "completed", job);
        self.read_pages(job);
        let target = format!("/api/v1/batch-jobs/{job}/cancel");
        self.cancels.ask("a completed job", &v1("POST", &target, b""));
    }

    /// Pages of results, and other forms of signatures.
    fn read_pages(&mut self, job: &str) {
        let results = format!("/api/v1/batch-results/{job}");
        for query in [
            "limit=1",
            "limit=1&offset=1",
            "offset=2",
            "limit=0&offset=-1",
            "offset=3",
        ] {
            let ask = get(&format!("{results}?{query}"));
            self.polls.ask(&format!("results, {query}"), &ask);
        }
        for (title, ask) in [
            ("results, signed as earlier", legacy("GET", &results, job)),
            ("results, signed over nothing", legacy("GET", &results, "")),
            ("results, no body", v1("HEAD", &results, b"")),
        ] {
            self.polls.ask(title, &ask);
        }
    }

    /// Lets a third job fail, and returns its id.
    fn fail(&mut self, appliance: &Appliance) -> String {
        let mut body = submission(&lots()[1..], &["en", "ru"]);
        body["lots"][0]["images"] = json!(["https://img.example/missing.jpg"]);
        body["webhook_url"] = json!(appliance.hook("failed"));
        let ask = submit(&body);
        let failed = self
            .submissions
            .submit("a submission that will fail", &ask, "failed");
        appliance.ended(&failed);
        appliance.wait_until_ingested();
        read_all(&mut self.polls, "failed", &failed);
        let body = submission(&lots(), &["en", "ru", "de"]);
        self.submissions.ask("a dry run after a job", &dry_run(&body));
        failed
    }
}

/// A dry run of a submission.
fn dry_run(body: &Value) -> Ask {
    let target = format!("{SUBMIT}?dry_run=true");
    v1("POST", &target, body.to_string().as_bytes())
}

#[test]
fn the_calls_of_a_client() {
    let mut appliance = Appliance::with(&config(""));
    let names = names_of(&appliance);
    for text in FIXED {
        names.keep(text);
    }
    let mut fixtures = Fixtures::of("client");
    let document = call("GET", &format!("{}/openapi.json", appliance.api), &[], b"");
    fixtures.add("openapi.json", String::from_utf8(document.body).unwrap());

    let mut talks = Talks::with(&appliance.api, &names);
    let [completed, cancelled] = talks.submit(&appliance);
    talks.cancel(&cancelled);
    talks.complete(&appliance, &completed);
    let failed = talks.fail(&appliance);
    let talk = || Talk::with(&appliance.api, &names);
    fixtures.add("refused-reads.txt", refused_reads(talk(), &completed));
    fixtures.add("list.txt", list(talk()));
    fixtures.add("elsewhere.txt", elsewhere(talk()));
    for (hook, job, event, count) in [
        ("completed", &completed, "batch_job_completed", 2),
        ("own", &completed, "batch_job_completed", 1),
        ("cancelled", &cancelled, "batch_job_cancelled", 1),
        ("failed", &failed, "batch_job_failed", 1),
    ] {
        let id = hand::webhook_id(job, event, &appliance.hook(hook));
        let deliveries = appliance.delivered(hook, count);
        assert_eq!(deliveries.len(), count, "{hook}");
        let texts = deliveries.iter().map(|it| webhook(&names, it, &id));
        fixtures.add(&format!("webhook-{hook}.txt"), texts.collect::<String>());
    }

    // The results are removed, as after their retention time.
    let database = rusqlite::Connection::open(appliance.database()).unwrap();
    let removed = database.execute("UPDATE batch_jobs SET cleaning_since = completed_at", []);
    assert_eq!(removed, Ok(3));
    for (job, what) in [
        (&completed, "completed"),
        (&cancelled, "cancelled"),
        (&failed, "failed"),
    ] {
        read_all(&mut talks.polls, &format!("{what} and removed"), job);
    }
    fixtures.add("polls.txt", talks.polls.text());
    fixtures.add("cancel.txt", talks.cancels.text());
    fixtures.add("submit.txt", talks.submissions.text());
    fixtures.add("limits.txt", limits(&mut appliance, &names, &completed));
    fixtures.check();
}

/// The answers when a limit is reached.
fn limits(appliance: &mut Appliance, names: &Names, job: &str) -> String {
    let body = submission(&lots(), &["en", "fr"]);
    let mut talk = Talk::with(&appliance.api, names);
    operator(appliance, &["pause", "intake"]);
    talk.ask("the intake is paused", &submit(&body));
    operator(appliance, &["resume", "intake"]);
    let mut text = talk.text();

    let spent = "limits.submit = 1\nlimits.read = 1\nbudgets.total = { per_day = \"0\" }";
    let mut talk = restarted(appliance, names, spent);
    talk.ask("more than the budget", &submit(&body));
    talk.ask("more submissions than are taken", &submit(&body));
    let status = format!("/api/v1/batch-status/{job}");
    talk.ask("a read", &get(&status));
    talk.ask("more reads than are taken", &get(&status));
    text.push_str(&talk.text());

    let one = "limits.lots_per_day = 1\nbudgets.show_costs = true";
    let mut talk = restarted(appliance, names, one);
    talk.ask("a status with costs", &get(&status));
    // Today's lots are those of another client.
    let body = body.to_string();
    let signature = hand::legacy(OTHER_KEY, body.as_bytes());
    let headers = vec![("X-Client-Id", "other".to_owned()), ("X-Signature", signature)];
    let ask = Ask::new("POST", SUBMIT).with(headers).body(body.as_bytes());
    talk.ask("more lots than a day may have", &ask);
    text + &talk.text()
}

/// Restarts the daemon with this configuration.
fn restarted<'n>(appliance: &mut Appliance, names: &'n Names, with: &str) -> Talk<'n> {
    appliance.kill_daemon();
    appliance.configure(&config(with));
    appliance.start_daemon();
    Talk::with(&appliance.api, names)
}

/// A webhook delivery. Its signatures are computed again by `hand.rs`: a placeholder replaces a
/// correct one.
fn webhook(names: &Names, delivery: &Value, id: &str) -> String {
    let body = delivery["body"].as_str().unwrap();
    let mut text = format!("POST {}\n", delivery["path"].as_str().unwrap());
    let headers: Vec<(String, String)> = serde_json::from_value(delivery["headers"].clone()).unwrap();
    let value = |name: &str| {
        let mut found = headers.iter().filter(|(known, _)| known == name);
        found.next().unwrap().1.as_str()
    };
    let timestamp = value("webhook-timestamp");
    let standard = hand::standard_webhook(KEY, id, timestamp, body.as_bytes());
    let right = [
        (
            "x-signature",
            hand::legacy(KEY, body.as_bytes()),
            "<hex of HMAC-SHA256 over the body>",
        ),
        (
            "webhook-signature",
            standard,
            "<v1 and base64 of HMAC-SHA256 over id, timestamp and body>",
        ),
        ("webhook-id", id.to_owned(), "<id of job, event and URL>"),
        ("webhook-timestamp", timestamp.to_owned(), "<timestamp>"),
    ];
    for (name, value) in &headers {
        let known = right
            .iter()
            .find(|(known, expected, _)| known == name && expected == value);
        let value = known.map_or(value.as_str(), |(_, _, placeholder)| placeholder);
        text.push_str(&format!("{name}: {value}\n"));
    }
    names.plain(&format!("{text}\n{body}\n\n"))
}
