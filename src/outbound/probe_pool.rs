//! A fixed pool of threads that probe images.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::client::GuardedClient;
use super::image_probe::{ImageLimits, ImageProblem};
use crate::base::thread_group::ThreadGroup;

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

/// The pool of threads. Dropping it ends them. A caller starts as many probes at once as there are threads.
pub struct ProbePool {
    to_threads: Sender<(String, ProbeDepth)>,
    from_threads: Receiver<ProbeResult>,
}

impl ProbePool {
    /// Starts `threads` threads that probe images. Each calls `notify` when a result is there.
    ///
    /// # Errors
    /// If the system refuses a further thread.
    pub fn start(
        group: &ThreadGroup,
        client: &Arc<GuardedClient>,
        threads: u32,
        notify: impl Fn() + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let (to_threads, urls) = unbounded::<(String, ProbeDepth)>();
        let (finished, from_threads) = unbounded();
        for number in 1..=threads {
            let (client, urls, finished) = (client.clone(), urls.clone(), finished.clone());
            let notify = notify.clone();
            group.spawn(&format!("image-{number}"), move || {
                for (url, depth) in urls {
                    // Sending fails only if the daemon is stopping and has dropped the pool.
                    drop(finished.send(probe(&client, url, depth)));
                    notify();
                }
            })?;
        }
        Ok(Self {
            to_threads,
            from_threads,
        })
    }

    /// Starts the probe of an image.
    pub fn start_probe(&self, url: String, depth: ProbeDepth) {
        // Sending cannot fail: the threads end only after the pool is dropped.
        drop(self.to_threads.send((url, depth)));
    }

    /// The results since the last call.
    pub fn take_results(&self) -> Vec<ProbeResult> {
        self.from_threads.try_iter().collect()
    }
}

/// Probes an image. It counts as missing only after two failures in a row.
fn probe(client: &GuardedClient, url: String, depth: ProbeDepth) -> ProbeResult {
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
    let took = client.clock.now().steady.saturating_sub(started);
    ProbeResult { url, outcome, took }
}
