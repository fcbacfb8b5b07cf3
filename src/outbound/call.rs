//! Calls to this machine itself: the demo's, and the daemon's own probe of its listener.

use std::io::Read;
use std::time::Duration;

use ureq::{Agent, Body, http};

use super::outbound::NetError;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Calls without a guard: for URLs that we made ourselves, never for a client's.
pub struct Caller {
    agent: Agent,
}

impl Default for Caller {
    fn default() -> Self {
        Self::new()
    }
}

impl Caller {
    /// A caller that follows no redirect and knows no proxy.
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

    /// `GET`; gives the status and up to `max` bytes of the body.
    ///
    /// # Errors
    /// When there is no answer, or a longer one.
    pub fn get(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        max: u64,
    ) -> Result<(u16, Vec<u8>), NetError> {
        let request = headers
            .iter()
            .fold(self.agent.get(url), |request, (name, value)| {
                request.header(*name, *value)
            });
        read(request.call()?, max)
    }

    /// `POST` of JSON; gives the status and up to `max` bytes of the body.
    ///
    /// # Errors
    /// As [`Caller::get`].
    pub fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        max: u64,
    ) -> Result<(u16, Vec<u8>), NetError> {
        let request = self
            .agent
            .post(url)
            .header("Content-Type", "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        read(request.send(body)?, max)
    }
}

fn read(response: http::Response<Body>, max: u64) -> Result<(u16, Vec<u8>), NetError> {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let mut reader = response
        .into_body()
        .into_reader()
        .take(max.saturating_add(1));
    reader.read_to_end(&mut body)?;
    if body.len() as u64 > max {
        return Err(NetError::Other(format!(
            "the answer has more than {max} bytes"
        )));
    }
    Ok((status, body))
}
