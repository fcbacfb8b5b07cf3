//! `sign`: the signature of a request, for people writing clients.

use std::io::Read;

use serde_json::json;

use super::{Command, Outcome, Refused, configuration_with_keys, say};
use crate::json::{self, Json};
use crate::signature::{Message, sign, webhook_secret};

pub(super) fn run(command: &Command) -> Outcome {
    let config = configuration_with_keys(command)?;
    let name = command.client.as_deref().unwrap_or("default");
    let client = config.clients.iter().find(|client| client.name == name);
    let keys = client.map(|client| match command.webhook_secret {
        true => client.webhook_keys(),
        false => client.keys(),
    });
    let key = keys.and_then(<[_]>::first);
    let key = key.ok_or_else(|| {
        Refused::Failed(format!("there is no client {name:?} in the configuration"))
    })?;
    if command.webhook_secret {
        let secret = webhook_secret(key);
        return say(
            command,
            &json!({"webhook_secret": secret}),
            &format!("{secret}\n"),
        );
    }
    if let Some(job) = &command.job {
        let header = sign(key, Message::Bytes(job.as_bytes()));
        return say(
            command,
            &json!({"X-Signature": header}),
            &format!("X-Signature: {header}\n"),
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
    let parsed = json::parse(&body).map_err(|error| format!("the body is no JSON: {error}"))?;
    let header = sign(key, Message::Bytes(&body));
    let mut text = format!("X-Signature: {header}\n");
    let mut both = json!({"X-Signature": header});
    if let Some(lots) = parsed
        .field("lots")
        .filter(|lots| matches!(lots, Json::Array(_)))
    {
        let field = sign(key, Message::Canonical(lots));
        text.push_str(&format!("\"signature\": \"{field}\"\n"));
        both["signature"] = json!(field);
    }
    say(command, &both, &text)
}
