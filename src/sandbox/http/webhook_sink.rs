//! A receiver of webhooks that keeps each delivery.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Request, Response};
use crate::sandbox::model::{ApiCall, ErrorReply, SimulatedOpenAi};

/// The deliveries by the sink's name, one file each.
pub(super) struct WebhookSink {
    folder: PathBuf,
    /// Held while a file is read or written.
    lock: Mutex<()>,
}

impl WebhookSink {
    pub(super) fn new(state_folder: &Path) -> Self {
        Self {
            folder: state_folder.join("hooks"),
            lock: Mutex::default(),
        }
    }

    fn append(&self, path: &Path, delivery: &Value) -> io::Result<()> {
        let line = format!("{delivery}\n");
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        fs::create_dir_all(&self.folder)?;
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)?
            .write_all(line.as_bytes())
    }

    /// The deliveries, oldest first.
    fn read(&self, path: &Path) -> io::Result<Vec<Value>> {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut deliveries = Vec::new();
        for line in BufReader::new(file).split(b'\n') {
            // A line that a kill cut off is no JSON, and is ignored.
            deliveries.extend(serde_json::from_slice::<Value>(&line?));
        }
        Ok(deliveries)
    }

    fn path(&self, name: &str) -> Result<PathBuf, ErrorReply> {
        let is_plain = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !is_plain {
            return Err(ErrorReply::new(
                404,
                "A sink's name has 1 to 64 letters, digits, '-' and '_'.",
            ));
        }
        Ok(self.folder.join(format!("{name}.jsonl")))
    }

    /// `POST /hooks/{name}`: keeps the delivery.
    pub(super) fn receive(
        &self,
        openai: &SimulatedOpenAi,
        request: &Request,
        name: &str,
        call: &ApiCall<'_>,
    ) -> Result<Response, ErrorReply> {
        let path = self.path(name)?;
        let status = openai.trigger_webhook_status(call)?;
        let delivery = json!({
            "at": openai.now().to_string(),
            "path": request.target(),
            "headers": request.headers,
            "body": String::from_utf8_lossy(&request.body),
            "body_base64": STANDARD.encode(&request.body),
            "status": status,
        });
        self.append(&path, &delivery)?;
        openai.record_webhook(name, request.body.len(), status)?;
        Ok(Response::json(status, &json!({"received": status < 300})))
    }

    /// `GET /sandbox/hooks/{name}`: the deliveries, oldest first.
    pub(super) fn list(&self, name: &str) -> Result<Response, ErrorReply> {
        let path = self.path(name)?;
        let deliveries = self.read(&path)?;
        Ok(Response::json(
            200,
            &json!({"count": deliveries.len(), "deliveries": deliveries}),
        ))
    }
}
