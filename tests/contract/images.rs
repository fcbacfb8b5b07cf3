//! The image checks: when an image counts as missing, and when its lot fails or waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::accepted;
use crate::appliance::{Appliance, described, in_languages, submission, wait_for};
use crate::receiver::{Receiver, Reply, mute, status};

fn image() -> Reply {
    status(200)
        .with("Content-Type: image/jpeg")
        .body("GIF89a of a car")
}

/// A host that serves images of every kind.
fn host() -> Receiver {
    Receiver::start(|nth, seen| {
        let path = seen.path.trim_start_matches('/');
        match path {
            "page" => status(200).with("Content-Type: text/html"),
            "gone" => status(404),
            "flaky" if nth % 4 < 2 => status(500),
            "away1" => status(302).with("Location: /away2"),
            "away2" => status(302).with("Location: /away3"),
            "away3" => status(302).with("Location: /good"),
            "far" => status(302).with("Location: /away1"),
            "private" => status(302).with("Location: http://10.0.0.1/1.jpg"),
            _ => image(),
        }
    })
}

fn lot(id: &str, images: &[String]) -> Value {
    json!({"lot_id": id, "additional_info": format!("lot {id}"), "images": images})
}

#[test]
fn missing_images_are_left_out_and_a_lot_with_too_many_fails_alone() {
    let host = host();
    let url = |path: &str| host.url(path);
    let appliance = Appliance::start();
    let good: Vec<String> = (0..10)
        .map(|n| appliance.image("truck.jpg") + &format!("?{n}"))
        .collect();
    let with = |missing: &[&str], wells: usize| -> Vec<String> {
        let missing = missing.iter().map(|path| url(path));
        missing.chain(good[..wells].iter().cloned()).collect()
    };
    let lots = [
        lot("none missing", &good[..2]),
        lot("thirty percent", &with(&["page", "gone", "private"], 7)),
        lot("more", &with(&["page", "gone"], 4)),
        lot("one of one", &[url("gone")]),
        lot("all unusable", &["ftp://img.example/1.jpg".to_owned()]),
    ];
    let job = accepted(&appliance.submit(&submission(&lots, &["en"])));
    let results = appliance.results(&job);
    let found = &results["results"]["lots"];
    for (at, missing) in [(0, vec![]), (1, vec!["page", "gone", "private"])] {
        let missing: Vec<String> = missing.into_iter().map(url).collect();
        assert_eq!(found[at]["status"], "completed");
        assert_eq!(found[at]["missing_images"], json!(missing));
        let texts = in_languages(&described(&lots[at], &missing), &["en"]);
        assert_eq!(found[at]["descriptions"], texts);
    }
    for (at, processed) in [2, 7, 0, 0, 0].into_iter().enumerate() {
        assert_eq!(found[at]["processed_images"], processed, "{}", found[at]);
    }
    for (at, reason) in [
        (2, "IMAGE_UNREACHABLE: 2 of 6"),
        (3, "IMAGE_UNREACHABLE: 1 of 1"),
        (4, "INVALID_IMAGE_URLS"),
    ] {
        assert_eq!(found[at]["status"], "failed");
        let message = found[at]["error_message"].as_str().unwrap();
        assert!(message.starts_with(reason), "{message}");
    }
    assert_eq!(results["processing_summary"]["failed_lots"], 3);
    appliance.assert_sound();
}

#[test]
fn a_host_that_asks_for_patience_gets_it_and_no_lot_fails() {
    // A host that serves one image in a second, as those that protect themselves do.
    let busy = Receiver::start(|nth, _| match nth {
        0..4 => status(429),
        4..8 => status(503).with("Retry-After: 1"),
        _ => image(),
    });
    let always = Receiver::start(|_, _| status(429));
    let appliance = Appliance::start();
    let patient = accepted(&appliance.submit(&submission(
        &[lot("first", &[busy.url("a")]), lot("second", &[busy.url("b")])],
        &["en"],
    )));
    let endless = [
        lot("endless", &[always.url("a")]),
        lot("beside", &[appliance.image("truck.jpg")]),
    ];
    let endless = accepted(&appliance.submit(&submission(&endless, &["en"])));
    let results = appliance.results(&patient);
    for lot in results["results"]["lots"].as_array().unwrap() {
        assert_eq!(lot["status"], "completed", "{lot}");
        assert_eq!(lot["missing_images"], json!([]), "{lot}");
    }
    // A host that never serves anything stops its own lots alone. They fail after ten minutes.
    wait_for("the lot beside", || {
        let done = appliance.status(&endless)["progress"]["processed_lots"] == 1;
        done.then_some(())
    });
}

/// A lot with two usable images and three texts that are no usable URL. The last text is too long
/// to be listed whole.
fn with_unusable(first: &str, second: &str) -> (Value, Value) {
    let long = format!("ftp://img.example/{}", "x".repeat(1000));
    let listed = format!("{} …", &long[..498]);
    let images = json!([
        first, "ftp://img.example/1.jpg", {"url": second}, {"url": "https://img.example/a b.jpg"}, long, 7, {"link": "x"},
    ]);
    let unusable = json!(["ftp://img.example/1.jpg", "https://img.example/a b.jpg", listed]);
    (images, unusable)
}

/// A list of texts with one more at its end.
fn and(list: &Value, last: &str) -> Value {
    let mut list = list.clone();
    list.as_array_mut().unwrap().push(json!(last));
    list
}

#[test]
fn unusable_images_are_listed_and_do_not_count_for_the_thirty_percent() {
    let host = host();
    let gone = host.url("gone");
    let appliance = Appliance::start();
    let (truck, china) = (appliance.image("truck.jpg"), appliance.image("china.jpg"));
    let mut lots = appliance.lots(4);
    let (images, unusable) = with_unusable(&truck, &china);
    lots[0]["images"] = images;
    // One of two checked images is too few; one of one is enough.
    let (images, _) = with_unusable(&truck, &gone);
    lots[1]["images"] = images;
    lots[2]["images"] = unusable.clone();
    let mut body = submission(&lots, &["en"]);
    body["webhook_url"] = json!(appliance.hook("listed"));
    let job = accepted(&appliance.submit(&body));
    let results = appliance.results(&job);
    let found = &results["results"]["lots"];
    let expected = [
        ("completed", unusable.clone(), 2),
        ("failed", and(&unusable, &gone), 0),
        ("failed", unusable.clone(), 0),
        ("completed", json!([]), 2),
    ];
    for (position, (status, missing, processed)) in expected.iter().enumerate() {
        let lot = &found[position];
        assert_eq!(lot["status"], *status, "{lot}");
        assert_eq!(lot["missing_images"], *missing, "{lot}");
        assert_eq!(lot["processed_images"], *processed, "{lot}");
    }
    let sent = json!({"additional_info": lots[0]["additional_info"], "images": [truck, china]});
    assert_eq!(
        found[0]["descriptions"],
        in_languages(&described(&sent, &[]), &["en"])
    );
    let reason = found[1]["error_message"].as_str().unwrap();
    assert!(reason.starts_with("IMAGE_UNREACHABLE: 1 of 2"), "{reason}");
    assert_eq!(results["processing_summary"]["total_images_processed"], 4);
    let delivered = appliance.delivered("listed", 1);
    let event: Value = serde_json::from_str(delivered[0]["body"].as_str().unwrap()).unwrap();
    assert_eq!(event["lots"], *found);
    let older = appliance.read(&format!("/api/v1/jobs/{job}"), &job).json();
    assert_eq!(older["results"][1]["missing_images"], expected[1].1);

    // A retry by the operator keeps the unusable texts and adds the missing images of its own
    // checks.
    let ran = appliance.run(&["jobs", "retry", &job, "--failed-lots"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    appliance.delivered("listed", 2);
    let again = appliance.results(&job);
    for (position, (_, missing, _)) in expected.iter().enumerate() {
        let lot = &again["results"]["lots"][position];
        assert_eq!(lot["missing_images"], *missing, "{lot}");
    }
    appliance.assert_sound();
}

#[test]
fn two_failures_in_a_row_make_an_image_missing_and_three_redirects_are_followed() {
    // HEAD and GET of the first check fail; those of the second check succeed.
    let flaky = Receiver::start(|nth, _| if nth < 2 { status(500) } else { image() });
    let host = host();
    let appliance = Appliance::start();
    let urls = [flaky.url("flaky"), host.url("away1")];
    let too_far = [host.url("far")];
    let lots = [lot("well", &urls), lot("too far", &too_far)];
    let job = accepted(&appliance.submit(&submission(&lots, &["en"])));
    appliance.ended(&job);
    let missing = "SELECT coalesce(group_concat(missing_images), '') FROM batch_lots";
    assert_eq!(appliance.cell::<String>(missing), json!(too_far).to_string());
    assert_eq!(flaky.so_far().len(), 3);
    let range = "bytes=0-1023";
    assert!(flaky.so_far().iter().any(|seen| seen.header("range") == range));
}

#[test]
fn without_checks_every_image_is_sent() {
    let host = host();
    let appliance = Appliance::with("[images]\ncheck = false");
    let lots = [lot("a", &[host.url("gone")]), lot("b", &[host.url("page")])];
    let job = accepted(&appliance.submit(&submission(&lots, &["en"])));
    appliance.ended(&job);
    assert_eq!(host.so_far().len(), 0);
    assert_eq!(
        appliance.cell::<i64>("SELECT count(*) FROM batch_lots WHERE missing_images IS NOT NULL"),
        0
    );
    let (images, unusable) = with_unusable(&host.url("gone"), &host.url("page"));
    let lots = [json!({"lot_id": "a", "images": images}), lot("b", &[])];
    let job = accepted(&appliance.submit(&submission(&lots, &["en"])));
    appliance.ended(&job);
    let listed: String =
        appliance.cell("SELECT missing_images FROM batch_lots WHERE missing_images IS NOT NULL");
    assert_eq!(listed, unusable.to_string());
}

/// The number of lots with images on a slow host. At four checks at a time, they take two minutes.
const LOTS: usize = 320;

#[test]
fn a_slow_host_occupies_two_checkers_at_most_and_delays_no_other_host() {
    // The host stays slow until the other job is done.
    let is_done = Arc::new(AtomicBool::new(false));
    let hurry = is_done.clone();
    let slow = Receiver::start(move |_, _| {
        let slow = !hurry.load(Ordering::SeqCst);
        image().after(Duration::from_millis(if slow { 1500 } else { 0 }))
    });
    let appliance = Appliance::with("[images]\nconcurrency = 16");
    let lots: Vec<Value> = (0..LOTS)
        .map(|n| lot(&n.to_string(), &[slow.url(&n.to_string())]))
        .collect();
    let held_up = accepted(&appliance.submit(&submission(&lots, &["en"])));
    wait_for("two checkers", || (slow.most_at_once() == 2).then_some(()));
    let quick = accepted(&appliance.submit(&submission(&appliance.lots(20), &["en"])));
    appliance.results(&quick);
    assert!(slow.so_far().len() < LOTS, "the other job did not wait for it");
    assert_eq!(slow.most_at_once(), 2);
    is_done.store(true, Ordering::SeqCst);
    slow.seen(LOTS);
    appliance.ended(&held_up);
}

#[test]
fn a_restart_does_not_check_known_images_again() {
    let host = host();
    let port = mute();
    let mut appliance = Appliance::start();
    let hanging = format!("http://127.0.0.1:{port}/1.jpg");
    let known: Vec<String> = ["a", "b", "c", "gone"].map(|path| host.url(path)).into();
    let images: Vec<String> = known.iter().cloned().chain([hanging.clone()]).collect();
    let lots = [lot("1", &images), lot("2", &images[..3])];
    let job = accepted(&appliance.submit(&submission(&lots, &["en"])));
    wait_for("the checks of the host that answers", || {
        (appliance.cell::<i64>("SELECT count(*) FROM image_checks") == 4).then_some(())
    });
    let asked = host.so_far().len();
    appliance.kill_daemon();
    appliance.start_daemon();
    // 3 s for HEAD and 5 s for GET, twice.
    appliance.ended(&job);
    assert_eq!(host.so_far().len(), asked);
    let failed: String = appliance.cell("SELECT error_message FROM batch_lots WHERE lot_id = '1'");
    assert!(failed.starts_with("IMAGE_UNREACHABLE: 2 of 5"), "{failed}");
    assert_eq!(appliance.status(&job)["progress"]["failed_lots"], 1);
}
