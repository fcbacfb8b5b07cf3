//! Listings of batches that are read page by page and keep their place over failed calls.
//!
//! Callers rely on the absence of a batch, so a listing says whether it is complete
//! ([`crate::domain::decide::listing`]).

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::api::{BatchApi, CallResult, Page};
use crate::base::clock::{Clock, Moment, SystemClock};
use crate::domain::decide::backoff::backoff;
use crate::domain::decide::failed_call::is_account_refused;
use crate::domain::decide::listing::{LARGEST_PAGE, ListingProof, larger_page, smaller_page};
use crate::domain::openai::{Batch, CallError};

/// How long a listing may be continued after a failed call. Then it begins again.
const CURSOR_LIFE: Duration = Duration::from_mins(10);
/// A command gives up after this many failed calls in a row.
const MOST_FAILURES: u32 = 5;
/// The first wait of a command after a failed call.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// A listing of batches, newest first, back to a time on OpenAI's clock.
#[derive(Debug)]
pub struct Listing {
    proof: ListingProof,
    began: Moment,
    cursor: Option<Cursor>,
    page_size: u32,
    /// Whether the pages may grow. Not after a restart: the same long page would break off again.
    may_grow: bool,
    /// Hashes of the ids that were listed. Only a listing that goes in circles brings none that is new.
    seen: HashSet<u64>,
    failures: u32,
    /// Whether its end is concluded from a page that was repeated.
    is_end_concluded: bool,
}

/// The place where a listing goes on.
#[derive(Debug)]
struct Cursor {
    /// The id of the last batch that was listed.
    after: String,
    /// When the page after it was first asked for, on the steady clock.
    asked_at: Option<Duration>,
}

impl Listing {
    /// A listing back to `until`, in seconds, before its first page is asked for.
    pub fn new(until: i64, now: Moment) -> Self {
        Self {
            proof: ListingProof::new(until),
            began: now,
            cursor: None,
            page_size: LARGEST_PAGE,
            may_grow: true,
            seen: HashSet::new(),
            failures: 0,
            is_end_concluded: false,
        }
    }

    /// What the pages prove that were read.
    pub fn proof(&self) -> &ListingProof {
        &self.proof
    }

    /// A time before its first page was asked for.
    pub fn began(&self) -> Moment {
        self.began
    }

    /// The number of calls that failed since the last page.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The number of batches that were listed.
    pub fn batches(&self) -> usize {
        self.seen.len()
    }

    /// Whether a batch was listed.
    pub fn has(&self, id: &str) -> bool {
        self.seen.contains(&hash(id))
    }

    /// Whether the server pages nothing and does not say `has_more`: a second page was the first one again. Its end
    /// is a conclusion, which the server has not stated.
    pub fn is_end_concluded(&self) -> bool {
        self.is_end_concluded
    }

    /// Begins again, because an end that was concluded is none.
    pub fn refuse_end(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.restart();
    }

    /// Reads the next page. After a failed call it is read again, as a smaller one if the call broke off.
    ///
    /// # Errors
    /// If the call fails, a batch has no time of creation, or the page has no new batch although more pages
    /// follow.
    pub fn read_page(&mut self, api: &dyn BatchApi, now: Moment) -> CallResult<Vec<Batch>> {
        let asked_at = self
            .cursor
            .as_mut()
            .map(|it| *it.asked_at.get_or_insert(now.steady));
        if asked_at.is_some_and(|at| now.steady >= at + CURSOR_LIFE) {
            self.restart();
        }
        if self.cursor.is_none() {
            self.began = now;
        }
        let after = self.cursor.as_ref().map(|cursor| cursor.after.as_str());
        let page = api
            .batches(after, self.page_size)
            .and_then(|page| self.check(page));
        match page {
            Ok(page) => Ok(self.record(page, now)),
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                match &error {
                    CallError::Unknown { .. } | CallError::Unreadable { .. } => {
                        self.page_size = smaller_page(self.page_size)
                    }
                    CallError::Refused(refusal) if matches!(refusal.status, 400 | 404 | 422) => {
                        match self.cursor {
                            // OpenAI does not know the cursor any more.
                            Some(_) => self.restart(),
                            // Some compatible servers refuse pages as long as OpenAI's.
                            None => {
                                self.page_size = smaller_page(self.page_size);
                                self.may_grow = false;
                            }
                        }
                    }
                    _ => {}
                }
                Err(error)
            }
        }
    }

    fn check(&mut self, page: Page<Batch>) -> CallResult<Page<Batch>> {
        let has_new = page.data.iter().any(|batch| !self.has(&batch.id));
        // Without `has_more`, a page that is empty or repeated is the last one. A full one may be a part.
        let is_short = page.data.len() < self.page_size as usize;
        let is_repeated = page.has_more.is_none() && !has_new && !page.data.is_empty() && is_short;
        let has_more = page.has_more.unwrap_or(!page.data.is_empty() && !is_repeated);
        if has_more && !has_new {
            self.restart();
            return Err(CallError::Unreadable {
                message: "the listing of batches brings nothing new and does not end".into(),
            });
        }
        self.is_end_concluded |= is_repeated;
        Ok(Page {
            has_more: Some(has_more),
            ..page
        })
    }

    fn record(&mut self, page: Page<Batch>, now: Moment) -> Vec<Batch> {
        self.failures = 0;
        if self.may_grow {
            self.page_size = larger_page(self.page_size);
        }
        let times: Vec<i64> = page.data.iter().map(|batch| batch.created_at).collect();
        let date = page.date.unwrap_or(now.wall).seconds();
        self.proof.record(date, &times, page.has_more != Some(false));
        self.seen.extend(page.data.iter().map(|batch| hash(&batch.id)));
        if let Some(last) = page.data.last() {
            self.cursor = Some(Cursor {
                after: last.id.clone(),
                asked_at: None,
            });
        }
        page.data
    }

    /// Begins again with the first page.
    fn restart(&mut self) {
        if self.cursor.take().is_some() {
            self.may_grow = false;
        }
        self.proof = ListingProof::new(self.proof.until());
        self.is_end_concluded = false;
        self.seen.clear();
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// Hands each page of a complete listing back to `until` to `take`, for a command that waits for it. A failed
/// call is made again a few times, after a `wait`.
///
/// # Errors
/// The error of the last call, if too many fail in a row.
pub fn list_back_to(
    api: &dyn BatchApi,
    until: i64,
    wait: fn(Duration),
    mut take: impl FnMut(Vec<Batch>),
) -> CallResult<()> {
    let clock = SystemClock::new();
    let mut listing = Listing::new(until, clock.now());
    while !listing.proof().is_complete() {
        match listing.read_page(api, clock.now()) {
            Ok(page) => take(page),
            Err(error) if listing.failures() >= MOST_FAILURES || is_account_refused(&error) => {
                return Err(error);
            }
            Err(error) => wait(backoff(FIRST_WAIT, listing.failures(), error.retry_after())),
        }
    }
    Ok(())
}
