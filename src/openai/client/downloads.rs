//! Downloads files, and reads long JSON. Both must keep a minimum rate.

use std::io::{self, Read, Write};
use std::time::Duration;

use super::OpenAiClient;
use super::settings::Timeouts;
use crate::base::clock::Clock;
use crate::openai::api::CallResult;

/// Bytes of a download that are read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

impl OpenAiClient {
    /// Copies a file's content. A timeout for the whole would either end long downloads or tolerate slow
    /// ones. So each read has a timeout, in ureq, and the download must keep a minimum rate.
    pub(super) fn copy_download(
        &self,
        mut from: impl Read,
        announced: Option<u64>,
        into: &mut dyn Write,
    ) -> CallResult<u64> {
        let too_long = || self.unknown(&format!("longer than {} bytes", self.max_download));
        if announced.is_some_and(|announced| announced > self.max_download) {
            return Err(too_long());
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut total = 0_u64;
        let mut rate = DownloadRate::default();
        loop {
            let before = self.clock.now().steady;
            let read = match from.read(&mut chunk) {
                Ok(0) => return Ok(total),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(self.unknown(&format!("broke off after {total} bytes: {error}")));
                }
            };
            let waited = self.clock.now().steady.saturating_sub(before);
            let bytes = u64::try_from(read).unwrap_or(u64::MAX);
            total = total.saturating_add(bytes);
            if total > self.max_download {
                return Err(too_long());
            }
            if !rate.record(bytes, waited, &self.timeouts) {
                return Err(self.unknown(&format!("too slow, after {total} bytes")));
            }
            into.write_all(&chunk[..read])
                .map_err(|error| self.unknown(&format!("writing the download: {error}")))?;
        }
    }
}

/// JSON while it arrives: a batch with an error on each of its lines, or a page of them. A total timeout as short
/// as that of other calls would break off each such answer.
pub(super) struct PageReader<'a, R> {
    from: R,
    client: &'a OpenAiClient,
    rate: DownloadRate,
    ends_at: Duration,
}

impl<'a, R: Read> PageReader<'a, R> {
    /// Reads from a response that has just begun.
    pub(super) fn new(client: &'a OpenAiClient, from: R) -> Self {
        Self {
            from,
            client,
            rate: DownloadRate::default(),
            ends_at: client.clock.now().steady + client.timeouts.page,
        }
    }
}

impl<R: Read> Read for PageReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let before = self.client.clock.now().steady;
        let read = self.from.read(buffer)?;
        let after = self.client.clock.now().steady;
        let bytes = u64::try_from(read).unwrap_or(u64::MAX);
        let timeouts = &self.client.timeouts;
        match self.rate.record(bytes, after.saturating_sub(before), timeouts) && after < self.ends_at {
            true => Ok(read),
            false => Err(io::Error::new(io::ErrorKind::TimedOut, "too slow")),
        }
    }
}

/// Measures a download in windows of time spent waiting for bytes. Time spent writing does not count, since
/// OpenAI is not the cause of a slow disk here.
#[derive(Default)]
struct DownloadRate {
    bytes: u64,
    waited: Duration,
}

impl DownloadRate {
    /// Adds what one read gave. Returns false if the rate of the window is below the minimum.
    fn record(&mut self, bytes: u64, waited: Duration, timeouts: &Timeouts) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited += waited;
        if self.waited < timeouts.rate_window {
            return true;
        }
        let millis = u64::try_from(self.waited.as_millis()).unwrap_or(u64::MAX);
        let required = timeouts.min_rate.saturating_mul(millis) / 1000;
        let is_enough = self.bytes >= required;
        *self = Self::default();
        is_enough
    }
}
