//! Splits a stream of bytes into lines.

use std::io::{self, Write};

use super::MAX_LINE_BYTES;
use super::reader::append_within;

/// Splits the bytes that are written to it into lines, so that a download needs no file. Lines that are
/// longer than [`MAX_LINE_BYTES`] are skipped.
#[derive(Debug)]
pub struct LineSplitter<F> {
    line: Vec<u8>,
    is_too_long: bool,
    on_line: F,
}

impl<F: FnMut(&[u8])> LineSplitter<F> {
    /// Passes each line, without its LF, to `on_line`.
    pub fn new(on_line: F) -> Self {
        Self {
            line: Vec::new(),
            is_too_long: false,
            on_line,
        }
    }

    /// Ends the file, and passes on a last line without LF.
    pub fn finish(mut self) {
        if !self.line.is_empty() {
            self.emit();
        }
    }

    fn emit(&mut self) {
        if !self.is_too_long {
            (self.on_line)(&self.line);
        }
        self.line.clear();
        self.is_too_long = false;
    }
}

impl<F: FnMut(&[u8])> Write for LineSplitter<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (part, is_terminated) = match part {
                [part @ .., b'\n'] => (part, true),
                part => (part, false),
            };
            self.is_too_long |= self.line.len() + part.len() > MAX_LINE_BYTES;
            if !self.is_too_long {
                append_within(&mut self.line, part, MAX_LINE_BYTES);
            }
            if is_terminated {
                self.emit();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
