//! Sends one notification to one receiver, in the receiver's form.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::base::clock::Timestamp;
use crate::config::{AlertChannel, AlertReceiver, Config};
use crate::domain::alert_text::AlertText;
use crate::domain::decide::webhook_answer::ReceiverAnswer;
use crate::domain::signature::webhook_headers;
use crate::outbound::{HttpPost, run_program};

/// The shortest part of a URL that is taken for a secret.
const SHORTEST_SECRET: usize = 6;
/// The text that takes the place of a secret in an error.
const HIDDEN: &str = "(secret)";

/// A notification as JSON, which is signed like a webhook.
pub struct SignedNotification {
    /// The id by which the receiver recognises repeats.
    pub id: String,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// What happened.
    pub body: Value,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The answer of a URL; of a program, none.
    pub answer: ReceiverAnswer,
    /// Why it failed, without secrets; `None` if the receiver has the notification.
    pub error: Option<String>,
}

/// Sends notifications to receivers.
pub struct AlertSender {
    outbound: Arc<dyn HttpPost>,
    config: Arc<Config>,
}

impl AlertSender {
    /// A sender that calls URLs through `outbound`.
    pub fn new(outbound: Arc<dyn HttpPost>, config: Arc<Config>) -> Self {
        Self { outbound, config }
    }

    /// Sends a test.
    pub fn send_test(&self, receiver: &AlertReceiver, now: Timestamp) -> Attempt {
        let text = AlertText::test(&self.config.alerts.instance);
        match &receiver.channel {
            AlertChannel::Signed { .. } => {
                let notification = SignedNotification {
                    id: format!("alert_test_{}", now.millis()),
                    attempt: 1,
                    body: json!({"event": "alert_test", "message": text.body}),
                };
                self.send_signed(&receiver.channel, &notification, now)
            }
            channel => self.send_text(channel, &text),
        }
    }

    /// Posts a signed notification.
    pub fn send_signed(
        &self,
        channel: &AlertChannel,
        notification: &SignedNotification,
        now: Timestamp,
    ) -> Attempt {
        let body = notification.body.to_string().into_bytes();
        let headers = webhook_headers(
            self.config.alerts.keys(),
            &self.config.webhooks.signature_prefix,
            &notification.id,
            notification.attempt,
            now,
            &body,
        );
        self.post(channel, &headers, body)
    }

    /// Sends a text for people.
    pub fn send_text(&self, channel: &AlertChannel, text: &AlertText) -> Attempt {
        match channel {
            AlertChannel::Signed { .. } | AlertChannel::Slack { .. } => {
                let headers = [("Content-Type", "application/json".to_owned())];
                self.post(channel, &headers, text.to_slack())
            }
            AlertChannel::Ntfy { token, .. } => {
                let mut headers = text.ntfy_headers();
                if !token.is_empty() {
                    headers.push(("Authorization", format!("Bearer {}", token.reveal())));
                }
                self.post(channel, &headers, text.body.clone().into_bytes())
            }
            AlertChannel::Command { command, mail_header } => {
                let ran = run_program(command, &text.to_program(*mail_header));
                Attempt {
                    answer: ReceiverAnswer::default(),
                    error: ran.err().map(|error| error.to_string()),
                }
            }
        }
    }

    fn post(&self, channel: &AlertChannel, headers: &[(&str, String)], body: Vec<u8>) -> Attempt {
        let url = channel.url().unwrap_or_default();
        let timeout = self.config.webhooks.timeout;
        let (answer, error) = match self.outbound.post(url, headers, body, timeout) {
            Ok(reply) => {
                let answer = ReceiverAnswer {
                    status: Some(reply.status),
                    retry_after: reply.retry_after,
                };
                (answer, format!("HTTP {} {}", reply.status, reply.body_start))
            }
            Err(error) => (ReceiverAnswer::default(), error.to_string()),
        };
        Attempt {
            answer,
            error: (!answer.is_success()).then(|| without_secrets(channel, &error)),
        }
    }
}

/// An error without the parts of the URL, and without the token, that a server may repeat in its answer.
fn without_secrets(channel: &AlertChannel, error: &str) -> String {
    let url = channel.url().unwrap_or_default();
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    let parts = path.split(['/', '?', '&', '=', '#']);
    let mut secrets: Vec<&str> = parts.filter(|part| part.len() >= SHORTEST_SECRET).collect();
    if let AlertChannel::Ntfy { token, .. } = channel {
        secrets.extend((!token.is_empty()).then(|| token.reveal()));
    }
    let hide = |text: String, secret: &&str| text.replace(secret, HIDDEN);
    secrets.iter().fold(error.replace(url, HIDDEN), hide)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_server_that_repeats_the_url_does_not_bring_it_into_the_log() {
        let ntfy = AlertChannel::Ntfy {
            url: Secret::new("https://ntfy.example/my-T0PIC?auth=QUERY1"),
            token: Secret::new("tk_T0KEN"),
        };
        for (error, shown) in [
            ("HTTP 404 Cannot POST /my-T0PIC", "HTTP 404 Cannot POST /(secret)"),
            (
                "https://ntfy.example/my-T0PIC?auth=QUERY1 fails",
                "(secret) fails",
            ),
            ("unknown tk_T0KEN for QUERY1", "unknown (secret) for (secret)"),
        ] {
            assert_eq!(without_secrets(&ntfy, error), shown);
        }
    }
}
