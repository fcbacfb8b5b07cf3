//! A client's connection, on which each read and each write has a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Clock;

/// The minimum rate, in bytes a second, at which a client must send and receive. A slower client would occupy
/// memory or a thread for too long. It may fall behind this rate by the configured stall at most.
const MIN_RATE: u64 = 64 * 1024;

/// Bytes of one read; more than most heads have.
const READ_BYTES: usize = 16 * 1024;

/// The time that `bytes` take at the minimum rate.
pub fn time_at_min_rate(bytes: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / MIN_RATE)
}

/// A client's connection, with the bytes that were read from it and not used yet.
pub struct ClientStream {
    stream: Arc<TcpStream>,
    clock: Arc<dyn Clock>,
    /// Bytes that were read and not used yet. With pipelining, they belong to the next requests.
    pub buffer: Vec<u8>,
    read_timeout: Option<Duration>,
    write_stall: Duration,
    /// The time by which the client is behind the minimum rate in receiving the response.
    write_delay: Duration,
}

impl ClientStream {
    /// Sets up an accepted connection. A single write may wait for `write_stall`.
    ///
    /// # Errors
    /// If the connection is lost already.
    pub fn new(stream: Arc<TcpStream>, clock: Arc<dyn Clock>, write_stall: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(write_stall))?;
        Ok(Self {
            stream,
            clock,
            buffer: Vec::new(),
            read_timeout: None,
            write_stall,
            write_delay: Duration::ZERO,
        })
    }

    /// The time of the steady clock.
    pub fn now(&self) -> Duration {
        self.clock.now().steady
    }

    /// Reads the bytes that have arrived, and waits for them at most `within`. Returns 0 at the end of the
    /// stream.
    ///
    /// # Errors
    /// `TimedOut` if no byte arrived, and the errors of the socket.
    pub fn read(&mut self, into: &mut [u8], within: Duration) -> io::Result<usize> {
        if within.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        // At least a millisecond, since a timeout of zero means to wait without limit.
        let within = within.max(Duration::from_millis(1));
        if self.read_timeout != Some(within) {
            self.stream.set_read_timeout(Some(within))?;
            self.read_timeout = Some(within);
        }
        loop {
            match (&*self.stream).read(into) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(ErrorKind::TimedOut.into());
                }
                result => return result,
            }
        }
    }

    /// Reads more bytes into `buffer`. Returns 0 at the end of the stream.
    ///
    /// # Errors
    /// The same as those of [`ClientStream::read`].
    pub fn fill_buffer(&mut self, within: Duration) -> io::Result<usize> {
        let mut piece = [0; READ_BYTES];
        let count = self.read(&mut piece, within)?;
        self.buffer
            .extend_from_slice(piece.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// Begins to measure the client's rate for the next response.
    pub fn begin_response(&mut self) {
        self.write_delay = Duration::ZERO;
    }

    /// Writes all bytes.
    ///
    /// # Errors
    /// `TimedOut` if the client is slower than the minimum rate allows, and the errors of the socket.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let before = self.now();
            let mut allowed = Duration::ZERO;
            match (&*self.stream).write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = bytes.get(count..).unwrap_or_default();
                    allowed = time_at_min_rate(u64::try_from(count).unwrap_or(u64::MAX));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
            // Only the time spent in waiting for the client counts.
            let waited = self.now().saturating_sub(before);
            self.write_delay = (self.write_delay + waited).saturating_sub(allowed);
            if self.write_delay > self.write_stall {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// Ends the connection so that the client can read the last response (RFC 9112, 9.6): to close a socket
    /// with unread bytes resets it, and the client may lose the response. Bytes that arrive within `within`
    /// are dropped.
    pub fn linger(mut self, within: Duration) {
        if self.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let deadline = self.now() + within;
        let mut piece = [0; READ_BYTES];
        while matches!(
            self.read(&mut piece, deadline.saturating_sub(self.now())),
            Ok(1..)
        ) {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::base::clock::{Moment, Timestamp};

    /// A clock that goes on by a second with each reading.
    #[derive(Default)]
    struct SteppingClock(AtomicU64);

    impl Clock for SteppingClock {
        fn now(&self) -> Moment {
            Moment {
                wall: Timestamp::from_millis(0),
                steady: Duration::from_secs(self.0.fetch_add(1, Ordering::SeqCst)),
            }
        }
    }

    #[test]
    fn responses_have_a_minimum_rate() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _reader = listener.accept().unwrap();
        let stall = Duration::from_secs(3);
        let mut client =
            ClientStream::new(Arc::new(stream), Arc::new(SteppingClock::default()), stall).unwrap();
        let piece = vec![0; 16 * 1024];
        // Each write takes a second. 64 KiB/s are required, the client reads 16, and may fall behind by 3 s.
        let pieces = (1..9).find(|_| client.write(&piece).is_err());
        assert_eq!(pieces, Some(5));
        client.begin_response();
        assert!(client.write(&piece).is_ok());
        let error = client.read(&mut [0], Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
