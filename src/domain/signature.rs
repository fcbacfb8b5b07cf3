//! Who sent this: HMAC-SHA256 with a shared key, in the three forms that clients know.
//!
//! - The earlier service's: hex over the body, the job id or the canonical JSON of `lots`.
//! - v1: `v1=<hex>` over `{timestamp}.{METHOD}.{path?query}.` and the body.
//! - Standard Webhooks (<https://www.standardwebhooks.com>): `v1,<base64>` over
//!   `{id}.{timestamp}.` and the body.
//!
//! Signatures are compared in constant time, and every key is tried with every message, so that
//! the time taken says nothing about which of them came near.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::base::clock::Timestamp;
use crate::base::hex;
use crate::python_json::{Json, canonical};

/// The fewest bytes of a key.
pub const MIN_KEY_BYTES: usize = 16;

/// How far a signed timestamp may be off, to either side.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// Keys that the earlier service's documents print: the whole world has them.
const PUBLISHED_KEYS: [&str; 2] = [
    "dev-secret-key-for-testing-2024",
    "default-shared-key-change-in-production",
];

/// The prefix of a secret in the form of Standard Webhooks.
const SECRET_PREFIX: &str = "whsec_";

/// Base64 as receivers' secrets come: padded or not, and with whatever bits left over.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A key shared with one client. Its `Debug` form does not show it.
#[derive(Clone)]
pub struct Key(Vec<u8>);

/// Why bytes are not taken as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Fewer than [`MIN_KEY_BYTES`].
    #[error("a key has {MIN_KEY_BYTES} bytes at least; this one has {bytes}")]
    TooShort {
        /// How many there are.
        bytes: usize,
    },
    /// Printed in the earlier service's documents.
    #[error(
        "this key is printed in the earlier service's documents, so anyone has it; make a new one"
    )]
    Published,
}

impl Key {
    /// A key of these bytes, exactly as they are.
    ///
    /// # Errors
    ///
    /// When it is too short or known to the world; white space around a published key does not
    /// make it another one here, since that is how a file with it looks.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, BadKey> {
        let bytes = bytes.into();
        if bytes.len() < MIN_KEY_BYTES {
            let bytes = bytes.len();
            return Err(BadKey::TooShort { bytes });
        }
        if PUBLISHED_KEYS
            .iter()
            .any(|known| known.as_bytes() == bytes.trim_ascii())
        {
            return Err(BadKey::Published);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// These bytes, one after the other.
    Parts(&'a [&'a [u8]]),
    /// The canonical form of this value; hashed as it is written, without a copy.
    Canonical(&'a Json<'a>),
}

impl Message<'_> {
    /// Gives it to all of them at once: a large value is written out one time only.
    fn feed(self, macs: &mut [Hmac<Sha256>]) {
        let mut sink = |piece: &[u8]| macs.iter_mut().for_each(|mac| mac.update(piece));
        match self {
            Self::Bytes(bytes) => sink(bytes),
            Self::Parts(parts) => parts.iter().for_each(|part| sink(part)),
            Self::Canonical(json) => canonical(json, &mut sink),
        }
    }

    fn mac(self, key: &[u8]) -> Hmac<Sha256> {
        let mut mac = mac(key);
        self.feed(std::slice::from_mut(&mut mac));
        mac
    }
}

/// The signature in lower-case hex, 64 characters.
pub fn sign(key: &Key, message: Message<'_>) -> String {
    hex::encode(&message.mac(&key.0).finalize().into_bytes())
}

/// Whether `presented` (hex in either case, with or without `sha256=`) is the signature of any of
/// the messages with any of the keys.
pub fn verify(presented: &str, keys: &[Key], messages: &[Message<'_>]) -> bool {
    let presented = presented.trim();
    let presented = match presented.split_at_checked(7) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("sha256=") => rest,
        _ => presented,
    };
    let Some(presented) = hex::decode(presented) else {
        return false;
    };
    let mut genuine = false;
    for message in messages {
        let mut macs: Vec<_> = keys.iter().map(|key| mac(&key.0)).collect();
        message.feed(&mut macs);
        for mac in macs {
            genuine |= mac.verify_slice(&presented).is_ok();
        }
    }
    genuine
}

/// A request as signature v1 covers it.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// `X-Timestamp` as sent: seconds since the Unix epoch.
    pub timestamp: &'a str,
    /// The method, as sent.
    pub method: &'a str,
    /// Path and query, as sent.
    pub target: &'a str,
    /// The raw body.
    pub body: &'a [u8],
}

impl SignedRequest<'_> {
    fn parts(&self) -> [&[u8]; 7] {
        let (timestamp, method, target) = (self.timestamp, self.method, self.target);
        [
            timestamp.as_bytes(),
            b".",
            method.as_bytes(),
            b".",
            target.as_bytes(),
            b".",
            self.body,
        ]
    }

    /// The value of `X-Signature`: `v1=<hex>`.
    pub fn sign(&self, key: &Key) -> String {
        format!("v1={}", sign(key, Message::Parts(&self.parts())))
    }

    /// Whether `presented` is a v1 signature of this request with any of the keys. The timestamp's
    /// age is a question of its own: [`is_fresh`].
    pub fn verify(&self, presented: &str, keys: &[Key]) -> bool {
        match presented.trim().strip_prefix("v1=") {
            // Nothing but hex after it: `v1=sha256=…` is no form of ours.
            Some(hex) if !hex.contains('=') => verify(hex, keys, &[Message::Parts(&self.parts())]),
            _ => false,
        }
    }
}

/// The hex, in lower case, of a value of `X-Signature` that claims to be of version v1.
pub fn v1_hex(presented: &str) -> Option<String> {
    let hex = presented.trim().strip_prefix("v1=")?;
    Some(hex.trim().to_ascii_lowercase())
}

/// Whether a signed timestamp (decimal seconds since the Unix epoch) is within [`TOLERANCE`] of
/// `now`, which is taken in whole seconds.
pub fn is_fresh(timestamp: &str, now: Timestamp) -> bool {
    if !timestamp.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    timestamp
        .parse::<i64>()
        .is_ok_and(|sent| sent.abs_diff(now.seconds()) <= TOLERANCE.as_secs())
}

/// The value of `webhook-signature`: `v1,<base64>` for each key, separated by a space. `timestamp`
/// is that of `webhook-timestamp`, in seconds since the Unix epoch.
pub fn webhook_signature(keys: &[Key], id: &str, timestamp: i64, body: &[u8]) -> String {
    let timestamp = timestamp.to_string();
    let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    let signatures: Vec<String> = keys
        .iter()
        .map(|key| {
            let mac = Message::Parts(&message).mac(&key.0);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        })
        .collect();
    signatures.join(" ")
}

/// The headers of a webhook: who sent it, in both forms, and under which id. `prefix` stands before
/// the hex of `X-Signature`; that is made with the first key, the other with each.
pub fn webhook_headers(
    keys: &[Key],
    prefix: &str,
    id: &str,
    attempt: u32,
    now: Timestamp,
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let timestamp = now.seconds();
    let signature = keys
        .first()
        .map(|key| sign(key, Message::Bytes(body)))
        .unwrap_or_default();
    let agent = concat!("batchkeeper/", env!("CARGO_PKG_VERSION"));
    vec![
        ("Content-Type", "application/json".to_owned()),
        ("User-Agent", agent.to_owned()),
        ("X-Signature", format!("{prefix}{signature}")),
        ("X-Delivery-Attempt", attempt.to_string()),
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", timestamp.to_string()),
        (
            "webhook-signature",
            webhook_signature(keys, id, timestamp, body),
        ),
    ]
}

/// The key in the form that Standard Webhooks libraries take: `whsec_` and base64.
pub fn webhook_secret(key: &Key) -> String {
    format!("{SECRET_PREFIX}{}", STANDARD.encode(&key.0))
}

/// What a receiver of a Standard Webhook has in hand.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedWebhook<'a> {
    /// `webhook-id`
    pub id: &'a str,
    /// `webhook-timestamp`
    pub timestamp: &'a str,
    /// `webhook-signature`: signatures separated by spaces, of which those of `v1` count.
    pub signature: &'a str,
    /// The raw body.
    pub body: &'a [u8],
}

/// Why a webhook is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The secret is empty or no base64.
    #[error("the secret is not whsec_ and base64")]
    BadSecret,
    /// The timestamp is no number, or more than [`TOLERANCE`] off.
    #[error("the timestamp is not within 300 s of now")]
    Stale,
    /// No signature of version v1 is the right one.
    #[error("no v1 signature is the right one")]
    WrongSignature,
}

impl ReceivedWebhook<'_> {
    /// Verifies it as a receiver does, with its secret (`whsec_` and base64, padded or not, the
    /// prefix optional).
    ///
    /// # Errors
    ///
    /// When it is not to be believed.
    pub fn verify(&self, secret: &str, now: Timestamp) -> Result<(), WebhookError> {
        let encoded = secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret);
        let key = LENIENT
            .decode(encoded)
            .ok()
            .filter(|key| !key.is_empty())
            .ok_or(WebhookError::BadSecret)?;
        if !is_fresh(self.timestamp, now) {
            return Err(WebhookError::Stale);
        }
        let message = [
            self.id.as_bytes(),
            b".",
            self.timestamp.as_bytes(),
            b".",
            self.body,
        ];
        let mut genuine = false;
        for signature in self.signature.split(' ') {
            let Some(encoded) = signature.strip_prefix("v1,") else {
                continue;
            };
            let mac = Message::Parts(&message).mac(&key);
            genuine |= STANDARD
                .decode(encoded)
                .is_ok_and(|presented| mac.verify_slice(&presented).is_ok());
        }
        if genuine {
            Ok(())
        } else {
            Err(WebhookError::WrongSignature)
        }
    }
}

#[allow(
    clippy::expect_used,
    reason = "HMAC hashes a key that is longer than a block; it has no wrong length"
)]
fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python_json::parse;
    use serde_json::Value;

    fn key(text: &str) -> Key {
        // The vectors' keys are shorter than ours may be.
        Key(text.as_bytes().to_vec())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn weak_keys_are_refused() {
        assert_eq!(
            Key::new("fifteen bytes !").unwrap_err(),
            BadKey::TooShort { bytes: 15 }
        );
        assert!(Key::new("sixteen bytes !!").is_ok());
        for known in PUBLISHED_KEYS {
            assert_eq!(Key::new(known).unwrap_err(), BadKey::Published);
            assert_eq!(
                Key::new(format!("{known}\n")).unwrap_err(),
                BadKey::Published
            );
        }
        let shown = format!("{:?}", Key::new("sixteen bytes !!").unwrap());
        assert!(
            !shown.contains("sixteen") && !shown.contains("115"),
            "{shown}"
        );
    }

    #[test]
    fn canonical_signatures_of_every_vector() {
        let file: Value =
            serde_json::from_str(include_str!("../../tests/fixtures/canonical_vectors.json"))
                .unwrap();
        let key = key(file["key"].as_str().unwrap());
        let mut checked = 0;
        for vector in file["vectors"].as_array().unwrap() {
            let Some(expected) = vector["hmac_sha256_hex"].as_str() else {
                continue;
            };
            let json = parse(vector["input"].as_str().unwrap().as_bytes()).unwrap();
            let message = Message::Canonical(&json);
            assert_eq!(sign(&key, message), expected, "{}", vector["name"]);
            assert!(verify(expected, std::slice::from_ref(&key), &[message]));
            checked += 1;
        }
        assert_eq!(checked, 46);
    }

    #[test]
    fn hex_is_taken_in_its_forms_with_any_key_and_any_message() {
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
        // A missing header is as good as an empty one.
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
            "../../tests/fixtures/webhooks/standard_webhooks_vectors.json"
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
}
