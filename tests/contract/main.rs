//! Tests of the client contract, sentence by sentence, against the real program.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

#[path = "../support/appliance/mod.rs"]
mod appliance;
#[path = "../support/pages/mod.rs"]
mod pages;

mod api_docs;
mod cancel;
mod clients;
mod deliveries;
mod idempotency;
mod images;
mod limits;
mod list;
mod lots;
mod missing_images;
mod older;
mod openapi;
mod own_fields;
mod partial;
mod read;
mod receiver;
mod reference;
mod retry;
mod signing;
mod synchronous;
mod warnings;
mod webhooks;

use appliance::{Answer, Appliance, KEY, call, now};
use batchkeeper::domain::signature::{Key, Message, SignedRequest, sign};
use serde_json::Value;

/// The path of submissions.
const SUBMIT: &str = "/api/v1/generate-descriptions";

fn sign_with(key: &str, bytes: &[u8]) -> String {
    sign(&Key::new(key).unwrap(), Message::Bytes(bytes))
}

/// The headers of signature v1 with the current time.
fn v1(key: &str, method: &str, target: &str, body: &[u8]) -> [(&'static str, String); 2] {
    v1_aged(key, method, target, body, 0)
}

/// The headers of signature v1 with a timestamp that is `age` seconds old.
fn v1_aged(key: &str, method: &str, target: &str, body: &[u8], age: i64) -> [(&'static str, String); 2] {
    let timestamp = (now().seconds() - age).to_string();
    let request = SignedRequest {
        timestamp: &timestamp,
        method,
        target,
        body,
    };
    let signature = request.sign(&Key::new(key).unwrap());
    [("X-Timestamp", timestamp), ("X-Signature", signature)]
}

fn borrowed<'h>(headers: &'h [(&'static str, String)]) -> Vec<(&'static str, &'h str)> {
    let pairs = headers.iter();
    pairs.map(|(name, value)| (*name, value.as_str())).collect()
}

impl Appliance {
    /// Sends a request with these headers.
    fn ask(&self, method: &str, target: &str, headers: &[(&'static str, String)]) -> Answer {
        let url = format!("{}{target}", self.api);
        call(method, &url, &borrowed(headers), b"")
    }

    /// Reads a job or the list, signed with signature v1.
    fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &v1(KEY, "GET", target, b""))
    }

    /// Sends a submission that is signed over its raw body, with additional headers.
    fn send(&self, body: &Value, more: &[(&'static str, String)]) -> Answer {
        let body = body.to_string();
        let mut headers = vec![("X-Signature", sign_with(KEY, body.as_bytes()))];
        headers.extend_from_slice(more);
        self.post(&borrowed(&headers), body.as_bytes())
    }

    fn jobs(&self) -> i64 {
        self.cell("SELECT count(*) FROM batch_jobs")
    }
}

/// Checks that the answer is an error in the contract's form, and returns its body.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) -> Value {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, status, "{text}");
    let body = answer.json();
    assert_eq!(body["code"], code, "{text}");
    assert!(body["error"].is_string() && body["message"].is_string() && body["details"].is_object());
    body
}

/// Checks that the submission was accepted, and returns the job's id.
#[track_caller]
fn accepted(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.json());
    answer.json()["job_id"].as_str().unwrap().to_owned()
}
