//! The threads that call the handler and write its responses to the inner server.

use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::handler::Handler;
use super::inner_protocol::{read_request, write_response};
use super::inner_server::InnerServer;
use super::message::{Response, ResponseBody};
use super::response_writer::{BUFFERED_RESPONSE_BYTES, handler_fields, with_retry_after};

/// A stream that ends within this length is sent as bytes. The connection reads these from the worker at
/// once, and holds them in memory until the client has received them.
const SHORT_STREAM_BYTES: u64 = BUFFERED_RESPONSE_BYTES / 4;

/// Calls the handler. Long responses go to other threads, since a slow client would block the worker.
pub struct RequestWorker {
    /// The source of requests.
    pub inner: Arc<InnerServer>,
    /// The program that answers requests.
    pub handler: Arc<dyn Handler>,
    /// The queue of the threads for long responses.
    pub downloads: Sender<OutgoingResponse>,
    /// The most long responses that may wait for such a thread.
    pub max_waiting: usize,
}

impl RequestWorker {
    /// Handles requests until the inner server is closed.
    pub fn run(&self) {
        while let Some(request) = self.inner.receive() {
            self.handle(request);
        }
    }

    fn handle(&self, mut inner_request: tiny_http::Request) {
        let request = match read_request(&mut inner_request) {
            Ok(request) => request,
            Err(error) => {
                // The connection ended in the middle. Dropping the request makes tiny_http answer it.
                log::warn!(event = "http_request_cut", error:%; "");
                return;
            }
        };
        let id = request.id.clone();
        let is_head = request.method == "HEAD";
        let mut response = self.handler.handle(request);
        if !(200..=599).contains(&response.status) {
            log::error!(
                event = "http_impossible_status", status = response.status, request:% = id; ""
            );
            response.status = 500;
        }
        if !is_head {
            response.body = buffer_short_stream(response.body);
        }
        let is_stream = matches!(response.body, ResponseBody::Stream(_)) && !is_head;
        if is_stream && self.downloads.len() >= self.max_waiting {
            // Only a stream is refused: the client can request it again. Bytes may be the only report of what
            // the request did, so they wait for their turn without a limit.
            log::info!(
                event = "http_refused", request:% = id, status = 503, code = "OVERLOADED"; ""
            );
            let message = "too many downloads are running: try again later";
            let refusal = self.handler.refuse(503, "OVERLOADED", message);
            OutgoingResponse::new(id, inner_request, with_retry_after(refusal), is_head).write();
            return;
        }
        let is_long = match &response.body {
            ResponseBody::Stream(_) => is_stream,
            ResponseBody::Bytes(bytes) => {
                u64::try_from(bytes.len()).is_ok_and(|it| it > BUFFERED_RESPONSE_BYTES)
            }
        };
        let outgoing = OutgoingResponse::new(id, inner_request, response, is_head);
        if !is_long {
            outgoing.write();
        } else if let Err(unsent) = self.downloads.send(outgoing) {
            // The server was started without threads for long responses.
            unsent.into_inner().write();
        }
    }
}

/// Reads the beginning of a stream, and turns a short stream into bytes, which need no thread for long
/// responses.
fn buffer_short_stream(body: ResponseBody) -> ResponseBody {
    let ResponseBody::Stream(mut stream) = body else {
        return body;
    };
    let mut bytes = Vec::new();
    let mut beginning = stream.by_ref().take(SHORT_STREAM_BYTES);
    match beginning.read_to_end(&mut bytes) {
        Ok(count) if u64::try_from(count) == Ok(SHORT_STREAM_BYTES) => {
            ResponseBody::Stream(Box::new(Cursor::new(bytes).chain(stream)))
        }
        Ok(_) => ResponseBody::Bytes(bytes),
        Err(error) => {
            let failed = FailedStream { error: Some(error) };
            ResponseBody::Stream(Box::new(Cursor::new(bytes).chain(failed)))
        }
    }
}

/// The rest of a stream whose reading failed. Reading it gives the error.
struct FailedStream {
    error: Option<io::Error>,
}

impl Read for FailedStream {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let error = self.error.take();
        Err(error.unwrap_or_else(|| ErrorKind::UnexpectedEof.into()))
    }
}

/// A response that is to be written to the inner server.
pub struct OutgoingResponse {
    id: String,
    to: Box<dyn Write + Send>,
    response: Response,
    is_head: bool,
}

impl OutgoingResponse {
    fn new(id: String, request: tiny_http::Request, response: Response, is_head: bool) -> Self {
        Self {
            id,
            to: request.into_writer(),
            response,
            is_head,
        }
    }

    /// Writes the response, and logs a failure.
    pub fn write(mut self) {
        let headers: Vec<_> = handler_fields(&self.response).cloned().collect();
        let length = match &self.response.body {
            ResponseBody::Bytes(bytes) => Some(bytes.len()),
            ResponseBody::Stream(_) => None,
        };
        let status = self.response.status;
        let has_content = !self.is_head && !matches!(status, 204 | 304);
        let body = has_content.then_some(self.response.body);
        match write_response(&mut self.to, status, &headers, length, body) {
            Ok(()) => {}
            // The connection has ended, because the client closed it or was too slow.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                log::debug!(event = "http_answer_unwanted", request:% = self.id; "");
            }
            Err(error) => {
                log::warn!(event = "http_answer_cut", request:% = self.id, error:%; "");
            }
        }
    }
}
