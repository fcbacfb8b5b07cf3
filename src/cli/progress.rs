//! How far long work is, where a person watches: on standard error, when that is a terminal.

use std::io::{self, IsTerminal, Write};

/// A line that is written over.
pub(super) struct Progress {
    what: &'static str,
    shown: Option<u64>,
    is_watched: bool,
}

impl Progress {
    /// Nothing is shown before the first word on it.
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            shown: None,
            is_watched: io::stderr().is_terminal(),
        }
    }

    /// So much of all is done.
    pub(super) fn tell(&mut self, done: u64, all: u64) {
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

    /// The line goes.
    pub(super) fn end(self) {
        if self.shown.is_some() {
            write("\r\x1b[K");
        }
    }
}

fn write(text: &str) {
    let mut to = io::stderr().lock();
    // A terminal that is gone need not be told.
    drop(to.write_all(text.as_bytes()).and_then(|()| to.flush()));
}
