//! Whether a database was restored from a backup, where the server lists no batches.
//!
//! The file beside the database has the number of creates that were begun. It is written before each create, after
//! the database. So it is never ahead of its own database.

/// Whether the database is older than the file says. `begun`: creates in the database; `recorded`: creates in the
/// file, `None` if there is none. A database that was moved without its file may be a restored one.
pub fn is_restored(begun: u64, recorded: Option<u64>) -> bool {
    match recorded {
        Some(recorded) => recorded > begun,
        None => begun > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_behind_its_file_was_restored() {
        for (begun, recorded, expected) in [
            (0, None, false),
            (1, None, true),
            (7, Some(7), false),
            // The process ended between the database and the file.
            (8, Some(7), false),
            (6, Some(7), true),
            (0, Some(1), true),
        ] {
            assert_eq!(is_restored(begun, recorded), expected, "{begun} {recorded:?}");
        }
    }
}
