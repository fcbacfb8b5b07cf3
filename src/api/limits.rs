//! How many requests of a client are taken in any minute, submissions and reads counted apart. Kept
//! in memory: a restart begins anew.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Api, RequestError};
use crate::domain::api_error::{ApiError, ErrorCode};

/// Over how long requests are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Submissions, dry runs too.
    Submit,
    /// Submissions that are answered at once.
    Synchronous,
    /// Everything else that is signed.
    Read,
}

/// When each client's requests of the last minute came, on the steady clock.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<(String, Kind), VecDeque<Duration>>>);

impl Rates {
    /// Takes one more request, or says how long until one is taken again. `most`: in any minute.
    fn take(&self, client: &str, kind: Kind, most: u32, now: Duration) -> Result<(), Duration> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut rates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let came = rates.entry((client.to_owned(), kind)).or_default();
        while came
            .front()
            .is_some_and(|at| now.saturating_sub(*at) >= WINDOW)
        {
            came.pop_front();
        }
        match came.front() {
            Some(first) if came.len() >= most => Err((*first + WINDOW).saturating_sub(now)),
            _ => {
                came.push_back(now);
                Ok(())
            }
        }
    }
}

impl Api {
    /// Counts a client's request whose signature holds.
    pub(super) fn count(&self, client: &str, kind: Kind) -> Result<(), RequestError> {
        let (most, what) = match kind {
            Kind::Submit => (self.config.limits.submit, "submissions"),
            Kind::Synchronous => (self.config.limits.synchronous, "synchronous requests"),
            Kind::Read => (self.config.limits.read, "reads"),
        };
        if most == 0 {
            return Ok(());
        }
        let now = self.clock.now().steady;
        self.rates.take(client, kind, most, now).map_err(|wait| {
            let message = format!("More than {most} {what} came from this client in a minute.");
            too_many(message, wait)
        })
    }
}

/// 429, with when to come back.
pub(super) fn too_many(message: String, wait: Duration) -> RequestError {
    let seconds = wait.as_millis().div_ceil(1000).max(1).to_string();
    let refusal = ApiError::new(
        ErrorCode::RateLimited,
        format!("{message} Send it again in {seconds} s."),
    );
    RequestError::Refused(refusal, vec![("Retry-After", seconds)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_has_more_than_so_many_requests() {
        let rates = Rates::default();
        let take = |client, kind, second| rates.take(client, kind, 3, Duration::from_secs(second));
        for second in [0, 10, 20] {
            assert_eq!(take("a", Kind::Submit, second), Ok(()));
        }
        assert_eq!(take("a", Kind::Submit, 20), Err(Duration::from_secs(40)));
        assert_eq!(take("a", Kind::Submit, 59), Err(Duration::from_secs(1)));
        // Others are counted apart, and what was refused is not counted.
        assert_eq!(take("a", Kind::Read, 59), Ok(()));
        assert_eq!(take("b", Kind::Submit, 59), Ok(()));
        assert_eq!(take("a", Kind::Submit, 60), Ok(()));
        assert_eq!(take("a", Kind::Submit, 60), Err(Duration::from_secs(10)));
    }
}
