//! The client: makes jobs up and sends them.

use std::time::Duration;

use batchkeeper::net::Caller;
use batchkeeper::sandbox::image_names;
use batchkeeper::signature::{Key, Message, sign};
use batchkeeper::threads;
use serde_json::{Value, json};

use super::process::pause;
use super::{Job, KEY, Lot, MAX_ANSWER, Rig};

impl Rig {
    /// A job of so many lots, each unlike any other, that nobody has sent yet.
    fn draft(&self, lots: usize, languages: &[&str]) -> (Job, String) {
        let number = self.jobs.len();
        let lots: Vec<Lot> = (0..lots)
            .map(|lot| Lot {
                id: format!("LOT-{number}-{lot}"),
                info: format!("Job {number}, lot {lot}: the front door shows damage."),
                images: (lot..=lot + lot % 3)
                    .map(|image| {
                        let name = image_names().nth(image % 4).unwrap();
                        format!("http://{}/images/{name}", self.sandbox_address)
                    })
                    .collect(),
            })
            .collect();
        let hook = format!("job-{number}");
        let body = json!({
            "version": "1.0.0",
            "languages": languages,
            "webhook_url": format!("http://{}/hooks/{hook}", self.sandbox_address),
            "lots": lots.iter().map(|lot| json!({
                "lot_id": lot.id,
                "additional_info": lot.info,
                "images": lot.images.iter().map(|url| json!({"url": url})).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
        });
        let job = Job {
            id: String::new(),
            hook,
            languages: languages.iter().map(|tag| (*tag).to_owned()).collect(),
            lots,
        };
        (job, body.to_string())
    }

    /// Sends a job of so many lots.
    pub fn submit(&mut self, lots: usize, languages: &[&str]) {
        let (mut job, body) = self.draft(lots, languages);
        job.id = post_job(&self.api, &body).unwrap();
        self.jobs.push(job);
    }

    /// Sends a job and kills the daemon meanwhile. What was answered with 201 must be there after
    /// the next start; what was not may be, but then whole.
    pub fn submit_and_kill(&mut self, lots: usize, languages: &[&str], after: Duration) {
        let (job, body) = self.draft(lots, languages);
        let api = self.api.clone();
        let client = threads::spawn("client", move || post_job(&api, &body)).unwrap();
        pause(after);
        self.kill();
        self.start();
        self.is_stored_where_accepted(job, client.join().unwrap());
    }

    /// Sends a job and waits until the shim has killed the daemon. The same holds.
    pub fn submit_and_be_killed(&mut self, lots: usize, languages: &[&str]) {
        let (job, body) = self.draft(lots, languages);
        let accepted = post_job(&self.api, &body);
        self.is_killed();
        self.is_stored_where_accepted(job, accepted);
    }

    fn is_stored_where_accepted(&mut self, mut job: Job, accepted: Option<String>) {
        let of_lot = "SELECT batch_job_id FROM batch_lots WHERE lot_id = ?";
        let stored: Option<String> = self
            .look()
            .query_row(of_lot, [&job.lots[0].id], |row| row.get(0))
            .ok();
        if accepted.is_some() {
            assert_eq!(stored, accepted);
        }
        if let Some(id) = stored {
            job.id = id;
            self.jobs.push(job);
        }
    }
}

/// The id of the job, where it was accepted.
fn post_job(api: &str, body: &str) -> Option<String> {
    let key = Key::new(KEY).unwrap();
    let signature = sign(&key, Message::Bytes(body.as_bytes()));
    let url = format!("http://{api}/api/v1/generate-descriptions");
    let headers = [("X-Signature", signature.as_str())];
    let (status, answer) = Caller::new()
        .post(&url, &headers, body.as_bytes(), MAX_ANSWER)
        .ok()?;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(status, 201, "{answer}");
    Some(answer["job_id"].as_str().unwrap().to_owned())
}
