//! A batch carries this database's id and no row: whether an operator may have it ignored.

use crate::domain::batch::CustomId;

/// The lines of such a batch, as far as they can be read.
#[derive(Clone, Debug)]
pub enum ReadInput {
    /// The whole input was read.
    Read {
        /// The custom ids of its lines; lines without one have none.
        ids: Vec<String>,
    },
    /// The input cannot be read.
    Unread {
        /// Why not.
        reason: String,
        /// The custom ids in the result files, as far as these can be read.
        ids_of_results: Vec<String>,
    },
}

/// Whether the batch is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IgnoreDecision {
    /// It is.
    Ignore {
        /// Why it is not this database's.
        evidence: String,
    },
    /// It is this database's: `recover --apply` gives it its row.
    IsOurs {
        /// What shows it.
        evidence: String,
    },
    /// It may be this database's, as after a restore: the operator must say that it is not.
    Confirm {
        /// Why that is not known.
        reason: String,
    },
}

/// Decides. `has_row_of_key`: whether a row has the key in the batch's metadata, and holds its lines. `is_confirmed`:
/// whether the operator has repeated the batch's id.
pub fn decide(input: &ReadInput, has_row_of_key: bool, is_confirmed: bool) -> IgnoreDecision {
    let (ReadInput::Read { ids }
    | ReadInput::Unread {
        ids_of_results: ids, ..
    }) = input;
    let ours = ids.iter().find(|id| id.parse::<CustomId>().is_ok());
    match (ours, input) {
        _ if has_row_of_key => IgnoreDecision::IsOurs {
            evidence: "its key in the metadata is a row's".to_owned(),
        },
        (Some(id), _) => IgnoreDecision::IsOurs {
            evidence: format!("its line {id} has a custom id of this program"),
        },
        (None, ReadInput::Read { ids }) => IgnoreDecision::Ignore {
            evidence: format!(
                "its input has {} custom ids, and none is of this program",
                ids.len()
            ),
        },
        (None, ReadInput::Unread { reason, .. }) if is_confirmed => IgnoreDecision::Ignore {
            evidence: format!("its input cannot be read ({reason}); the operator has confirmed it"),
        },
        (None, ReadInput::Unread { reason, .. }) => IgnoreDecision::Confirm {
            reason: reason.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_ignored_if_its_input_shows_that_it_is_not_ours() {
        let ours = CustomId {
            job: "6908f1d2-39b9-4721-bb8a-dba18120df5f".into(),
            position: 3,
            language: None,
        };
        let ours = ours.to_string();
        let read = |ids: &[&str]| ReadInput::Read {
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        };
        let unread = |ids: &[&str]| ReadInput::Unread {
            reason: "it is gone".into(),
            ids_of_results: ids.iter().map(|id| (*id).to_owned()).collect(),
        };
        for (input, has_row, is_confirmed, expected) in [
            (read(&[]), false, false, "ignore"),
            (read(&["theirs", "7"]), false, false, "ignore"),
            (read(&["theirs", &ours]), false, true, "ours"),
            (read(&["theirs"]), true, true, "ours"),
            (unread(&[]), false, false, "confirm"),
            (unread(&["theirs"]), false, false, "confirm"),
            (unread(&["theirs"]), false, true, "ignore"),
            (unread(&[&ours]), false, true, "ours"),
            (unread(&[]), true, true, "ours"),
        ] {
            let found = match decide(&input, has_row, is_confirmed) {
                IgnoreDecision::Ignore { .. } => "ignore",
                IgnoreDecision::IsOurs { .. } => "ours",
                IgnoreDecision::Confirm { .. } => "confirm",
            };
            assert_eq!(found, expected, "{input:?} {has_row} {is_confirmed}");
        }
    }
}
