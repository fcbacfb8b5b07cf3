//! What follows from what was observed: each file is one decision, as a pure function.
//!
//! A worker reads what is due, asks the outside, hands both to one of these functions, and applies the
//! decision in one transaction.

pub mod abandoned_batch;
pub mod audit;
pub mod backoff;
pub mod batch_verdict;
pub mod blamed_image;
pub mod clock_confirmation;
pub mod ended_lot;
pub mod estimated_end;
pub mod failed_call;
pub mod failed_create;
pub mod failed_line;
pub mod file_size;
pub mod health_line;
pub mod ignored_batch;
pub mod input_lag;
pub mod listing;
pub mod lost_create;
pub mod missing_images;
pub mod missing_lines;
pub mod polled_batch;
pub mod postponed_image;
pub mod queue_limit;
pub mod refused_batch;
pub mod remote_cleanup;
pub mod request_error;
pub mod resend;
pub mod restored_database;
pub mod stated_usage;
pub mod synchronous_failure;
pub mod waiting_requests;
pub mod webhook_answer;
