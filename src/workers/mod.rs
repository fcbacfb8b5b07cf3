//! The workers: each does one bounded piece of work a tick.

pub mod abandonment;
pub mod alert_notifier;
pub mod auditor;
pub mod call_failure;
pub mod clock;
mod doubtful_create;
pub mod finisher;
pub mod image_checker;
pub mod ingester;
pub mod operator_tasks;
pub mod pauses;
pub mod poller;
pub mod remote_cleanup;
pub mod retention;
pub mod spool;
pub mod submitter;
pub mod synchronous;
pub mod wakeups;
pub mod webhook_sender;
pub mod worker;
