//! The client: makes jobs up and sends them.

use std::thread::JoinHandle;

use batchkeeper::base::thread_group;
use batchkeeper::domain::signature::{Key, Message, sign};
use batchkeeper::sandbox::image_names;
use serde_json::{Value, json};

use super::{Job, KEY, Lot, MAX_ANSWER, PATIENCE, Rig};

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
            cancelled: false,
        };
        (job, body.to_string())
    }

    /// Sends a job of so many lots.
    pub fn submit(&mut self, lots: usize, languages: &[&str]) {
        self.submit_until_stored(lots, languages, |_, reply| panic!("{reply:?}"));
    }

    /// Sends a job until it is stored; `mend` is called after each time that the client was not
    /// told so.
    pub fn submit_until_stored(
        &mut self,
        lots: usize,
        languages: &[&str],
        mut mend: impl FnMut(&mut Self, &Reply),
    ) {
        let (job, body) = self.draft(lots, languages);
        loop {
            let reply = post_job(&self.api, &body);
            if !matches!(reply, Reply::Accepted(_)) {
                mend(self, &reply);
            }
            if let Some(id) = self.stored(&job, &reply) {
                self.jobs.push(Job { id, ..job });
                return;
            }
        }
    }

    /// Whether a job is taken now; one that is refused leaves nothing behind.
    pub fn is_taken(&mut self, lots: usize, languages: &[&str]) -> bool {
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

    /// Takes the newest job back; whether the client was told that it is.
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

    /// Takes the newest job back, and waits until the shim has killed the daemon.
    pub fn cancel_and_be_killed(&mut self) {
        let told = self.cancel();
        self.is_killed();
        let cancelled = "SELECT count(*) FROM batch_jobs WHERE completed_at IS NULL";
        assert!(!told || self.number(cancelled) == 0);
    }

    /// What the listener says of itself.
    pub fn health(&self) -> u16 {
        self.get(&format!("http://{}/health", self.api), &[]).0
    }

    /// Every job can be read.
    pub fn reads_all(&self) {
        for job in &self.jobs {
            let url = format!("http://{}/api/v1/batch-status/{}", self.api, job.id);
            let signature = sign(&self.key, Message::Bytes(job.id.as_bytes()));
            let (status, answer) = self.get(&url, &[("X-Signature", &signature)]);
            assert_eq!(status, 200, "{answer}");
        }
    }

    /// Sends a job, and kills the daemon when `wait` returns, which is given the client. What was
    /// answered with 201 must be there after the next start; what was not may be, but then whole.
    pub fn submit_and_kill(
        &mut self,
        lots: usize,
        languages: &[&str],
        wait: impl FnOnce(&JoinHandle<Reply>),
    ) {
        let (job, body) = self.draft(lots, languages);
        let api = self.api.clone();
        let client =
            thread_group::spawn_ungrouped("client", move || post_job(&api, &body)).unwrap();
        wait(&client);
        self.kill();
        self.start();
        self.keep_if_stored(job, &client.join().unwrap());
    }

    /// Sends a job and waits until the shim has killed the daemon. The same holds.
    pub fn submit_and_be_killed(&mut self, lots: usize, languages: &[&str]) {
        let (job, body) = self.draft(lots, languages);
        let reply = post_job(&self.api, &body);
        self.is_killed();
        self.keep_if_stored(job, &reply);
    }

    fn keep_if_stored(&mut self, job: Job, reply: &Reply) {
        assert!(!matches!(reply, Reply::Refused), "nothing was full");
        if let Some(id) = self.stored(&job, reply) {
            self.jobs.push(Job { id, ..job });
        }
    }

    /// The id under which a job is stored; what was accepted must be.
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

/// What a client hears of its submission.
#[derive(Debug)]
pub enum Reply {
    /// 201, with the job's id.
    Accepted(String),
    /// 503 `STORAGE_UNAVAILABLE`, with `Retry-After`.
    Refused,
    /// Nothing.
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
    let told: Value = serde_json::from_str(&text).unwrap();
    if head.status == 201 {
        return Reply::Accepted(told["job_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(head.status, 503, "{told}");
    assert_eq!(told["code"], "STORAGE_UNAVAILABLE", "{told}");
    assert!(
        head.headers.contains_key("retry-after"),
        "{:?}",
        head.headers
    );
    Reply::Refused
}
