//! Signatures of webhooks, in both forms.

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use hmac::Mac;

use super::key::Key;
use super::message::{Message, sign};
use super::request::is_fresh;
use crate::base::clock::Timestamp;

/// The prefix of a secret of Standard Webhooks.
const SECRET_PREFIX: &str = "whsec_";

/// Base64 as receivers write their secrets: with or without padding, and with any trailing bits.
pub(super) const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The value of `webhook-signature`: `v1,<base64>` for each key, separated by spaces. `timestamp` is the
/// value of `webhook-timestamp`, in seconds since the Unix epoch.
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

/// The header fields of a webhook, with both forms of its signature. `X-Signature` uses the first key, after
/// `prefix`. `webhook-signature` uses each key.
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
        ("webhook-signature", webhook_signature(keys, id, timestamp, body)),
    ]
}

/// The key in the form that the libraries of Standard Webhooks expect: `whsec_` and base64.
pub fn webhook_secret(key: &Key) -> String {
    format!("{SECRET_PREFIX}{}", STANDARD.encode(&key.0))
}

/// A webhook as its receiver sees it.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedWebhook<'a> {
    /// The value of `webhook-id`.
    pub id: &'a str,
    /// The value of `webhook-timestamp`.
    pub timestamp: &'a str,
    /// The value of `webhook-signature`: signatures separated by spaces. Only those of `v1` count.
    pub signature: &'a str,
    /// The raw body.
    pub body: &'a [u8],
}

/// Why a webhook is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The secret is empty, or is not base64.
    #[error("the secret is not whsec_ and base64")]
    BadSecret,
    /// The timestamp is not a number, or differs by more than [`TOLERANCE`](super::TOLERANCE).
    #[error("the timestamp is not within 300 s of now")]
    Stale,
    /// No signature of version v1 is valid.
    #[error("no v1 signature is valid")]
    WrongSignature,
}

impl ReceivedWebhook<'_> {
    /// Verifies the webhook with the receiver's secret: base64, with or without `whsec_` and padding.
    ///
    /// # Errors
    ///
    /// If the webhook is not valid.
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
        let mut is_valid = false;
        for signature in self.signature.split(' ') {
            let Some(encoded) = signature.strip_prefix("v1,") else {
                continue;
            };
            let mac = Message::Parts(&message).mac(&key);
            is_valid |= STANDARD
                .decode(encoded)
                .is_ok_and(|presented| mac.verify_slice(&presented).is_ok());
        }
        if is_valid {
            Ok(())
        } else {
            Err(WebhookError::WrongSignature)
        }
    }
}
