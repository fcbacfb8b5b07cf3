//! `sandbox`: the simulated OpenAI alone, for engineers without a key and for tests.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Command, Outcome, Refused, logger, print};
use crate::base::clock::SystemClock;
use crate::base::thread_group::ThreadGroup;
use crate::config::LogFormat;
use crate::daemon::{stop_signals, wait_for_end};
use crate::http::{HttpLimits, Server};
use crate::sandbox::{Latencies, Pace, Sandbox, SandboxSettings};

/// Bodies that the sandbox takes: OpenAI's input files and what frames them.
const MAX_BODY: u64 = 220_000_000;

/// The limits of a server that serves a sandbox.
pub(super) fn limits() -> HttpLimits {
    HttpLimits {
        max_body_bytes: MAX_BODY,
        body_budget: 2 * MAX_BODY,
        ..HttpLimits::default()
    }
}

pub(super) fn run(command: &Command) -> Outcome {
    let address = command
        .listen
        .as_deref()
        .ok_or_else(|| Refused::Usage("name the address with --listen".into()))?;
    let state: PathBuf = command
        .state
        .clone()
        .ok_or_else(|| Refused::Usage("name the folder of its state with --state".into()))?;
    let mut settings = match command.pace.as_deref() {
        None => SandboxSettings::default(),
        Some("fast") => SandboxSettings::fast(),
        Some("real") => SandboxSettings::real(),
        Some(millis) => paced(millis)?,
    };
    for model in &mut settings.models {
        model.enqueued_tokens = command.queue_tokens;
    }
    logger::start("info", LogFormat::Text);
    let clock = Arc::new(SystemClock::new());
    let sandbox =
        Sandbox::open(&state, settings, clock.clone()).map_err(|error| error.to_string())?;
    let (group, endings) = ThreadGroup::new();
    let signals = stop_signals()?;
    let listener = TcpListener::bind(address)
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let server = Server::start(
        &group,
        clock,
        "sandbox",
        listener,
        limits(),
        Arc::new(sandbox),
    )?;
    print(&format!(
        "the sandbox serves http://{}/v1; its key is sk-sandbox\n",
        server.address()
    ))?;
    let outcome = wait_for_end(&signals, &endings);
    server.stop(Duration::from_secs(5));
    outcome?;
    Ok(true)
}

/// Every state lasts so many milliseconds.
fn paced(millis: &str) -> Result<SandboxSettings, Refused> {
    let usage = || {
        Refused::Usage(format!(
            "--pace takes fast, real or milliseconds, not {millis:?}"
        ))
    };
    let millis = millis.parse().map_err(|_| usage())?;
    let latencies = Latencies {
        validating: millis,
        in_progress: millis,
        finalizing: millis,
        cancel: millis,
        expire: millis,
    };
    Ok(SandboxSettings {
        pace: Pace::Fixed(latencies),
        ..SandboxSettings::default()
    })
}
