//! Compares OpenAI's listing with the store, page by page: links batches that carry a key of this database, and
//! stops all creates if the listing has a batch of this database that the store does not know.

use std::time::Duration;

use crate::base::clock::Moment;
use crate::domain::alert::{AlertKind, AlertSubject, PauseScope};
use crate::openai::listing::Listing;
use crate::openai::{Batch, BatchApi, CallError};
use crate::store::batches::{self, ListedBatch};
use crate::store::{Store, Stored, Tx, View, alerts, calls};

/// How far the first listing must reach behind the creation of the database, in seconds: OpenAI's clock and
/// ours may differ.
const FIRST_LISTING_OVERLAP: i64 = 24 * 3600;

/// A comparison with a listing that is read page by page, over failed calls.
#[derive(Debug)]
pub struct Reconciliation {
    listing: Listing,
    /// The time by which a listing may lag behind a create.
    lag: Duration,
    /// The listed batches of this database that the store does not know.
    unknown: UnknownBatches,
    /// Whether the listing has a batch of this database. A listing of another project has none.
    has_own: bool,
    /// The time of the batch that stopped the creates, once the listing has shown it.
    listed_cause: Option<i64>,
}

/// What became of the next page.
#[derive(Debug)]
pub enum ListedPage {
    /// It was compared with the store.
    Compared {
        /// Its batches.
        batches: Vec<Batch>,
        /// Keys of the submissions whose batch was found on it.
        linked: Vec<String>,
    },
    /// The call failed. The next one goes on at the same place.
    Failed(CallError),
}

impl Reconciliation {
    /// A comparison back to `until`, before its first page is asked for.
    pub fn new(until: i64, lag: Duration, now: Moment) -> Self {
        Self {
            listing: Listing::new(until, now),
            lag,
            unknown: UnknownBatches::default(),
            has_own: false,
            listed_cause: None,
        }
    }

    /// The listing, as far as it was read.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Whether the listing is complete, so that the absence of a batch proves something.
    pub fn is_complete(&self) -> bool {
        self.listing.proof().is_complete()
    }

    /// The number of listed batches of this database that the store does not know.
    pub fn unknown_batches(&self) -> usize {
        self.unknown.number
    }

    /// Reads one page and compares it with the store, in one transaction. What the page shows is used even if
    /// no later page can be read.
    ///
    /// # Errors
    /// The store's.
    pub fn read_page(&mut self, api: &dyn BatchApi, store: &Store, now: Moment) -> Stored<ListedPage> {
        let began = self.listing.began().steady;
        let page = match self.listing.read_page(api, now) {
            Ok(page) => page,
            Err(error) => return Ok(ListedPage::Failed(error)),
        };
        if let Some(missing) = self.missing_newest(api, store)? {
            self.listing.refuse_end();
            return Ok(ListedPage::Failed(CallError::Unreadable {
                message: format!(
                    "GET /batches: the list of batches does not page (it ignores `after` and has no `has_more`), and \
                     lacks the known batch {missing}"
                ),
            }));
        }
        if self.listing.began().steady != began {
            // It began again.
            self.unknown = UnknownBatches::default();
            (self.has_own, self.listed_cause) = (false, None);
        }
        let cause = store.read(cause_of_stop)?;
        let listed_cause = cause.filter(|time| page.iter().any(|batch| batch.created_at == *time));
        self.listed_cause = listed_cause.or(self.listed_cause);
        let may_mark = self.has_own || self.is_complete() && is_own_project(api, store)?;
        let (has_own, unknown, linked) = store.write(now.wall, |tx| {
            calls::clear_account_pause(tx, &PauseScope::OpenAi)?;
            let (mut has_own, mut unknown, mut linked) = (false, self.unknown.clone(), Vec::new());
            for batch in &page {
                let known = batches::link_listed(tx, store.database_id(), batch)?;
                has_own |= known != ListedBatch::Foreign;
                match known {
                    ListedBatch::Linked(row) => linked.push(batches::get(tx, row)?.key),
                    ListedBatch::Unknown => unknown.add(batch),
                    ListedBatch::Known | ListedBatch::Duplicate(_) | ListedBatch::Foreign => {}
                }
            }
            self.apply(tx, &unknown, may_mark || has_own)?;
            Ok((has_own, unknown, linked))
        })?;
        self.has_own |= has_own;
        self.unknown = unknown;
        Ok(ListedPage::Compared {
            batches: page,
            linked,
        })
    }

    /// The newest batch of this database, if the listing lacks it although the listing is concluded to be whole. Then
    /// the server shows a part only.
    fn missing_newest(&self, api: &dyn BatchApi, store: &Store) -> Stored<Option<String>> {
        if !self.listing.is_end_concluded() {
            return Ok(None);
        }
        let newest = store.read(|view| batches::newest_openai_id(view, api.identity()))?;
        Ok(newest.filter(|id| !self.listing.has(id)))
    }

    /// Stops the creates for batches that the store does not know. A complete listing without such batches ends
    /// the stop, and moves the mark.
    fn apply(&self, tx: &Tx<'_>, unknown: &UnknownBatches, may_mark: bool) -> Stored<()> {
        let is_complete = self.is_complete() && self.listing.proof().until() <= reach(tx)?;
        if let Some(mark) = self
            .listing
            .proof()
            .mark(self.lag)
            .filter(|_| is_complete && may_mark)
        {
            batches::mark_listed(tx, mark)?;
        }
        // A batch of an earlier page may have got its row meanwhile, by `recover`.
        let is_new = unknown.number > self.unknown.number;
        if let Some((id, created_at)) = unknown.oldest.as_ref().filter(|_| is_new) {
            stop_creates(tx, id, *created_at, unknown.number)
        } else if is_complete
            && unknown.number == 0
            && cause_of_stop(tx)?.is_none_or(|time| Some(time) == self.listed_cause)
        {
            // A listing of another project does not have that batch, and proves nothing.
            alerts::clear_pause(tx, &PauseScope::Creates)
        } else {
            Ok(())
        }
    }
}

/// Listed batches of this database that the store does not know.
#[derive(Clone, Debug, Default)]
struct UnknownBatches {
    number: usize,
    /// The id of the oldest one, and when OpenAI made it.
    oldest: Option<(String, i64)>,
}

impl UnknownBatches {
    fn add(&mut self, batch: &Batch) {
        self.number += 1;
        if self
            .oldest
            .as_ref()
            .is_none_or(|(_, time)| batch.created_at < *time)
        {
            self.oldest = Some((batch.id.clone(), batch.created_at));
        }
    }
}

/// The time (OpenAI's clock, in seconds) back to which a listing must go. Such a listing shows every second
/// batch of a submission, and every batch that OpenAI made since the backup from which the store was
/// restored. Failed listings do not move it, and it stays behind a batch that the store does not know.
///
/// # Errors
/// The store's.
pub fn reach(view: &View) -> Stored<i64> {
    let reach = match batches::listed_until(view)? {
        Some(time) => time,
        None => batches::database_made_at(view)?.seconds() - FIRST_LISTING_OVERLAP,
    };
    Ok(reach.min(cause_of_stop(view)?.unwrap_or(reach)))
}

/// OpenAI's time of the batch that stopped the creates; `None` if they are not stopped.
fn cause_of_stop(view: &View) -> Stored<Option<i64>> {
    Ok(alerts::paused(view, &PauseScope::Creates)?.and_then(|pause| pause.openai_time))
}

/// Whether the key sees the newest batch of this database; true if there is no batch yet. A listing of another
/// project must not move the mark.
fn is_own_project(api: &dyn BatchApi, store: &Store) -> Stored<bool> {
    let newest = store.read(|view| batches::newest_openai_id(view, api.identity()))?;
    Ok(newest.is_none_or(|id| api.batch(&id).is_ok()))
}

/// Ends the stop of creates if the batch that caused it has its row. A recovery under a key of another
/// project finds nothing to link, and proves nothing.
///
/// # Errors
/// The store's.
pub fn resume_creates(tx: &Tx<'_>) -> Stored<()> {
    match cause_of_stop(tx)? {
        Some(time) if !batches::is_known_of(tx, time)? => Ok(()),
        _ => alerts::clear_pause(tx, &PauseScope::Creates),
    }
}

fn stop_creates(tx: &Tx<'_>, oldest: &str, created_at: i64, number: usize) -> Stored<()> {
    let reason = format!(
        "OpenAI has {number} batches of this database that it does not know ({oldest} among them): OpenAI has \
         moved on since the backup was taken from which it was restored. Nothing is created until \
         `batchkeeper recover --apply` has linked them (`batchkeeper recover` says what each is); if this is a copy that is to live beside the \
         original, make it another one with `batchkeeper recover --new-identity`"
    );
    alerts::pause_since(tx, &PauseScope::Creates, &reason, created_at)?;
    let subject = AlertSubject::Scope(PauseScope::Creates);
    alerts::open(tx, AlertKind::RestoredDatabase, &subject, &reason).map(drop)
}
