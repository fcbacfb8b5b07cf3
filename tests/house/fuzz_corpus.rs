//! Runs the fuzz targets' checks over their corpora, including former findings, and over corpora
//! with changed bytes. So a former finding is tested again without a fuzzer.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// An input with bytes overwritten, inserted or removed.
fn changed(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let pieces = vec(
        prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            select(vec![
                "\r\n", "\n", "\"", "\\u", "{", "[", "]", ":", "//", "0x", "\0", "%", "@", "e9"
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
        ],
        0..4,
    );
    let change = (any::<Index>(), 0..3_usize, pieces);
    (select(corpus(target)), vec(change, 0..6)).prop_map(|(mut bytes, changes)| {
        for (at, taken, put) in changes {
            let at = at.index(bytes.len() + 1);
            let end = bytes.len().min(at + taken);
            bytes.splice(at..end, put.concat());
        }
        bytes
    })
}

macro_rules! targets {
    ($($target:ident),*) => {$(
        mod $target {
            use super::*;

            #[test]
            fn corpus_passes() {
                let inputs = corpus(stringify!($target));
                assert!(inputs.len() > 1);
                for input in inputs {
                    crate::checks::$target(&input);
                }
            }

            proptest! {
                #[test]
                fn changed_corpus_passes(input in changed(stringify!($target))) {
                    crate::checks::$target(&input);
                }
            }
        }
    )*};
}

targets!(
    request_head,
    submission,
    canonical,
    result_line,
    signature,
    url_guard
);
