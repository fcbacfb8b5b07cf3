//! Signatures made from the contract's text alone, without the crate's code.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::appliance::now;

fn mac(key: &str, message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The earlier service's signature.
pub fn legacy(key: &str, message: &[u8]) -> String {
    hex(&mac(key, message))
}

/// Signature v1 of a request.
pub fn v1(key: &str, timestamp: &str, method: &str, target: &str, body: &[u8]) -> String {
    let mut message = format!("{timestamp}.{method}.{target}.").into_bytes();
    message.extend_from_slice(body);
    format!("v1={}", legacy(key, &message))
}

/// The headers of signature v1 with a timestamp that is `age` seconds old.
pub fn v1_headers(
    key: &str,
    method: &str,
    target: &str,
    body: &[u8],
    age: i64,
) -> Vec<(&'static str, String)> {
    let timestamp = (now().seconds() - age).to_string();
    let signature = v1(key, &timestamp, method, target, body);
    vec![("X-Timestamp", timestamp), ("X-Signature", signature)]
}

/// The signature of a Standard Webhook.
pub fn standard_webhook(key: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut message = format!("{id}.{timestamp}.").into_bytes();
    message.extend_from_slice(body);
    format!("v1,{}", STANDARD.encode(mac(key, &message)))
}

/// The id of a webhook.
pub fn webhook_id(job: &str, event: &str, url: &str) -> String {
    let digest = Sha256::digest(format!("{job}\n{event}\n{url}\n0"));
    format!("msg_{}", &hex(&digest)[..32])
}
