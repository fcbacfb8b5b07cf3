//! The machine's clock: whether it may decide that something is old, and the alerts about it.

use crate::base::clock::{Moment, Timestamp};
use crate::domain::alert::{AlertCause, AlertSubject};
use crate::domain::decide::clock_confirmation::{ClockVerdict, is_reported, judge};
use crate::openai::BatchApi;
use crate::store::{Store, Stored, View, clock};

/// Prepares a deletion of rows or files by their age, and returns whether it is allowed: the clock must be
/// confirmed. Times from a clock that was ahead are then rewritten first.
pub fn prepare_deletion_by_age(store: &Store, api: &dyn BatchApi, now: Moment) -> Stored<bool> {
    let is_confirmed = verdict(store, api, now)? == ClockVerdict::Confirmed;
    if is_confirmed && store.may_have_future_times(now.wall) {
        store.rewrite_future_times(now.wall)?;
    }
    Ok(is_confirmed)
}

/// Judges the machine's clock.
pub fn verdict(store: &Store, api: &dyn BatchApi, now: Moment) -> Stored<ClockVerdict> {
    let operator = store.read(clock::confirmed_by_operator)?;
    Ok(judge(now, api.newest_date(), operator))
}

/// The cause of the alert that OpenAI contradicts the clock.
pub fn skew(verdict: ClockVerdict) -> Vec<AlertCause> {
    let ClockVerdict::Contradicted { skew } = verdict else {
        return Vec::new();
    };
    let direction = if skew > 0 { "ahead of" } else { "behind" };
    cause(format!(
        "this machine's clock is {} s {direction} the Date of OpenAI's answers. Nothing is deleted by its age \
         meanwhile. Set the clock (timedatectl; chronyc tracking). If a gateway in between has the wrong clock: \
         openai.trust_date = false and systemctl restart batchkeeper",
        skew.unsigned_abs() / 1000
    ))
}

/// The cause of the alert that the clock has not been confirmed for a week.
pub fn unconfirmed(view: &View, verdict: ClockVerdict, now: Timestamp) -> Stored<Vec<AlertCause>> {
    let last = clock::last_confirmed(view)?.unwrap_or(now);
    if verdict != ClockVerdict::Unconfirmed || !is_reported(now, last) {
        return Ok(Vec::new());
    }
    Ok(cause(format!(
        "this machine's clock has not been confirmed since {last}: no answer of OpenAI had a Date that agrees with it. \
         Nothing is deleted by its age meanwhile. If `date` is right, allow it for a day: batchkeeper clock confirm"
    )))
}

fn cause(message: String) -> Vec<AlertCause> {
    let subject = AlertSubject::Clock;
    vec![AlertCause { subject, message }]
}
