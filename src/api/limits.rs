//! Rate limits: how many requests a client may send in any minute. The counts are in memory, so a restart
//! begins with none.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Api, RequestError};
use crate::domain::api_error::{ApiError, ErrorCode};

/// The time over which requests are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// The most resends and test events of a client in [`WINDOW`], together.
pub(super) const MAX_WEBHOOKS: u32 = 10;

/// Requests that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RateLimit {
    /// Submissions of batch jobs, and dry runs.
    Submissions,
    /// Synchronous submissions.
    Synchronous,
    /// Resends of webhooks, and test events: each is a call to a receiver.
    Webhooks,
    /// All other signed requests.
    Reads,
}

/// When each client's requests of the last minute arrived, on the steady clock.
#[derive(Default)]
pub(super) struct RateLimiter(Mutex<HashMap<(String, RateLimit), VecDeque<Duration>>>);

impl RateLimiter {
    /// Counts a request, or returns how long until the next one is allowed. `most` is the limit of a minute.
    fn count(&self, client: &str, limit: RateLimit, most: u32, now: Duration) -> Result<(), Duration> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let arrivals = clients.entry((client.to_owned(), limit)).or_default();
        while arrivals
            .front()
            .is_some_and(|at| now.saturating_sub(*at) >= WINDOW)
        {
            arrivals.pop_front();
        }
        match arrivals.front() {
            Some(first) if arrivals.len() >= most => Err((*first + WINDOW).saturating_sub(now)),
            _ => {
                arrivals.push_back(now);
                Ok(())
            }
        }
    }
}

impl Api {
    /// Counts an authenticated request, or refuses it with 429.
    pub(super) fn count_request(&self, client: &str, limit: RateLimit) -> Result<(), RequestError> {
        let (most, what) = match limit {
            RateLimit::Submissions => (self.config.limits.submit, "submissions"),
            RateLimit::Synchronous => (self.config.limits.synchronous, "synchronous requests"),
            RateLimit::Webhooks => (MAX_WEBHOOKS, "resends and test events"),
            RateLimit::Reads => (self.config.limits.read, "reads"),
        };
        if most == 0 {
            return Ok(());
        }
        let now = self.clock.now().steady;
        self.rates.count(client, limit, most, now).map_err(|wait| {
            let message = format!("More than {most} {what} came from this client in a minute.");
            too_many_requests(&message, wait)
        })
    }
}

/// 429 with the seconds after which the client may send its request again.
pub(super) fn too_many_requests(message: &str, wait: Duration) -> RequestError {
    let seconds = wait.as_millis().div_ceil(1000).max(1).to_string();
    let error = ApiError::new(
        ErrorCode::RateLimited,
        format!("{message} Send it again in {seconds} s."),
    );
    RequestError::Refused(error, vec![("Retry-After", seconds)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_has_more_requests_than_the_limit() {
        let rates = RateLimiter::default();
        let count = |client, limit, second| rates.count(client, limit, 3, Duration::from_secs(second));
        for second in [0, 10, 20] {
            assert_eq!(count("a", RateLimit::Submissions, second), Ok(()));
        }
        assert_eq!(
            count("a", RateLimit::Submissions, 20),
            Err(Duration::from_secs(40))
        );
        assert_eq!(
            count("a", RateLimit::Submissions, 59),
            Err(Duration::from_secs(1))
        );
        // Other limits and clients have their own counts. Refused requests are not counted.
        assert_eq!(count("a", RateLimit::Reads, 59), Ok(()));
        assert_eq!(count("b", RateLimit::Submissions, 59), Ok(()));
        assert_eq!(count("a", RateLimit::Submissions, 60), Ok(()));
        assert_eq!(
            count("a", RateLimit::Submissions, 60),
            Err(Duration::from_secs(10))
        );
    }
}
