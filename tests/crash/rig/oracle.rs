//! The oracle: the conditions that must hold at the end of every run.

use std::collections::BTreeSet;
use std::fs;

use batchkeeper::domain::html::paragraphs;
use batchkeeper::domain::signature::{Message, sign};
use batchkeeper::sandbox::{expected_description, expected_translation};
use serde_json::{Value, json};

use super::{Job, Rig};

/// The conditions of one run, in addition to those of every run.
#[derive(Clone, Copy, Default)]
pub struct Expected {
    /// The number of batches; `None` if any number is right.
    pub batches: Option<u64>,
}

/// Returns a row when every job is final, every webhook is delivered and every batch is ingested.
const THROUGH: &str = "SELECT 1
    WHERE NOT EXISTS (SELECT 1 FROM batch_jobs WHERE completed_at IS NULL)
      AND NOT EXISTS (SELECT 1 FROM webhook_deliveries WHERE state <> 'delivered')
      AND NOT EXISTS (SELECT 1 FROM openai_batches WHERE state NOT IN ('ingested', 'failed'))";

impl Rig {
    /// Whether every job is final.
    pub fn is_done(&self) -> bool {
        self.number("SELECT count(*) FROM batch_jobs WHERE completed_at IS NULL") == 0
    }

    /// Whether every job is final, every webhook is delivered and every batch is ingested.
    pub fn is_through(&self) -> bool {
        self.number(&format!("SELECT count(*) FROM ({THROUGH})")) == 1
    }

    /// Waits until [`Rig::is_through`].
    pub fn wait_until_through(&self) {
        self.wait_for(THROUGH);
    }

    /// Waits until [`Rig::is_through`], then checks everything.
    pub fn finish(&self, expected: Expected) {
        self.finish_from(0, expected);
    }

    /// The same, but the jobs before `first` were checked earlier.
    pub fn finish_from(&self, first: usize, expected: Expected) {
        self.wait_until_through();
        let number = |sql| self.number(sql);
        assert_eq!(
            number("SELECT count(*) FROM batch_jobs"),
            i64::try_from(self.jobs.len()).unwrap()
        );
        for job in &self.jobs[first..] {
            self.check_results(job);
            self.check_webhook(job);
        }
        for none in [
            "SELECT what || ' ' || id || ' ' || detail FROM v_orphans",
            "SELECT kind || ' ' || message FROM alerts WHERE closed_at IS NULL",
            "SELECT scope || ' ' || reason FROM pauses",
        ] {
            assert_eq!(self.texts(none), [""; 0]);
        }
        // The invariants, and the totals: every accepted request was answered or failed with a
        // reason, and every batch has its lines.
        for command in ["doctor", "report"] {
            let (status, findings) = self.command(&[command]);
            assert_eq!(status, Some(0), "{findings}");
        }
        self.check_openai(expected);
        self.check_spool();
    }

    fn check_results(&self, job: &Job) {
        let url = format!("http://{}/api/v1/batch-results/{}", self.api, job.id);
        let signature = sign(&self.key, Message::Bytes(job.id.as_bytes()));
        let (status, answer) = self.get(&url, &[("X-Signature", &signature)]);
        if job.cancelled {
            assert_eq!((status, &answer["code"]), (410, &json!("JOB_CANCELLED")));
            return;
        }
        assert_eq!(status, 200, "{answer}");
        check_lots(job, &answer["results"]["lots"]);
    }

    fn check_webhook(&self, job: &Job) {
        let (_, hooks) = self.get(&self.control(&format!("hooks/{}", job.hook)), &[]);
        let deliveries = hooks["deliveries"].as_array().unwrap();
        let mut ids = BTreeSet::new();
        for delivery in deliveries {
            let header = |name: &str| {
                let headers = delivery["headers"].as_array().unwrap();
                let pair = headers.iter().find(|pair| pair[0] == name).unwrap();
                pair[1].as_str().unwrap().to_owned()
            };
            let body = delivery["body"].as_str().unwrap();
            assert_eq!(
                header("x-signature"),
                sign(&self.key, Message::Bytes(body.as_bytes()))
            );
            ids.insert(header("webhook-id"));
            let event: Value = serde_json::from_str(body).unwrap();
            assert_eq!(event["job_id"], json!(job.id));
            if job.cancelled {
                assert_eq!(event["event"], "batch_job_cancelled");
                continue;
            }
            if job.retried && event["event"] == "batch_job_failed" {
                continue;
            }
            assert_eq!(event["event"], "batch_job_completed");
            check_lots(job, &event["lots"]);
        }
        assert_eq!(
            ids.len(),
            1 + usize::from(job.retried),
            "{} deliveries of {}",
            deliveries.len(),
            job.id
        );
        assert!(deliveries.iter().any(|delivery| delivery["status"] == 200));
    }

    /// Checks that nothing was created or executed twice. Only a kill may leave an unused upload at
    /// OpenAI.
    fn check_openai(&self, expected: Expected) {
        let state = self.sandbox_state();
        let of = |name: &str| state[name].as_u64().unwrap();
        assert_eq!(state["duplicate_submissions"], json!([]), "{state}");
        assert_eq!(state["flags"], json!([]), "{state}");
        assert!(of("max_answers") <= 1, "{state}");
        assert_eq!(of("answered_more_than_once"), 0, "{state}");
        let count = |sql| u64::try_from(self.number(sql)).unwrap();
        let wanted = count("SELECT count(*) FROM requests");
        let cancelled = count("SELECT count(*) FROM requests WHERE state = 'cancelled'");
        let answered = of("answered");
        assert!(answered <= wanted && answered + cancelled >= wanted, "{state}");
        // OpenAI executes a line again only if a fault made the line fail.
        let struck = |fault: &str| state["faults_struck"][fault].as_u64().unwrap_or(0);
        let again = struck("line_500") + struck("line_429") + struck("refusal_line");
        let executed = of("executed");
        assert!(
            executed <= wanted + again && executed + cancelled >= wanted + again,
            "{state}"
        );
        if again == 0 {
            assert!(of("max_executions") <= 1, "{state}");
        }
        let known = self.number("SELECT count(DISTINCT openai_batch_id) FROM openai_batches");
        assert_eq!(of("creates"), u64::try_from(known).unwrap(), "{state}");
        if let Some(batches) = expected.batches {
            assert_eq!(of("creates"), batches, "{state}");
        }
        let uploads = of("uploads");
        assert!(
            uploads <= of("creates") + self.kills + struck("lost_upload_reply") + struck("lost_reply"),
            "{uploads} uploads, {} kills: {state}",
            self.kills
        );
    }

    /// Checks that the spool is empty after all batches are ingested.
    fn check_spool(&self) {
        let left: Vec<_> = fs::read_dir(self.path("data/spool"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert!(left.is_empty(), "the spool holds {left:?}");
    }
}

fn check_lots(job: &Job, lots: &Value) {
    let lots = lots.as_array().unwrap();
    assert_eq!(lots.len(), job.lots.len());
    for (lot, found) in job.lots.iter().zip(lots) {
        assert_eq!(found["lot_id"], json!(lot.id));
        assert_eq!(found["status"], "completed", "{found}");
        let images: Vec<&str> = lot.images.iter().map(String::as_str).collect();
        let english = expected_description(&lot.info, &images);
        let expected: Vec<Value> = job
            .languages
            .iter()
            .map(|language| {
                let text = match language.as_str() {
                    "en" => english.clone(),
                    other => expected_translation(&english, other),
                };
                json!({"language": language, "damages": paragraphs(&text)})
            })
            .collect();
        assert_eq!(found["descriptions"], json!(expected), "{}", lot.id);
    }
}
