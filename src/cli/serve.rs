//! `serve`: the daemon.

use std::sync::Arc;

use crossbeam_channel::never;

use super::context::Context;
use super::{Outcome, Verdict, allocator, logger};
use crate::base::clock::SystemClock;
use crate::daemon::Daemon;

pub(super) fn run(context: &Context) -> Outcome {
    let applied = allocator::apply();
    let config = context.config_with_keys()?;
    logger::start(&config.log, config.log_format);
    if let Err(error) = applied {
        log::warn!(event = "allocator_settings", error:%; "the daemon may keep more memory than it needs");
    }
    for exposed in config.exposed_files(&context.config_path()) {
        log::warn!(event = "exposed"; "{exposed}");
    }
    let daemon = Daemon::start(config, Arc::new(SystemClock::new()))?;
    daemon.run(&never())?;
    Ok(Verdict::Clean)
}
