//! The simulated OpenAI, called through its HTTP handler, and the helpers of these tests.
#![allow(
    clippy::unwrap_used,
    reason = "clippy does not count the helpers of an integration test as tests"
)]

mod faults;
mod half_broken;
mod life;
mod strict;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use batchkeeper::base::clock::{Clock, Moment, Timestamp};
use batchkeeper::http::{Handler, Request};
use batchkeeper::sandbox::{
    Latencies, Pace, ProjectKey, Sandbox, SandboxSettings, UnknownFile, expected_description,
    expected_translation,
};
use serde_json::{Value, json};

const START: i64 = 1_795_400_000_000;

/// A clock that moves only when a test moves it.
struct Stopped(AtomicI64);

impl Clock for Stopped {
    fn now(&self) -> Moment {
        let millis = self.0.load(Ordering::SeqCst);
        Moment {
            wall: Timestamp::from_millis(millis),
            steady: Duration::from_millis(u64::try_from(millis - START).unwrap()),
        }
    }
}

/// A sandbox, its clock, and a client that calls its handler.
struct World {
    sandbox: Sandbox,
    clock: Arc<Stopped>,
    calls: AtomicU64,
    key: &'static str,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    bytes: Vec<u8>,
    broken: bool,
}

impl Answer {
    fn json(&self) -> Value {
        assert!(!self.broken, "the connection broke");
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.bytes)))
    }

    fn error(&self) -> (u16, String, String) {
        let error = self.json()["error"].clone();
        let text = |name: &str| error[name].as_str().unwrap_or("").to_owned();
        (self.status, text("code"), text("param"))
    }
}

fn second() -> Latencies {
    Latencies {
        validating: 1_000,
        in_progress: 10_000,
        finalizing: 1_000,
        cancel: 606_000,
        expire: 605_000,
    }
}

fn settings() -> SandboxSettings {
    SandboxSettings {
        pace: Pace::Fixed(second()),
        api_keys: [("sk-a", "proj_a"), ("sk-b", "proj_b")]
            .map(|(key, project)| ProjectKey {
                key: key.into(),
                project: project.into(),
            })
            .to_vec(),
        ..SandboxSettings::default()
    }
}

impl World {
    fn new(folder: &Path) -> Self {
        Self::with(folder, settings())
    }

    fn with(folder: &Path, settings: SandboxSettings) -> Self {
        Self::at(folder, settings, START)
    }

    fn at(folder: &Path, settings: SandboxSettings, millis: i64) -> Self {
        let clock = Arc::new(Stopped(AtomicI64::new(millis)));
        let sandbox = Sandbox::open(folder, settings, Arc::clone(&clock) as Arc<dyn Clock>);
        Self {
            sandbox: sandbox.unwrap(),
            clock,
            calls: AtomicU64::new(0),
            key: "sk-a",
        }
    }

    fn wait(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let mut all = vec![("authorization".to_owned(), format!("Bearer {}", self.key))];
        all.extend(headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let response = self.sandbox.handle(Request {
            method: method.into(),
            path: path.into(),
            query,
            headers: all,
            body: body.to_vec(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            id: self.calls.fetch_add(1, Ordering::SeqCst).to_string(),
        });
        let (status, headers) = (response.status, response.headers.clone());
        let mut bytes = Vec::new();
        let broken = response.into_reader().read_to_end(&mut bytes).is_err();
        Answer {
            status,
            headers,
            bytes,
            broken,
        }
    }

    fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"")
    }

    fn post(&self, target: &str, body: &Value) -> Answer {
        self.send("POST", target, &[], body.to_string().as_bytes())
    }

    fn upload_parts(&self, parts: &[(&str, &str)], filename: &str, content: &[u8]) -> Answer {
        let mut body = Vec::new();
        for (name, value) in parts {
            body.extend(
                format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes(),
            );
        }
        body.extend(
            format!("--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\n\r\n")
                .bytes(),
        );
        body.extend(content);
        body.extend(b"\r\n--XX--\r\n");
        let kind = ("content-type", "multipart/form-data; boundary=XX");
        self.send("POST", "/v1/files", &[kind], &body)
    }

    fn upload(&self, content: &str) -> String {
        let answer = self.upload_parts(&[("purpose", "batch")], "in.jsonl", content.as_bytes());
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    fn create(&self, file: &str, token: &str) -> Answer {
        self.post("/v1/batches", &new_batch(file, token))
    }

    /// Uploads lines and creates a batch of them.
    fn batch(&self, lines: &str, token: &str) -> String {
        let answer = self.create(&self.upload(lines), token);
        assert_eq!(answer.status, 200);
        answer.json()["id"].as_str().unwrap().to_owned()
    }

    fn poll(&self, batch: &str) -> Value {
        self.get(&format!("/v1/batches/{batch}")).json()
    }

    /// The lines of a result file; empty if the batch has no such file.
    fn results(&self, batch: &Value, member: &str) -> Vec<Value> {
        let Some(id) = batch[member].as_str().filter(|id| !id.is_empty()) else {
            return Vec::new();
        };
        let answer = self.get(&format!("/v1/files/{id}/content"));
        assert_eq!((answer.status, answer.broken), (200, false));
        answer
            .bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    fn fault(&self, fault: Value) {
        assert_eq!(self.post("/sandbox/faults", &fault).status, 200);
    }

    fn state(&self) -> Value {
        self.get("/sandbox/state").json()
    }
}

fn new_batch(file: &str, token: &str) -> Value {
    json!({"input_file_id": file, "endpoint": "/v1/responses", "completion_window": "24h",
        "metadata": {"submission": token}})
}

fn vision_body(text: &str, images: &[&str]) -> Value {
    let mut content = vec![json!({"type": "input_text", "text": text})];
    content.extend(
        images
            .iter()
            .map(|url| json!({"type": "input_image", "image_url": url, "detail": "low"})),
    );
    json!({"model": "gpt-6-luna", "instructions": "Describe the damage.",
        "input": [{"role": "user", "content": content}], "max_output_tokens": 2048,
        "reasoning": {"effort": "none"}, "text": {"format": {"type": "text"}}})
}

fn line(custom_id: &str, body: &Value) -> String {
    json!({"custom_id": custom_id, "method": "POST", "url": "/v1/responses", "body": body}).to_string()
}

fn vision_lines(count: usize) -> String {
    let mut lines = String::new();
    for number in 0..count {
        let body = vision_body(&format!("lot {number}"), &["http://h/images/truck.jpg"]);
        writeln!(lines, "{}", line(&format!("v_{number}"), &body)).unwrap();
    }
    lines
}

/// The text of an answer, by the rule of the contract: all parts of the final message items.
fn text_of(line: &Value) -> String {
    line["response"]["body"]["output"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["type"] == "message" && item["phase"] == "final_answer")
        .flat_map(|item| item["content"].as_array().unwrap())
        .filter_map(|part| part["text"].as_str())
        .collect()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
