//! Ids that look like OpenAI's, and repeatable chance. Both are hashes of names.

use sha2::{Digest, Sha256};

use crate::base::hex;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        // A byte that no UTF-8 text holds, so that "ab", "c" and "a", "bc" differ.
        hash.update([0xFF]);
    }
    hash.finalize().into()
}

/// The hash of the parts in 64 hexadecimal digits.
pub fn hex(parts: &[&str]) -> String {
    hex::encode(&digest(parts))
}

/// A number that looks random and is the same for the same parts.
pub fn number(parts: &[&str]) -> u64 {
    let bytes = digest(parts);
    bytes
        .iter()
        .take(8)
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// A batch's id: `batch_` and 32 hexadecimal digits. As in real ids, the first eight are the second of its
/// creation, and `819` begins at the thirteenth.
pub fn batch(parts: &[&str], second: i64) -> String {
    let hash = hex(parts);
    format!("batch_{second:08x}{}8190{}", &hash[..4], &hash[4..20])
}

/// A file's id: `file-` and 22 letters and digits.
pub fn file(parts: &[&str]) -> String {
    let name = digest(parts)
        .iter()
        .take(22)
        .map(|byte| char::from(BASE62[usize::from(*byte) % BASE62.len()]))
        .collect::<String>();
    format!("file-{name}")
}

/// A call's `x-request-id`.
pub fn request_id(call: &str) -> String {
    format!("req_{}", &hex(&["request", call])[..32])
}

/// Shuffles the items, into the same order for the same seed.
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        let choices = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
        items.swap(last, usize::try_from(mixed % choices).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_real_shape() {
        let id = batch(&["x"], 0x6893_6221);
        assert_eq!(id.len(), 6 + 32);
        assert!(id.starts_with("batch_68936221"));
        assert_eq!(&id[6 + 12..6 + 15], "819");
        assert_eq!(file(&["x"]).len(), 5 + 22);
        assert_ne!(file(&["a", "b"]), file(&["ab"]));
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_repeats() {
        let mut first = (0..1000).collect::<Vec<_>>();
        let mut second = first.clone();
        shuffle(&mut first, 7);
        shuffle(&mut second, 7);
        assert_eq!(first, second);
        assert_ne!(first, (0..1000).collect::<Vec<_>>());
        first.sort_unstable();
        assert_eq!(first, (0..1000).collect::<Vec<_>>());
    }
}
