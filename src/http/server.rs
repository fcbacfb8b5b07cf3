//! An HTTP server: the gate in front, tiny_http behind it, and the workers that ask the handler.
//!
//! Threads: one that accepts, `workers` that call the handler, `downloads` that write long answers
//! at their clients' pace; these belong to the group. Each connection has one more, which ends with
//! it. A panic in the handler ends its worker, and with it, as the group is watched, the daemon:
//! better than to go on with what a half-done request left behind. The client gets a 500.

use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::connection_limiter::{Budget, ConnectionLimiter};
use super::gate::Gate;
use super::inner::Inner;
use super::reply::{TAKEN_AT_ONCE, plain_headers, retry_later};
use super::wire;
use super::{Body, Handler, Response};
use crate::base::cidr::Cidr;
use crate::base::clock::Clock;
use crate::base::thread_group::ThreadGroup;

/// A stream that ends within so many bytes is an answer in full. The gate takes that from its worker at
/// once, and has it in memory until its client has taken it.
const SHORT_STREAM: u64 = TAKEN_AT_ONCE / 4;

/// What clients are held to. Each limit keeps one peer from taking what belongs to all.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request's head: its line and its header fields.
    pub head_bytes: usize,
    /// Header fields of a request.
    pub headers: usize,
    /// From a request's first byte to the end of its head.
    pub head_deadline: Duration,
    /// Between two requests on one connection.
    pub idle: Duration,
    /// Bytes of a body.
    pub body_bytes: u64,
    /// Bytes of all bodies that are arriving or being handled.
    pub body_budget: u64,
    /// How far a body may fall behind 64 KiB/s in arriving.
    pub body_stall: Duration,
    /// How far a client may fall behind 64 KiB/s in taking an answer.
    pub write_stall: Duration,
    /// Connections open at once, fewer where the process may not have so many descriptors.
    pub connections: usize,
    /// Of these, connections of one peer (an IPv4 address, an IPv6 /64); behind a trusted proxy, its
    /// requests at once.
    pub connections_per_peer: usize,
    /// Whose `X-Forwarded-For` names the peer. Their own connections count for no peer.
    pub trusted_proxies: Vec<Cidr>,
    /// Requests served before a connection is closed.
    pub requests_per_connection: u32,
    /// Requests handled at once.
    pub workers: usize,
    /// Long answers written at once; as many again may wait.
    pub downloads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 16 * 1024,
            headers: 64,
            head_deadline: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            body_bytes: 100_000_000,
            body_budget: 256_000_000,
            body_stall: Duration::from_secs(30),
            write_stall: Duration::from_secs(30),
            connections: 1024,
            connections_per_peer: 256,
            trusted_proxies: Vec::new(),
            requests_per_connection: 1000,
            workers: 8,
            downloads: 8,
        }
    }
}

/// A running server. Dropping it stops it at once.
pub struct Server {
    gate: Arc<Gate>,
    inner: Arc<Inner>,
    address: SocketAddr,
    /// The listener once more: to shut it down from outside of `accept`.
    listening: TcpStream,
    /// Dropped to cut the accept loop's pauses short.
    running: Mutex<Option<Sender<()>>>,
}

impl Server {
    /// Serves `handler` on `listener`; its threads are `name-…` and belong to `group`.
    ///
    /// # Errors
    /// When the machine gives no thread, socket or temporary folder.
    pub fn start(
        group: &ThreadGroup,
        clock: Arc<dyn Clock>,
        name: &str,
        listener: TcpListener,
        mut limits: Limits,
        handler: Arc<dyn Handler>,
    ) -> io::Result<Self> {
        if let Some(most) = connections_affordable().filter(|most| *most < limits.connections) {
            log::warn!(
                event = "http_few_descriptors", server:% = name, connections = most;
                "raise LimitNOFILE for more"
            );
            limits.connections = most;
        }
        let inner = Arc::new(Inner::start(limits.workers)?);
        let (running, stopped) = bounded(0);
        let gate = Arc::new(Gate {
            limiter: Arc::new(ConnectionLimiter::new(
                limits.connections,
                limits.connections_per_peer,
            )),
            budget: Budget::new(limits.body_budget),
            inner: Arc::clone(&inner),
            handler: Arc::clone(&handler),
            clock,
            limits: limits.clone(),
        });
        // From here on, an early return drops the server, and so ends the threads started so far.
        let server = Self {
            gate: Arc::clone(&gate),
            inner: Arc::clone(&inner),
            address: listener.local_addr()?,
            listening: TcpStream::from(OwnedFd::from(listener.try_clone()?)),
            running: Mutex::new(Some(running)),
        };
        let (downloads, waiting) = unbounded();
        for number in 1..=limits.downloads {
            let waiting: Receiver<Download> = waiting.clone();
            group.spawn(&format!("{name}-long-{number}"), move || {
                waiting.iter().for_each(Download::write);
            })?;
        }
        for number in 1..=limits.workers {
            let worker = Worker {
                inner: Arc::clone(&inner),
                handler: Arc::clone(&handler),
                downloads: downloads.clone(),
                most_waiting: limits.downloads,
            };
            group.spawn(&format!("{name}-{number}"), move || worker.run())?;
        }
        group.spawn(&format!("{name}-accept"), move || {
            gate.accept(&listener, &stopped);
        })?;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, closes what is idle, lets running requests end `within`, then cuts them
    /// off. The server's threads in the group end then, once the handler has returned.
    pub fn stop(&self, within: Duration) {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.gate.limiter.close_idle();
        // On Linux this ends a waiting `accept`; elsewhere a connection does.
        if self.listening.shutdown(Shutdown::Both).is_err() {
            drop(TcpStream::connect(self.address));
        }
        if !self.gate.limiter.wait_until_empty(within) {
            self.gate.limiter.close_all();
        }
        self.inner.close();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// How many connections the process' descriptors are good for: each takes four while it is being
/// served (its own, and three between gate and tiny_http), and a third is left to all else. None
/// where the system does not say.
fn connections_affordable() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|it| it.starts_with("Max open files"))?;
    let soft: usize = line.split_whitespace().nth(3)?.parse().ok()?;
    Some((soft / 6).max(1))
}

/// Calls the handler.
struct Worker {
    inner: Arc<Inner>,
    handler: Arc<dyn Handler>,
    downloads: Sender<Download>,
    most_waiting: usize,
}

impl Worker {
    fn run(&self) {
        while let Some(request) = self.inner.next() {
            self.answer(request);
        }
    }

    fn answer(&self, mut from: tiny_http::Request) {
        let request = match wire::take_request(&mut from) {
            Ok(request) => request,
            Err(error) => {
                // The gate hung up in the middle; dropping the request answers it.
                log::warn!(event = "http_request_cut", error:%; "");
                return;
            }
        };
        let id = request.id.clone();
        let head_only = request.method == "HEAD";
        let mut response = self.handler.handle(request);
        if !(200..=599).contains(&response.status) {
            log::error!(
                event = "http_impossible_status", status = response.status, request:% = id; ""
            );
            response.status = 500;
        }
        if !head_only {
            response.body = begin(response.body);
        }
        let streamed = matches!(response.body, Body::Stream(_)) && !head_only;
        if streamed && self.downloads.len() >= self.most_waiting {
            // A stream has not been begun and can be asked for again. An answer in full may be the
            // only word on what the request did: it waits its turn, however long.
            log::info!(
                event = "http_refused", request:% = id, status = 503, code = "OVERLOADED"; ""
            );
            let message = "too many downloads are running: try again later";
            let refusal = self.handler.refuse(503, "OVERLOADED", message);
            Download::new(id, from, retry_later(refusal), head_only).write();
            return;
        }
        let long = match &response.body {
            Body::Stream(_) => streamed,
            Body::Bytes(bytes) => u64::try_from(bytes.len()).is_ok_and(|it| it > TAKEN_AT_ONCE),
        };
        let download = Download::new(id, from, response, head_only);
        if !long {
            download.write();
        } else if let Err(unsent) = self.downloads.send(download) {
            // Only without threads for long answers at all.
            unsent.into_inner().write();
        }
    }
}

/// Reads the beginning of a stream: a short one needs no place among the long answers.
fn begin(body: Body) -> Body {
    let Body::Stream(mut stream) = body else {
        return body;
    };
    let mut bytes = Vec::new();
    match stream.by_ref().take(SHORT_STREAM).read_to_end(&mut bytes) {
        Ok(count) if u64::try_from(count) == Ok(SHORT_STREAM) => {
            Body::Stream(Box::new(Cursor::new(bytes).chain(stream)))
        }
        Ok(_) => Body::Bytes(bytes),
        Err(error) => Body::Stream(Box::new(Cursor::new(bytes).chain(Broken(Some(error))))),
    }
}

/// What is left of a stream whose reading failed.
struct Broken(Option<io::Error>);

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self
            .0
            .take()
            .unwrap_or_else(|| ErrorKind::UnexpectedEof.into()))
    }
}

/// An answer on its way to the gate.
struct Download {
    id: String,
    to: Box<dyn Write + Send>,
    response: Response,
    head_only: bool,
}

impl Download {
    fn new(id: String, from: tiny_http::Request, response: Response, head_only: bool) -> Self {
        Self {
            id,
            to: from.into_writer(),
            response,
            head_only,
        }
    }

    fn write(mut self) {
        let headers: Vec<_> = plain_headers(&self.response).cloned().collect();
        let length = match &self.response.body {
            Body::Bytes(bytes) => Some(bytes.len()),
            Body::Stream(_) => None,
        };
        let status = self.response.status;
        let body = (!self.head_only && !matches!(status, 204 | 304)).then_some(self.response.body);
        let written = wire::write_answer(&mut self.to, status, &headers, length, body);
        match written {
            Ok(()) => {}
            // The gate has hung up, because the client has or was too slow.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                log::debug!(event = "http_answer_unwanted", request:% = self.id; "");
            }
            Err(error) => {
                log::warn!(event = "http_answer_cut", request:% = self.id, error:%; "");
            }
        }
    }
}
