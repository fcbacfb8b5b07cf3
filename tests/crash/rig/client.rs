//! The client: builds jobs and sends them.

use std::thread::JoinHandle;

use batchkeeper::base::thread_group;
use batchkeeper::domain::signature::{Key, Message, sign};
use batchkeeper::sandbox::image_names;
use serde_json::{Value, json};

use super::{Job, KEY, Lot, MAX_ANSWER, PATIENCE, Rig};

impl Rig {
    /// Builds a job with `lots` lots. Every call makes a job with a different content.
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
            cancelled: false,
            retried: false,
        };
        (job, body.to_string())
    }

    /// Sends a job with `lots` lots; the answer must be 201.
    pub fn submit(&mut self, lots: usize, languages: &[&str]) {
        self.submit_until_stored(lots, languages, |_, reply| panic!("{reply:?}"));
    }

    /// Sends a job until it is stored. `retry` is called after each attempt that was not answered
    /// with 201.
    pub fn submit_until_stored(
        &mut self,
        lots: usize,
        languages: &[&str],
        mut retry: impl FnMut(&mut Self, &Reply),
    ) {
        let (job, body) = self.draft(lots, languages);
        loop {
            let reply = post_job(&self.api, &body);
            if !matches!(reply, Reply::Accepted(_)) {
                retry(self, &reply);
            }
            if let Some(id) = self.stored(&job, &reply) {
                self.jobs.push(Job { id, ..job });
                return;
            }
        }
    }

    /// Submits a job and returns whether it was accepted. A refused job must leave no row behind.
    pub fn try_submit(&mut self, lots: usize, languages: &[&str]) -> bool {
        let (job, body) = self.draft(lots, languages);
        let reply = post_job(&self.api, &body);
        let stored = self.stored(&job, &reply);
        match reply {
            Reply::Accepted(id) => self.jobs.push(Job { id, ..job }),
            Reply::Refused => assert_eq!(stored, None),
            Reply::Lost => panic!("no answer"),
        }
        stored.is_some()
    }

    /// Cancels the newest job; returns whether the client received the confirmation.
    pub fn cancel(&mut self) -> bool {
        let job = self.jobs.last_mut().unwrap();
        job.cancelled = true;
        let url = format!("http://{}/api/v1/batch-jobs/{}/cancel", self.api, job.id);
        let signature = sign(&self.key, Message::Bytes(job.id.as_bytes()));
        let headers = [("X-Signature", signature.as_str())];
        match self.caller.post(&url, &headers, &[], MAX_ANSWER) {
            Ok((status, answer)) => {
                assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
                true
            }
            Err(_) => false,
        }
    }

    /// Cancels the newest job, and waits until the shim has killed the daemon.
    pub fn cancel_and_be_killed(&mut self) {
        let confirmed = self.cancel();
        self.wait_until_killed();
        let cancelled = "SELECT count(*) FROM batch_jobs WHERE completed_at IS NULL";
        assert!(!confirmed || self.number(cancelled) == 0);
    }

    /// Has an operator send the failed lots of the newest job again, and waits until the shim has killed the daemon.
    pub fn retry_and_be_killed(&mut self) {
        let job = self.jobs.last_mut().unwrap();
        job.retried = true;
        let id = job.id.clone();
        let (status, said) = self.command(&["jobs", "retry", &id, "--failed-lots"]);
        assert_eq!(status, Some(0), "{said}");
        self.wait_until_killed();
    }

    /// The status of the listener's health endpoint.
    pub fn health(&self) -> u16 {
        self.get(&format!("http://{}/health", self.api), &[]).0
    }

    /// Checks that every job can be read.
    pub fn assert_all_readable(&self) {
        for job in &self.jobs {
            let url = format!("http://{}/api/v1/batch-status/{}", self.api, job.id);
            let signature = sign(&self.key, Message::Bytes(job.id.as_bytes()));
            let (status, answer) = self.get(&url, &[("X-Signature", &signature)]);
            assert_eq!(status, 200, "{answer}");
        }
    }

    /// Sends a job, and kills the daemon when `wait` returns. `wait` gets the client's thread. A
    /// job that was answered with 201 must be stored after the next start; any other job is stored
    /// whole or not at all.
    pub fn submit_and_kill(
        &mut self,
        lots: usize,
        languages: &[&str],
        wait: impl FnOnce(&JoinHandle<Reply>),
    ) {
        let (job, body) = self.draft(lots, languages);
        let api = self.api.clone();
        let client = thread_group::spawn_ungrouped("client", move || post_job(&api, &body)).unwrap();
        wait(&client);
        self.kill();
        self.start();
        self.keep_if_stored(job, &client.join().unwrap());
    }

    /// Sends a job and waits until the shim has killed the daemon. The promise of
    /// [`Rig::submit_and_kill`] holds.
    pub fn submit_and_be_killed(&mut self, lots: usize, languages: &[&str]) {
        let (job, body) = self.draft(lots, languages);
        let reply = post_job(&self.api, &body);
        self.wait_until_killed();
        self.keep_if_stored(job, &reply);
    }

    fn keep_if_stored(&mut self, job: Job, reply: &Reply) {
        assert!(
            !matches!(reply, Reply::Refused),
            "refused although the disk was not full"
        );
        if let Some(id) = self.stored(&job, reply) {
            self.jobs.push(Job { id, ..job });
        }
    }

    /// The id under which a job is stored. An accepted job must be stored.
    fn stored(&self, job: &Job, reply: &Reply) -> Option<String> {
        let of_lot = "SELECT batch_job_id FROM batch_lots WHERE lot_id = ?";
        let stored: Option<String> = self
            .look()
            .query_row(of_lot, [&job.lots[0].id], |row| row.get(0))
            .ok();
        if let Reply::Accepted(id) = reply {
            assert_eq!(stored.as_ref(), Some(id));
        }
        stored
    }
}

/// The outcome of a submission, as its client sees it.
#[derive(Debug)]
pub enum Reply {
    /// 201, with the job's id.
    Accepted(String),
    /// 503 `STORAGE_UNAVAILABLE`, with `Retry-After`.
    Refused,
    /// No answer.
    Lost,
}

fn post_job(api: &str, body: &str) -> Reply {
    let key = Key::new(KEY).unwrap();
    let signature = sign(&key, Message::Bytes(body.as_bytes()));
    let config = ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE));
    let answer = config
        .build()
        .new_agent()
        .post(format!("http://{api}/api/v1/generate-descriptions"))
        .header("Content-Type", "application/json")
        .header("X-Signature", signature)
        .send(body);
    let Ok(answer) = answer else {
        return Reply::Lost;
    };
    let (head, body) = answer.into_parts();
    let Ok(text) = { body }.read_to_string() else {
        return Reply::Lost;
    };
    let answer: Value = serde_json::from_str(&text).unwrap();
    if head.status == 201 {
        return Reply::Accepted(answer["job_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(head.status, 503, "{answer}");
    assert_eq!(answer["code"], "STORAGE_UNAVAILABLE", "{answer}");
    assert!(head.headers.contains_key("retry-after"), "{:?}", head.headers);
    Reply::Refused
}
