//! The admission gate: it owns the public listener and lets through to the workers one whole,
//! well-formed request at a time.
//!
//! Everything that an unauthenticated peer can do badly ends here, on a thread of its own
//! connection: slowness meets a deadline, size a cap, bad framing a refusal. tiny_http behind it
//! bounds nothing, and must never see any of that. A panic here costs its connection alone.

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use uuid::Uuid;

use super::connection_limiter::{
    Budget, ConnectionLimiter, ConnectionPermit, Counted, Phase, Share,
};
use super::head::{self, Head, HttpError};
use super::inner::Inner;
use super::server::Limits;
use super::socket::{Client, patience};
use super::{Handler, forwarded, reply, wire};
use crate::base::clock::Clock;
use crate::base::thread_group;

/// How long the accept loop waits when the machine has no descriptor or thread left.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How long a client may take to see that its connection has ended.
pub const GOODBYE: Duration = Duration::from_secs(1);
/// A body is taken in and passed on in pieces, each freed as soon as it is passed. The first have
/// this size, and none is longer than all before it: memory follows what has arrived.
const FIRST_PIECE: u64 = 16 * 1024;
/// And no piece is longer than this.
const MOST_PIECE: u64 = 256 * 1024;
/// How often the log says that connections are turned away.
const TOLD_AGAIN: Duration = Duration::from_secs(10);

/// The gate of one server.
pub struct Gate {
    /// What it holds its clients to.
    pub limits: Limits,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Whose form the refusals have.
    pub handler: Arc<dyn Handler>,
    /// Where requests go.
    pub inner: Arc<Inner>,
    /// The connections.
    pub limiter: Arc<ConnectionLimiter>,
    /// The memory of all bodies together.
    pub budget: Budget,
}

/// What becomes of the connection after an answer.
pub enum Next {
    /// Another request may follow.
    Request,
    /// It ends; the client gets so long to read the answer.
    Linger(Duration),
    /// It is dead.
    Gone,
}

/// Why there is no proper answer.
pub enum Trouble {
    /// It is answered so.
    Refused(HttpError),
    /// The client is gone, or was told in mid-answer.
    Gone,
}

impl From<HttpError> for Trouble {
    fn from(refusal: HttpError) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for Trouble {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// One request's circumstances.
pub struct RequestContext {
    /// The request's id.
    pub id: String,
    /// Who sent it.
    pub peer: IpAddr,
    /// Its answer has no body.
    pub head_only: bool,
    /// This connection serves no further request.
    pub last: bool,
}

impl Gate {
    /// Accepts connections until stopped; no error of `accept` ends it.
    pub fn accept(self: &Arc<Self>, listener: &TcpListener, stopped: &Receiver<()>) {
        let mut failing = false;
        let mut rejections = RejectionLog::default();
        loop {
            let accepted = listener.accept();
            if self.limiter.closing() {
                return;
            }
            let error = match accepted {
                Ok((stream, address)) => self.admit(stream, address, &mut rejections).err(),
                Err(error) => match error.kind() {
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => None,
                    _ => Some(error),
                },
            };
            // Out of descriptors or threads: told once, then waited out.
            if let Some(error) = &error {
                if !failing {
                    log::warn!(event = "http_accept_failing", error:%; "");
                }
                self.limiter.make_room();
                if stopped.recv_timeout(BACK_OFF) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
            failing = error.is_some();
        }
    }

    /// Gives a connection its permit and its thread, or turns it away.
    fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        rejections: &mut RejectionLog,
    ) -> io::Result<()> {
        let peer = address.ip().to_canonical();
        let proxy = forwarded::trusted(peer, &self.limits.trusted_proxies);
        let stream = Arc::new(stream);
        let Some(permit) = self.limiter.take(&stream, (!proxy).then_some(peer)) else {
            self.turn_away(&stream, peer);
            rejections.turned_away(peer, self.clock.now().steady);
            return Ok(());
        };
        let gate = Arc::clone(self);
        thread_group::spawn_ungrouped("http-client", move || gate.converse(stream, &permit, peer))
            .map(drop)
    }

    /// Says why, as far as that is possible without waiting for anything.
    fn turn_away(&self, stream: &TcpStream, peer: IpAddr) {
        let refusal = overloaded("too many connections are open: try again later");
        let text = self.refusal_text(&Uuid::new_v4().to_string(), &refusal, false);
        let said = stream.set_nonblocking(true).and_then(|()| {
            let mut stream = stream;
            // Unread bytes would turn the close into a reset.
            drop(stream.read(&mut [0; 4096]));
            stream.write_all(&text)?;
            stream.shutdown(Shutdown::Write)
        });
        if let Err(error) = said {
            log::debug!(event = "http_turned_away", peer:%, error:%; "");
        }
    }

    /// One connection, from its first request to its end.
    fn converse(&self, stream: Arc<TcpStream>, permit: &ConnectionPermit, peer: IpAddr) {
        let clock = Arc::clone(&self.clock);
        let Ok(mut client) = Client::new(stream, clock, self.limits.write_stall) else {
            return;
        };
        let mut next = Next::Request;
        let most = self.limits.requests_per_connection.max(1);
        for served in 1..=most {
            // Who has just connected has something to say.
            let patience = match served {
                1 => self.limits.head_deadline,
                _ => self.limits.idle,
            };
            if !permit.enter(Phase::Idle)
                || (client.ahead.is_empty() && !matches!(client.read_ahead(patience), Ok(1..)))
                || !permit.enter(Phase::Arriving)
            {
                next = Next::Linger(GOODBYE);
                break;
            }
            let mut context = RequestContext {
                id: Uuid::new_v4().to_string(),
                peer,
                head_only: false,
                last: served == most,
            };
            next = match self.serve(&mut client, permit, &mut context) {
                Ok(next) => next,
                Err(Trouble::Gone) => Next::Gone,
                Err(Trouble::Refused(refusal)) => {
                    let HttpError { status, code, .. } = &refusal;
                    log::info!(
                        event = "http_refused", request:% = context.id, peer:% = context.peer,
                        status, code:%; ""
                    );
                    let text = self.refusal_text(&context.id, &refusal, context.head_only);
                    client.begin_answer();
                    match client.write(&text) {
                        // Much of the request may be under way still.
                        Ok(()) => Next::Linger(self.limits.head_deadline),
                        Err(_) => Next::Gone,
                    }
                }
            };
            if !matches!(next, Next::Request) {
                break;
            }
        }
        if let Next::Linger(within) = next
            && permit.enter(Phase::Idle)
        {
            client.linger(within);
        }
    }

    /// Takes in one request and passes on its answer.
    fn serve(
        &self,
        client: &mut Client,
        permit: &ConnectionPermit,
        context: &mut RequestContext,
    ) -> Result<Next, Trouble> {
        let head = self.read_head(client)?;
        context.head_only = head.method == "HEAD";
        let _counted = self.name_peer(&head, context)?;
        if head.length > self.limits.body_bytes {
            return Err(HttpError::new(
                413,
                "REQUEST_TOO_LARGE",
                format!("the body has more than {} bytes", self.limits.body_bytes),
            )
            .into());
        }
        let mut share = self.budget.open(head.length).ok_or_else(too_much)?;
        if head.expects_continue && client.ahead.is_empty() {
            client.begin_answer();
            client.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = self.read_body(client, permit, head.length, &mut share)?;
        if !permit.enter(Phase::Served) {
            return Err(Trouble::Gone);
        }
        let inner = self.hand_over(&head, context, body).map_err(|error| {
            log::error!(event = "http_hand_over_failed", request:% = context.id, error:%; "");
            overloaded("the request could not be taken: try again later")
        })?;
        let mut inner = BufReader::with_capacity(64 * 1024, inner);
        let answer =
            wire::read_answer(&mut inner).map_err(|error| reply::broken_off(context, &error))?;
        drop(share);
        self.pass_on(client, context, &head, &answer, &mut inner)
    }

    fn read_head(&self, client: &mut Client) -> Result<Head, Trouble> {
        let deadline = client.now() + self.limits.head_deadline;
        let mut seen = 0;
        let end = loop {
            // An empty line before a request is passed over (RFC 9112, 2.2).
            while seen == 0 && client.ahead.starts_with(b"\r\n") {
                client.ahead.drain(..2);
            }
            let end = head::end_of_head(&client.ahead, seen)?;
            seen = client.ahead.len();
            if end.unwrap_or(seen) > self.limits.head_bytes {
                return Err(HttpError::new(
                    431,
                    "REQUEST_TOO_LARGE",
                    format!(
                        "the request's head has more than {} bytes",
                        self.limits.head_bytes
                    ),
                )
                .into());
            }
            if let Some(end) = end {
                break end;
            }
            if read_on(client, deadline)? == 0 {
                return Err(Trouble::Gone);
            }
        };
        let parsed = head::parse(&client.ahead[..end], self.limits.headers);
        client.ahead.drain(..end);
        Ok(parsed?)
    }

    /// Whom the request counts for: who is connected, or who is behind a proxy whose word counts.
    fn name_peer(
        &self,
        head: &Head,
        context: &mut RequestContext,
    ) -> Result<Option<Counted>, HttpError> {
        let connected = context.peer;
        context.peer = forwarded::peer(connected, &head.headers, &self.limits.trusted_proxies);
        if context.peer == connected {
            return Ok(None);
        }
        match self.limiter.count(context.peer) {
            None => Err(overloaded(
                "too many of your requests are under way: try again later",
            )),
            counted => Ok(counted),
        }
    }

    /// The whole body, in pieces.
    fn read_body(
        &self,
        client: &mut Client,
        permit: &ConnectionPermit,
        length: u64,
        share: &mut Share<'_>,
    ) -> Result<Vec<Vec<u8>>, Trouble> {
        let stall = self.limits.body_stall;
        let mut deadline = client.now() + stall;
        let mut pieces = Vec::new();
        let mut arrived = 0;
        while arrived < length {
            // The piece before, or the head, is here.
            if !permit.enter(Phase::Arriving) {
                return Err(Trouble::Gone);
            }
            let next = (length - arrived).min(arrived.clamp(FIRST_PIECE, MOST_PIECE));
            if !share.grow(next) {
                return Err(too_much().into());
            }
            let size = usize::try_from(next).unwrap_or(usize::MAX);
            let mut piece = vec![0; size];
            let early = client.ahead.len().min(size);
            piece[..early].copy_from_slice(&client.ahead[..early]);
            client.ahead.drain(..early);
            let mut filled = early;
            while filled < size {
                let within = deadline.saturating_sub(client.now());
                match client.read(&mut piece[filled..], within) {
                    Ok(0) => {
                        return Err(HttpError::new(
                            400,
                            "INVALID_PARAMETER",
                            "the body is shorter than its Content-Length",
                        )
                        .into());
                    }
                    Ok(count) => filled += count,
                    Err(error) => return Err(too_slow(&error, "body")),
                }
            }
            // Who is quick saves up no time for later.
            deadline = (deadline + patience(next)).min(client.now() + stall);
            arrived += next;
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// Writes the request to the inner server, freeing the body on the way.
    fn hand_over(
        &self,
        head: &Head,
        context: &RequestContext,
        body: Vec<Vec<u8>>,
    ) -> io::Result<UnixStream> {
        let mut inner = self.inner.connect()?;
        let mut first = wire::request_head(head, &context.id, context.peer).into_bytes();
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

fn read_on(client: &mut Client, deadline: Duration) -> Result<usize, Trouble> {
    let within = deadline.saturating_sub(client.now());
    client
        .read_ahead(within)
        .map_err(|error| too_slow(&error, "head"))
}

fn too_slow(error: &io::Error, part: &str) -> Trouble {
    if error.kind() == ErrorKind::TimedOut {
        let message = format!("the request's {part} did not arrive in time");
        HttpError::new(408, "REQUEST_TIMEOUT", message).into()
    } else {
        Trouble::Gone
    }
}

fn overloaded(message: &str) -> HttpError {
    HttpError::new(503, "OVERLOADED", message)
}

fn too_much() -> HttpError {
    overloaded("too many large requests are arriving at once: try again later")
}

/// The connections that are turned away, told in the log without a line for each.
#[derive(Default)]
struct RejectionLog {
    untold: u64,
    told: Option<Duration>,
}

impl RejectionLog {
    fn turned_away(&mut self, peer: IpAddr, now: Duration) {
        self.untold += 1;
        if self.told.is_none_or(|told| now >= told + TOLD_AGAIN) {
            log::warn!(event = "http_turned_away", number = self.untold, last_peer:% = peer; "");
            self.untold = 0;
            self.told = Some(now);
        }
    }
}
