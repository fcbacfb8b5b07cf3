//! The progress of long work, on standard error if that is a terminal.

use std::io::{self, IsTerminal, Write};

/// A line that each step writes over.
pub(super) struct Progress {
    what: &'static str,
    shown: Option<u64>,
    is_watched: bool,
}

impl Progress {
    /// A progress line that is not shown before the first step.
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            shown: None,
            is_watched: io::stderr().is_terminal(),
        }
    }

    /// Shows that `done` of `all` is done.
    pub(super) fn show(&mut self, done: u64, all: u64) {
        let percent = done.saturating_mul(100) / all.max(1);
        if self.is_watched && self.shown != Some(percent) {
            self.shown = Some(percent);
            let blocks = usize::try_from(percent / 5).unwrap_or(0);
            write(&format!(
                "\r[{:20}] {percent:3} % {}",
                "#".repeat(blocks),
                self.what
            ));
        }
    }

    /// Removes the line.
    pub(super) fn end(self) {
        if self.shown.is_some() {
            write("\r\x1b[K");
        }
    }
}

fn write(text: &str) {
    let mut to = io::stderr().lock();
    // Without a terminal the line has no reader.
    drop(to.write_all(text.as_bytes()).and_then(|()| to.flush()));
}
