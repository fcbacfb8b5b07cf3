//! tiny_http on a private Unix socket. Its only client is this process, which sends it one well-formed
//! request per connection.
//!
//! tiny_http's accept thread ends at its first error, and panics if the system refuses a descriptor or a
//! thread. [`InnerServer`] detects both (`recv` fails, or a connection to the socket is refused) and starts a
//! new tiny_http.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tiny_http::ConfigListenAddr;
use uuid::Uuid;

/// The longest path of a Unix socket (`unix(7)`).
const MAX_PATH_BYTES: usize = 107;

/// The server behind the private socket.
pub struct InnerServer {
    current: Mutex<Current>,
    sockets: AtomicU64,
    receivers: usize,
}

/// The state of an inner server. Dropping the last reference removes socket and folder.
enum Current {
    /// No connection was opened yet: tiny_http's threads are not needed.
    Unused(Arc<SocketFolder>),
    Listening(Arc<InnerListener>),
    Closed,
}

/// One tiny_http and its socket. The order of the fields matters, since they are dropped in this order:
/// tiny_http removes the socket first, and the folder goes last.
struct InnerListener {
    tiny: tiny_http::Server,
    path: PathBuf,
    folder: Arc<SocketFolder>,
}

impl InnerServer {
    /// Prepares the folder of the socket. Up to `receivers` threads call [`InnerServer::receive`].
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub fn new(receivers: usize) -> io::Result<Self> {
        Ok(Self {
            current: Mutex::new(Current::Unused(Arc::new(SocketFolder::create()?))),
            sockets: AtomicU64::new(0),
            receivers,
        })
    }

    /// Waits for the next request, after the first [`InnerServer::connect`]. `None` once closed; `Some(None)` if none
    /// came for about `within`.
    pub fn receive(&self, within: Duration) -> Option<Option<tiny_http::Request>> {
        let listening = self.current()?;
        match listening.tiny.recv_timeout(within) {
            Ok(Some(request)) => Some(Some(request)),
            // The time is over, or `unblock` woke this thread.
            Ok(None) => self.current().map(|_| None),
            Err(error) => {
                // If this fails, the next call of `connect` tries it again.
                if let Err(error) = self.replace(&listening, &error) {
                    log::error!(event = "http_inner_listener_down", error:%; "");
                }
                Some(None)
            }
        }
    }

    /// Opens a connection to tiny_http, which the first one starts.
    ///
    /// # Errors
    /// If the system refuses it, or the server is closed.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let closed = || io::Error::from(ErrorKind::NotConnected);
        self.start_if_unused()?;
        let listening = self.current().ok_or_else(closed)?;
        match UnixStream::connect(&listening.path) {
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
                self.replace(&listening, &error)?;
                UnixStream::connect(&self.current().ok_or_else(closed)?.path)
            }
            result => result,
        }
    }

    /// Makes every [`InnerServer::receive`] return `None`.
    pub fn close(&self) {
        let before = std::mem::replace(&mut *self.lock(), Current::Closed);
        if let Current::Listening(listening) = before {
            self.wake_receivers(&listening);
        }
    }

    fn start_if_unused(&self) -> io::Result<()> {
        let mut current = self.lock();
        if let Current::Unused(folder) = &*current {
            *current = Current::Listening(self.start_listener(folder)?);
        }
        Ok(())
    }

    fn start_listener(&self, folder: &Arc<SocketFolder>) -> io::Result<Arc<InnerListener>> {
        let number = self.sockets.fetch_add(1, Ordering::Relaxed);
        InnerListener::start(folder, number).map(Arc::new)
    }

    /// Starts a new tiny_http in place of a broken one.
    fn replace(&self, broken: &Arc<InnerListener>, why: &io::Error) -> io::Result<()> {
        let mut current = self.lock();
        // Another thread may have replaced it already.
        if matches!(&*current, Current::Listening(it) if Arc::ptr_eq(it, broken)) {
            log::warn!(event = "http_inner_listener_again", error:% = why; "");
            *current = Current::Listening(self.start_listener(&broken.folder)?);
            drop(current);
            self.wake_receivers(broken);
        }
        Ok(())
    }

    fn wake_receivers(&self, listening: &InnerListener) {
        for _ in 0..self.receivers {
            listening.tiny.unblock();
        }
    }

    /// The listener, unless this is unused or closed.
    fn current(&self) -> Option<Arc<InnerListener>> {
        match &*self.lock() {
            Current::Listening(listening) => Some(listening.clone()),
            Current::Unused(_) | Current::Closed => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InnerListener {
    fn start(folder: &Arc<SocketFolder>, number: u64) -> io::Result<Self> {
        let path = folder.0.join(number.to_string());
        let config = tiny_http::ServerConfig {
            addr: ConfigListenAddr::unix_from_path(&path),
            ssl: None,
        };
        let tiny = tiny_http::Server::new(config).map_err(|error| {
            error
                .downcast::<io::Error>()
                .map_or_else(io::Error::other, |error| *error)
        })?;
        Ok(Self {
            tiny,
            path,
            folder: Arc::clone(folder),
        })
    }
}

/// A folder that only this user may enter. Dropping it removes it.
struct SocketFolder(PathBuf);

impl SocketFolder {
    fn create() -> io::Result<Self> {
        let name = format!("bk-{}", Uuid::new_v4().simple());
        let mut path = std::env::temp_dir().join(&name);
        // The socket's number must fit, too.
        if path.as_os_str().len() + 20 > MAX_PATH_BYTES {
            path = Path::new("/tmp").join(&name);
        }
        // This fails if the name exists, so no other user can have prepared the folder.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir(&self.0) {
            log::warn!(event = "http_inner_folder_stays", error:%; "");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::base::thread_group;

    fn get(inner: &InnerServer) -> String {
        let mut stream = inner.connect().unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    #[test]
    fn a_dead_listener_is_replaced_and_nothing_stays_behind() {
        let inner = Arc::new(InnerServer::new(1).unwrap());
        inner.start_if_unused().unwrap();
        let folder = inner.current().unwrap().folder.0.clone();
        let mode = std::fs::metadata(&folder).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o700);
        let receiver = {
            let inner = Arc::clone(&inner);
            thread_group::spawn_ungrouped("receiver", move || {
                while let Some(received) = inner.receive(Duration::from_secs(1)) {
                    received
                        .into_iter()
                        .for_each(|request| request.respond(tiny_http::Response::empty(204)).unwrap());
                }
            })
            .unwrap()
        };
        assert!(get(&inner).starts_with("HTTP/1.1 204"));

        // After a panic in tiny_http's accept thread, connections to the path are refused like this.
        let path = inner.current().unwrap().path.clone();
        std::fs::remove_file(path).unwrap();
        assert!(get(&inner).starts_with("HTTP/1.1 204"));
        assert!(get(&inner).starts_with("HTTP/1.1 204"));

        inner.close();
        receiver.join().unwrap();
        assert!(inner.connect().is_err());
        assert!(!folder.exists());
    }
}
