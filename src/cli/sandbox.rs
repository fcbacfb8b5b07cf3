//! `sandbox`: the simulated OpenAI alone, for engineers without a key and for tests.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::output::print;
use super::{CommandError, Outcome, Verdict, logger};
use crate::base::clock::SystemClock;
use crate::base::thread_group::ThreadGroup;
use crate::config::LogFormat;
use crate::daemon::{DaemonError, stop_signals, wait_for_end};
use crate::http::{HttpLimits, Server};
use crate::sandbox::{Latencies, Pace, Sandbox, SandboxSettings};

/// The largest body of a request: OpenAI's largest input file, and the multipart form around it.
const MAX_BODY: u64 = 220_000_000;

/// The limits of a server that serves a sandbox.
pub(super) fn limits() -> HttpLimits {
    HttpLimits {
        max_body_bytes: MAX_BODY,
        body_budget: 2 * MAX_BODY,
        ..HttpLimits::default()
    }
}

/// Options of `sandbox`.
#[derive(Args)]
pub(super) struct SandboxOptions {
    /// The address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    listen: String,
    /// The folder of its state
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// How long each state of a batch lasts: fast, real, or milliseconds
    #[arg(long, value_parser = parse_pace)]
    pace: Option<SandboxPace>,
    /// Tokens that the queue of a model accepts; only refusals name this number
    #[arg(long, value_name = "N")]
    queue_tokens: Option<u64>,
}

/// How long each state of a batch lasts.
#[derive(Clone)]
enum SandboxPace {
    Fast,
    Real,
    Milliseconds(u64),
}

fn parse_pace(text: &str) -> Result<SandboxPace, String> {
    match text {
        "fast" => Ok(SandboxPace::Fast),
        "real" => Ok(SandboxPace::Real),
        _ => match text.parse() {
            Ok(millis) => Ok(SandboxPace::Milliseconds(millis)),
            Err(_) => Err("write fast, real or milliseconds".into()),
        },
    }
}

pub(super) fn run(options: &SandboxOptions) -> Outcome {
    let address = &options.listen;
    logger::start("info", LogFormat::Text);
    let clock = Arc::new(SystemClock::new());
    let sandbox = Sandbox::open(&options.state, settings(options), clock.clone())
        .map_err(|error| CommandError::Failed(error.to_string()))?;
    let (group, thread_ends) = ThreadGroup::new();
    let signals = stop_signals()?;
    let failed = |error| DaemonError::Listen {
        address: address.clone(),
        error,
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let server =
        Server::start(&group, clock, "sandbox", listener, limits(), Arc::new(sandbox)).map_err(failed)?;
    print(&format!(
        "the sandbox serves http://{}/v1; its key is sk-sandbox\n",
        server.address()
    ))?;
    let outcome = wait_for_end(&signals, &thread_ends);
    server.stop(Duration::from_secs(5));
    outcome?;
    Ok(Verdict::Clean)
}

fn settings(options: &SandboxOptions) -> SandboxSettings {
    let mut settings = match options.pace {
        None => SandboxSettings::default(),
        Some(SandboxPace::Fast) => SandboxSettings::fast(),
        Some(SandboxPace::Real) => SandboxSettings::real(),
        Some(SandboxPace::Milliseconds(millis)) => even_pace(millis),
    };
    for model in &mut settings.models {
        model.enqueued_tokens = options.queue_tokens;
    }
    settings
}

/// SandboxSettings in which every state lasts the same time.
fn even_pace(millis: u64) -> SandboxSettings {
    let latencies = Latencies {
        validating: millis,
        in_progress: millis,
        finalizing: millis,
        cancel: millis,
        expire: millis,
    };
    SandboxSettings {
        pace: Pace::Fixed(latencies),
        ..SandboxSettings::default()
    }
}
