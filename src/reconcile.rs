//! What OpenAI lists, held against the store: what carries our key is linked, what the store never
//! heard of stops all creates.

use crate::remote::RemoteBatch;
use crate::store::batches::{self, Known};
use crate::store::{Store, Stored, Tx, alerts};
use crate::trouble::{self, CREATES, OPENAI};

/// Looks at every listed batch, in one transaction; gives the ids of those that were made by this
/// database and that it knows nothing of.
///
/// # Errors
/// The store's.
pub fn with_listing<'l>(
    tx: &Tx<'_>,
    store: &Store,
    listed: &'l [RemoteBatch],
) -> Stored<Vec<&'l str>> {
    trouble::is_over(tx, OPENAI)?;
    let mut unheard = Vec::new();
    for remote in listed {
        if batches::recognise(tx, store.database_id(), remote)? == Known::Unheard {
            unheard.push(remote.id.as_str());
        }
    }
    match unheard.first() {
        None => trouble::is_over(tx, CREATES)?,
        Some(first) => {
            let reason = format!(
                "OpenAI has {} batches of this database that it knows nothing of ({first} among them): it is older than \
                 the world, as after the restore of a backup. Nothing is created until `batchkeeper recover --apply` has \
                 taken them up; if this is a copy that is to live beside the original, make it another one with \
                 `batchkeeper recover --new-identity`",
                unheard.len(),
            );
            alerts::pause(tx, CREATES, &reason, None)?;
            alerts::open(tx, "restored_database", CREATES, &reason)?;
        }
    }
    Ok(unheard)
}
