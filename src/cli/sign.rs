//! `sign`: the signature of a request, for people who write clients.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::{CommandError, Outcome};
use crate::base::clock::{Clock, SystemClock};
use crate::config::{ClientConfig, Config};
use crate::domain::signature::{Key, Message, SignedRequest, sign, webhook_secret};
use crate::python_json::{self, Json};

/// The path of a submission.
const SUBMISSION: &str = "/api/v1/generate-descriptions";

/// Options of `sign`.
#[derive(Args)]
pub(super) struct SignOptions {
    /// The body of a submission; default: standard input
    file: Option<PathBuf>,
    /// Sign a read of this job instead of a submission
    #[arg(long, conflicts_with = "file")]
    job: Option<String>,
    /// Sign a GET of this path and query instead, such as /api/v1/batch-results/JOB
    #[arg(long, value_name = "TARGET", conflicts_with_all = ["file", "job"])]
    get: Option<String>,
    /// Sign a POST to this path and query; the body is FILE
    #[arg(long, value_name = "TARGET", conflicts_with_all = ["job", "get"], default_value = SUBMISSION)]
    post: String,
    /// Print the three header lines of signature v1 alone, for `curl -H @-`
    #[arg(long, conflicts_with_all = ["job", "webhook_secret"])]
    headers: bool,
    /// Print the secret with which receivers verify webhooks
    #[arg(long, conflicts_with_all = ["file", "job"])]
    webhook_secret: bool,
    /// The client whose key signs
    #[arg(long, value_name = "NAME", default_value = "default")]
    client: String,
}

pub(super) fn run(context: &Context, options: &SignOptions) -> Outcome {
    let config = context.config_with_keys()?;
    let client = find_client(&config, &options.client)?;
    if options.webhook_secret {
        let secret = webhook_secret(first_key(client, client.webhook_keys())?);
        return context
            .output
            .report(&json!({"webhook_secret": secret}), &format!("{secret}\n"));
    }
    let key = first_key(client, client.keys())?;
    if let Some(job) = &options.job {
        return sign_read(context, client, key, job);
    }
    let signed = match &options.get {
        Some(target) => SignedHeaders::sign(client, key, "GET", target, b""),
        None => {
            let body = read_body(options.file.as_deref())?;
            if options.post == SUBMISSION && !options.headers {
                return sign_submission(context, client, key, &body);
            }
            SignedHeaders::sign(client, key, "POST", &options.post, &body)
        }
    };
    match options.headers {
        true => context.output.report(&signed.to_json(), &signed.header_lines()),
        false => show_forms(context, None, None, &signed),
    }
}

fn find_client<'a>(config: &'a Config, name: &str) -> Result<&'a ClientConfig, CommandError> {
    let client = config.clients.iter().find(|client| client.name == name);
    client.ok_or_else(|| {
        let names: Vec<&str> = config.clients.iter().map(|it| it.name.as_str()).collect();
        CommandError::Failed(format!(
            "there is no client {name:?} in the configuration; name one with --client: {}",
            names.join(", ")
        ))
    })
}

fn first_key<'a>(client: &ClientConfig, keys: &'a [Key]) -> Result<&'a Key, CommandError> {
    keys.first()
        .ok_or_else(|| CommandError::Failed(format!("client {:?} has no key", client.name)))
}

fn sign_read(context: &Context, client: &ClientConfig, key: &Key, job: &str) -> Outcome {
    if client.legacy() {
        // One line, which scripts give to curl as it is.
        let header = sign(key, Message::Bytes(job.as_bytes()));
        return context.output.report(
            &json!({"X-Signature": header}),
            &format!("X-Signature: {header}\n"),
        );
    }
    let target = format!("/api/v1/batch-status/{job}");
    let v1 = SignedHeaders::sign(client, key, "GET", &target, b"");
    show_forms(context, None, None, &v1)
}

fn sign_submission(context: &Context, client: &ClientConfig, key: &Key, body: &[u8]) -> Outcome {
    let parsed = python_json::parse(body)
        .map_err(|error| CommandError::Failed(format!("the body is no JSON: {error}")))?;
    let v1 = SignedHeaders::sign(client, key, "POST", SUBMISSION, body);
    if !client.legacy() {
        return show_forms(context, None, None, &v1);
    }
    let lots = parsed
        .root()
        .field("lots")
        .filter(|lots| matches!(lots, Json::Array(_)));
    let header = sign(key, Message::Bytes(body));
    let field = lots.map(|lots| sign(key, Message::Canonical(lots)));
    show_forms(context, Some(header), field, &v1)
}

fn read_body(file: Option<&Path>) -> Result<Vec<u8>, CommandError> {
    let mut body = Vec::new();
    let Some(path) = file else {
        std::io::stdin().lock().read_to_end(&mut body)?;
        return Ok(body);
    };
    match File::open(path).and_then(|mut file| file.read_to_end(&mut body)) {
        Ok(_) => Ok(body),
        Err(error) => Err(CommandError::File {
            path: path.to_owned(),
            error,
        }),
    }
}

/// A request's headers under signature v1, and the text that is signed. `<body>` stands for the body.
struct SignedHeaders {
    client: String,
    timestamp: String,
    signature: String,
    signed: String,
}

impl SignedHeaders {
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

    fn header_lines(&self) -> String {
        format!(
            "X-Client-Id: {}\nX-Timestamp: {}\nX-Signature: {}\n",
            self.client, self.timestamp, self.signature
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "X-Client-Id": self.client, "X-Timestamp": self.timestamp,
            "X-Signature": self.signature, "signed": self.signed,
        })
    }
}

/// Prints signature v1, then the earlier service's forms if the client may use them.
fn show_forms(
    context: &Context,
    header: Option<String>,
    field: Option<String>,
    v1: &SignedHeaders,
) -> Outcome {
    let mut legacy = String::new();
    let mut all = json!({"v1": v1.to_json()});
    if let Some(header) = header {
        legacy.push_str(&format!("X-Signature: {header}\n"));
        all["X-Signature"] = json!(header);
    }
    if let Some(field) = field {
        legacy.push_str(&format!("\"signature\": \"{field}\"\n"));
        all["signature"] = json!(field);
    }
    let mut text = format!("{}signed: {}\n", v1.header_lines(), v1.signed);
    if !legacy.is_empty() {
        text.push_str(&format!("or, in the earlier service's forms:\n{legacy}"));
    }
    context.output.report(&all, &text)
}
