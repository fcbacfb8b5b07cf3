//! Who asks: signatures held against the configured clients' keys.

use super::Api;
use crate::base::clock::Timestamp;
use crate::config::ClientConfig;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::signature::{Key, Message, SignedRequest, is_fresh, v1_hex, verify};
use crate::http::Request;
use crate::python_json::Json;

/// The client that a request means when it names none.
const DEFAULT_CLIENT: &str = "default";
/// Stands for the key of a client that there is not, so that the refusal takes the same time.
const DUMMY_KEY: &[u8] = b"no client has this key, by configuration";

/// Who asks.
pub(super) struct Caller<'a> {
    /// The client whose key it is.
    pub client: &'a ClientConfig,
    /// The hex of a v1 signature: a POST with it counts once.
    pub signature: Option<String>,
}

impl Api {
    /// The client of a submission: by the body's `signature` over the canonical `lots`, by
    /// `X-Signature` over the raw body, or by signature v1.
    pub(super) fn submitter(
        &self,
        request: &Request,
        body: &Json<'_>,
        now: Timestamp,
    ) -> Result<Caller<'_>, ApiError> {
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
    ) -> Result<Caller<'_>, ApiError> {
        let Some(presented) = request.header("x-signature") else {
            return self.unsigned_reader(request).ok_or_else(missing);
        };
        let legacy = [Message::Bytes(job_id.as_bytes()), Message::Bytes(b"")];
        self.authenticate(request, presented, &legacy, now)
    }

    /// The client `default`, whose reads need no signature where the configuration says so.
    fn unsigned_reader(&self, request: &Request) -> Option<Caller<'_>> {
        let open = self.config.legacy_unsigned_reads && name(request) == DEFAULT_CLIENT;
        let client = self.client(DEFAULT_CLIENT).filter(|_| open)?;
        self.metrics.record_unsigned_read();
        Some(Caller {
            client,
            signature: None,
        })
    }

    /// The client of a request that takes a job back: over the job id, or over the body it sends.
    pub(super) fn canceller(
        &self,
        request: &Request,
        job_id: &str,
        now: Timestamp,
    ) -> Result<Caller<'_>, ApiError> {
        let presented = request.header("x-signature").ok_or_else(missing)?;
        let mut legacy = vec![Message::Bytes(job_id.as_bytes())];
        if !request.body.is_empty() {
            legacy.push(Message::Bytes(&request.body));
        }
        self.authenticate(request, presented, &legacy, now)
    }

    /// The client of a request that lists its jobs: over path and query as sent.
    pub(super) fn lister(&self, request: &Request, now: Timestamp) -> Result<Caller<'_>, ApiError> {
        let presented = request.header("x-signature").ok_or_else(missing)?;
        let target = request.target();
        self.authenticate(
            request,
            presented,
            &[Message::Bytes(target.as_bytes())],
            now,
        )
    }

    fn client(&self, name: &str) -> Option<&ClientConfig> {
        let mut clients = self.config.clients.iter();
        clients.find(|client| client.name == name)
    }

    fn authenticate(
        &self,
        request: &Request,
        presented: &str,
        legacy: &[Message<'_>],
        now: Timestamp,
    ) -> Result<Caller<'_>, ApiError> {
        let client = self.client(name(request));
        let dummy: Vec<Key> = Key::new(DUMMY_KEY).into_iter().collect();
        let keys = client.map_or(dummy.as_slice(), ClientConfig::keys);
        let signature = v1_hex(presented);
        let holds = if signature.is_some() {
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
        let client = client.filter(|_| holds).ok_or_else(|| {
            ApiError::new(
                ErrorCode::InvalidSignature,
                "The signature does not hold: check the key, the client's name and what is signed.",
            )
        })?;
        Ok(Caller { client, signature })
    }
}

fn name(request: &Request) -> &str {
    request.header("x-client-id").unwrap_or(DEFAULT_CLIENT)
}

fn missing() -> ApiError {
    ApiError::new(
        ErrorCode::MissingSignature,
        "The request is not signed: send X-Signature, or `signature` in the body of a submission.",
    )
}
