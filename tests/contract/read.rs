//! Polling: every field of a status and of results, pages, and the answers before the end and after
//! a failure.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use batchkeeper::base::clock::Timestamp;
use serde_json::{Value, json};

use crate::appliance::{Appliance, KEY, assert_results, call, sign_bytes, submission, wait_for};
use crate::{accepted, refused, sign_with};

const OTHER_KEY: &str = "a key that only the other client has";

fn members(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_status_has_its_fields_from_the_first_moment_to_the_last() {
    let appliance = Appliance::start();
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    let mut body = submission(&appliance.lots(4), &["en", "ru"]);
    body["webhook_url"] = json!(appliance.hook("status"));
    body["lots"][2]["images"] = json!(["ftp://img.example/1.jpg"]);
    let job = accepted(&appliance.submit(&body));
    let first = appliance.status(&job);
    let expected = [
        "job_id",
        "status",
        "created_at",
        "updated_at",
        "completed_at",
        "progress",
        "languages",
        "processing_details",
        "openai_batch_id",
        "openai_vision_batch_id",
        "openai_translation_batch_id",
        "openai_batch_ids",
        "error_message",
        "error",
        "webhook_configured",
    ];
    assert_eq!(members(&first), BTreeSet::from(expected));
    assert_eq!(first["status"], "pending");
    assert_eq!(first["languages"], json!(["en", "ru"]));
    assert_eq!(first["webhook_configured"], true);
    assert_eq!(first["processing_details"]["current_stage"], "waiting");
    let progress = &first["progress"];
    assert_eq!(
        members(progress),
        BTreeSet::from([
            "total_lots",
            "processed_lots",
            "failed_lots",
            "completion_percentage",
            "estimated_completion",
            "requests"
        ])
    );
    // The lot without an image has failed immediately.
    assert_eq!(
        (&progress["processed_lots"], &progress["failed_lots"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(progress["completion_percentage"], 25.0);
    // Four descriptions and four translations; one lot has failed.
    assert_eq!(progress["requests"], json!({"total": 8, "settled": 2}));
    assert!(progress["estimated_completion"].is_string());
    for absent in ["completed_at", "error_message", "error", "openai_batch_id"] {
        assert_eq!(first[absent], Value::Null, "{absent}");
    }
    let early = appliance.read(&format!("/api/v1/batch-results/{job}"), &job);
    assert_eq!((early.status, early.header("retry-after").is_some()), (202, true));
    let early = early.json();
    assert_eq!(
        members(&early),
        BTreeSet::from(["error", "status", "progress", "message"])
    );
    assert_eq!(early["error"], "Job not completed");

    appliance.wait_until_images_are_checked();
    assert_eq!(appliance.run(&["resume", "submissions"]).status, 0);
    let last = appliance.ended(&job);
    assert_eq!(last["status"], "completed");
    assert_eq!(last["progress"]["processed_lots"], 4);
    assert_eq!(last["progress"]["completion_percentage"], 100.0);
    assert_eq!(last["progress"]["requests"], json!({"total": 8, "settled": 8}));
    assert_eq!(last["progress"]["estimated_completion"], Value::Null);
    assert_eq!(last["openai_batch_id"], last["openai_vision_batch_id"]);
    assert_eq!(
        last["processing_details"]["openai_translation_batch_id"],
        last["openai_translation_batch_id"]
    );
    let batches = last["openai_batch_ids"].as_array().unwrap();
    let stages: Vec<_> = batches
        .iter()
        .map(|it| (&it["stage"], &it["openai_batch_id"]))
        .collect();
    assert_eq!(
        stages,
        [
            (&json!("vision"), &last["openai_batch_id"]),
            (&json!("translation"), &last["openai_translation_batch_id"])
        ]
    );
    for name in ["created_at", "updated_at", "completed_at"] {
        let time = last[name].as_str().unwrap();
        assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    }
}

#[test]
fn an_estimate_is_made_from_the_last_batches() {
    let appliance = Appliance::start();
    let estimated = |answer: &Value, created_at: &Value| {
        let time = |text: &Value| text.as_str().unwrap().parse::<Timestamp>().unwrap();
        time(&answer["estimated_completion"]).since(time(created_at))
    };
    let accepted = appliance
        .submit(&submission(&appliance.lots(2), &["en", "ru"]))
        .json();
    assert_eq!(estimated(&accepted, &accepted["created_at"]).as_secs(), 7_200);
    appliance.results(accepted["job_id"].as_str().unwrap());
    for lots in 3..5 {
        appliance.results(&appliance.job(&appliance.lots(lots), &["en", "ru"]));
    }
    appliance.wait_until_ingested();
    // Each stage takes ten minutes now.
    let database = rusqlite::Connection::open(appliance.database()).unwrap();
    database.busy_timeout(std::time::Duration::from_mins(1)).unwrap();
    let sql =
        "UPDATE openai_batches SET created_at = strftime('%Y-%m-%dT%H:%M:%fZ', ingested_at, '-10 minutes')";
    assert!(database.execute(sql, []).unwrap() >= 6);
    assert_eq!(appliance.run(&["pause", "submissions"]).status, 0);
    for (languages, expected) in [(&["en", "ru"][..], 1_200), (&["en"], 600)] {
        let accepted = appliance
            .submit(&submission(&appliance.lots(2), languages))
            .json();
        let job = accepted["job_id"].as_str().unwrap();
        let created_at = &accepted["created_at"];
        let status = appliance.status(job);
        for answer in [&accepted, &status["progress"]] {
            let estimate = estimated(answer, created_at).as_secs();
            // `batch.max_wait` comes before each batch.
            assert!((expected..expected + 5).contains(&estimate), "{estimate}");
        }
    }
}

#[test]
fn results_have_their_fields_and_pages_and_languages_that_failed_say_why() {
    let appliance = Appliance::start();
    let lots = appliance.lots(7);
    appliance.fault(&json!({"fault": "refusal_line", "match": "_3_ru$"}));
    let languages = ["ru", "en"];
    let job = accepted(&appliance.submit(&submission(&lots, &languages)));
    let results = appliance.results(&job);
    assert_eq!(
        members(&results),
        BTreeSet::from([
            "job_id",
            "status",
            "completed_at",
            "processing_summary",
            "results"
        ])
    );
    let summary = &results["processing_summary"];
    assert_eq!(
        (
            &summary["total_lots"],
            &summary["processed_lots"],
            &summary["failed_lots"]
        ),
        (&json!(7), &json!(7), &json!(0))
    );
    assert_eq!(summary["total_images_processed"], 14);
    assert!(
        summary["total_processing_time"]
            .as_str()
            .unwrap()
            .contains("second")
    );
    assert_results(&results, &lots, &languages, &[3]);
    let lot = &results["results"]["lots"][3];
    assert_eq!(
        members(lot),
        BTreeSet::from([
            "lot_id",
            "status",
            "processed_at",
            "processed_images",
            "descriptions",
            "missing_images",
            "error_message"
        ])
    );
    // The lot has an English text. For the other language, it has the reason of the failure.
    assert_eq!(lot["status"], "completed");
    assert_eq!(lot["descriptions"][0]["language"], "ru");
    assert_eq!(lot["descriptions"][0]["damages"], Value::Null);
    assert!(
        lot["descriptions"][0]["error"]
            .as_str()
            .unwrap()
            .contains("refused")
    );
    assert!(lot["descriptions"][1]["damages"].is_string());

    let page = |query: &str| -> Vec<Value> {
        let path = format!("/api/v1/batch-results/{job}{query}");
        let answer = appliance.get(&path);
        assert_eq!(answer.status, 200);
        answer.json()["results"]["lots"].as_array().unwrap().clone()
    };
    let all = results["results"]["lots"].as_array().unwrap().clone();
    assert_eq!(page("?limit=3"), all[..3]);
    assert_eq!(page("?limit=3&offset=5"), all[5..]);
    assert_eq!(page("?offset=6"), all[6..]);
    assert_eq!(page("?limit=100000000&offset=7"), [Value::Null; 0]);
    // As in the list, an empty value is ignored, and a page has at least one lot.
    assert_eq!(page("?limit=&offset="), all[..]);
    assert_eq!(page("?limit=0"), all[..1]);
    assert_eq!(page("?limit=-1&offset=-1"), all[..1]);
    let file = appliance.get(&format!("/api/v1/batch-results/{job}/download"));
    let name = format!("attachment; filename=\"batch_results_{job}.json\"");
    assert_eq!(file.header("content-disposition"), Some(name.as_str()));
    assert_eq!(file.json(), results);
}

#[test]
fn small_results_do_not_wait_for_large_ones() {
    // A client that reads slowly keeps its slot.
    let appliance = Appliance::with("[http]\ndownloads = 1\nwrite_stall = \"10m\"");
    let large = appliance.job(&appliance.lots(20), &["en"]);
    let small = appliance.job(&appliance.lots(2), &["en"]);
    let path = |job: &str| format!("/api/v1/batch-results/{job}");
    let older = format!("/api/v1/jobs/{small}");
    let expected = appliance.results(&small);
    appliance.results(&large);
    rusqlite::Connection::open(appliance.database())
        .unwrap()
        .execute(
            "UPDATE batch_lots SET vision_result = printf('%.*c', 1000000, 'x') WHERE batch_job_id = ?",
            [&large],
        )
        .unwrap();
    // One answer is being sent, one waits for it, and one request is refused. No client reads more
    // than the beginning.
    let address = appliance.api.strip_prefix("http://").unwrap();
    let head = format!(
        "GET {} HTTP/1.1\r\nHost: {address}\r\nX-Signature: {}\r\n\r\n",
        path(&large),
        sign_bytes(large.as_bytes())
    );
    let slow = || {
        let mut reader = TcpStream::connect(address).unwrap();
        reader.write_all(head.as_bytes()).unwrap();
        reader
    };
    let mut first = slow();
    first.read_exact(&mut [0; 100]).unwrap();
    let others = [slow(), slow()];
    wait_for("all slots to be in use", || {
        let answered = |it: &TcpStream| {
            it.set_nonblocking(true).unwrap();
            it.peek(&mut [0]).is_ok()
        };
        others.iter().any(answered).then_some(())
    });
    thread::scope(|scope| {
        let readers: Vec<_> = (0..64)
            .map(|_| scope.spawn(|| appliance.read(&path(&small), &small)))
            .collect();
        for reader in readers {
            let answer = reader.join().unwrap();
            assert_eq!((answer.status, answer.json()), (200, expected.clone()));
            assert!(answer.header("content-length").is_some());
        }
    });
    assert_eq!(appliance.read(&older, &small).status, 200);
    assert_eq!(appliance.read(&path(&large), &large).status, 503);
}

#[test]
fn slow_readers_of_one_client_keep_no_other_client_from_its_results() {
    let appliance = Appliance::with(&format!(
        "clients = [{{name = \"default\", keys = [{KEY:?}]}}, {{name = \"other\", keys = [{OTHER_KEY:?}]}}]\n\
         [http]\ndownloads = 3\nwrite_stall = \"10m\""
    ));
    let body = submission(&appliance.lots(20), &["en"]).to_string();
    let signature = sign_with(OTHER_KEY, body.as_bytes());
    let headers = [("X-Client-Id", "other"), ("X-Signature", signature.as_str())];
    let other = accepted(&appliance.post(&headers, body.as_bytes()));
    let own = appliance.job(&appliance.lots(20), &["en"]);
    appliance.results(&own);
    let completed = format!("SELECT count(*) FROM batch_jobs WHERE id = '{other}' AND status = 'completed'");
    wait_for("the other client's job", || {
        (appliance.cell::<i64>(&completed) == 1).then_some(())
    });
    rusqlite::Connection::open(appliance.database())
        .unwrap()
        .execute(
            "UPDATE batch_lots SET vision_result = printf('%.*c', 1000000, 'x')",
            [],
        )
        .unwrap();
    let address = appliance.api.strip_prefix("http://").unwrap();
    let head = format!(
        "GET /api/v1/batch-results/{own} HTTP/1.1\r\nHost: {address}\r\nX-Signature: {}\r\n\r\n",
        sign_bytes(own.as_bytes())
    );
    // Each is being sent, and reads no more than its beginning.
    let slow: Vec<_> = (0..3)
        .map(|_| {
            let mut reader = TcpStream::connect(address).unwrap();
            reader.write_all(head.as_bytes()).unwrap();
            reader.read_exact(&mut [0; 100]).unwrap();
            reader
        })
        .collect();
    let signature = sign_with(OTHER_KEY, other.as_bytes());
    let headers = [("X-Client-Id", "other"), ("X-Signature", signature.as_str())];
    let url = format!("{}/api/v1/batch-results/{other}?limit=5", appliance.api);
    let answer = call("GET", &url, &headers, b"");
    assert_eq!((answer.status, answer.body.len() > 5_000_000), (200, true));
    drop(slow);
}

#[test]
fn the_results_of_a_job_whose_lots_all_failed_are_410() {
    let appliance = Appliance::start();
    let mut body = submission(&appliance.lots(2), &["en"]);
    for lot in body["lots"].as_array_mut().unwrap() {
        lot["images"] = json!([format!("{}/nothing.jpg", appliance.sandbox)]);
    }
    body["webhook_url"] = json!(appliance.hook("failed"));
    let job = accepted(&appliance.submit(&body));
    assert_eq!(appliance.ended(&job)["status"], "failed");
    let answer = appliance.get(&format!("/api/v1/batch-results/{job}"));
    let body = refused(&answer, 410, "JOB_FAILED");
    assert!(body["message"].as_str().unwrap().contains("IMAGE_UNREACHABLE"));
    assert_eq!(body["results"]["lots"].as_array().unwrap().len(), 2);
    let event: Value =
        serde_json::from_str(appliance.delivered("failed", 1)[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&event["event"], &event["status"]),
        (&json!("batch_job_failed"), &json!("failed"))
    );
    assert_eq!(event["results_available"], false);
}
