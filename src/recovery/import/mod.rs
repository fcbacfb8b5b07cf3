//! Import of the earlier service's data.

mod dump;
mod row;

pub use dump::{Dump, read_dump};
