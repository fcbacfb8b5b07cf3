//! Authentication of clients: the signature of a request is checked against the client's keys.

use super::Api;
use crate::base::clock::Timestamp;
use crate::config::ClientConfig;
use crate::domain::api_error::{ApiError, ErrorCode};
use crate::domain::signature::{Key, Message, SignedRequest, is_fresh, v1_hex, verify};
use crate::http::Request;
use crate::python_json::Json;

/// The client of a request without `X-Client-Id`.
const DEFAULT_CLIENT: &str = "default";
/// The most characters of a client's name that are logged.
const MAX_LOGGED_NAME: usize = 64;
/// Checked in place of an unknown client's keys, so that its refusal takes the same time.
const DUMMY_KEY: &[u8] = b"no client has this key, by configuration";

/// The client of a request.
pub(super) struct AuthenticatedClient<'a> {
    /// Its configuration.
    pub client: &'a ClientConfig,
    /// The v1 signature in hex; `None` for a legacy signature. A repeated POST has the same.
    pub signature: Option<String>,
}

impl Api {
    /// The client of a submission. The signature is the body's `signature` over the canonical `lots`,
    /// `X-Signature` over the raw body, or signature v1.
    pub(super) fn authenticate_submission(
        &self,
        request: &Request,
        body: Json<'_>,
        now: Timestamp,
    ) -> Result<AuthenticatedClient<'_>, ApiError> {
        let header = request.header("x-signature");
        let in_body = body
            .field("signature")
            .and_then(Json::as_text)
            .and_then(|text| text.decode().ok());
        let Some(presented) = header.or(in_body.as_deref()) else {
            return Err(missing_signature());
        };
        let lots = body.field("lots").map(Message::Canonical);
        let mut legacy = vec![Message::Bytes(&request.body)];
        legacy.extend(lots);
        let accepted = self.verify(request, presented, &legacy, now);
        match (accepted, in_body) {
            // Some clients send both. One valid signature is enough.
            (Err(_), Some(in_body)) if header.is_some() => self.verify(request, &in_body, &legacy[1..], now),
            (accepted, _) => accepted,
        }
    }

    /// The client of a request that reads one job.
    pub(super) fn authenticate_read(
        &self,
        request: &Request,
        job_id: &str,
        now: Timestamp,
    ) -> Result<AuthenticatedClient<'_>, ApiError> {
        let Some(presented) = request.header("x-signature") else {
            return self
                .client_of_unsigned_read(request)
                .ok_or_else(missing_signature);
        };
        let legacy = [Message::Bytes(job_id.as_bytes()), Message::Bytes(b"")];
        self.verify(request, presented, &legacy, now)
    }

    /// The client `default` if `legacy_unsigned_reads` lets its reads through.
    fn client_of_unsigned_read(&self, request: &Request) -> Option<AuthenticatedClient<'_>> {
        let allowed = self.config.legacy_unsigned_reads && client_name(request) == DEFAULT_CLIENT;
        let client = self.client(DEFAULT_CLIENT).filter(|_| allowed)?;
        self.metrics.record_unsigned_read();
        Some(AuthenticatedClient {
            client,
            signature: None,
        })
    }

    /// The client of a request that changes a job; `what` names the change. The legacy signature is over the job id,
    /// or over a body that names the job: any other signed body of the client would change every job of it.
    pub(super) fn authenticate_job_change(
        &self,
        request: &Request,
        body: Option<Json<'_>>,
        (what, job_id): (&str, &str),
        now: Timestamp,
    ) -> Result<AuthenticatedClient<'_>, ApiError> {
        let presented = request.header("x-signature").ok_or_else(missing_signature)?;
        let mut legacy = vec![Message::Bytes(job_id.as_bytes())];
        let named = body.and_then(|body| body.field("job_id").or_else(|| body.field("id")));
        if named.and_then(Json::as_text).is_some_and(|id| id.is(job_id)) {
            legacy.push(Message::Bytes(&request.body));
        }
        self.verify(request, presented, &legacy, now).map_err(|error| ApiError {
            message: format!(
                "{} {what} is signed with signature v1, over the job id, or over a body whose `job_id` is that id.",
                error.message
            ),
            ..error
        })
    }

    /// The client of a request whose body says all. The legacy signature is over the raw body.
    pub(super) fn authenticate_body(
        &self,
        request: &Request,
        now: Timestamp,
    ) -> Result<AuthenticatedClient<'_>, ApiError> {
        let presented = request.header("x-signature").ok_or_else(missing_signature)?;
        self.verify(request, presented, &[Message::Bytes(&request.body)], now)
    }

    /// The client of a request that reads a lot. The legacy signature is over the lot's id, over the empty body, or
    /// over path and query as sent.
    pub(super) fn authenticate_lot(
        &self,
        request: &Request,
        lot_id: &str,
        now: Timestamp,
    ) -> Result<AuthenticatedClient<'_>, ApiError> {
        let presented = request.header("x-signature").ok_or_else(missing_signature)?;
        let target = request.target();
        let legacy = [lot_id, "", &target].map(|text| Message::Bytes(text.as_bytes()));
        self.verify(request, presented, &legacy, now)
    }

    /// The client of a request that lists its jobs. The legacy signature is over path and query as sent.
    pub(super) fn authenticate_list(
        &self,
        request: &Request,
        now: Timestamp,
    ) -> Result<AuthenticatedClient<'_>, ApiError> {
        let presented = request.header("x-signature").ok_or_else(missing_signature)?;
        let target = request.target();
        self.verify(request, presented, &[Message::Bytes(target.as_bytes())], now)
    }

    fn client(&self, name: &str) -> Option<&ClientConfig> {
        let mut clients = self.config.clients.iter();
        clients.find(|client| client.name == name)
    }

    /// Checks a signature against the keys of the client that the request names.
    fn verify(
        &self,
        request: &Request,
        presented: &str,
        legacy: &[Message<'_>],
        now: Timestamp,
    ) -> Result<AuthenticatedClient<'_>, ApiError> {
        let client = self.client(client_name(request));
        let dummy: Vec<Key> = Key::new(DUMMY_KEY).into_iter().collect();
        let keys = client.map_or(dummy.as_slice(), ClientConfig::keys);
        let signature = v1_hex(presented);
        let is_valid = if signature.is_some() {
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
        let Some(client) = client.filter(|_| is_valid) else {
            log_invalid_signature(
                request,
                self.client(client_name(request)),
                signature.is_some(),
                now,
            );
            return Err(ApiError::new(
                ErrorCode::InvalidSignature,
                "The signature does not hold: check the key, the client's name (X-Client-Id), what is signed, and the \
                 clock (X-Timestamp may be off by 300 seconds).",
            ));
        };
        Ok(AuthenticatedClient { client, signature })
    }
}

fn client_name(request: &Request) -> &str {
    request.header("x-client-id").unwrap_or(DEFAULT_CLIENT)
}

/// Tells the operator what is wrong with a signature. The client learns less: it could be an attacker.
fn log_invalid_signature(request: &Request, client: Option<&ClientConfig>, is_v1: bool, now: Timestamp) {
    let name: String = client_name(request).chars().take(MAX_LOGGED_NAME).collect();
    let sent = request.header("x-timestamp").unwrap_or_default();
    let cause = match client {
        None => "no client has this name".to_owned(),
        Some(client) if !is_v1 && !client.legacy() => "this client may not use legacy signatures".to_owned(),
        Some(_) if !is_v1 => "another key, or other bytes were signed".to_owned(),
        Some(_) if is_fresh(sent, now) => {
            "another key, or another method, path, query or body was signed".to_owned()
        }
        Some(_) => match sent.parse::<i64>() {
            Ok(sent) => format!("X-Timestamp is off by {} s", sent.saturating_sub(now.seconds())),
            Err(_) => "X-Timestamp is no time in seconds".to_owned(),
        },
    };
    log::info!(event = "invalid_signature", client = name, cause, request:% = request.id, peer:% = request.peer; "");
}

fn missing_signature() -> ApiError {
    ApiError::new(
        ErrorCode::MissingSignature,
        "The request is not signed: send X-Signature, or `signature` in the body of a submission.",
    )
}
