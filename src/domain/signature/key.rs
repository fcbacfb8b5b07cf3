//! Keys for signatures.

use std::fmt;

/// The fewest bytes of a key.
pub const MIN_KEY_BYTES: usize = 16;

/// Keys that the earlier service's documents print, so that anyone knows them.
pub(super) const PUBLISHED_KEYS: [&str; 2] = [
    "dev-secret-key-for-testing-2024",
    "default-shared-key-change-in-production",
];

/// A key shared with one client. Its `Debug` form does not show it.
#[derive(Clone)]
pub struct Key(pub(super) Vec<u8>);

/// Why bytes are not allowed as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The key has fewer than [`MIN_KEY_BYTES`].
    #[error("a key must have at least {MIN_KEY_BYTES} bytes; this one has {bytes}")]
    TooShort {
        /// The number of bytes.
        bytes: usize,
    },
    /// The key is printed in the earlier service's documents.
    #[error("this key is printed in the earlier service's documents, so anyone has it; make a new one")]
    Published,
}

impl Key {
    /// Creates a key of exactly these bytes.
    ///
    /// # Errors
    ///
    /// If the key is too short, or is published. A published key with white space around it is refused, too,
    /// since a file that contains it looks like this.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        if bytes.len() < MIN_KEY_BYTES {
            let bytes = bytes.len();
            return Err(KeyError::TooShort { bytes });
        }
        if PUBLISHED_KEYS
            .iter()
            .any(|published| published.as_bytes() == bytes.trim_ascii())
        {
            return Err(KeyError::Published);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}
