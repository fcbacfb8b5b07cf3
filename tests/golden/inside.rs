//! The only calls of the crate itself: signatures at a fixed time, which the program cannot be given.

use batchkeeper::base::clock::Timestamp;
use batchkeeper::domain::signature::{Key, SignedRequest, webhook_headers};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

/// Signature v1 of a request.
pub fn v1(with: &str, timestamp: &str, method: &str, target: &str, body: &[u8]) -> String {
    let request = SignedRequest {
        timestamp,
        method,
        target,
        body,
    };
    request.sign(&key(with))
}

/// The headers of a webhook that is sent at `seconds` since the epoch.
pub fn headers(
    keys: &[&str],
    prefix: &str,
    id: &str,
    attempt: u32,
    seconds: i64,
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let keys: Vec<Key> = keys.iter().map(|text| key(text)).collect();
    let now = Timestamp::from_seconds(seconds);
    webhook_headers(&keys, prefix, id, attempt, now, body)
}
