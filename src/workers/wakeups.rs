//! Wakeups: a worker that did something wakes the workers for which that may be work.
//!
//! A lost wakeup costs a delay, never work, because every worker also looks at its rows after `steps.idle`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A job was stored whose requests go into batches.
    BatchJobStored,
    /// A job was stored that is answered synchronously.
    SynchronousJobStored,
    /// A job was cancelled.
    JobCancelled,
    /// A probe of an image has ended.
    ImageProbed,
    /// Images of a lot were checked.
    ImagesChecked,
    /// A batch was packed, uploaded or created.
    BatchSubmitted,
    /// A batch was polled, and may have ended.
    BatchPolled,
    /// Result lines of a batch were ingested.
    ResultsIngested,
    /// A synchronous call has ended.
    SynchronousCallEnded,
    /// A job has become final.
    JobFinished,
    /// A client has a webhook sent again.
    WebhookResent,
    /// An attempt at a webhook has ended.
    WebhookAttempted,
    /// The auditor compared OpenAI's batches with the store.
    Audited,
}

/// The subscriptions of all threads.
#[derive(Clone, Default)]
pub struct Wakeups(Arc<Mutex<Vec<Subscription>>>);

struct Subscription {
    topics: &'static [Topic],
    wake: Sender<()>,
}

impl Wakeups {
    /// Subscribes to `topics`. The subscription ends when the receiver is dropped.
    pub fn subscribe(&self, topics: &'static [Topic]) -> Receiver<()> {
        let (wake, woken) = bounded(1);
        self.subscriptions().push(Subscription { topics, wake });
        woken
    }

    /// Wakes every thread that subscribed to `topic`.
    pub fn notify(&self, topic: Topic) {
        self.subscriptions().retain(|subscription| {
            // If the channel is full, the thread is about to look at its rows anyway.
            !subscription.topics.contains(&topic)
                || !matches!(
                    subscription.wake.try_send(()),
                    Err(TrySendError::Disconnected(()))
                )
        });
    }

    fn subscriptions(&self) -> MutexGuard<'_, Vec<Subscription>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
