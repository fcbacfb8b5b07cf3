//! Pauses: what stops more than one batch, the alert about it, and how it ends.

use std::time::Duration;

use crate::base::clock::Moment;
use crate::config::Config;
use crate::domain::alert::{AlertCause, AlertKind, AlertSubject, PauseScope};
use crate::domain::decide::backoff::longest_backoff;
use crate::domain::decide::failed_call::CallKind;
use crate::domain::decide::polled_batch::longest_interval;
use crate::openai::CallError;
pub use crate::store::alerts::clear_pause;
use crate::store::alerts::{self, Pause};
use crate::store::batches::BatchRow;
use crate::store::{Store, Stored, Tx, View, calls};

/// Pauses `scope` because OpenAI refuses the account. The work goes on with the first call that succeeds;
/// the next one is tried after `wait`.
pub fn pause_account(tx: &Tx<'_>, scope: PauseScope, error: &CallError, wait: Duration) -> Stored<()> {
    let waits = match scope {
        PauseScope::OpenAi => "all work at OpenAI waits and",
        _ => "nothing new is sent, what is there is ingested, and it",
    };
    let message = format!(
        "OpenAI refuses the account: {error}. Nothing is lost; {waits} goes on by itself once the balance or the key's \
         rights are fixed there. A new key goes into openai.api_key_file, and is read by: systemctl restart batchkeeper"
    );
    alerts::pause(tx, &scope, &message, Some(tx.now + wait))?;
    let subject = AlertSubject::Scope(scope);
    alerts::open(tx, AlertKind::OpenAiAccount, &subject, &message).map(drop)
}

/// Counts a call that succeeded for a batch, and ends the pause of all work at OpenAI.
pub fn record_success(tx: &Tx<'_>, kind: CallKind, batch: i64) -> Stored<()> {
    calls::record_success(tx, kind, batch)?;
    calls::clear_account_pause(tx, &PauseScope::OpenAi)
}

/// Pauses a model and opens the alert about it. The next batch is sent after `wait`; it is a probe of at most
/// `probe` lines if that is given.
pub fn pause_model(
    tx: &Tx<'_>,
    model: &str,
    kind: AlertKind,
    message: &str,
    wait: Duration,
    probe: Option<u32>,
) -> Stored<()> {
    let scope = PauseScope::Model(model.to_owned());
    let until = tx.now + wait;
    match probe {
        Some(lines) => alerts::pause_for_probe(tx, &scope, message, until, lines)?,
        None => alerts::pause(tx, &scope, message, Some(until))?,
    }
    alerts::open(tx, kind, &AlertSubject::Scope(scope), message).map(drop)
}

/// Ends the pauses of the account, because OpenAI accepted something that was sent.
pub fn clear_sending_pauses(tx: &Tx<'_>) -> Stored<()> {
    calls::clear_account_pause(tx, &PauseScope::OpenAi)?;
    calls::clear_account_pause(tx, &PauseScope::Sending)
}

/// The longest time until a batch's next check, or until a pause ends. A time further away than that is from a
/// clock that was set back since.
pub fn longest_wait(config: &Config) -> Duration {
    // The batch of a refused account waits twice as long as the account.
    let retry = longest_backoff(config.openai.retry_interval) * 2;
    let poll = longest_interval(config.openai.poll_interval);
    retry.max(poll).max(MOST_RETRY_AFTER)
}

/// The longest that OpenAI's `Retry-After` is followed.
const MOST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// How long all work at OpenAI still waits; `None` if it does not wait.
pub fn openai_paused(store: &Store, config: &Config, now: Moment) -> Stored<Option<Duration>> {
    let pause = store.read(|view| alerts::paused(view, &PauseScope::OpenAi))?;
    Ok(left(pause, config, now))
}

/// Whether OpenAI refused the account, and no call has shown since that it does not any more.
pub fn is_account_refused(view: &View) -> Stored<bool> {
    let all = alerts::paused(view, &PauseScope::OpenAi)?;
    Ok(all.is_some() || alerts::paused(view, &PauseScope::Sending)?.is_some())
}

/// How long sending to OpenAI still waits; `None` if it does not wait.
pub fn sending_paused(store: &Store, config: &Config, now: Moment) -> Stored<Option<Duration>> {
    let [all, sending] = store
        .read(|view| {
            Ok([
                alerts::paused(view, &PauseScope::OpenAi)?,
                alerts::paused(view, &PauseScope::Sending)?,
            ])
        })?
        .map(|pause| left(pause, config, now));
    Ok(all.max(sending))
}

fn left(pause: Option<Pause>, config: &Config, now: Moment) -> Option<Duration> {
    let until = pause?.until?;
    Some(until.due_in(now.wall, longest_wait(config))).filter(|left| !left.is_zero())
}

/// Bytes by which the free space of the database's disk falls short of `limits.disk_reserve`; `None` if there is
/// enough. The reserve is kept for results that are paid for: without it no job is accepted and no batch
/// created.
pub fn missing_free_space(store: &Store, config: &Config) -> Stored<Option<u64>> {
    match config.limits.disk_reserve {
        0 => Ok(None),
        reserve => Ok(reserve.checked_sub(store.free_bytes()?).filter(|it| *it > 0)),
    }
}

/// Opens the alert about a batch that was made under another account than the configured one.
pub fn report_other_identity(tx: &Tx<'_>, row: &BatchRow) -> Stored<()> {
    let cause = of_other_identity(row);
    alerts::open(tx, AlertKind::OtherIdentity, &cause.subject, &cause.message).map(drop)
}

/// The cause of the alert about a batch of another account.
pub fn of_other_identity(row: &BatchRow) -> AlertCause {
    let identity = &row.identity;
    let message = format!(
        "batch {} was made under {} (organization {:?}, project {:?}), which is not the configured account: nothing can \
         be learned of it under this one. Configure that account again until it is ingested, or abandon it with: \
         batchkeeper batches abandon {}",
        row.id, identity.base_url, identity.organization, identity.project, row.id
    );
    let subject = AlertSubject::Batch(row.id);
    AlertCause { subject, message }
}
