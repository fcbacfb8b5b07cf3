//! Who asks: signatures held against the configured clients' keys.

use super::Api;
use crate::clock::Timestamp;
use crate::config::ClientConfig;
use crate::http::Request;
use crate::json::Json;
use crate::refusal::{Code, Refusal};
use crate::signature::{Key, Message, SignedRequest, is_fresh, is_v1, verify};

/// The client that a request means when it names none.
const DEFAULT_CLIENT: &str = "default";
/// Stands for the key of a client that there is not, so that the refusal takes the same time.
const DUMMY_KEY: &[u8] = b"no client has this key, by configuration";

impl Api {
    /// The client of a submission: by the body's `signature` over the canonical `lots`, by
    /// `X-Signature` over the raw body, or by signature v1.
    pub(super) fn submitter(
        &self,
        request: &Request,
        body: &Json<'_>,
        now: Timestamp,
    ) -> Result<&ClientConfig, Refusal> {
        let header = request.header("x-signature");
        let own = body
            .field("signature")
            .and_then(Json::as_text)
            .and_then(|text| text.decode().ok());
        let Some(presented) = header.or(own.as_deref()) else {
            return Err(missing());
        };
        let lots = body.field("lots").map(Message::Canonical);
        let mut legacy = vec![Message::Bytes(&request.body)];
        legacy.extend(lots);
        let accepted = self.authenticate(request, presented, &legacy, now);
        match (accepted, own) {
            // Some clients send both; either proves it.
            (Err(_), Some(own)) if header.is_some() => {
                self.authenticate(request, &own, &legacy[1..], now)
            }
            (accepted, _) => accepted,
        }
    }

    /// The client of a request that reads one job.
    pub(super) fn reader(
        &self,
        request: &Request,
        job_id: &str,
        now: Timestamp,
    ) -> Result<&ClientConfig, Refusal> {
        let presented = request.header("x-signature").ok_or_else(missing)?;
        let legacy = [Message::Bytes(job_id.as_bytes()), Message::Bytes(b"")];
        self.authenticate(request, presented, &legacy, now)
    }

    fn authenticate(
        &self,
        request: &Request,
        presented: &str,
        legacy: &[Message<'_>],
        now: Timestamp,
    ) -> Result<&ClientConfig, Refusal> {
        let name = request.header("x-client-id").unwrap_or(DEFAULT_CLIENT);
        let client = self
            .config
            .clients
            .iter()
            .find(|client| client.name == name);
        let dummy: Vec<Key> = Key::new(DUMMY_KEY).into_iter().collect();
        let keys = client.map_or(dummy.as_slice(), ClientConfig::keys);
        let holds = if is_v1(presented) {
            let timestamp = request.header("x-timestamp").unwrap_or("");
            let target = request.target();
            let signed = SignedRequest {
                timestamp,
                method: &request.method,
                target: &target,
                body: &request.body,
            };
            signed.verify(presented, keys) && is_fresh(timestamp, now)
        } else {
            verify(presented, keys, legacy) && client.is_some_and(ClientConfig::legacy)
        };
        client.filter(|_| holds).ok_or_else(|| {
            Refusal::new(
                Code::InvalidSignature,
                "The signature does not hold: check the key, the client's name and what is signed.",
            )
        })
    }
}

fn missing() -> Refusal {
    Refusal::new(
        Code::MissingSignature,
        "The request is not signed: send X-Signature, or `signature` in the body.",
    )
}
