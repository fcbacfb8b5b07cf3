//! SIGTERM and SIGINT: the first asks the process to stop, the second ends it at once.

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::DaemonError;
use crate::base::thread_group::spawn_ungrouped;

/// The exit status after a second signal.
const EXIT_STATUS: i32 = 130;

/// Starts a thread that reports the name of the first signal, and ends the process at the second.
///
/// # Errors
/// When the system does not report signals, or refuses a thread.
pub fn stop_signals() -> Result<Receiver<&'static str>, DaemonError> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(DaemonError::Signals)?;
    let (sender, receiver) = bounded(1);
    let watch = move || {
        let mut has_signal = false;
        for signal in signals.forever() {
            let name = match signal {
                SIGTERM => "SIGTERM",
                _ => "SIGINT",
            };
            if has_signal || sender.try_send(name).is_err() {
                std::process::exit(EXIT_STATUS);
            }
            has_signal = true;
        }
    };
    match spawn_ungrouped("signals", watch) {
        Ok(_) => Ok(receiver),
        Err(error) => Err(DaemonError::Thread {
            name: "signals".into(),
            error,
        }),
    }
}
