//! `/sandbox/…`: for tests and the demo. Without a key, from this machine only.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::domain::openai::BatchStatus;
use crate::http::{Request, Response};
use crate::sandbox::Sandbox;
use crate::sandbox::lock;
use crate::sandbox::model::error_reply::{ErrorReply, ok};

/// How many ids a list in the state shows.
const SHOWN: usize = 20;

impl Sandbox {
    pub(in crate::sandbox) fn control(
        &self,
        request: &Request,
        path: &[&str],
    ) -> Result<Response, ErrorReply> {
        if !request.peer.is_loopback() {
            return Err(ErrorReply::new(403, "From this machine only."));
        }
        match (request.method.as_str(), path) {
            ("GET", ["state"]) => Ok(Response::json(200, &self.state()?)),
            ("GET", ["ledger"]) => Ok(Response::stream(
                200,
                "application/jsonl",
                self.ledger.reader()?,
            )),
            ("GET", ["faults"]) => ok(&self.faults.list()),
            ("POST", ["faults"]) => {
                let added = self
                    .faults
                    .add(&request.body)
                    .map_err(|why| ErrorReply::new(400, why))?;
                self.faults.save()?;
                Ok(Response::json(200, &json!({"added": added})))
            }
            ("DELETE", ["faults"]) => {
                self.faults.clear();
                self.faults.save()?;
                self.lift_stalls()?;
                Ok(Response::json(200, &json!({"deleted": true})))
            }
            ("GET", ["hooks", name]) => self.list_hooks(name),
            ("POST", ["batches", "seed"]) => self.seed(&request.body),
            _ => Err(crate::sandbox::unknown_url(request)),
        }
    }

    /// What `GET /sandbox/state` answers, after every batch was looked at.
    pub fn state(&self) -> std::io::Result<Value> {
        let mut by_status = BatchStatus::ALL
            .iter()
            .map(|status| (status.as_str(), 0_u64))
            .collect::<BTreeMap<_, _>>();
        let shared = self.batches.all();
        for batch in &shared {
            let mut batch = lock(batch);
            self.advance(&mut batch)?;
            *by_status.entry(batch.status.as_str()).or_default() += 1;
        }
        let now = self.now();
        let (files, bytes) = self.files.totals(now);
        Ok(self.ledger.sums(|tally| {
            let most = |count: fn(&crate::sandbox::model::ledger::ExecutionCounts) -> u64| {
                tally.runs.values().map(count).max().unwrap_or(0)
            };
            let mut repeated = tally
                .runs
                .iter()
                .filter(|(_, runs)| runs.answered > 1)
                .map(|(id, _)| id.as_str())
                .collect::<Vec<_>>();
            repeated.sort_unstable();
            let duplicates = tally
                .submissions
                .iter()
                .filter(|(_, batches)| batches.len() > 1)
                .map(|((project, token), batches)| {
                    json!({"project": project, "submission": token, "batches": batches})
                })
                .collect::<Vec<_>>();
            let flags = tally
                .flags
                .iter()
                .map(|((flag, request), (count, detail))| {
                    json!({"flag": flag, "request": request, "count": count, "detail": detail})
                })
                .collect::<Vec<_>>();
            json!({
                "now": now.to_string(),
                "batches": by_status,
                "batches_total": shared.len(),
                "creates": tally.creates.len(),
                "uploads": tally.uploads,
                "cancels": tally.cancels,
                "hooks": tally.hooks,
                "seeded_lines": tally.seeded,
                "executed": tally.executed,
                "synchronous": tally.synchronous,
                "answered": tally.answered,
                "custom_ids": tally.runs.len(),
                "max_executions": most(|runs| runs.executed),
                "max_answers": most(|runs| runs.answered),
                "answered_more_than_once": repeated.len(),
                "answered_more_than_once_ids": repeated.iter().take(SHOWN).collect::<Vec<_>>(),
                "flags": flags,
                "duplicate_submissions": duplicates,
                "faults_struck": tally.faults,
                "files": files,
                "file_bytes": bytes,
            })
        }))
    }
}
