//! `sign`: the signature of a request, for people writing clients.

use std::io::Read;

use serde_json::json;

use super::{Command, Outcome, Refused, configuration_with_keys, say};
use crate::base::clock::{Clock, SystemClock};
use crate::config::ClientConfig;
use crate::domain::signature::{Key, Message, SignedRequest, sign, webhook_secret};
use crate::python_json::{self, Json};

/// Where a submission is sent to.
const SUBMISSION: &str = "/api/v1/generate-descriptions";

pub(super) fn run(command: &Command) -> Outcome {
    let config = configuration_with_keys(command)?;
    let name = command.client.as_deref().unwrap_or("default");
    let client = config.clients.iter().find(|client| client.name == name);
    let client = client.ok_or_else(|| {
        let names: Vec<&str> = config.clients.iter().map(|it| it.name.as_str()).collect();
        Refused::Failed(format!(
            "there is no client {name:?} in the configuration; name one with --client: {}",
            names.join(", ")
        ))
    })?;
    let keys = match command.webhook_secret {
        true => client.webhook_keys(),
        false => client.keys(),
    };
    let key = keys
        .first()
        .ok_or_else(|| Refused::Failed(format!("client {name:?} has no key")))?;
    if command.webhook_secret {
        let secret = webhook_secret(key);
        return say(
            command,
            &json!({"webhook_secret": secret}),
            &format!("{secret}\n"),
        );
    }
    if let Some(job) = &command.job {
        if client.legacy() {
            // One line, which scripts give to curl as it is.
            let header = sign(key, Message::Bytes(job.as_bytes()));
            return say(
                command,
                &json!({"X-Signature": header}),
                &format!("X-Signature: {header}\n"),
            );
        }
        let target = format!("/api/v1/batch-status/{job}");
        return show_forms(
            command,
            None,
            None,
            &V1::sign(client, key, "GET", &target, b""),
        );
    }
    let mut body = Vec::new();
    match command.operands.first() {
        Some(path) => {
            std::fs::File::open(path)
                .map_err(|error| format!("{path}: {error}"))?
                .read_to_end(&mut body)?;
        }
        None => {
            std::io::stdin().lock().read_to_end(&mut body)?;
        }
    }
    let parsed =
        python_json::parse(&body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let lots = parsed
        .field("lots")
        .filter(|lots| matches!(lots, Json::Array(_)));
    let v1 = V1::sign(client, key, "POST", SUBMISSION, &body);
    if !client.legacy() {
        return show_forms(command, None, None, &v1);
    }
    let header = sign(key, Message::Bytes(&body));
    let field = lots.map(|lots| sign(key, Message::Canonical(lots)));
    show_forms(command, Some(header), field, &v1)
}

/// A request's headers under signature v1, and what is signed; `<body>` stands for the body.
struct V1 {
    client: String,
    timestamp: String,
    signature: String,
    signed: String,
}

impl V1 {
    fn sign(client: &ClientConfig, key: &Key, method: &str, target: &str, body: &[u8]) -> Self {
        let timestamp = SystemClock::new().now().wall.seconds().to_string();
        let request = SignedRequest {
            timestamp: &timestamp,
            method,
            target,
            body,
        };
        let end = if body.is_empty() { "" } else { "<body>" };
        Self {
            client: client.name.clone(),
            signature: request.sign(key),
            signed: format!("{timestamp}.{method}.{target}.{end}"),
            timestamp,
        }
    }
}

/// The earlier service's forms, where the client may use them, and signature v1.
fn show_forms(
    command: &Command,
    header: Option<String>,
    field: Option<String>,
    v1: &V1,
) -> Outcome {
    let mut text = String::new();
    let mut all = json!({"v1": {
        "X-Client-Id": v1.client, "X-Timestamp": v1.timestamp, "X-Signature": v1.signature, "signed": v1.signed,
    }});
    if let Some(header) = header {
        text.push_str(&format!("X-Signature: {header}\n"));
        all["X-Signature"] = json!(header);
    }
    if let Some(field) = field {
        text.push_str(&format!("\"signature\": \"{field}\"\n"));
        all["signature"] = json!(field);
    }
    if !text.is_empty() {
        text.push_str("or, as signature v1:\n");
    }
    text.push_str(&format!(
        "X-Client-Id: {}\nX-Timestamp: {}\nX-Signature: {}\nsigned: {}\n",
        v1.client, v1.timestamp, v1.signature, v1.signed
    ));
    say(command, &all, &text)
}
