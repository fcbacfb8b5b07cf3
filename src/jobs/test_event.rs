//! The test event: a webhook that reports no job, so that a client can try its receiver.

use serde_json::json;

use crate::base::clock::Timestamp;
use crate::domain::job::VERSION;
use crate::python_json::write_canonical_value;

/// The body of a test event for a client, in the form that is signed.
pub fn test_event_body(client: &str, now: Timestamp) -> Vec<u8> {
    let event = json!({
        "event": "test",
        "client": client,
        "timestamp": now.to_seconds_text(),
        "message": "A test event: it reports no job.",
        "version": VERSION,
    });
    let mut body = Vec::new();
    write_canonical_value(&event, &mut |bytes| body.extend_from_slice(bytes));
    body
}
