//! What the demo shows: labelled lines. On a terminal, labels have a colour and progress stays on one line.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};

use super::CommandError;
use super::print;
use crate::base::escape::escape_controls;

/// Erases the terminal's line and returns to its beginning.
const ERASE: &str = "\r\x1b[2K";

/// The output of the demo.
pub(super) struct Display {
    /// Whether standard output is a terminal that may show colours (`NO_COLOR` is not set).
    is_terminal: bool,
    /// The progress that is shown now.
    progress: RefCell<String>,
}

impl Display {
    pub(super) fn new() -> Self {
        Self {
            is_terminal: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            progress: RefCell::default(),
        }
    }

    /// Prints a line with its label.
    pub(super) fn line(&self, label: &str, text: &str) -> Result<(), CommandError> {
        if !self.is_terminal {
            return print(&format!("{label:10} {text}\n")).map(drop);
        }
        // Progress is on the cursor's line, and stays.
        let before = if self.progress.take().is_empty() { "" } else { "\n" };
        self.write(&format!("{before}{}\n", coloured(label, text)))
    }

    /// Shows how far something is. On a terminal it replaces what the last call has shown.
    pub(super) fn progress(&self, label: &str, text: &str) -> Result<(), CommandError> {
        if *self.progress.borrow() == text {
            return Ok(());
        }
        text.clone_into(&mut self.progress.borrow_mut());
        match self.is_terminal {
            true => self.write(&format!("{ERASE}{}", coloured(label, text))),
            false => print(&format!("{label:10} {text}\n")).map(drop),
        }
    }

    fn write(&self, text: &str) -> Result<(), CommandError> {
        let mut out = std::io::stdout().lock();
        Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
    }
}

fn coloured(label: &str, text: &str) -> String {
    let colour = match label {
        "SIGKILL" => 31,
        "proof" => 32,
        _ => 36,
    };
    format!("\x1b[1;{colour}m{label:10}\x1b[0m {}", escape_controls(text))
}
