//! A call as the fault rules see it, and what its connection can suffer.

use std::time::Duration;

use serde_json::Value;

/// One call as the fault rules see it.
pub struct ApiCall<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The path, such as `/v1/batches`.
    pub path: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// Decides the call's chance.
    pub id: &'a str,
}

/// What the connection of a call suffers. The front end carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionFault {
    /// A proxy answers with this status and HTML. The call has no effect.
    HtmlPage(u16),
    /// The connection breaks before the response.
    Reset,
    /// The connection breaks; the call takes effect after this time. Only a create suffers it.
    LateEffect(Duration),
    /// The connection breaks after these bytes of the response's body.
    Cut {
        /// The number of bytes.
        bytes: u64,
    },
    /// The response ends after these bytes of its body, as if they were all.
    QuietCut {
        /// The number of bytes.
        bytes: u64,
    },
    /// The response comes later.
    Late(Duration),
}

impl ApiCall<'_> {
    /// The segments of the path.
    pub fn segments(&self) -> Vec<&str> {
        self.path.trim_matches('/').split('/').collect()
    }

    /// The id of the file that the call is about; empty if there is none.
    pub fn file_id(&self) -> String {
        match self.path.strip_prefix("/v1/files/") {
            Some(rest) => rest.split('/').next().unwrap_or(rest).to_owned(),
            None if self.path == "/v1/batches" => self.input_file_id(),
            None => String::new(),
        }
    }

    /// The member `input_file_id` of the body; empty if there is none.
    pub fn input_file_id(&self) -> String {
        serde_json::from_slice::<Value>(self.body)
            .ok()
            .and_then(|body| body.get("input_file_id")?.as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}
