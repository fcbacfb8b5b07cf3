//! Signature v1 of requests.

use std::time::Duration;

use super::key::Key;
use super::message::{Message, sign, verify};
use crate::base::clock::Timestamp;

/// The most by which a signed timestamp may differ from the server's time, in either direction.
pub const TOLERANCE: Duration = Duration::from_secs(300);

/// The parts of a request that signature v1 covers.
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

    /// Whether `presented` is a v1 signature of this request with one of the keys. The caller must also check
    /// the timestamp with [`is_fresh`].
    pub fn verify(&self, presented: &str, keys: &[Key]) -> bool {
        match presented.trim().strip_prefix("v1=") {
            // `v1=sha256=…` is not allowed.
            Some(hex) if !hex.contains('=') => verify(hex, keys, &[Message::Parts(&self.parts())]),
            _ => false,
        }
    }
}

/// The hexadecimal digits, in lower case, of a value of `X-Signature` that has the form `v1=<hex>`.
pub fn v1_hex(presented: &str) -> Option<String> {
    let hex = presented.trim().strip_prefix("v1=")?;
    Some(hex.trim().to_ascii_lowercase())
}

/// Whether a signed timestamp, in decimal seconds since the Unix epoch, is within [`TOLERANCE`] of `now` in
/// whole seconds.
pub fn is_fresh(timestamp: &str, now: Timestamp) -> bool {
    if !timestamp.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    timestamp
        .parse::<i64>()
        .is_ok_and(|sent| sent.abs_diff(now.seconds()) <= TOLERANCE.as_secs())
}
