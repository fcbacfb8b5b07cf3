//! The threads that probe images. They start when there are images to probe, and end when there are none.

use std::io;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::client::{GuardedClient, OutboundError};
use super::image_probe::{ImageLimits, ImageProblem};
use super::url;
use crate::base::thread_group::ThreadGroup;
use crate::base::thread_pool::{PoolSize, PoolThread, ThreadPool};

/// How much of an image a probe looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeDepth {
    /// What a `HEAD` or the first bytes show.
    Start,
    /// Every byte.
    Whole,
}

/// The result of one probe.
pub struct ProbeResult {
    /// The image's URL.
    pub url: String,
    /// Why the image cannot be fetched, if it cannot.
    pub outcome: Result<(), ImageProblem>,
    /// How long the probe took.
    pub took: Duration,
}

/// A host that always has an address: itself.
const LOOPBACK: &str = "127.0.0.1";
/// How long a thread waits for the next image.
const IDLE: Duration = Duration::from_secs(10);

/// The pool of threads. Dropping it ends them. A caller starts as many probes at once as there may be threads.
pub struct ProbePool {
    threads: Arc<ThreadPool>,
    to_threads: Sender<(String, ProbeDepth)>,
    from_threads: Receiver<ProbeResult>,
}

impl ProbePool {
    /// A pool of up to `threads` threads. Each calls `notify` when a result is there. Where the name of an image's
    /// host cannot be looked up, the host of `known_url` shows whether any name can.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(
        group: &ThreadGroup,
        client: &Arc<GuardedClient>,
        threads: u32,
        known_url: &str,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (to_threads, urls) = unbounded::<(String, ProbeDepth)>();
        let (finished, from_threads) = unbounded();
        let client = client.clone();
        let known_host = url::parse(known_url).map_or_else(|_| LOOPBACK.to_owned(), |url| url.host);
        let size = PoolSize::on_demand(usize::try_from(threads).unwrap_or(usize::MAX));
        let run = move |thread: &Arc<PoolThread>| {
            loop {
                match urls.recv_timeout(IDLE) {
                    Ok((url, depth)) => {
                        thread.begin_work();
                        // Sending fails only if the daemon is stopping and has dropped the pool.
                        drop(finished.send(probe(&client, url, depth, &known_host)));
                        notify();
                        thread.end_work();
                    }
                    Err(RecvTimeoutError::Timeout) if !thread.end_wait() => {}
                    Err(_) => return true,
                }
            }
        };
        Ok(Self {
            threads: ThreadPool::start(group, "image", size, run)?,
            to_threads,
            from_threads,
        })
    }

    /// Starts the probe of an image.
    pub fn start_probe(&self, url: String, depth: ProbeDepth) {
        // Sending cannot fail: the pool keeps a receiver.
        drop(self.to_threads.send((url, depth)));
        self.threads.start_if_fewer_wait(self.to_threads.len());
    }

    /// The results since the last call.
    pub fn take_results(&self) -> Vec<ProbeResult> {
        if !self.to_threads.is_empty() {
            // The system may have refused a thread before.
            self.threads.start_if_none_waits();
        }
        self.from_threads.try_iter().collect()
    }
}

/// Whether a host name can be looked up now. An address is its own.
fn has_address(host: &str) -> bool {
    (host, 0).to_socket_addrs().is_ok()
}

/// Probes an image. It counts as missing only after two failures in a row.
fn probe(client: &GuardedClient, url: String, depth: ProbeDepth, known_host: &str) -> ProbeResult {
    let limits = ImageLimits::default();
    let started = client.clock.now().steady;
    let probe = || match depth {
        ProbeDepth::Start => client.probe_image(&url, &limits),
        ProbeDepth::Whole => client.probe_whole_image(&url, &limits),
    };
    let mut outcome = probe();
    if outcome.as_ref().is_err_and(ImageProblem::is_retryable) {
        outcome = probe();
    }
    if let Err(ImageProblem::Request(OutboundError::Connection(_))) = outcome
        && url::parse(&url).is_ok_and(|image| !has_address(&image.host))
        && !has_address(known_host)
    {
        outcome = Err(ImageProblem::NoNames);
    }
    let took = client.clock.now().steady.saturating_sub(started);
    ProbeResult { url, outcome, took }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;
    use crate::outbound::SsrfGuard;

    #[test]
    fn where_no_name_can_be_looked_up_the_image_is_not_blamed() {
        let clock = Arc::new(SystemClock::new());
        let client = GuardedClient::new(SsrfGuard::AllowAll, clock, Duration::from_secs(3), None);
        let outcome = |image: &str, known: &str| {
            let probed = probe(&client, image.to_owned(), ProbeDepth::Start, known);
            probed.outcome.expect_err("a problem")
        };
        let connection = |problem| matches!(problem, ImageProblem::Request(OutboundError::Connection(_)));
        let nowhere = "http://images.invalid/1.jpg";
        assert_eq!(outcome(nowhere, "openai.invalid"), ImageProblem::NoNames);
        assert!(connection(outcome(nowhere, "localhost")));
        assert!(connection(outcome(nowhere, "::1")));
        // The host has an address, and no server listens there.
        assert!(connection(outcome("http://127.0.0.1:1/1.jpg", "openai.invalid")));
    }
}
