use base64::Engine;
use serde_json::Value;

use super::key::PUBLISHED_KEYS;
use super::webhook::LENIENT;
use super::*;
use crate::base::clock::Timestamp;
use crate::python_json::parse;

fn key(text: &str) -> Key {
    // The keys of the test vectors are shorter than `Key::new` allows.
    Key(text.as_bytes().to_vec())
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

#[test]
fn weak_keys_are_refused() {
    assert_eq!(
        Key::new("fifteen bytes !").unwrap_err(),
        KeyError::TooShort { bytes: 15 }
    );
    assert!(Key::new("sixteen bytes !!").is_ok());
    for known in PUBLISHED_KEYS {
        assert_eq!(Key::new(known).unwrap_err(), KeyError::Published);
        assert_eq!(Key::new(format!("{known}\n")).unwrap_err(), KeyError::Published);
    }
    let shown = format!("{:?}", Key::new("sixteen bytes !!").unwrap());
    assert!(!shown.contains("sixteen") && !shown.contains("115"), "{shown}");
}

#[test]
fn canonical_signatures_of_every_vector() {
    let file: Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/canonical_vectors.json")).unwrap();
    let key = key(file["key"].as_str().unwrap());
    let mut checked = 0;
    for vector in file["vectors"].as_array().unwrap() {
        let Some(expected) = vector["hmac_sha256_hex"].as_str() else {
            continue;
        };
        let json = parse(vector["input"].as_str().unwrap().as_bytes()).unwrap();
        let message = Message::Canonical(json.root());
        assert_eq!(sign(&key, message), expected, "{}", vector["name"]);
        assert!(verify(expected, std::slice::from_ref(&key), &[message]));
        checked += 1;
    }
    assert_eq!(checked, 46);
}

#[test]
fn each_form_of_hex_is_verified_with_any_key_and_any_message() {
    let keys = [key("the first of two keys"), key("the second of two keys")];
    let messages = [Message::Bytes(b"a"), Message::Bytes(b"b")];
    let signature = sign(&keys[1], messages[1]);
    for form in [
        signature.clone(),
        signature.to_uppercase(),
        format!("sha256={signature}"),
        format!("SHA256={}", signature.to_uppercase()),
        format!(" {signature} "),
    ] {
        assert!(verify(&form, &keys, &messages), "{form}");
        assert!(!verify(&form, &keys[..1], &messages), "{form}");
        assert!(!verify(&form, &keys, &messages[..1]), "{form}");
    }
    for wrong in [
        "",
        "sha256=",
        "00",
        "é",
        "sha256é",
        &signature[..62],
        &format!("{signature}00"),
        &format!("md5={signature}"),
        &format!("v1={signature}"),
        &format!("+{}", &signature[1..]),
    ] {
        assert!(!verify(wrong, &keys, &messages), "{wrong}");
    }
    assert!(!verify(&signature, &[], &messages));
    assert!(!verify(&signature, &keys, &[]));
}

#[test]
fn v1_covers_time_method_target_and_body() {
    let keys = [key("a key that is long enough")];
    let request = SignedRequest {
        timestamp: "1795400000",
        method: "POST",
        target: "/api/v1/generate-descriptions?dry_run=true",
        body: b"{\"lots\":[]}",
    };
    let signature = request.sign(&keys[0]);
    assert_eq!(
        signature,
        // Computed with Python's hmac.
        "v1=16f3abf135e5e5e79849d1cf7ca1b206c6ff25b69f76510cb1b436b4d9c8d8fa"
    );
    let hex = signature[3..].to_owned();
    assert_eq!(v1_hex(&signature.to_uppercase()), None);
    assert_eq!(v1_hex(&format!(" v1= {} ", hex.to_uppercase())), Some(hex));
    assert_eq!(v1_hex(&signature[3..]), None);
    assert!(request.verify(&signature, &keys));
    assert!(!request.verify(&signature[3..], &keys));
    assert!(!request.verify(&signature.replace("v1=", "v1=sha256="), &keys));
    for other in [
        SignedRequest {
            timestamp: "1795400001",
            ..request
        },
        SignedRequest {
            method: "GET",
            ..request
        },
        SignedRequest {
            target: "/api/v1/generate-descriptions",
            ..request
        },
        SignedRequest {
            body: b"{\"lots\":[1]}",
            ..request
        },
    ] {
        assert!(!other.verify(&signature, &keys), "{other:?}");
    }
}

#[test]
fn timestamps_are_fresh_for_300_seconds_to_either_side() {
    for (text, fresh) in [
        ("1000", true),
        ("700", true),
        ("699", false),
        ("1300", true),
        ("1301", false),
        ("", false),
        ("+1000", false),
        ("1000.0", false),
        (" 1000", false),
        ("99999999999999999999", false),
    ] {
        assert_eq!(is_fresh(text, at(1000)), fresh, "{text:?}");
    }
}

fn text<'a>(case: &'a Value, member: &str) -> &'a str {
    // A missing header field counts as an empty one.
    case[member].as_str().unwrap_or("")
}

fn received(case: &Value) -> ReceivedWebhook<'_> {
    ReceivedWebhook {
        id: text(case, "webhook_id"),
        timestamp: text(case, "webhook_timestamp"),
        signature: text(case, "webhook_signature"),
        body: text(case, "payload").as_bytes(),
    }
}

#[test]
fn standard_webhooks_vectors() {
    let file: Value = serde_json::from_str(include_str!(
        "../../../tests/fixtures/webhooks/standard_webhooks_vectors.json"
    ))
    .unwrap();
    let positive = file["positive"].as_array().unwrap();
    assert_eq!(positive.len(), 5);
    for case in positive {
        let sent = received(case);
        let secret = text(case, "secret");
        let seconds: i64 = sent.timestamp.parse().unwrap();
        assert_eq!(sent.verify(secret, at(seconds)), Ok(()), "{case}");
        let key = Key(LENIENT.decode(&secret[6..]).unwrap());
        assert_eq!(
            webhook_signature(&[key], sent.id, seconds, sent.body),
            sent.signature
        );
        for clock in file["clock_cases"].as_array().unwrap() {
            let now = at(seconds + clock["offset_s"].as_i64().unwrap());
            let accepted = sent.verify(secret, now).is_ok();
            assert_eq!(accepted, clock["accept"].as_bool().unwrap(), "{clock}");
        }
        for empty in file["empty_secret_refused"].as_array().unwrap() {
            assert_eq!(
                sent.verify(empty.as_str().unwrap(), at(seconds)),
                Err(WebhookError::BadSecret)
            );
        }
    }
    let cases = file["cases_from_test_suites"].as_array().unwrap();
    assert_eq!(cases.len(), 9);
    for case in cases {
        let now = at(1_614_265_330);
        let accepted = received(case).verify(text(case, "secret"), now).is_ok();
        assert_eq!(accepted, case["accept"].as_bool().unwrap(), "{case}");
    }
}

#[test]
fn while_a_key_is_rotated_receivers_with_either_key_verify() {
    let keys = [
        Key::new("the new key, long enough").unwrap(),
        Key::new("the old key, long enough").unwrap(),
    ];
    let signature = webhook_signature(&keys, "msg_1", 1_795_400_000, b"{}");
    assert_eq!(signature.split(' ').count(), 2);
    let sent = ReceivedWebhook {
        id: "msg_1",
        timestamp: "1795400000",
        signature: &signature,
        body: b"{}",
    };
    for key in &keys {
        let secret = webhook_secret(key);
        assert_eq!(sent.verify(&secret, at(1_795_400_000)), Ok(()));
        assert_eq!(
            sent.verify(secret.trim_end_matches('='), at(1_795_400_000)),
            Ok(())
        );
    }
    let stranger = webhook_secret(&key("some other key entirely"));
    assert_eq!(
        sent.verify(&stranger, at(1_795_400_000)),
        Err(WebhookError::WrongSignature)
    );
}
