//! Serves one client's connection: reads a request at a time, passes it to a worker, and forwards the
//! response.
//!
//! Each connection has its own thread. What an unauthenticated client does wrong ends here: slowness meets a
//! deadline, size a limit, bad framing an error. A panic ends this connection alone.

use std::io::{self, BufReader, Write};
use std::net::{IpAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::client_stream::ClientStream;
use super::connection_limiter::{ConnectionLimiter, ConnectionPermit, Phase, ProxiedRequestPermit};
use super::forwarded;
use super::http_error::{HttpError, RequestFailure};
use super::inner_protocol::{read_response_head, write_request_head};
use super::inner_server::InnerServer;
use super::limits::HttpLimits;
use super::memory_budget::MemoryBudget;
use super::request_body::read_body;
use super::request_context::RequestContext;
use super::request_head::{self, RequestHead};
use super::response_writer::{ResponseWriter, worker_failure};
use crate::base::clock::Clock;
use crate::base::thread_pool::ThreadPool;

/// How long the server lingers, so that the client can read the last response.
const LINGER: Duration = Duration::from_secs(1);

/// What the connections of one server share.
pub struct ConnectionHandler {
    /// The limits for clients.
    pub limits: HttpLimits,
    /// The source of the time.
    pub clock: Arc<dyn Clock>,
    /// The way to the workers.
    pub inner: Arc<InnerServer>,
    /// The threads of the workers.
    pub workers: Arc<ThreadPool>,
    /// The permits of the connections.
    pub limiter: Arc<ConnectionLimiter>,
    /// The memory for the bodies of all requests.
    pub budget: MemoryBudget,
    /// The way back to the clients.
    pub responses: ResponseWriter,
}

/// What happens to the connection after a response.
enum Disposition {
    /// Another request may follow.
    KeepAlive,
    /// The connection ends, and the client has this long to read the response.
    Linger(Duration),
    /// The connection is lost.
    Lost,
}

impl ConnectionHandler {
    /// Serves the requests of one connection until it ends.
    pub fn run(&self, stream: Arc<TcpStream>, permit: &ConnectionPermit, peer: IpAddr) {
        let clock = Arc::clone(&self.clock);
        let Ok(mut client) = ClientStream::new(stream, clock, self.limits.write_stall) else {
            return;
        };
        let mut disposition = Disposition::KeepAlive;
        let max_requests = self.limits.requests_per_connection.max(1);
        for number in 1..=max_requests {
            // A client that has just connected is expected to send its request soon.
            let timeout = match number {
                1 => self.limits.header_timeout,
                _ => self.limits.idle_timeout,
            };
            if !wait_for_request(&mut client, permit, timeout) {
                disposition = Disposition::Linger(LINGER);
                break;
            }
            let context = RequestContext {
                id: Uuid::new_v4().to_string(),
                peer,
                is_head: false,
                is_last: number == max_requests,
            };
            disposition = self.serve_or_refuse(&mut client, permit, context);
            if !matches!(disposition, Disposition::KeepAlive) {
                break;
            }
        }
        if let Disposition::Linger(within) = disposition
            && permit.enter(Phase::Idle)
        {
            client.linger(within);
        }
    }

    fn serve_or_refuse(
        &self,
        client: &mut ClientStream,
        permit: &ConnectionPermit,
        mut context: RequestContext,
    ) -> Disposition {
        let error = match self.serve(client, permit, &mut context) {
            Ok(disposition) => return disposition,
            Err(RequestFailure::ConnectionLost) => return Disposition::Lost,
            Err(RequestFailure::Refused(error)) => error,
        };
        let HttpError { status, code, .. } = &error;
        log::info!(
            event = "http_refused", request:% = context.id, peer:% = context.peer,
            status, code:%; ""
        );
        let text = self
            .responses
            .error_response(&context.id, &error, context.is_head);
        client.begin_response();
        match client.write(&text) {
            // The rest of the request may still be arriving.
            Ok(()) => Disposition::Linger(self.limits.header_timeout),
            Err(_) => Disposition::Lost,
        }
    }

    /// Reads one request, passes it to a worker, and forwards the response.
    fn serve(
        &self,
        client: &mut ClientStream,
        permit: &ConnectionPermit,
        context: &mut RequestContext,
    ) -> Result<Disposition, RequestFailure> {
        let head = self.read_head(client)?;
        context.is_head = head.method == "HEAD";
        let _proxied_permit = self.identify_peer(&head, context)?;
        if head.body_length > 0 && matches!(head.method.as_str(), "GET" | "HEAD" | "DELETE") {
            // Signature v1 does not say where the target ends and the body begins.
            let message = format!("a {} request must not have a body", head.method);
            return Err(HttpError::new(400, "INVALID_PARAMETER", message).into());
        }
        if head.body_length > self.limits.max_body_bytes {
            return Err(HttpError::new(
                413,
                "REQUEST_TOO_LARGE",
                format!("the body has more than {} bytes", self.limits.max_body_bytes),
            )
            .into());
        }
        let mut reservation = self
            .budget
            .begin(head.body_length)
            .ok_or_else(HttpError::budget_exceeded)?;
        if head.expects_continue && client.buffer.is_empty() {
            client.begin_response();
            client.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let stall = self.limits.body_stall;
        let body = read_body(client, permit, head.body_length, stall, &mut reservation)?;
        if !permit.enter(Phase::Served) {
            return Err(RequestFailure::ConnectionLost);
        }
        permit.set_request(&context.id);
        let inner = self.pass_to_worker(&head, context, body).map_err(|error| {
            log::error!(event = "http_hand_over_failed", request:% = context.id, error:%; "");
            HttpError::overloaded("the request could not be taken: try again later")
        })?;
        let mut inner = BufReader::with_capacity(64 * 1024, inner);
        let response = read_response_head(&mut inner).map_err(|error| worker_failure(context, &error))?;
        // The handler has returned, so it no longer uses the body.
        drop(reservation);
        let may_keep_alive = !context.is_last && !self.limiter.is_closing();
        let keep_alive =
            self.responses
                .forward(client, context, &head, &response, &mut inner, may_keep_alive)?;
        Ok(if keep_alive {
            Disposition::KeepAlive
        } else {
            Disposition::Linger(LINGER)
        })
    }

    fn read_head(&self, client: &mut ClientStream) -> Result<RequestHead, RequestFailure> {
        let deadline = client.now() + self.limits.header_timeout;
        let mut searched = 0;
        let end = loop {
            // RFC 9112, 2.2: an empty line before a request is ignored.
            while searched == 0 && client.buffer.starts_with(b"\r\n") {
                client.buffer.drain(..2);
            }
            let end = request_head::end_of_head(&client.buffer, searched)?;
            searched = client.buffer.len();
            if end.unwrap_or(searched) > self.limits.max_head_bytes {
                return Err(HttpError::new(
                    431,
                    "REQUEST_TOO_LARGE",
                    format!(
                        "the request's head has more than {} bytes",
                        self.limits.max_head_bytes
                    ),
                )
                .into());
            }
            if let Some(end) = end {
                break end;
            }
            let within = deadline.saturating_sub(client.now());
            match client.fill_buffer(within) {
                Ok(0) => return Err(RequestFailure::ConnectionLost),
                Ok(_) => {}
                Err(error) => return Err(RequestFailure::while_reading("head", &error)),
            }
        };
        let head = request_head::parse(&client.buffer[..end], self.limits.max_headers);
        client.buffer.drain(..end);
        Ok(head?)
    }

    /// Sets the peer for which the request counts. If a trusted proxy names another address than its own, the
    /// request needs a permit, too.
    fn identify_peer(
        &self,
        head: &RequestHead,
        context: &mut RequestContext,
    ) -> Result<Option<ProxiedRequestPermit>, HttpError> {
        let connected = context.peer;
        let proxies = &self.limits.trusted_proxies;
        context.peer = forwarded::client_address(connected, &head.headers, proxies);
        if context.peer == connected {
            return Ok(None);
        }
        match self.limiter.acquire_proxied(context.peer) {
            Some(permit) => Ok(Some(permit)),
            None => Err(HttpError::overloaded(
                "too many of your requests are in progress: try again later",
            )),
        }
    }

    /// Sends the request to the inner server, and frees the body meanwhile.
    fn pass_to_worker(
        &self,
        head: &RequestHead,
        context: &RequestContext,
        body: Vec<Vec<u8>>,
    ) -> io::Result<UnixStream> {
        let mut inner = self.inner.connect()?;
        if !self.workers.start_if_none_waits() {
            return Err(io::Error::other("the system refuses a thread"));
        }
        let mut first = write_request_head(head, &context.id, context.peer).into_bytes();
        let mut pieces = body.into_iter();
        if let Some(piece) = pieces.next() {
            first.extend_from_slice(&piece);
        }
        inner.write_all(&first)?;
        drop(first);
        for piece in pieces {
            inner.write_all(&piece)?;
        }
        Ok(inner)
    }
}

/// Waits for the first byte of the next request. Returns false if the connection must end.
fn wait_for_request(client: &mut ClientStream, permit: &ConnectionPermit, timeout: Duration) -> bool {
    permit.enter(Phase::Idle)
        && (!client.buffer.is_empty() || matches!(client.fill_buffer(timeout), Ok(1..)))
        && permit.enter(Phase::Arriving)
}
