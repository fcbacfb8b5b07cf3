//! Import of the earlier service's data: its dump read row by row.

mod dump;
mod row;

pub use dump::{Dump, read_dump};
