//! The client of the demo, and what it prints.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::never;
use serde_json::{Value, json};

use super::display::Display;
use super::process::DaemonProcess;
use super::{CommandError, KEY, LANGUAGES, print};
use crate::base::clock::Clock;
use crate::domain::signature::{Key, Message, ReceivedWebhook, sign, webhook_secret};
use crate::outbound::LocalClient;
use crate::store::{Store, inspect};

/// How long the demo waits for its job and webhook.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The time between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How long the sandbox keeps the answer to the first create back, in milliseconds.
const KEPT_BACK_MS: u64 = 5_000;
/// The largest response that is read, in bytes.
const MAX_ANSWER: u64 = 50_000_000;
/// The lots. `SOURCES.md` says where they come from.
const LOTS: &str = include_str!("lots.json");

/// Addresses and files of the demo.
pub(super) struct Demo {
    pub api: String,
    pub sandbox: String,
    pub database: PathBuf,
    pub clock: Arc<dyn Clock>,
    pub display: Display,
}

/// Sends the job, kills the daemon in the middle of a create, polls the job, and verifies what came of it.
pub(super) fn run(demo: &Demo, daemon: &mut DaemonProcess) -> Result<(), CommandError> {
    let key = Key::new(KEY).map_err(|error| error.to_string())?;
    let caller = LocalClient::new();
    wait_for_daemon(demo, &caller, daemon)?;
    delay_first_create(demo, &caller)?;
    let job = submit(demo, &caller, &key)?;
    kill_during_create(demo, &caller, daemon)?;
    watch(demo, &caller, &key, &job)?;
    verify_webhook(demo, &caller, &key, &job)?;
    show_descriptions(demo, &caller, &key, &job)?;
    show_queries(demo, &job)
}

fn wait_for_daemon(
    demo: &Demo,
    caller: &LocalClient,
    daemon: &mut DaemonProcess,
) -> Result<(), CommandError> {
    let url = format!("{}/health", demo.api);
    wait_for(demo, "the daemon's start", || match daemon.has_ended() {
        true => Err("the daemon does not start".to_owned().into()),
        false => Ok(caller.get(&url, &[], MAX_ANSWER).ok().map(drop)),
    })
}

/// Lets the sandbox make the first batch and keep its answer back.
fn delay_first_create(demo: &Demo, caller: &LocalClient) -> Result<(), CommandError> {
    let rule = json!({"fault": "late_reply", "match": "POST /v1/batches", "times": 1, "value": KEPT_BACK_MS});
    let url = format!("{}/sandbox/faults", demo.sandbox);
    let (status, answer) = caller
        .post(&url, &[], rule.to_string().as_bytes(), MAX_ANSWER)
        .map_err(|error| format!("{url}: {error}"))?;
    match status {
        200 => Ok(()),
        _ => Err(format!(
            "the sandbox refuses the fault: {}",
            String::from_utf8_lossy(&answer)
        )
        .into()),
    }
}

/// Kills the daemon after OpenAI has made the first batch, and before it has said so. Starts it again.
fn kill_during_create(
    demo: &Demo,
    caller: &LocalClient,
    daemon: &mut DaemonProcess,
) -> Result<(), CommandError> {
    let url = format!("{}/sandbox/state", demo.sandbox);
    wait_for(demo, "the first batch", || {
        let (_, state) = get(caller, &url, &[])?;
        let creates = state.get("creates").and_then(Value::as_u64);
        Ok(creates.filter(|creates| *creates > 0))
    })?;
    daemon.kill()?;
    demo.display.line(
        "SIGKILL",
        "the daemon is dead: OpenAI has made a batch, and no answer with its id has arrived",
    )?;
    daemon.start()?;
    wait_for_daemon(demo, caller, daemon)?;
    demo.display.line(
        "restart",
        "the daemon looks for its batch in OpenAI's list before it sends anything",
    )
}

fn say(text: &str) -> Result<(), CommandError> {
    print(&format!("{text}\n")).map(drop)
}

fn submit(demo: &Demo, caller: &LocalClient, key: &Key) -> Result<String, CommandError> {
    let mut lots: Value = serde_json::from_str(LOTS).map_err(|error| format!("the demo's lots: {error}"))?;
    let images = lots
        .as_array_mut()
        .into_iter()
        .flatten()
        .filter_map(|lot| lot.get_mut("images")?.as_array_mut());
    for image in images.flatten() {
        let path = image.get("url").and_then(Value::as_str).unwrap_or_default();
        *image = json!({"url": format!("{}{path}", demo.sandbox)});
    }
    let number = lots.as_array().map_or(0, Vec::len);
    let body = json!({
        "version": "1.0.0",
        "languages": LANGUAGES,
        "webhook_url": format!("{}/hooks/demo", demo.sandbox),
        "lots": lots,
    });
    let body = body.to_string();
    let signature = sign(key, Message::Bytes(body.as_bytes()));
    let url = format!("{}/api/v1/generate-descriptions", demo.api);
    let (status, answer) = caller
        .post(&url, &[("X-Signature", &signature)], body.as_bytes(), MAX_ANSWER)
        .map_err(|error| format!("the job was not taken: {error}"))?;
    let answer = parse(&answer)?;
    match (status, answer.get("job_id").and_then(Value::as_str)) {
        (201, Some(job)) => {
            let languages = LANGUAGES.join(", ");
            demo.display.line(
                "job",
                &format!("{job}: {number} lots in {languages}, signed, stored"),
            )?;
            Ok(job.to_owned())
        }
        _ => Err(format!("the job was refused with {status}: {answer}").into()),
    }
}

fn parse(body: &[u8]) -> Result<Value, CommandError> {
    Ok(serde_json::from_slice(body).map_err(|error| format!("an answer is no JSON: {error}"))?)
}

pub(super) fn get(
    caller: &LocalClient,
    url: &str,
    headers: &[(&str, &str)],
) -> Result<(u16, Value), CommandError> {
    let (status, body) = caller
        .get(url, headers, MAX_ANSWER)
        .map_err(|error| format!("{url}: {error}"))?;
    Ok((status, parse(&body)?))
}

/// Polls `look` until it returns a value.
fn wait_for<T>(
    demo: &Demo,
    what: &str,
    mut look: impl FnMut() -> Result<Option<T>, CommandError>,
) -> Result<T, CommandError> {
    let started = demo.clock.now().steady;
    while demo.clock.now().steady.saturating_sub(started) < TIMEOUT {
        if let Some(found) = look()? {
            return Ok(found);
        }
        // The channel never receives a message, so this only waits.
        never::<()>().recv_timeout(POLL_INTERVAL).ok();
    }
    Err(format!("{what} did not come within {TIMEOUT:?}").into())
}

fn watch(demo: &Demo, caller: &LocalClient, key: &Key, job: &str) -> Result<(), CommandError> {
    let url = format!("{}/api/v1/batch-status/{job}", demo.api);
    let signature = sign(key, Message::Bytes(job.as_bytes()));
    wait_for(demo, "the job's end", || {
        let (_, status) = get(caller, &url, &[("X-Signature", &signature)])?;
        let text = |pointer: &str| status.pointer(pointer).map(Value::to_string).unwrap_or_default();
        let batches = status
            .get("openai_batch_ids")
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        let line = format!(
            "{:13} {:>3} of {} lots, batches at OpenAI: {batches}",
            text("/status").trim_matches('"'),
            text("/progress/processed_lots"),
            text("/progress/total_lots"),
        );
        demo.display.progress("progress", &line)?;
        match status.get("status").and_then(Value::as_str) {
            Some("completed") => Ok(Some(())),
            Some("failed" | "cancelled") => Err(format!("the job came to nothing: {status}").into()),
            _ => Ok(None),
        }
    })
}

fn verify_webhook(demo: &Demo, caller: &LocalClient, key: &Key, job: &str) -> Result<(), CommandError> {
    let url = format!("{}/sandbox/hooks/demo", demo.sandbox);
    let delivery = wait_for(demo, "the webhook", || {
        let (_, hooks) = get(caller, &url, &[])?;
        Ok(hooks.pointer("/deliveries/0").cloned())
    })?;
    let header = |name: &str| {
        let headers = delivery
            .get("headers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let found = headers.filter_map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)));
        found
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .next()
            .unwrap_or_default()
    };
    let body = delivery.get("body").and_then(Value::as_str).unwrap_or_default();
    if header("x-signature") != sign(key, Message::Bytes(body.as_bytes())) {
        return Err("the webhook's X-Signature does not hold".to_owned().into());
    }
    let (id, timestamp, signature) = (
        header("webhook-id"),
        header("webhook-timestamp"),
        header("webhook-signature"),
    );
    let received = ReceivedWebhook {
        id: &id,
        timestamp: &timestamp,
        signature: &signature,
        body: body.as_bytes(),
    };
    received
        .verify(&webhook_secret(key), demo.clock.now().wall)
        .map_err(|error| format!("the webhook's Standard Webhooks signature does not hold: {error}"))?;
    let notified = parse(body.as_bytes())?;
    let lots = notified.get("lots").and_then(Value::as_array).map_or(0, Vec::len);
    if notified.get("job_id").and_then(Value::as_str) != Some(job) || lots == 0 {
        return Err(format!("the webhook is about another job: {notified}").into());
    }
    let text = format!("{id} received: both signatures hold, {lots} lots in it");
    demo.display.line("webhook", &text)
}

fn show_descriptions(demo: &Demo, caller: &LocalClient, key: &Key, job: &str) -> Result<(), CommandError> {
    let url = format!("{}/api/v1/batch-results/{job}", demo.api);
    let signature = sign(key, Message::Bytes(job.as_bytes()));
    let (_, results) = get(caller, &url, &[("X-Signature", &signature)])?;
    let lots = results
        .pointer("/results/lots")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let texts = |lot: &Value| {
        let descriptions = lot
            .get("descriptions")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        descriptions
            .iter()
            .filter_map(|it| {
                Some((
                    it.get("language")?.clone(),
                    it.get("damages")?.as_str()?.to_owned(),
                ))
            })
            .collect::<Vec<_>>()
    };
    let described = lots
        .iter()
        .filter(|lot| texts(lot).len() == LANGUAGES.len())
        .count();
    let text = format!(
        "{described} of {} lots described in {} languages",
        lots.len(),
        LANGUAGES.len()
    );
    demo.display.line("results", &text)?;
    for lot in lots.iter().take(3) {
        say(&format!(
            "\n  lot {}",
            lot.get("lot_id").and_then(Value::as_str).unwrap_or_default()
        ))?;
        for (language, text) in texts(lot) {
            let start: String = text.chars().take(150).collect();
            say(&format!(
                "    {}  {start}…",
                language.as_str().unwrap_or_default()
            ))?;
        }
    }
    if described == lots.len() && described > 0 {
        Ok(())
    } else {
        Err("some lots lack a description".to_owned().into())
    }
}

fn show_queries(demo: &Demo, job: &str) -> Result<(), CommandError> {
    let store = Store::open(&demo.database, demo.clock.now().wall).map_err(|error| error.to_string())?;
    for sql in inspect::operator_queries(job) {
        let table = store
            .read(|view| inspect::table(view, &sql, []))
            .map_err(|error| error.to_string())?;
        say(&format!("\nsqlite> {sql}"))?;
        for row in &table.rows {
            let cells: Vec<String> = row.iter().map(inspect::plain).collect();
            say(&cells.join("|"))?;
        }
    }
    Ok(())
}
