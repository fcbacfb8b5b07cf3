//! Brings the store and OpenAI back into agreement after an import, a restore or a repair by hand.

mod adopt;
mod error;
mod evidence;
mod identify;
mod ignore;
pub mod import;
pub mod reconcile;
mod recover;
pub mod unlisted;

pub use error::RecoveryError;
pub use recover::{Recovery, RecoveryFinding};
