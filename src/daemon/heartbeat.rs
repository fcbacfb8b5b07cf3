//! The heartbeat: requests `alerts.heartbeat_url` at an interval while the daemon works. The service behind
//! the URL raises the alarm when the requests stop.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::ops::Health;
use crate::outbound::GuardedClient;
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// How long the request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The worker that sends the heartbeat.
pub(super) struct Heartbeat {
    health: Arc<Health>,
    outbound: Arc<GuardedClient>,
    config: Arc<Config>,
}

impl Heartbeat {
    /// A heartbeat that is sent while `health` finds nothing wrong.
    pub(super) fn new(health: Arc<Health>, outbound: Arc<GuardedClient>, config: Arc<Config>) -> Self {
        Self {
            health,
            outbound,
            config,
        }
    }
}

impl Worker for Heartbeat {
    fn name(&self) -> &'static str {
        "heartbeat"
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        let alerts = &self.config.alerts;
        if self.health.is_well(now.steady) {
            match self.outbound.get(&alerts.heartbeat_url, TIMEOUT) {
                Ok(200..300) => {}
                Ok(status) => log::warn!(event = "heartbeat", status; ""),
                Err(error) => log::warn!(event = "heartbeat", error:%; ""),
            }
        } else {
            log::warn!(event = "heartbeat"; "left out; see /health");
        }
        Ok(TickOutcome::idle(alerts.heartbeat_interval))
    }
}
