//! The accept loop of the public listener.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use uuid::Uuid;

use super::connection::ConnectionHandler;
use super::forwarded;
use super::http_error::HttpError;
use crate::base::thread_group;

/// How long the accept loop waits after the system has refused a descriptor or a thread.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How often the log reports rejected connections.
const REJECTION_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Accepts connections and starts a thread for each.
pub struct Listener {
    socket: TcpListener,
    connections: Arc<ConnectionHandler>,
    rejections: RejectionLog,
}

impl Listener {
    /// Creates the listener on `socket`. [`Listener::run`] starts it.
    pub fn new(socket: TcpListener, connections: Arc<ConnectionHandler>) -> Self {
        Self {
            socket,
            connections,
            rejections: RejectionLog::default(),
        }
    }

    /// Accepts connections until the server stops. No error of `accept` ends this. Dropping the other end of
    /// `stopped` ends a wait.
    pub fn run(mut self, stopped: &Receiver<()>) {
        let mut is_failing = false;
        loop {
            let accepted = self.socket.accept();
            if self.connections.limiter.is_closing() {
                return;
            }
            let error = match accepted {
                Ok((stream, address)) => self.admit(stream, address).err(),
                Err(error) => match error.kind() {
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => None,
                    _ => Some(error),
                },
            };
            // The process has no descriptor or thread left. The log reports this once.
            if let Some(error) = &error {
                if !is_failing {
                    log::warn!(event = "http_accept_failing", error:%; "");
                }
                self.connections.limiter.evict_one();
                if stopped.recv_timeout(ACCEPT_BACKOFF) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
            is_failing = error.is_some();
        }
    }

    /// Starts a connection's thread, or rejects the connection if it gets no permit.
    fn admit(&mut self, stream: TcpStream, address: SocketAddr) -> io::Result<()> {
        let connections = &self.connections;
        let peer = address.ip().to_canonical();
        let is_proxy = forwarded::is_trusted(peer, &connections.limits.trusted_proxies);
        let stream = Arc::new(stream);
        let limited_peer = (!is_proxy).then_some(peer);
        let Some(permit) = connections.limiter.acquire(&stream, limited_peer) else {
            self.reject(&stream, peer);
            return Ok(());
        };
        let connections = Arc::clone(connections);
        thread_group::spawn_ungrouped("http-client", move || {
            connections.run(stream, &permit, peer);
        })
        .map(drop)
    }

    /// Sends an error and closes the connection, without waiting for the client.
    fn reject(&mut self, stream: &TcpStream, peer: IpAddr) {
        let error = HttpError::overloaded("too many connections are open: try again later");
        let id = Uuid::new_v4().to_string();
        let text = self.connections.responses.error_response(&id, &error, false);
        let sent = stream.set_nonblocking(true).and_then(|()| {
            let mut stream = stream;
            // To close a socket with unread bytes resets the connection, and the client may lose the error.
            drop(stream.read(&mut [0; 4096]));
            stream.write_all(&text)?;
            stream.shutdown(Shutdown::Write)
        });
        if let Err(error) = sent {
            log::debug!(event = "http_turned_away", peer:%, error:%; "");
        }
        let now = self.connections.clock.now().steady;
        self.rejections.record(peer, now);
    }
}

/// Reports rejected connections in the log, with at most one line for each [`REJECTION_LOG_INTERVAL`].
#[derive(Default)]
struct RejectionLog {
    unreported: u64,
    last_report: Option<Duration>,
}

impl RejectionLog {
    fn record(&mut self, peer: IpAddr, now: Duration) {
        self.unreported += 1;
        let is_due = |last| now >= last + REJECTION_LOG_INTERVAL;
        if self.last_report.is_none_or(is_due) {
            log::warn!(event = "http_turned_away", number = self.unreported, last_peer:% = peer; "");
            self.unreported = 0;
            self.last_report = Some(now);
        }
    }
}
