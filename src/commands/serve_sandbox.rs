//! `sandbox`: the simulated OpenAI alone.

use super::{Command, Outcome};

pub(super) fn run(_command: &Command) -> Outcome {
    Ok(false)
}
