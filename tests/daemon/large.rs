//! The largest job of the contract, through the real program. It takes a minute, so it has a
//! command of its own: `cargo test --release --test daemon large:: -- --ignored --nocapture` prints
//! the figures.

use std::time::{Duration, Instant};

use crate::appliance::{Appliance, call, described, in_languages, sign_bytes, submission, wait_for};
use crossbeam_channel::never;
use serde_json::{Value, json};

const LOTS: usize = 50_000;
const LANGUAGES: [&str; 3] = ["en", "ru", "de"];
/// The number of lots in one page of results.
const PAGE: usize = 1_000;
/// The longest time for the whole job.
const PATIENCE: Duration = Duration::from_secs(600);
/// The daemon's largest allowed memory, in kB.
const MEMORY: u64 = 200_000;

/// The client of the large job, and another client.
const CLIENTS: &str = r#"
    [[clients]]
    name = "default"
    keys = ["the key of these tests, 16 bytes or more"]
    [[clients]]
    name = "other"
    keys = ["the key of these tests, 16 bytes or more"]"#;

/// Sends a job with two lots while 50,000 wait. In each stage, at most one batch goes before it.
fn another_clients_job_is_not_delayed(appliance: &Appliance, large: &str) {
    let body = submission(&appliance.lots(2), &LANGUAGES).to_string();
    let signature = sign_bytes(body.as_bytes());
    let headers = [("X-Signature", signature.as_str()), ("X-Client-Id", "other")];
    let answer = appliance.post(&headers, body.as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.json());
    let last = "SELECT coalesce(max(id), 0) FROM openai_batches WHERE stage = ";
    let its = "SELECT coalesce(max(k.batch_id), 0) FROM batch_links k JOIN batch_jobs j ON j.seq = k.job
               JOIN openai_batches b ON b.id = k.batch_id WHERE j.client = 'other' AND b.stage = ";
    for stage in ["'vision'", "'translation'"] {
        let before: i64 = appliance.cell(&format!("{last}{stage}"));
        let batch = wait_for("its batch", || {
            let batch = appliance.cell::<i64>(&format!("{its}{stage}"));
            (batch > 0).then_some(batch)
        });
        let between: i64 = appliance.cell(&format!(
            "SELECT count(*) FROM openai_batches WHERE stage = {stage} AND id > {before} AND id < {batch}"
        ));
        assert!(between <= 1, "{between} {stage} batches went before it");
        wait_for("its results", || {
            let taken = format!("SELECT state = 'ingested' FROM openai_batches WHERE id = {batch}");
            appliance.cell::<bool>(&taken).then_some(())
        });
    }
    assert!(appliance.status(large)["completed_at"].is_null());
}

#[test]
#[ignore = "takes a minute in a release build"]
#[allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it measures, and says what"
)]
fn fifty_thousand_lots_complete_and_each_has_its_own_text() {
    let appliance = Appliance::with(&format!(
        "{CLIENTS}\n[batch]\nmax_wait = \"1s\"\nqueue_backoff = \"1s\"\n[images]\nconcurrency = 64"
    ));
    let words = "hail on roof and hood, rear bumper torn, left door dented, airbags deployed. ".repeat(4);
    let lots: Vec<Value> = (0..LOTS)
        .map(|number| {
            let info = format!("{} sedan no. {number}: {words}", 1990 + number % 35);
            let images = [appliance.image("truck.jpg"), appliance.image("rocket.jpg")];
            json!({"lot_id": format!("LOT-{number:05}"), "additional_info": info, "images": images})
        })
        .collect();
    let mut body = submission(&lots, &LANGUAGES);
    body["webhook_url"] = json!(appliance.hook("large"));
    let body = body.to_string();
    let signature = sign_bytes(body.as_bytes());

    let started = Instant::now();
    let answer = appliance.post(&[("X-Signature", &signature)], body.as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.json());
    let accepted = started.elapsed();
    let job = answer.json()["job_id"].as_str().unwrap().to_owned();
    another_clients_job_is_not_delayed(&appliance, &job);
    while appliance.status(&job)["completed_at"].is_null() {
        assert!(started.elapsed() < PATIENCE, "{}", appliance.status(&job));
        never::<()>().recv_timeout(Duration::from_millis(200)).ok();
    }
    let completed = started.elapsed();

    let signature = sign_bytes(job.as_bytes());
    for (page, sent) in lots.chunks(PAGE).enumerate() {
        let url = format!(
            "{}/api/v1/batch-results/{job}?limit={PAGE}&offset={}",
            appliance.api,
            page * PAGE
        );
        let results = call("GET", &url, &[("X-Signature", &signature)], b"").json();
        let found = results["results"]["lots"].as_array().unwrap();
        assert_eq!(found.len(), sent.len());
        for (sent, found) in sent.iter().zip(found) {
            assert_eq!(found["lot_id"], sent["lot_id"]);
            assert_eq!(
                found["descriptions"],
                in_languages(&described(sent, &[]), &LANGUAGES),
                "{found}"
            );
        }
    }
    assert_eq!(
        appliance.state()["max_answers"],
        1,
        "each request is executed once"
    );
    appliance.delivered("large", 1);
    appliance.assert_sound();
    let memory = appliance.peak_memory();
    println!(
        "{LOTS} lots, {} bytes: accepted after {accepted:.2?}, completed after {completed:.1?}, {memory} kB at the most",
        body.len(),
    );
    assert!(memory < MEMORY, "{memory} kB");
}
