//! The threads that call the handler and write its responses to the inner server.

use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::connection_limiter::peer_network;
use super::downloads::Downloads;
use super::handler::Handler;
use super::inner_protocol::{read_request, write_response};
use super::inner_server::InnerServer;
use super::message::{Response, ResponseBody};
use super::response_writer::{BUFFERED_RESPONSE_BYTES, handler_fields, with_retry_after};
use crate::base::thread_pool::{PoolThread, ThreadPool};

/// How long a thread waits for the next request or response.
pub const IDLE: Duration = Duration::from_secs(10);

/// A stream that ends within this length is sent as bytes. The connection reads these from the worker at
/// once, and holds them in memory until the client has received them.
const SHORT_STREAM_BYTES: u64 = BUFFERED_RESPONSE_BYTES / 4;

/// Calls the handler. Long responses go to other threads, since a slow client would block the worker.
pub struct RequestWorker {
    /// The source of requests.
    pub inner: Arc<InnerServer>,
    /// The program that answers requests.
    pub handler: Arc<dyn Handler>,
    /// The long responses.
    pub downloads: Arc<Downloads>,
    /// The threads for them.
    pub download_threads: Arc<ThreadPool>,
}

impl RequestWorker {
    /// Handles requests until the inner server is closed, or until none comes for [`IDLE`]. Returns true: the server
    /// can do without this thread then.
    pub fn run(&self, thread: &PoolThread) -> bool {
        while let Some(received) = self.inner.receive(IDLE) {
            match received {
                Some(request) => {
                    thread.begin_work();
                    self.handle(request);
                    thread.end_work();
                }
                None if thread.end_wait() => break,
                None => {}
            }
        }
        true
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
        let (id, peer) = (request.id.clone(), request.peer);
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
        let is_long = match &response.body {
            ResponseBody::Stream(_) => !is_head,
            ResponseBody::Bytes(bytes) => {
                u64::try_from(bytes.len()).is_ok_and(|it| it > BUFFERED_RESPONSE_BYTES)
            }
        };
        let outgoing = OutgoingResponse::new(id, peer, inner_request, response, is_head);
        let unsent = match is_long {
            true => self.downloads.push(outgoing),
            false => Some(outgoing),
        };
        match unsent {
            Some(refused) if is_long && refused.is_stream() => refused.refuse(&*self.handler),
            Some(short) => short.write(),
            None if self.download_threads.start_if_none_waits() => {}
            None => self.downloads.write_next(),
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

/// A stream whose bytes are counted.
struct CountedStream {
    stream: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Read for CountedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.count
            .fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
        Ok(count)
    }
}

/// A response that is to be written to the inner server.
pub struct OutgoingResponse {
    /// The request's id.
    pub id: String,
    /// The client to which it counts: its name, or its address.
    pub owner: String,
    to: Box<dyn Write + Send>,
    response: Response,
    is_head: bool,
}

impl OutgoingResponse {
    fn new(
        id: String,
        peer: IpAddr,
        request: tiny_http::Request,
        mut response: Response,
        is_head: bool,
    ) -> Self {
        let owner = response.owner.take();
        Self {
            id,
            owner: owner.unwrap_or_else(|| peer_network(peer).to_string()),
            to: request.into_writer(),
            response,
            is_head,
        }
    }

    /// Whether the body is a stream.
    pub fn is_stream(&self) -> bool {
        matches!(self.response.body, ResponseBody::Stream(_)) && !self.is_head
    }

    /// Counts the bytes of the stream from now on as they are read.
    pub fn count_bytes(&mut self) -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(0));
        let body = std::mem::replace(&mut self.response.body, ResponseBody::Bytes(Vec::new()));
        self.response.body = match body {
            ResponseBody::Stream(stream) => ResponseBody::Stream(Box::new(CountedStream {
                stream,
                count: Arc::clone(&count),
            })),
            bytes @ ResponseBody::Bytes(_) => bytes,
        };
        count
    }

    /// Answers 503 in place of the stream.
    fn refuse(mut self, handler: &dyn Handler) {
        log::info!(
            event = "http_refused", request:% = self.id, status = 503, code = "OVERLOADED"; ""
        );
        let message = "too many downloads are running: try again later";
        self.response = with_retry_after(handler.refuse(503, "OVERLOADED", message));
        self.write();
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
