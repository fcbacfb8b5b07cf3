//! Signatures: HMAC-SHA256 with a key that is shared with one client.
//!
//! Requests, in `X-Signature`:
//!
//! - v1, for all requests: `v1=<hex>` over `{timestamp}.{METHOD}.{path?query}.` and the body, with the time in
//!   `X-Timestamp`.
//! - The earlier service's form, `<hex>` or `sha256=<hex>`:
//!   - a submission: over the body, or over the canonical JSON of `lots`;
//!   - a request that reads a job: over the job id, or over the empty text;
//!   - a cancel: over the job id, or over the body;
//!   - the list of jobs: over path and query as sent.
//!
//! Webhooks, in two header fields:
//!
//! - `X-Signature`: `<hex>` over the body, after the prefix of the client's configuration.
//! - `webhook-signature` (Standard Webhooks, <https://www.standardwebhooks.com>): `v1,<base64>` over
//!   `{id}.{timestamp}.` and the body.
//!
//! `api/auth` decides which message of a request is checked. Signatures are compared in constant time, and
//! each key is tried with each message, so the time does not depend on which of them matches.

mod key;
mod message;
mod request;
mod webhook;

pub use key::{Key, KeyError, MIN_KEY_BYTES};
pub use message::{Message, sign, verify};
pub use request::{SignedRequest, TOLERANCE, is_fresh, v1_hex};
pub use webhook::{ReceivedWebhook, WebhookError, webhook_headers, webhook_secret, webhook_signature};

#[cfg(test)]
mod tests;
