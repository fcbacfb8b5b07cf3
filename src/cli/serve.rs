//! `serve`: the daemon.

use std::sync::Arc;

use crossbeam_channel::never;

use super::context::Context;
use super::{Outcome, Verdict, logger};
use crate::base::clock::SystemClock;
use crate::daemon::Daemon;

pub(super) fn run(context: &Context) -> Outcome {
    let config = context.config_with_keys()?;
    logger::start(&config.log, config.log_format);
    for exposed in config.exposed_files(&context.config_path()) {
        log::warn!(event = "exposed"; "{exposed}");
    }
    let daemon = Daemon::start(config, Arc::new(SystemClock::new()))?;
    daemon.run(&never())?;
    Ok(Verdict::Clean)
}
