//! Cancelling a job, in batchkeeper and at OpenAI.

use serde_json::{Value, json};

use crate::appliance::{Answer, Appliance, KEY, submission, wait_for};
use crate::{accepted, refused, sign_with};

fn cancel(appliance: &Appliance, job: &str) -> Answer {
    let path = format!("/api/v1/batch-jobs/{job}/cancel");
    let headers = [("X-Signature", sign_with(KEY, job.as_bytes()))];
    appliance.ask("POST", &path, &headers)
}

fn job(appliance: &Appliance, lots: usize, hook: &str) -> String {
    let mut body = submission(&appliance.lots(lots), &["en", "ru"]);
    body["webhook_url"] = json!(appliance.hook(hook));
    accepted(&appliance.submit(&body))
}

fn requests(appliance: &Appliance, job: &str, state: &str) -> i64 {
    appliance.cell(&format!(
        "SELECT count(*) FROM requests r JOIN batch_jobs j ON j.seq = r.job WHERE j.id = '{job}' AND r.state = '{state}'"
    ))
}

#[test]
fn a_waiting_job_is_cancelled_and_its_webhook_is_sent() {
    let appliance = Appliance::with("[batch]\nmax_wait = \"1h\"");
    let id = job(&appliance, 3, "waiting");
    let first = cancel(&appliance, &id);
    assert_eq!(first.status, 200, "{}", first.json());
    let answer = first.json();
    assert_eq!(
        (&answer["job_id"], &answer["status"]),
        (&json!(id), &json!("cancelled"))
    );
    assert!(answer["cancelled_at"].is_string() && answer["message"].is_string());
    assert_eq!(
        cancel(&appliance, &id).json()["cancelled_at"],
        answer["cancelled_at"]
    );
    let event: Value =
        serde_json::from_str(appliance.delivered("waiting", 1)[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(event["event"], "batch_job_cancelled");
    assert_eq!(event["status"], "cancelled");
    assert_eq!(event["results_available"], false);
    assert_eq!(event["lots"].as_array().unwrap().len(), 3);
    // Nothing was sent to OpenAI.
    assert_eq!(event["processing_summary"]["total_images_processed"], 0);
    assert_eq!(event["lots"][0]["processed_images"], 0);
    let status = appliance.status(&id);
    assert_eq!(status["status"], "cancelled");
    assert_eq!(status["completed_at"], answer["cancelled_at"]);
    assert!(status["error_message"].as_str().unwrap().contains("client"));
    let results = appliance.read(&format!("/api/v1/batch-results/{id}"), &id);
    assert_eq!(
        (results.status, &results.json()["code"]),
        (410, &json!("JOB_CANCELLED"))
    );
    assert_eq!(requests(&appliance, &id, "cancelled"), 3);
    assert_eq!(appliance.cell::<i64>("SELECT count(*) FROM openai_batches"), 0);
    let unknown = "00000000-0000-4000-8000-000000000000";
    refused(&cancel(&appliance, unknown), 404, "JOB_NOT_FOUND");
    appliance.assert_sound();
}

#[test]
fn a_final_job_is_not_cancelled() {
    let appliance = Appliance::start();
    let id = job(&appliance, 2, "final");
    appliance.results(&id);
    let answer = refused(&cancel(&appliance, &id), 409, "JOB_NOT_CANCELLABLE");
    assert_eq!(answer["details"]["status"], "completed");
    assert_eq!(appliance.status(&id)["status"], "completed");
    assert_eq!(appliance.delivered("final", 1).len(), 1);
}

#[test]
fn a_batch_with_cancelled_jobs_only_is_cancelled_at_openai() {
    let appliance = Appliance::start();
    appliance.fault(&json!({"fault": "stall_in_progress", "value": 60_000}));
    let id = appliance.in_one_batch(|| job(&appliance, 2, "alone"));
    wait_for("the batch at OpenAI", || {
        appliance.status(&id)["openai_batch_id"]
            .as_str()
            .map(str::to_owned)
    });
    assert_eq!(cancel(&appliance, &id).status, 200);
    wait_for("the batch to end at OpenAI", || {
        let status: String =
            appliance.cell("SELECT coalesce(openai_status, '') FROM openai_batches ORDER BY id DESC LIMIT 1");
        (status == "cancelled").then_some(())
    });
    appliance.assert_sound();
    assert_eq!(requests(&appliance, &id, "cancelled"), 2);
    assert_eq!(appliance.status(&id)["status"], "cancelled");
    assert_eq!(appliance.delivered("alone", 1).len(), 1);
}

#[test]
fn a_batch_shared_with_another_job_continues_and_paid_results_are_kept() {
    let appliance = Appliance::start();
    appliance.fault(&json!({"fault": "stall_in_progress", "match": "vision"}));
    let (gone, stays) = appliance.in_one_batch(|| (job(&appliance, 2, "gone"), job(&appliance, 3, "stays")));
    let batch = |id: &str| {
        appliance.status(id)["openai_batch_id"]
            .as_str()
            .map(str::to_owned)
    };
    let shared = wait_for("the batch at OpenAI", || batch(&gone));
    assert_eq!(cancel(&appliance, &gone).status, 200);
    appliance.clear_faults();
    appliance.results(&stays);
    appliance.assert_sound();
    assert_eq!(batch(&stays), Some(shared));
    let status: String = appliance.cell("SELECT openai_status FROM openai_batches ORDER BY id LIMIT 1");
    assert_eq!(status, "completed");
    // The job's texts are stored and can be read. Nothing was translated, and the job stays
    // cancelled.
    let results = appliance
        .read(&format!("/api/v1/batch-results/{gone}"), &gone)
        .json();
    let lot = &results["results"]["lots"][0];
    assert_eq!(lot["status"], "cancelled");
    assert!(lot["descriptions"][0]["damages"].is_string(), "{lot}");
    assert_eq!(lot["descriptions"][1]["damages"], Value::Null);
    assert_eq!(requests(&appliance, &gone, "cancelled"), 2);
    let answered: i64 = appliance.cell("SELECT sum(answered) FROM v_costs WHERE stage = 'vision'");
    assert_eq!(answered, 5);
}

#[test]
fn cancelling_at_any_moment_leaves_a_sound_appliance() {
    let mut appliance = Appliance::with("[batch]\nmax_requests = 4");
    let jobs: Vec<String> = (0..8)
        .map(|number| job(&appliance, 3 + number % 3, "any"))
        .collect();
    for (number, id) in jobs.iter().enumerate() {
        if number % 2 == 0 {
            let answer = cancel(&appliance, id);
            assert!(matches!(answer.status, 200 | 409), "{}", answer.json());
        }
        if number == 4 {
            appliance.kill_daemon();
            appliance.start_daemon();
        }
    }
    for id in &jobs {
        appliance.ended(id);
    }
    appliance.delivered("any", jobs.len());
    appliance.assert_sound();
}
