//! Webhooks: what is told to whom, how it is signed, and what a receiver's answer brings about.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::time::Duration;

use batchkeeper::domain::signature::ReceivedWebhook;
use batchkeeper::python_json::canonical_value;
use batchkeeper::store::{Store, alerts, webhook_deliveries};
use serde_json::{Value, json};

use crate::appliance::{Appliance, KEY, described, in_languages, now, submission, wait_for};
use crate::receiver::{Receiver, Seen, mute, status};
use crate::{sign_with, taken};

const NEW_KEY: &str = "the key that comes after the first one";

fn told(appliance: &Appliance, lots: usize, url: &str) -> String {
    let mut body = submission(&appliance.lots(lots), &["en"]);
    body["webhook_url"] = json!(url);
    taken(&appliance.submit(&body))
}

fn secret(appliance: &Appliance) -> String {
    let ran = appliance.run(&["sign", "--webhook-secret"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    ran.out.trim().to_owned()
}

/// As a receiver with a Standard Webhooks library does.
fn verify(seen: &Seen, secret: &str) -> bool {
    ReceivedWebhook {
        id: seen.header("webhook-id"),
        timestamp: seen.header("webhook-timestamp"),
        signature: seen.header("webhook-signature"),
        body: &seen.body,
    }
    .verify(secret, now())
    .is_ok()
}

#[test]
fn every_attempt_is_signed_both_ways_and_has_the_same_id() {
    let receiver = Receiver::start(|nth, _| status(if nth < 2 { 500 } else { 204 }));
    let mut appliance = Appliance::start();
    let first_secret = secret(&appliance);
    let job = told(&appliance, 2, &receiver.url("hook"));
    let seen = receiver.seen(3);
    let ids: BTreeSet<_> = seen.iter().map(|it| it.header("webhook-id")).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    for (number, attempt) in seen.iter().enumerate() {
        assert_eq!(attempt.body, seen[0].body);
        assert_eq!(attempt.header("x-signature"), sign_with(KEY, &attempt.body));
        assert_eq!(
            attempt.header("x-delivery-attempt"),
            (number + 1).to_string()
        );
        assert_eq!(attempt.header("x-job-id"), job);
        assert_eq!(attempt.header("content-type"), "application/json");
        let agent = concat!("batchkeeper/", env!("CARGO_PKG_VERSION"));
        assert_eq!(attempt.header("user-agent"), agent);
        assert!(verify(attempt, &first_secret));
        assert_eq!(attempt.header("webhook-signature").split(' ').count(), 1);
    }
    // While the key is rotated, receivers with either verify; the other header has the first.
    appliance.kill_daemon();
    appliance.configure(&format!(
        "clients = [{{name = \"default\", keys = [{NEW_KEY:?}, {KEY:?}], signature_prefix = \"sha256=\"}}]"
    ));
    appliance.start_daemon();
    told(&appliance, 3, &receiver.url("hook"));
    let rotated = &receiver.seen(4)[3];
    assert_eq!(rotated.header("webhook-signature").split(' ').count(), 2);
    let second_secret = secret(&appliance);
    assert_ne!(first_secret, second_secret);
    assert!(verify(rotated, &first_secret) && verify(rotated, &second_secret));
    let expected = format!("sha256={}", sign_with(NEW_KEY, &rotated.body));
    assert_eq!(rotated.header("x-signature"), expected);
}

#[test]
fn what_is_not_ascii_in_a_url_is_percent_encoded() {
    let receiver = Receiver::start(|_, _| status(204));
    let appliance = Appliance::start();
    told(&appliance, 1, &receiver.url("хук?a=é%2f"));
    let seen = &receiver.seen(1)[0];
    assert_eq!(seen.path, "/%D1%85%D1%83%D0%BA?a=%C3%A9%2f");
}

#[test]
fn each_url_is_told_of_its_own_lots_in_canonical_json() {
    let appliance = Appliance::start();
    let mut lots = appliance.lots(5);
    for (at, hook) in [(1, "own"), (3, "own"), (4, "other")] {
        lots[at]["webhook"] = json!(appliance.hook(hook));
    }
    lots[2]["images"] = json!([format!("{}/nothing.jpg", appliance.sandbox)]);
    let mut body = submission(&lots, &["en", "ru"]);
    body["webhook_url"] = json!(appliance.hook("whole"));
    let job = taken(&appliance.submit(&body));
    let results = appliance.results(&job);
    for (hook, own) in [
        ("whole", vec![0, 2]),
        ("own", vec![1, 3]),
        ("other", vec![4]),
    ] {
        let deliveries = appliance.delivered(hook, 1);
        assert_eq!(deliveries.len(), 1);
        let text = deliveries[0]["body"].as_str().unwrap();
        let told: Value = serde_json::from_str(text).unwrap();
        let mut again = Vec::new();
        canonical_value(&told, &mut |piece| again.extend_from_slice(piece));
        assert_eq!(String::from_utf8(again).unwrap(), text);
        for (name, value) in [
            ("event", json!("batch_job_completed")),
            ("job_id", json!(job)),
            ("status", json!("completed")),
            ("timestamp", results["completed_at"].clone()),
            ("completed_at", results["completed_at"].clone()),
            ("total_lots", json!(5)),
            ("completed_lots", json!(4)),
            ("failed_lots", json!(1)),
            ("results_available", json!(true)),
            ("result_url", json!(format!("/api/v1/batch-results/{job}"))),
            ("processing_summary", results["processing_summary"].clone()),
            ("version", json!("1.0.0")),
        ] {
            assert_eq!(told[name], value, "{name}");
        }
        let expected: Value = own
            .iter()
            .map(|at| results["results"]["lots"][*at].clone())
            .collect();
        assert_eq!(told["lots"], expected);
        for (at, lot) in own.iter().zip(told["lots"].as_array().unwrap()) {
            if *at != 2 {
                let texts = in_languages(&described(&lots[*at], &[]), &["en", "ru"]);
                assert_eq!(lot["descriptions"], texts);
            }
        }
    }
}

#[test]
fn a_body_that_would_be_too_long_leaves_its_lots_out() {
    let appliance = Appliance::with("[webhooks]\nmax_body = \"2kB\"");
    let job = told(&appliance, 1, &appliance.hook("short"));
    let other = told(&appliance, 30, &appliance.hook("long"));
    let body = |hook: &str| -> (usize, Value) {
        let delivery = appliance.delivered(hook, 1)[0].clone();
        let text = delivery["body"].as_str().unwrap();
        (text.len(), serde_json::from_str(text).unwrap())
    };
    let (length, short) = body("short");
    assert!(
        length <= 2000 && short["lots_truncated"].is_null(),
        "{length} {short}"
    );
    assert_eq!(
        (&short["job_id"], short["lots"].as_array().unwrap().len()),
        (&json!(job), 1)
    );
    let (length, long) = body("long");
    assert!(length <= 2000, "{length}");
    assert_eq!(long["lots_truncated"], true);
    assert_eq!(
        (&long["job_id"], &long["total_lots"], &long["lots"]),
        (&json!(other), &json!(30), &Value::Null)
    );
}

#[test]
fn what_a_receiver_says_decides() {
    let gone = Receiver::start(|_, _| status(410));
    let moved = Receiver::start(|nth, _| match nth {
        0 => status(307).with("Location: http://127.0.0.1:1/elsewhere"),
        _ => status(200),
    });
    let busy = Receiver::start(|nth, _| match nth {
        0 => status(429).with("Retry-After: 2"),
        1 => status(503).with("Retry-After: 1"),
        _ => status(200),
    });
    let dead = Receiver::start(|_, _| status(500));
    let appliance = Appliance::with("[webhooks]\nretry_delays = [\"40ms\", \"40ms\", \"40ms\"]");
    for receiver in [&gone, &moved, &busy, &dead] {
        told(&appliance, 1, &receiver.url("hook"));
    }
    let waits = busy.seen(3);
    assert!(waits[1].at - waits[0].at >= Duration::from_secs(2));
    assert!(waits[2].at - waits[1].at >= Duration::from_secs(1));
    assert_eq!(moved.seen(2).len(), 2);
    let state = |receiver: &Receiver| -> String {
        let url = receiver.url("hook");
        appliance.cell(&format!(
            "SELECT state || ' after ' || attempts FROM webhook_deliveries WHERE url = '{url}' ORDER BY resend_number LIMIT 1"
        ))
    };
    for (receiver, expected) in [
        (&gone, "failed after 1"),
        (&moved, "delivered after 2"),
        (&busy, "delivered after 3"),
        (&dead, "failed after 4"),
    ] {
        wait_for(expected, || (state(receiver) == expected).then_some(()));
    }
    assert_eq!((gone.so_far().len(), dead.so_far().len()), (1, 4));
    // What is given up is told to a person, who can send it again: that has an id of its own.
    let alerts = appliance.run(&["alerts"]);
    assert_eq!(alerts.status, 1);
    assert_eq!(
        alerts.out.matches("webhook_failed").count(),
        2,
        "{}",
        alerts.out
    );
    let listed = appliance.run(&["webhooks", "--json"]);
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    let mut rows = listed.as_array().unwrap().iter();
    let row = rows
        .rfind(|row| row["url"] == dead.url("hook"))
        .unwrap()
        .clone();
    assert_eq!(
        (&row["state"], &row["attempts"]),
        (&json!("failed"), &json!(4))
    );
    let id = row["id"].to_string();
    assert!(
        appliance
            .run(&["webhooks", "show", &id])
            .out
            .contains("500")
    );
    assert_eq!(appliance.run(&["webhooks", "resend", &id]).status, 0);
    let again = dead.seen(5);
    assert_ne!(again[4].header("webhook-id"), again[0].header("webhook-id"));
    assert_eq!(again[4].header("x-delivery-attempt"), "1");
    assert_eq!(again[4].body, again[0].body);
    assert_eq!(appliance.run(&["webhooks", "resend", "999"]).status, 1);
}

#[test]
fn a_resend_that_arrives_closes_the_alert() {
    let receiver = Receiver::start(|nth, _| status(if nth == 0 { 410 } else { 200 }));
    let appliance = Appliance::start();
    told(&appliance, 1, &receiver.url("hook"));
    wait_for("the alert", || {
        (appliance.run(&["alerts"]).status == 1).then_some(())
    });
    let id = appliance
        .cell::<i64>("SELECT id FROM webhook_deliveries")
        .to_string();
    assert_eq!(appliance.run(&["webhooks", "resend", &id]).status, 0);
    wait_for("its end", || {
        (appliance.run(&["alerts"]).status == 0).then_some(())
    });
    appliance.is_sound();
}

#[test]
fn paused_webhooks_wait() {
    let appliance = Appliance::start();
    assert_eq!(appliance.run(&["pause", "webhooks"]).status, 0);
    let job = told(&appliance, 2, &appliance.hook("waits"));
    appliance.results(&job);
    assert_eq!(appliance.run(&["pause", "everything"]).status, 2);
    let due: i64 = appliance
        .cell("SELECT count(*) FROM webhook_deliveries WHERE state = 'due' AND attempts = 0");
    assert_eq!(due, 1);
    assert_eq!(appliance.run(&["resume", "webhooks"]).status, 0);
    appliance.delivered("waits", 1);
}

#[test]
fn eight_connections_to_a_receiver_at_most_and_one_where_it_fails() {
    let slow = Duration::from_millis(150);
    // The first eight are answered when all of them are there; then there is time for a ninth.
    let eight = Barrier::new(8);
    let receiver = Receiver::start(move |nth, _| {
        if nth < 8 {
            eight.wait();
        }
        status(200).after(slow)
    });
    let failing = Receiver::start(move |_, _| status(500).after(slow));
    let appliance = Appliance::with("[webhooks]\nconcurrency = 32\n[images]\ncheck = false");
    let many = |receiver: &Receiver| {
        let mut lots = appliance.lots(60);
        for (number, lot) in lots.iter_mut().enumerate() {
            lot["webhook"] = json!(receiver.url(&number.to_string()));
        }
        taken(&appliance.submit(&submission(&lots, &["en"])))
    };
    many(&receiver);
    receiver.seen(60);
    assert_eq!(receiver.most_at_once(), 8);
    // One attempt makes it a failing receiver before the others are due.
    told(&appliance, 1, &failing.url("first"));
    let failures = "SELECT coalesce(sum(failures), 0) FROM failing_receivers";
    wait_for("the first failure", || {
        (appliance.cell::<i64>(failures) > 0).then_some(())
    });
    many(&failing);
    failing.seen(20);
    assert_eq!(failing.most_at_once(), 1);
}

/// Jobs of 100 lots; of each lot's webhook, 95 go to receivers that hang and 5 to one that does not.
fn jobs_for_a_thousand(
    appliance: &Appliance,
    round: u32,
    port: u16,
    well: &Receiver,
) -> Vec<String> {
    let lots = appliance.lots(100);
    (0..10)
        .map(|job| {
            let mut lots = lots.clone();
            for (number, lot) in lots.iter_mut().enumerate() {
                lot["webhook"] = json!(if number < 95 {
                    format!("http://127.1.{}.{}:{port}/hook", job + 1, number + 1)
                } else {
                    well.url(&format!("{round}/{job}/{number}"))
                });
            }
            taken(&appliance.submit(&submission(&lots, &["en"])))
        })
        .collect()
}

#[test]
fn fifty_receivers_have_theirs_in_time_while_nine_hundred_and_fifty_hang() {
    let port = mute();
    let well = Receiver::start(|_, _| status(200));
    let common = "[images]\ncheck = false\n[batch]\nmax_requests = 1000\n";
    let config = |timeout: &str, retry: &str| {
        format!(
            "{common}[webhooks]\nconcurrency = 32\ntimeout = {timeout:?}\nretry_delays = [{retry:?}, {retry:?}, {retry:?}]"
        )
    };
    let mut appliance = Appliance::with(&config("500ms", "1h"));
    jobs_for_a_thousand(&appliance, 0, port, &well);
    well.seen(50);
    let failing = "SELECT count(*) FROM failing_receivers WHERE host LIKE '127.1.%'";
    wait_for("each hanging receiver's first failure", || {
        (appliance.cell::<i64>(failing) == 950).then_some(())
    });
    // Now each of them takes its whole time, and every job has 95 more for them.
    appliance.kill_daemon();
    appliance.configure(&config("10m", "1s"));
    appliance.start_daemon();
    let jobs = jobs_for_a_thousand(&appliance, 1, port, &well);
    let seen = well.seen(100);
    let mut ends = BTreeMap::new();
    for job in &jobs {
        let at: String = appliance.cell(&format!(
            "SELECT completed_at FROM batch_jobs WHERE id = '{job}'"
        ));
        let at: batchkeeper::base::clock::Timestamp = at.parse().unwrap();
        ends.insert(job.clone(), at.millis());
    }
    let mut late: Vec<i64> = seen[50..]
        .iter()
        .map(|it| it.wall - ends[it.header("x-job-id")])
        .collect();
    late.sort_unstable();
    assert_eq!(late.len(), 50);
    // One that waited for a receiver that hangs would be ten minutes late.
    assert!(
        late[49] < 60_000,
        "milliseconds after the job's end: {late:?}"
    );
    assert!(appliance.threads() < 150, "{}", appliance.threads());
    assert!(
        appliance.peak_memory() < 200_000,
        "{} kB",
        appliance.peak_memory()
    );
}

#[test]
fn a_receiver_that_fails_for_an_hour_is_told_to_a_person_until_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let start = now();
    let store = Store::open(&folder.path().join("batchkeeper.db"), start).unwrap();
    let hour = Duration::from_secs(3600);
    let open = || {
        store
            .read(|view| alerts::list(view, true, 10))
            .unwrap()
            .len()
    };
    for (minutes, expected) in [(0, 0), (59, 0), (60, 1), (200, 1)] {
        let at = start + Duration::from_secs(minutes * 60);
        store
            .write(at, |tx| {
                webhook_deliveries::mark_receiver_failing(tx, "hooks.example:443", hour)
            })
            .unwrap();
        assert_eq!(open(), expected, "after {minutes} minutes");
    }
    store
        .write(start + hour * 4, |tx| {
            webhook_deliveries::mark_receiver_healthy(tx, "hooks.example:443")
        })
        .unwrap();
    assert_eq!(open(), 0);
}
