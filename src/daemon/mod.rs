//! The running process: every worker on a thread of its own, the two listeners, signals, shutdown.
//!
//! Threads share nothing but the store. A tick that did something notifies the workers for which there may
//! be work; a lost wakeup costs a delay, never work. A thread that ends by itself ends the daemon with an
//! error, and systemd starts it again. A database that cannot be relied on does the same.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::base::thread_group::{ThreadEnd, ThreadGroup};
use crate::http::Server;
use crate::store::{DaemonLock, Store};

mod error;
mod heartbeat;
mod listeners;
mod outgoing;
mod run;
mod signals;
mod start;
mod systemd;
mod watchdog;
mod worker_thread;

pub use error::DaemonError;
pub use outgoing::{check_outgoing, guarded_client, openai_client};
pub use run::wait_for_end;
pub use signals::stop_signals;

/// A running daemon.
pub struct Daemon {
    group: ThreadGroup,
    thread_ends: Receiver<ThreadEnd>,
    stop: Sender<Infallible>,
    servers: Vec<Server>,
    store: Arc<Store>,
    _lock: DaemonLock,
}

impl Daemon {
    /// The addresses that it listens on: the client API's first, then the operator's pages'. A listener that
    /// is off has none.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(Server::address).collect()
    }
}
