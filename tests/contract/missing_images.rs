//! Ten images, one of which OpenAI cannot use: the nine are described, and the tenth is named with its reason.

use serde_json::{Value, json};

use crate::accepted;
use crate::appliance::{Appliance, described, in_languages, submission};
use crate::receiver::{Receiver, Reply, status};
use crate::refused;

/// A host whose images OpenAI cannot use, each in its way.
fn host() -> Receiver {
    let jpeg = |body: &'static str| status(200).with("Content-Type: image/jpeg").body(body);
    Receiver::start(move |_, seen| -> Reply {
        match seen.path.trim_start_matches('/').split('?').next().unwrap() {
            "heic" => status(200)
                .with("Content-Type: image/heic")
                .body("\0\0\0\x18ftypheic"),
            "avif" => status(200)
                .with("Content-Type: image/avif")
                .body("\0\0\0\x18ftypavif"),
            "svg" => status(200).with("Content-Type: image/svg+xml").body("<svg/>"),
            "tiff" => status(200)
                .with("Content-Type: image/tiff")
                .body("II*\0\x08\0\0\0"),
            "bmp" => status(200).with("Content-Type: image/bmp").body("BM\0\0\0\0\0\0"),
            "large" => status(200).with("Content-Type: image/x\r\nContent-Range: bytes 0-2/10000001"),
            "empty" => status(200).with("Content-Type: image/jpeg"),
            // These look good to a HEAD.
            "page" => jpeg("<!doctype html>"),
            "damaged" => jpeg("RIFF\x7f\0\0\0WEBPVP8 "),
            _ => jpeg("GIF89a of a car"),
        }
    })
}

/// A lot with nine good images and that one, which is the fourth.
fn lot(appliance: &Appliance, id: &str, info: &str, bad: &str) -> Value {
    let mut images: Vec<String> = (0..9)
        .map(|n| format!("{}?{n}", appliance.image("truck.jpg")))
        .collect();
    images.insert(3, bad.to_owned());
    json!({"lot_id": id, "additional_info": info, "images": images})
}

/// Checks that a lot is described from nine images and names the tenth.
fn assert_nine(found: &Value, lot: &Value, bad: &str, reason: &str) {
    let missing = [bad.to_owned()];
    assert_eq!(found["status"], "completed", "{reason}: {found}");
    assert_eq!(found["missing_images"], json!(missing), "{found}");
    let said = found["missing_reasons"][bad].as_str().unwrap();
    assert!(said.contains(reason), "{reason}: {said}");
    assert_eq!(found["processed_images"], 9);
    assert_eq!(
        found["descriptions"],
        in_languages(&described(lot, &missing), &["en"])
    );
}

#[test]
fn types_that_openai_does_not_take_are_known_before_it_is_asked() {
    let (host, appliance) = (host(), Appliance::start());
    let cases = [
        ("heic", "HEIC"),
        ("avif", "AVIF"),
        ("svg", "SVG"),
        ("tiff", "TIFF"),
        ("bmp", "BMP"),
        ("large", "too large"),
        ("empty", "empty"),
    ];
    let lots: Vec<Value> = cases
        .iter()
        .map(|(path, _)| lot(&appliance, path, "a text", &host.url(path)))
        .collect();
    let job = accepted(&appliance.submit(&submission(&lots, &["en"])));
    let results = appliance.results(&job);
    for (at, (path, reason)) in cases.iter().enumerate() {
        let found = &results["results"]["lots"][at];
        assert_nine(found, &lots[at], &host.url(path), reason);
    }
    assert_eq!(appliance.state()["executed"], cases.len());
    appliance.assert_sound();
}

#[test]
fn an_image_that_openai_alone_cannot_use_is_left_out_and_the_others_are_sent_again() {
    let (host, appliance) = (host(), Appliance::start());
    for (named, path, info, reason) in [
        (
            "url",
            "good",
            "by url",
            "OpenAI cannot use it: Error while downloading",
        ),
        (
            "index",
            "good",
            "by index",
            "OpenAI cannot use it: Invalid 'input[0].content[4].image_url'",
        ),
        (
            "index",
            "good",
            "",
            "OpenAI cannot use it: Invalid 'input[0].content[3].image_url'",
        ),
        ("none", "page", "not at all", "HTML"),
        ("none", "damaged", "not at all, too", "damaged"),
    ] {
        let bad = host.url(path);
        let before = appliance.state()["executed"].as_u64().unwrap();
        appliance.fault(&json!({"fault": "bad_image", "value": {"image": bad, "named": named}}));
        let lots = [
            lot(&appliance, "1", info, &bad),
            lot(&appliance, "2", info, &appliance.image("china.jpg")),
        ];
        let job = accepted(&appliance.submit(&submission(&lots, &["en"])));
        let results = appliance.results(&job);
        assert_nine(&results["results"]["lots"][0], &lots[0], &bad, reason);
        let other = &results["results"]["lots"][1];
        assert_eq!(
            (&other["missing_images"], &other["missing_reasons"]),
            (&json!([]), &Value::Null)
        );
        assert_eq!(appliance.state()["executed"], before + 3, "{named}");
        appliance.clear_faults();
    }
    appliance.assert_sound();
}

#[test]
fn the_place_of_an_image_is_known_in_the_chat_form_too() {
    let host = host();
    let appliance = Appliance::with("[openai]\nendpoint = \"/v1/chat/completions\"");
    let bad = host.url("good");
    appliance.fault(&json!({"fault": "bad_image", "value": {"image": bad, "named": "index"}}));
    let lots = [
        lot(&appliance, "1", "a text", &bad),
        lot(&appliance, "2", "", &bad),
    ];
    let job = accepted(&appliance.submit(&submission(&lots, &["en"])));
    let results = appliance.results(&job);
    for (at, lot) in lots.iter().enumerate() {
        let place = format!("messages[1].content[{}].image_url", 4 - at);
        assert_nine(&results["results"]["lots"][at], lot, &bad, &place);
    }
    appliance.assert_sound();
}

#[test]
fn an_image_that_a_lot_cannot_do_without_fails_it_with_its_name() {
    let (host, appliance) = (host(), Appliance::start());
    let bad = host.url("good");
    appliance.fault(&json!({"fault": "bad_image", "value": {"image": bad, "named": "url"}}));
    let lots = [
        json!({"lot_id": "1", "additional_info": "", "images": [bad, appliance.image("truck.jpg")]}),
        json!({"lot_id": "2", "additional_info": "", "images": [appliance.image("truck.jpg")]}),
    ];
    let job = accepted(&appliance.submit(&submission(&lots, &["en"])));
    let results = appliance.results(&job);
    let failed = &results["results"]["lots"][0];
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["missing_images"], json!([bad]));
    let message = failed["error_message"].as_str().unwrap();
    assert!(
        message.starts_with("IMAGE_UNREACHABLE") && message.contains(&bad),
        "{message}"
    );
    assert_eq!(results["results"]["lots"][1]["status"], "completed");
    // An operator's retry begins with all images.
    appliance.clear_faults();
    let ran = appliance.run(&["jobs", "retry", &job, "--failed-lots"]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let again = appliance.results(&job);
    assert_eq!(again["results"]["lots"][0]["missing_images"], json!([]));
    assert_eq!(again["results"]["lots"][0]["processed_images"], 2);
    appliance.assert_sound();
}

#[test]
fn a_synchronous_lot_is_described_without_the_image_too() {
    let host = host();
    let appliance = Appliance::with("[synchronous]\nenabled = true\n[openai]\nretry_interval = \"1s\"");
    let calls = "SELECT count(*) FROM synchronous_calls WHERE ended_at IS NOT NULL";
    for (named, path, reason) in [
        ("url", "good", "Error while downloading"),
        ("index", "good", "content[4]"),
        ("none", "page", "HTML"),
        ("", "heic", "HEIC"),
    ] {
        let bad = host.url(path);
        let before = appliance.cell::<u32>(calls);
        if !named.is_empty() {
            appliance.fault(&json!({"fault": "bad_image", "value": {"image": bad, "named": named}}));
        }
        let lots = [lot(&appliance, "1", named, &bad)];
        let answer = appliance.send(&submission(&lots, &["en"]), &[]);
        assert_eq!(answer.status, 200, "{named}: {}", answer.json());
        assert_nine(&answer.json()["lots"][0], &lots[0], &bad, reason);
        let made = if named.is_empty() { 1 } else { 2 };
        assert_eq!(appliance.cell::<u32>(calls), before + made, "{named}");
        appliance.clear_faults();
    }
    let heic = host.url("heic");
    let lots = [json!({"lot_id": "1", "additional_info": "", "images": [heic]})];
    let answer = appliance.send(&submission(&lots, &["en"]), &[]);
    refused(&answer, 422, "IMAGE_UNREACHABLE");
    let said = answer.json();
    assert_eq!(said["missing_images"], json!([heic]));
    assert!(said["missing_reasons"][&heic].as_str().unwrap().contains("HEIC"));
}

#[test]
fn the_reason_of_an_image_names_the_expiry_of_its_url() {
    let (host, appliance) = (host(), Appliance::start());
    let bad = host.url("page?se=2026-01-02T03:04:05Z");
    appliance.fault(&json!({"fault": "bad_image", "value": {"image": bad, "named": "url"}}));
    let lots = [
        lot(&appliance, "1", "", &bad),
        json!({"lot_id": "2", "additional_info": "", "images": [host.url("heic?Expires=1767323045")]}),
        lot(&appliance, "3", "", &appliance.image("truck.jpg")),
    ];
    let job = accepted(&appliance.submit(&submission(&lots, &["en"])));
    let results = appliance.results(&job);
    let found = &results["results"]["lots"];
    let expiry = "its URL expired at 2026-01-02T03:04:05Z";
    assert_nine(&found[0], &lots[0], &bad, expiry);
    let message = found[1]["error_message"].as_str().unwrap();
    assert!(message.contains(expiry), "{message}");
}

#[test]
fn urls_that_expire_within_the_window_are_warned_of() {
    let appliance = Appliance::with("[images]\ncheck = false\n[synchronous]\nenabled = true");
    let in_hours = |hours: i64| crate::appliance::now().seconds() + hours * 3600;
    let lots: Vec<Value> = [1, 23, 25]
        .iter()
        .map(|hours| {
            let expires = in_hours(*hours);
            let image = format!("{}?Expires={expires}", appliance.image("truck.jpg"));
            json!({"lot_id": format!("in {hours} h"), "additional_info": "", "images": [image]})
        })
        .collect();
    let body = submission(&lots, &["en"]);
    let answer = appliance.submit(&body).json();
    let warnings: Vec<&str> = answer["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(warnings.len(), 2, "{answer}");
    assert!(
        warnings[0].starts_with("Lot in 1 h: 1 image URL expires from 20"),
        "{answer}"
    );
    assert!(warnings[1].starts_with("Lot in 23 h: "), "{answer}");
    // A repeat has the same answer, and a synchronous request is made at once.
    assert_eq!(appliance.submit(&body).json()["warnings"], answer["warnings"]);
    let alone = appliance.submit(&submission(&lots[..1], &["en"])).json();
    assert_eq!(alone["warnings"], json!([]), "{alone}");
    // A long list ends with a number.
    let many: Vec<Value> = (0..30)
        .map(|n| json!({"lot_id": n, "images": [format!("https://img.example/{n}.jpg?Expires={}", in_hours(2))]}))
        .collect();
    let answer = appliance.submit(&submission(&many, &["en"])).json();
    let warnings = answer["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 21);
    assert_eq!(warnings[20], "Image URLs of 10 further lots expire as early.");
}
