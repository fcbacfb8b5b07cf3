//! tiny_http behind the gate, on a private Unix socket: its only peer is the gate, which sends it
//! one well-formed request a connection.
//!
//! tiny_http's accept thread ends for good on the first error, or panics where the machine gives
//! no further descriptor or thread. Both are noticed here (`recv` fails, or nobody listens on the
//! socket any more), and a new tiny_http takes its place.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tiny_http::ConfigListenAddr;
use uuid::Uuid;

/// A Unix socket's path has 107 bytes at most (`unix(7)`).
const LONGEST_PATH: usize = 107;

/// The inner server.
pub struct Inner {
    /// None once closed; the last thread to let go of it removes socket and folder.
    current: Mutex<Option<Arc<Listening>>>,
    sockets: AtomicU64,
    receivers: usize,
}

/// One tiny_http and its socket. Its fields are dropped in this order: tiny_http removes the
/// socket, and the last of them the folder.
struct Listening {
    tiny: tiny_http::Server,
    path: PathBuf,
    folder: Arc<Folder>,
}

impl Inner {
    /// Begins to listen, for so many threads in [`Inner::next`].
    ///
    /// # Errors
    /// When no folder or socket can be made.
    pub fn start(receivers: usize) -> io::Result<Self> {
        let folder = Arc::new(Folder::create()?);
        Ok(Self {
            current: Mutex::new(Some(Arc::new(Listening::start(&folder, 0)?))),
            sockets: AtomicU64::new(1),
            receivers,
        })
    }

    /// The next request; none once closed.
    pub fn next(&self) -> Option<tiny_http::Request> {
        loop {
            let listening = self.current()?;
            match listening.tiny.recv() {
                Ok(request) => return Some(request),
                // Woken up to look again. (What the system reports has a number.)
                Err(error) if error.raw_os_error().is_none() => {}
                Err(error) => {
                    // Where this fails, the gate's next request tries again.
                    if let Err(error) = self.renew(&listening, &error) {
                        log::error!(event = "http_inner_listener_down", error:%; "");
                    }
                }
            }
        }
    }

    /// A connection to the inner server.
    ///
    /// # Errors
    /// When the system gives none, or once closed.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let closed = || io::Error::from(ErrorKind::NotConnected);
        let listening = self.current().ok_or_else(closed)?;
        match UnixStream::connect(&listening.path) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::NotFound
                ) =>
            {
                self.renew(&listening, &error)?;
                UnixStream::connect(&self.current().ok_or_else(closed)?.path)
            }
            result => result,
        }
    }

    /// Ends every [`Inner::next`].
    pub fn close(&self) {
        let closed = self.lock().take();
        if let Some(listening) = closed {
            self.wake_receivers(&listening);
        }
    }

    fn renew(&self, broken: &Arc<Listening>, why: &io::Error) -> io::Result<()> {
        let mut current = self.lock();
        // Another thread may have seen it first.
        if current.as_ref().is_some_and(|it| Arc::ptr_eq(it, broken)) {
            log::warn!(event = "http_inner_listener_again", error:% = why; "");
            let number = self.sockets.fetch_add(1, Ordering::Relaxed);
            *current = Some(Arc::new(Listening::start(&broken.folder, number)?));
            drop(current);
            self.wake_receivers(broken);
        }
        Ok(())
    }

    fn wake_receivers(&self, listening: &Listening) {
        for _ in 0..self.receivers {
            listening.tiny.unblock();
        }
    }

    fn current(&self) -> Option<Arc<Listening>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Listening>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    fn start(folder: &Arc<Folder>, number: u64) -> io::Result<Self> {
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

/// A folder that only this user can enter, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn create() -> io::Result<Self> {
        let name = format!("bk-{}", Uuid::new_v4().simple());
        let mut path = std::env::temp_dir().join(&name);
        // Room for the socket's number, too.
        if path.as_os_str().len() + 20 > LONGEST_PATH {
            path = Path::new("/tmp").join(&name);
        }
        // Fails where the name exists, so nobody can have put anything there.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
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

    fn ask(inner: &Inner) -> String {
        let mut stream = inner.connect().unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_dead_listener_is_replaced_and_nothing_stays_behind() {
        let inner = Arc::new(Inner::start(1).unwrap());
        let folder = inner.current().unwrap().folder.0.clone();
        let mode = std::fs::metadata(&folder).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o700);
        let receiver = {
            let inner = Arc::clone(&inner);
            thread_group::spawn_ungrouped("receiver", move || {
                while let Some(request) = inner.next() {
                    request.respond(tiny_http::Response::empty(204)).unwrap();
                }
            })
            .unwrap()
        };
        assert!(ask(&inner).starts_with("HTTP/1.1 204"));

        // As after a panic in tiny_http's accept thread: nobody listens on the path.
        let path = inner.current().unwrap().path.clone();
        std::fs::remove_file(path).unwrap();
        assert!(ask(&inner).starts_with("HTTP/1.1 204"));
        assert!(ask(&inner).starts_with("HTTP/1.1 204"));

        inner.close();
        receiver.join().unwrap();
        assert!(inner.connect().is_err());
        assert!(!folder.exists());
    }
}
