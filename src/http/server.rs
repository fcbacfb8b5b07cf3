//! Starts and stops an HTTP server.
//!
//! Its threads belong to a thread group: one accepts connections, up to `workers` threads call the handler, and up
//! to `downloads` threads write long responses at their clients' pace. Only the first is there while the server is
//! idle. Each connection has a thread outside of the group, which ends with it. A panic in the handler ends its
//! worker. The daemon watches the group and
//! stops then, since the request may have left something half-done. The client gets a 500.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::connection::ConnectionHandler;
use super::connection_limiter::ConnectionLimiter;
use super::downloads::Downloads;
use super::handler::Handler;
use super::inner_server::InnerServer;
use super::limits::HttpLimits;
use super::listener::Listener;
use super::memory_budget::MemoryBudget;
use super::response_writer::ResponseWriter;
use super::worker::RequestWorker;
use crate::base::clock::Clock;
use crate::base::thread_group::ThreadGroup;
use crate::base::thread_pool::{PoolSize, PoolThread, ThreadPool};

/// A running server. Dropping it stops it at once.
pub struct Server {
    limiter: Arc<ConnectionLimiter>,
    inner: Arc<InnerServer>,
    downloads: Arc<Downloads>,
    address: SocketAddr,
    /// A second descriptor of the listening socket, through which `stop` shuts it down.
    listening: TcpStream,
    /// Dropping it ends a wait of the accept loop.
    running: Mutex<Option<Sender<()>>>,
}

impl Server {
    /// Serves `handler` on `socket`. The threads' names begin with `name`, and the threads belong to `group`.
    ///
    /// # Errors
    /// If the system refuses a thread, a socket or a temporary folder.
    pub fn start(
        group: &ThreadGroup,
        clock: Arc<dyn Clock>,
        name: &str,
        socket: TcpListener,
        mut limits: HttpLimits,
        handler: Arc<dyn Handler>,
    ) -> io::Result<Self> {
        lower_to_descriptor_limit(name, &mut limits);
        let inner = Arc::new(InnerServer::new(limits.workers)?);
        let limiter = Arc::new(ConnectionLimiter::new(
            limits.connections,
            limits.connections_per_peer,
        ));
        let downloads = Arc::new(Downloads::new(
            limits.downloads,
            Arc::clone(&limiter),
            Arc::clone(&clock),
        ));
        let (running, stopped) = bounded(0);
        // From here on, an early return drops the server, which ends the threads started so far.
        let server = Self {
            limiter: Arc::clone(&limiter),
            inner: Arc::clone(&inner),
            downloads: Arc::clone(&downloads),
            address: socket.local_addr()?,
            listening: TcpStream::from(OwnedFd::from(socket.try_clone()?)),
            running: Mutex::new(Some(running)),
        };
        let queue = Arc::clone(&downloads);
        let run = move |thread: &Arc<PoolThread>| queue.run(thread);
        let size = PoolSize::on_demand(limits.downloads);
        let long = ThreadPool::start(group, &format!("{name}-long"), size, run)?;
        let worker = RequestWorker {
            inner: Arc::clone(&inner),
            handler: Arc::clone(&handler),
            downloads,
            download_threads: long,
        };
        let run = move |thread: &Arc<PoolThread>| worker.run(thread);
        let workers = ThreadPool::start(group, name, PoolSize::on_demand(limits.workers), run)?;
        let connections = Arc::new(ConnectionHandler {
            limiter,
            budget: MemoryBudget::new(limits.body_budget),
            inner,
            workers,
            responses: ResponseWriter::new(Arc::clone(&clock), handler),
            clock,
            limits,
        });
        let listener = Listener::new(socket, connections);
        group.spawn(&format!("{name}-accept"), move || listener.run(&stopped))?;
        Ok(server)
    }

    /// The address on which the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the server: accepts no further connection, closes idle connections, waits at most `within` for
    /// the running requests, and closes the remaining connections. The threads of the group end as soon as
    /// the handler has returned.
    pub fn stop(&self, within: Duration) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.limiter.close_idle();
        // On Linux, this ends a waiting `accept`. On other systems, a connection does.
        if self.listening.shutdown(Shutdown::Both).is_err() {
            drop(TcpStream::connect(self.address));
        }
        if !self.limiter.wait_until_empty(within) {
            self.limiter.close_all();
        }
        self.inner.close();
        self.downloads.close();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// Lowers the limit of connections to the number for which the process has enough descriptors.
fn lower_to_descriptor_limit(name: &str, limits: &mut HttpLimits) {
    let Some(most) = affordable_connections().filter(|most| *most < limits.connections) else {
        return;
    };
    log::warn!(
        event = "http_few_descriptors", server:% = name, connections = most;
        "raise LimitNOFILE for more"
    );
    limits.connections = most;
}

/// The number of connections for which the process has enough descriptors; `None` if the system does not
/// report the limit. A connection needs four descriptors while it is served: its own, and three between it
/// and tiny_http. A third of the descriptors is left for other uses.
fn affordable_connections() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|it| it.starts_with("Max open files"))?;
    let soft: usize = line.split_whitespace().nth(3)?.parse().ok()?;
    Some((soft / 6).max(1))
}
