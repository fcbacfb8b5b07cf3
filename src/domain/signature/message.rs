//! Signs and verifies messages with HMAC-SHA256.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::key::Key;
use crate::base::hex;
use crate::python_json::{Json, write_canonical};

/// The bytes that a signature covers.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// These bytes, one after the other.
    Parts(&'a [&'a [u8]]),
    /// The canonical form of this value. It is hashed while it is written, so it needs no memory.
    Canonical(Json<'a>),
}

impl Message<'_> {
    /// Updates all MACs in one pass, since writing the canonical form of a large value takes long.
    fn update(self, macs: &mut [Hmac<Sha256>]) {
        let mut sink = |piece: &[u8]| macs.iter_mut().for_each(|mac| mac.update(piece));
        match self {
            Self::Bytes(bytes) => sink(bytes),
            Self::Parts(parts) => parts.iter().for_each(|part| sink(part)),
            Self::Canonical(json) => write_canonical(json, &mut sink),
        }
    }

    pub(super) fn mac(self, key: &[u8]) -> Hmac<Sha256> {
        let mut mac = mac(key);
        self.update(std::slice::from_mut(&mut mac));
        mac
    }
}

/// Signs a message. The result has 64 lower-case hexadecimal digits.
pub fn sign(key: &Key, message: Message<'_>) -> String {
    hex::encode(&message.mac(&key.0).finalize().into_bytes())
}

/// Whether `presented` is the signature of one of the messages with one of the keys. `presented` has
/// hexadecimal digits of either case, with or without `sha256=`.
pub fn verify(presented: &str, keys: &[Key], messages: &[Message<'_>]) -> bool {
    let presented = presented.trim();
    let presented = match presented.split_at_checked(7) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("sha256=") => rest,
        _ => presented,
    };
    let Some(presented) = hex::decode(presented) else {
        return false;
    };
    let mut is_valid = false;
    for message in messages {
        let mut macs: Vec<_> = keys.iter().map(|key| mac(&key.0)).collect();
        message.update(&mut macs);
        for mac in macs {
            is_valid |= mac.verify_slice(&presented).is_ok();
        }
    }
    is_valid
}

#[allow(
    clippy::expect_used,
    reason = "HMAC hashes a key that is longer than a block, so a key of any length is valid"
)]
fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}
