//! Images are looked at before OpenAI is paid to: a lot goes on without those that are missing, and
//! fails alone when none, or too few, can be had.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::config::Config;
use crate::net::probes::Probes;
use crate::step::{Next, Step, StepError};
use crate::store::images::{self, DueLot};
use crate::store::{Store, settle};

/// Lots checked in one tick.
const LOTS: u32 = 100;
/// A lot fails when more than so many percent of its images are missing.
const MAX_MISSING: usize = 30;
/// How long an image that was well is taken to be so still.
const FRESH: Duration = Duration::from_mins(5);
/// How many of them are remembered.
const REMEMBERED: usize = 20_000;

/// See the module.
pub struct Images {
    store: Arc<Store>,
    probes: Probes,
    config: Arc<Config>,
    /// URLs that were well, and since when on the steady clock.
    well: HashMap<String, Duration>,
}

impl Images {
    /// A checker.
    pub fn new(store: Arc<Store>, probes: Probes, config: Arc<Config>) -> Self {
        Self {
            store,
            probes,
            config,
            well: HashMap::new(),
        }
    }

    /// What is wrong with each URL that is not known to be well.
    fn look(&mut self, lots: &[DueLot], now: Moment) -> HashMap<String, String> {
        self.well
            .retain(|_, since| now.steady.saturating_sub(*since) < FRESH);
        let mut urls: Vec<String> = lots
            .iter()
            .flat_map(|lot| &lot.images)
            .filter(|url| !self.well.contains_key(*url))
            .cloned()
            .collect();
        urls.sort_unstable();
        urls.dedup();
        let mut wrong = HashMap::new();
        for (url, found) in self.probes.check(urls) {
            match found {
                Ok(()) if self.well.len() < REMEMBERED => {
                    self.well.insert(url, now.steady);
                }
                Ok(()) => {}
                Err(problem) => {
                    wrong.insert(url, problem.to_string());
                }
            }
        }
        wrong
    }
}

impl Step for Images {
    fn name(&self) -> &'static str {
        "images"
    }

    fn tick(&mut self, now: Moment) -> Result<Next, StepError> {
        let lots = self.store.read(|view| images::due(view, LOTS))?;
        if lots.is_empty() {
            return Ok(Next::idle(self.config.steps.idle));
        }
        let wrong = self.look(&lots, now);
        self.store.write(now.wall, |tx| {
            for lot in &lots {
                let missing: Vec<String> = lot
                    .images
                    .iter()
                    .filter(|url| wrong.contains_key(*url))
                    .cloned()
                    .collect();
                images::checked(tx, lot, &missing)?;
                if missing.len() * 100 > lot.images.len() * MAX_MISSING
                    || missing.len() == lot.images.len()
                {
                    let first = missing
                        .first()
                        .and_then(|url| wrong.get(url))
                        .map_or("", String::as_str);
                    let (missing, all) = (missing.len(), lot.images.len());
                    let reason = format!(
                        "IMAGE_UNREACHABLE: {missing} of {all} images cannot be fetched: {first}"
                    );
                    settle::fail_waiting(tx, lot.request, &reason)?;
                }
            }
            Ok(())
        })?;
        Ok(Next::again())
    }
}
