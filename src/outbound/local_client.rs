//! An HTTP client without the SSRF guard, for URLs that the program made itself.

use std::io::Read;
use std::time::Duration;

use ureq::{Agent, Body, http};

use super::client::OutboundError;

/// For one whole request.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Sends requests without the SSRF guard. Never give it a URL from a client.
pub struct LocalClient {
    agent: Agent,
}

impl Default for LocalClient {
    fn default() -> Self {
        Self::new()
    }
}

impl LocalClient {
    /// Creates a client that follows no redirects and uses no proxy.
    pub fn new() -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT));
        Self {
            agent: config.build().new_agent(),
        }
    }

    /// Sends a `GET`. Returns the status and the body.
    ///
    /// # Errors
    /// If there is no response, or its body has more than `max` bytes.
    pub fn get(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        max: u64,
    ) -> Result<(u16, Vec<u8>), OutboundError> {
        let request = headers
            .iter()
            .fold(self.agent.get(url), |request, (name, value)| {
                request.header(*name, *value)
            });
        read(request.call()?, max)
    }

    /// Sends a `POST` of JSON. Returns the status and the body.
    ///
    /// # Errors
    /// The same as those of [`LocalClient::get`].
    pub fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        max: u64,
    ) -> Result<(u16, Vec<u8>), OutboundError> {
        let request = self.agent.post(url).header("Content-Type", "application/json");
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value));
        read(request.send(body)?, max)
    }
}

fn read(response: http::Response<Body>, max: u64) -> Result<(u16, Vec<u8>), OutboundError> {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let mut reader = response.into_body().into_reader().take(max.saturating_add(1));
    reader.read_to_end(&mut body)?;
    if body.len() as u64 > max {
        return Err(OutboundError::Other(format!(
            "the answer has more than {max} bytes"
        )));
    }
    Ok((status, body))
}
