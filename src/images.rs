//! Images are looked at before OpenAI is paid to: a lot goes on without those that are missing, and
//! fails alone when none, or too few, can be had.
//!
//! A tick takes in what the crew has found, gives the lots of which everything is known their
//! verdict, and asks for the rest. What is known is in the database: a restart does not look again.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::config::Config;
use crate::net::probes::{Found, Probes};
use crate::step::{Next, Step, StepError};
use crate::store::images::{self, DueLot};
use crate::store::{Store, Stored, View, settle};

/// Lots looked at in one tick.
const LOTS: usize = 500;
/// Of these, lots of one job: however large one is, others go on beside it.
const LOTS_OF_A_JOB: u32 = 50;
/// A lot fails when more than so many percent of its images are missing.
const MAX_MISSING: usize = 30;
/// How long what was found of an image is taken to be so still.
const FRESH: Duration = Duration::from_mins(5);
/// How long a tick waits for the crew.
const WAIT: Duration = Duration::from_millis(100);

/// See the module.
pub struct Images {
    store: Arc<Store>,
    probes: Probes,
    config: Arc<Config>,
    /// The job whose lots were looked at last.
    last_job: i64,
}

/// A lot of which everything is known.
struct Verdict {
    lot: DueLot,
    missing: Vec<String>,
    first_problem: String,
}

impl Images {
    /// A checker.
    pub fn new(store: Arc<Store>, probes: Probes, config: Arc<Config>) -> Self {
        Self {
            store,
            probes,
            config,
            last_job: 0,
        }
    }

    fn keep(&self, found: &[Found], now: Moment) -> Stored<()> {
        if found.is_empty() {
            return Ok(());
        }
        self.store.write(now.wall, |tx| {
            for (url, seen) in found {
                let problem = seen.as_ref().err().map(ToString::to_string);
                images::found(tx, url, problem.as_deref())?;
            }
            images::forget(tx, now.wall.before(FRESH), found.len() * 2)
        })
    }

    fn give(&self, verdicts: &[Verdict], now: Moment) -> Stored<()> {
        self.store.write(now.wall, |tx| {
            for Verdict {
                lot,
                missing,
                first_problem,
            } in verdicts
            {
                images::checked(tx, lot, missing)?;
                let all = lot.images.len();
                let missing = missing.len();
                if missing == all || missing * 100 > all * MAX_MISSING {
                    let reason = format!(
                        "IMAGE_UNREACHABLE: {missing} of {all} images cannot be fetched: {first_problem}"
                    );
                    settle::fail_unsent(tx, lot.request, &reason)?;
                }
            }
            Ok(())
        })
    }
}

/// A lot's verdict, or the images of it that nothing is known of.
fn judge(view: &View, lot: DueLot, now: Moment) -> Stored<Result<Verdict, Vec<String>>> {
    let fresh = now.wall.before(FRESH);
    let since = lot.not_before.map_or(fresh, |at| at.max(fresh));
    let (mut missing, mut unknown) = (Vec::new(), Vec::new());
    let mut first_problem = None;
    for url in &lot.images {
        match images::known(view, url, since, now.wall)? {
            None => unknown.push(url.clone()),
            Some(None) => {}
            Some(Some(problem)) => {
                first_problem.get_or_insert(problem);
                missing.push(url.clone());
            }
        }
    }
    if !unknown.is_empty() {
        return Ok(Err(unknown));
    }
    Ok(Ok(Verdict {
        lot,
        missing,
        first_problem: first_problem.unwrap_or_default(),
    }))
}

impl Step for Images {
    fn name(&self) -> &'static str {
        "images"
    }

    fn tick(&mut self, now: Moment) -> Result<Next, StepError> {
        let found = self.probes.found(WAIT);
        self.keep(&found, now)?;
        let (verdicts, unknown, last_job) = self.store.read(|view| {
            let (lots, last_job) = images::due(view, self.last_job, LOTS, LOTS_OF_A_JOB)?;
            let (mut verdicts, mut unknown) = (Vec::new(), Vec::new());
            for lot in lots {
                match judge(view, lot, now)? {
                    Ok(verdict) => verdicts.push(verdict),
                    Err(urls) => unknown.extend(urls),
                }
            }
            Ok((verdicts, unknown, last_job))
        })?;
        let whole_round = self.last_job == 0 && last_job.is_none();
        self.last_job = last_job.unwrap_or(0);
        unknown.iter().for_each(|url| self.probes.ask(url));
        if !verdicts.is_empty() {
            self.give(&verdicts, now)?;
            return Ok(Next::again());
        }
        let nothing = unknown.is_empty() && whole_round;
        Ok(Next::idle(if nothing {
            self.config.steps.idle
        } else {
            Duration::ZERO
        }))
    }
}
