//! A sink for webhooks: takes deliveries and shows them.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Request, Response};
use crate::sandbox::Sandbox;
use crate::sandbox::lock;
use crate::sandbox::model::error_reply::ErrorReply;
use crate::sandbox::model::ledger::LedgerEntry;

impl Sandbox {
    /// `POST /hooks/{name}`.
    pub(in crate::sandbox) fn take_hook(
        &self,
        request: &Request,
        name: &str,
    ) -> Result<Response, ErrorReply> {
        let path = self.hook_path(name)?;
        let status = self.hook_status(request)?;
        let now = self.now();
        let delivery = json!({
            "at": now.to_string(),
            "path": request.target(),
            "headers": request.headers,
            "body": String::from_utf8_lossy(&request.body),
            "body_base64": STANDARD.encode(&request.body),
            "status": status,
        });
        let line = format!("{delivery}\n");
        {
            let _writing = lock(&self.hooks);
            fs::create_dir_all(self.folder.join("hooks"))?;
            OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)?
                .write_all(line.as_bytes())?;
        }
        let entry = LedgerEntry::Hook {
            name: name.into(),
            bytes: u64::try_from(request.body.len()).unwrap_or(u64::MAX),
            status,
        };
        self.ledger.note(now, entry)?;
        Ok(Response::json(status, &json!({"received": status < 300})))
    }

    /// `GET /sandbox/hooks/{name}`: the deliveries, oldest first.
    pub(in crate::sandbox) fn list_hooks(&self, name: &str) -> Result<Response, ErrorReply> {
        let path = self.hook_path(name)?;
        let _writing = lock(&self.hooks);
        let mut deliveries: Vec<Value> = Vec::new();
        match fs::File::open(path) {
            Ok(file) => {
                for line in BufReader::new(file).split(b'\n') {
                    // A line that a kill cut off is none.
                    deliveries.extend(serde_json::from_slice::<Value>(&line?));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Response::json(
            200,
            &json!({"count": deliveries.len(), "deliveries": deliveries}),
        ))
    }

    fn hook_path(&self, name: &str) -> Result<PathBuf, ErrorReply> {
        let plain = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !plain {
            return Err(ErrorReply::new(
                404,
                "A sink's name has 1 to 64 letters, digits, '-' and '_'.",
            ));
        }
        Ok(self.folder.join("hooks").join(format!("{name}.jsonl")))
    }
}
