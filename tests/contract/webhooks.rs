//! Webhooks: their recipients, their signatures, and the effect of a receiver's answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::time::Duration;

use batchkeeper::domain::signature::ReceivedWebhook;
use batchkeeper::python_json::write_canonical_value;
use batchkeeper::store::{Store, alerts, webhook_deliveries};
use serde_json::{Value, json};

use crate::appliance::{Appliance, KEY, described, in_languages, now, submission, wait_for};
use crate::receiver::{Receiver, Seen, mute, status};
use crate::{accepted, sign_with};

const NEW_KEY: &str = "the key that comes after the first one";

fn completed_job(appliance: &Appliance, lots: usize, url: &str) -> String {
    let mut body = submission(&appliance.lots(lots), &["en"]);
    body["webhook_url"] = json!(url);
    accepted(&appliance.submit(&body))
}

fn secret(appliance: &Appliance) -> String {
    let ran = appliance.run(&["sign", "--webhook-secret"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    ran.out.trim().to_owned()
}

/// Verifies a signature as a Standard Webhooks library does.
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
    let job = completed_job(&appliance, 2, &receiver.url("hook"));
    let seen = receiver.seen(3);
    let ids: BTreeSet<_> = seen.iter().map(|it| it.header("webhook-id")).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    for (number, attempt) in seen.iter().enumerate() {
        assert_eq!(attempt.body, seen[0].body);
        assert_eq!(attempt.header("x-signature"), sign_with(KEY, &attempt.body));
        assert_eq!(attempt.header("x-delivery-attempt"), (number + 1).to_string());
        assert_eq!(attempt.header("x-job-id"), job);
        assert_eq!(attempt.header("content-type"), "application/json");
        let agent = concat!("batchkeeper/", env!("CARGO_PKG_VERSION"));
        assert_eq!(attempt.header("user-agent"), agent);
        assert!(verify(attempt, &first_secret));
        assert_eq!(attempt.header("webhook-signature").split(' ').count(), 1);
    }
    // While the key is being rotated, a receiver may verify with either key. The other header is
    // signed with the first key.
    appliance.kill_daemon();
    appliance.configure(&format!(
        "clients = [{{name = \"default\", keys = [{NEW_KEY:?}, {KEY:?}], signature_prefix = \"sha256=\"}}]"
    ));
    appliance.start_daemon();
    completed_job(&appliance, 3, &receiver.url("hook"));
    let rotated = &receiver.seen(4)[3];
    assert_eq!(rotated.header("webhook-signature").split(' ').count(), 2);
    let second_secret = secret(&appliance);
    assert_ne!(first_secret, second_secret);
    assert!(verify(rotated, &first_secret) && verify(rotated, &second_secret));
    let expected = format!("sha256={}", sign_with(NEW_KEY, &rotated.body));
    assert_eq!(rotated.header("x-signature"), expected);
}

#[test]
fn non_ascii_characters_in_a_url_are_percent_encoded() {
    let receiver = Receiver::start(|_, _| status(204));
    let appliance = Appliance::start();
    completed_job(&appliance, 1, &receiver.url("хук?a=é%2f"));
    let seen = &receiver.seen(1)[0];
    assert_eq!(seen.path, "/%D1%85%D1%83%D0%BA?a=%C3%A9%2f");
}

#[test]
fn each_url_gets_its_own_lots_in_canonical_json() {
    let appliance = Appliance::start();
    let mut lots = appliance.lots(5);
    for (at, hook) in [(1, "own"), (3, "own"), (4, "other")] {
        lots[at]["webhook"] = json!(appliance.hook(hook));
    }
    lots[2]["images"] = json!([format!("{}/nothing.jpg", appliance.sandbox)]);
    let mut body = submission(&lots, &["en", "ru"]);
    body["webhook_url"] = json!(appliance.hook("whole"));
    let job = accepted(&appliance.submit(&body));
    let results = appliance.results(&job);
    for (hook, own) in [("whole", vec![0, 2]), ("own", vec![1, 3]), ("other", vec![4])] {
        let deliveries = appliance.delivered(hook, 1);
        assert_eq!(deliveries.len(), 1);
        let text = deliveries[0]["body"].as_str().unwrap();
        let event: Value = serde_json::from_str(text).unwrap();
        let mut again = Vec::new();
        write_canonical_value(&event, &mut |piece| again.extend_from_slice(piece));
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
            assert_eq!(event[name], value, "{name}");
        }
        let expected: Value = own
            .iter()
            .map(|at| results["results"]["lots"][*at].clone())
            .collect();
        assert_eq!(event["lots"], expected);
        for (at, lot) in own.iter().zip(event["lots"].as_array().unwrap()) {
            if *at != 2 {
                let texts = in_languages(&described(&lots[*at], &[]), &["en", "ru"]);
                assert_eq!(lot["descriptions"], texts);
            }
        }
    }
}

#[test]
fn a_body_that_is_too_long_omits_its_lots() {
    let appliance = Appliance::with("[webhooks]\nmax_body = \"2kB\"");
    let job = completed_job(&appliance, 1, &appliance.hook("short"));
    let other = completed_job(&appliance, 30, &appliance.hook("long"));
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
fn the_receiver_s_answer_decides_about_retries() {
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
        completed_job(&appliance, 1, &receiver.url("hook"));
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
    // An abandoned delivery opens an alert. An operator can send it again, under a new id.
    let alerts = appliance.run(&["alerts"]);
    assert_eq!(alerts.status, 1);
    assert_eq!(alerts.out.matches("webhook_failed").count(), 2, "{}", alerts.out);
    let listed = appliance.run(&["webhooks", "--json"]);
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    let mut rows = listed.as_array().unwrap().iter();
    let row = rows.rfind(|row| row["url"] == dead.url("hook")).unwrap().clone();
    assert_eq!((&row["state"], &row["attempts"]), (&json!("failed"), &json!(4)));
    let id = row["id"].to_string();
    assert!(appliance.run(&["webhooks", "show", &id]).out.contains("500"));
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
    completed_job(&appliance, 1, &receiver.url("hook"));
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
    appliance.assert_sound();
}

#[test]
fn paused_webhooks_wait() {
    let appliance = Appliance::start();
    assert_eq!(appliance.run(&["pause", "webhooks"]).status, 0);
    let job = completed_job(&appliance, 2, &appliance.hook("waits"));
    appliance.results(&job);
    assert_eq!(appliance.run(&["pause", "everything"]).status, 2);
    let due: i64 =
        appliance.cell("SELECT count(*) FROM webhook_deliveries WHERE state = 'due' AND attempts = 0");
    assert_eq!(due, 1);
    assert_eq!(appliance.run(&["resume", "webhooks"]).status, 0);
    appliance.delivered("waits", 1);
}

#[test]
fn a_receiver_gets_eight_connections_and_a_failing_one_gets_one() {
    let slow = Duration::from_millis(150);
    // The first eight connections are answered when all eight are open. Then a ninth has time to
    // arrive.
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
        accepted(&appliance.submit(&submission(&lots, &["en"])))
    };
    many(&receiver);
    receiver.seen(60);
    assert_eq!(receiver.most_at_once(), 8);
    // One failed attempt marks the receiver as failing before the other deliveries are due.
    completed_job(&appliance, 1, &failing.url("first"));
    let failures = "SELECT coalesce(sum(failures), 0) FROM failing_receivers";
    wait_for("the first failure", || {
        (appliance.cell::<i64>(failures) > 0).then_some(())
    });
    many(&failing);
    failing.seen(20);
    assert_eq!(failing.most_at_once(), 1);
}

/// Submits jobs of 100 lots. Of each job's lot webhooks, 95 go to receivers that hang and 5 to one
/// that answers.
fn jobs_for_a_thousand(appliance: &Appliance, round: u32, port: u16, well: &Receiver) -> Vec<String> {
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
            accepted(&appliance.submit(&submission(&lots, &["en"])))
        })
        .collect()
}

#[test]
fn fifty_receivers_are_notified_in_time_while_nine_hundred_and_fifty_hang() {
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
    // Now every hanging receiver uses its whole timeout, and every job has 95 more deliveries for
    // them.
    appliance.kill_daemon();
    appliance.configure(&config("10m", "1s"));
    appliance.start_daemon();
    let jobs = jobs_for_a_thousand(&appliance, 1, port, &well);
    let seen = well.seen(100);
    let mut ends = BTreeMap::new();
    for job in &jobs {
        let at: String = appliance.cell(&format!("SELECT completed_at FROM batch_jobs WHERE id = '{job}'"));
        let at: batchkeeper::base::clock::Timestamp = at.parse().unwrap();
        ends.insert(job.clone(), at.millis());
    }
    let mut late: Vec<i64> = seen[50..]
        .iter()
        .map(|it| it.wall - ends[it.header("x-job-id")])
        .collect();
    late.sort_unstable();
    assert_eq!(late.len(), 50);
    // A delivery that waited for a hanging receiver would be ten minutes late.
    assert!(late[49] < 60_000, "milliseconds after the job's end: {late:?}");
    assert!(appliance.threads() < 150, "{}", appliance.threads());
    assert!(
        appliance.peak_memory() < 200_000,
        "{} kB",
        appliance.peak_memory()
    );
}

#[test]
fn a_receiver_that_fails_for_an_hour_has_an_alert_until_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let start = now();
    let store = Store::open(&folder.path().join("batchkeeper.db"), start).unwrap();
    let hour = Duration::from_secs(3600);
    let open = || store.read(|view| alerts::list(view, true, 10)).unwrap().len();
    for (minutes, expected) in [(0, 0), (59, 0), (60, 1), (200, 1)] {
        let at = start + Duration::from_secs(minutes * 60);
        store
            .write(at, |tx| {
                webhook_deliveries::mark_receiver_failing(tx, "hooks.example:443", hour, "HTTP 500")
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

/// The three forms of a date (RFC 9110, 5.6.7), with and without a `Date` to compare it with, and numbers as people
/// write them.
#[test]
fn a_receivers_retry_after_is_followed_in_every_form() {
    let time = |form: &str, ahead: i64| {
        let at = jiff::Timestamp::from_second(now().seconds() + ahead).unwrap();
        jiff::fmt::strtime::format(form, at).unwrap()
    };
    let (imf, rfc_850, asctime) = (
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %e %H:%M:%S %Y",
    );
    // A receiver whose clock is a day behind gives its own Date.
    const DAY: i64 = 86_400;
    let dated = |form: &str| (time(form, 3600 - DAY), Some(time(form, -DAY)));
    let cases = [
        ("3600".to_owned(), None),
        ("3600.0".to_owned(), None),
        (" 3600 ".to_owned(), None),
        (time(imf, 3600), None),
        (time(rfc_850, 3600), None),
        (time(asctime, 3600), None),
        dated(imf),
        dated(rfc_850),
        dated(asctime),
        // A Date that cannot be read is ignored.
        (time(imf, 3600), Some("yesterday".to_owned())),
    ];
    let count = cases.len();
    let receiver = Receiver::start(move |nth, _| {
        let (retry_after, date) = &cases[nth];
        let reply = status(503).with(&format!("Retry-After: {retry_after}"));
        match date {
            Some(date) => reply.with(&format!("Date: {date}")),
            None => reply,
        }
    });
    let appliance = Appliance::with(
        "[images]\ncheck = false\n[webhooks]\nretry_delays = [\"1s\", \"1s\"]\nconcurrency = 1",
    );
    for nth in 0..count {
        let mut body = submission(&appliance.lots(2), &["en"]);
        body["lots"][0]["lot_id"] = json!(format!("lot-{nth}"));
        body["webhook_url"] = json!(receiver.url(&nth.to_string()));
        accepted(&appliance.send(&body, &[]));
        // One receiver that fails gets one attempt at a time: the next one is due at once if a test says so.
        receiver.seen(nth + 1);
        let due = wait_for("the end of the attempt", || {
            let sql = format!(
                "SELECT coalesce((SELECT unixepoch(next_at) FROM webhook_deliveries
                 WHERE attempts = 1 AND in_flight = 0 AND url LIKE '%/{nth}'), 0)"
            );
            Some(appliance.cell::<i64>(&sql)).filter(|at| *at > 0)
        });
        let wait = due - now().seconds();
        assert!((3000..=3601).contains(&wait), "case {nth}: {wait} s");
    }
}
