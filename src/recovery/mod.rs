//! Brings the store and OpenAI back together after an import, a restore or a repair by hand.

mod adopt;
mod evidence;
pub mod import;
pub mod reconcile;
mod recover;

pub use recover::{Finding, Recovery};
