//! The client's socket: no read and no write on it waits for ever.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Clock;

/// The least rate in bytes a second at which a client must send or take: it may fall behind by the
/// stall that it is allowed, never further. Who is slower holds memory or a thread for too long.
const LEAST_RATE: u64 = 64 * 1024;

/// Read at once; more than any head has.
const PIECE: usize = 16 * 1024;

/// How long so many bytes take at the least rate.
pub fn patience(bytes: u64) -> Duration {
    Duration::from_micros(bytes.saturating_mul(1_000_000) / LEAST_RATE)
}

/// A client's connection, with what has been read ahead from it.
pub struct Client {
    stream: Arc<TcpStream>,
    clock: Arc<dyn Clock>,
    /// Bytes that have arrived and belong to nothing yet.
    pub ahead: Vec<u8>,
    read_timeout: Option<Duration>,
    write_stall: Duration,
    /// How far the client is behind the least rate in taking the answer.
    behind: Duration,
}

impl Client {
    /// Takes over an accepted connection whose single writes may wait for `write_stall`.
    ///
    /// # Errors
    /// When the socket is dead already.
    pub fn new(
        stream: Arc<TcpStream>,
        clock: Arc<dyn Clock>,
        write_stall: Duration,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(write_stall))?;
        Ok(Self {
            stream,
            clock,
            ahead: Vec::new(),
            read_timeout: None,
            write_stall,
            behind: Duration::ZERO,
        })
    }

    /// The steady time.
    pub fn now(&self) -> Duration {
        self.clock.now().steady
    }

    /// Reads what has arrived, waiting for it `within` at most; 0 at the end.
    ///
    /// # Errors
    /// `TimedOut` when nothing came, else the socket's.
    pub fn read(&mut self, into: &mut [u8], within: Duration) -> io::Result<usize> {
        if within.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        // Whole milliseconds and not none: zero would mean to wait for ever.
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

    /// Reads some more into `ahead`; 0 at the end.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn read_ahead(&mut self, within: Duration) -> io::Result<usize> {
        let mut piece = [0; PIECE];
        let count = self.read(&mut piece, within)?;
        self.ahead
            .extend_from_slice(piece.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// The next answer is measured anew.
    pub fn begin_answer(&mut self) {
        self.behind = Duration::ZERO;
    }

    /// Writes all of it, to a client that takes it at the least rate.
    ///
    /// # Errors
    /// `TimedOut` when the client is too slow, else the socket's.
    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let before = self.now();
            let mut taken = Duration::ZERO;
            match (&*self.stream).write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = bytes.get(count..).unwrap_or_default();
                    taken = patience(u64::try_from(count).unwrap_or(u64::MAX));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
            // Only what is spent in waiting for the client is held against it.
            let waited = self.now().saturating_sub(before);
            self.behind = (self.behind + waited).saturating_sub(taken);
            if self.behind > self.write_stall {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// Ends the connection so that the client can read the last answer: closing with bytes unread
    /// would reset it, and the answer with it. What still arrives is thrown away, `within` at most.
    pub fn linger(mut self, within: Duration) {
        if self.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let end = self.now() + within;
        let mut piece = [0; PIECE];
        while matches!(
            self.read(&mut piece, end.saturating_sub(self.now())),
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

    /// Each look at it takes a second.
    #[derive(Default)]
    struct Slow(AtomicU64);

    impl Clock for Slow {
        fn now(&self) -> Moment {
            Moment {
                wall: Timestamp::from_millis(0),
                steady: Duration::from_secs(self.0.fetch_add(1, Ordering::SeqCst)),
            }
        }
    }

    #[test]
    fn answers_have_a_least_rate() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _reader = listener.accept().unwrap();
        let stall = Duration::from_secs(3);
        let mut client = Client::new(Arc::new(stream), Arc::new(Slow::default()), stall).unwrap();
        let piece = vec![0; 16 * 1024];
        // At a second each: 64 KiB/s are needed, 16 are taken, and three seconds are free.
        let pieces = (1..9).find(|_| client.write(&piece).is_err());
        assert_eq!(pieces, Some(5));
        client.begin_answer();
        assert!(client.write(&piece).is_ok());
        let error = client.read(&mut [0], Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
