use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};

use proptest::prelude::*;
use serde_json::{json, value::RawValue};
use sha2::{Digest, Sha256};

use super::*;
use crate::base::hex;
use crate::domain::endpoint::Endpoint;

type OwnedLine = (u64, bool, Result<Vec<u8>, u64>);

fn read(bytes: &[u8], chunk: usize, cap: usize, offset: usize) -> (Vec<OwnedLine>, u64) {
    let source = BufReader::with_capacity(chunk, &bytes[offset..]);
    let mut reader = LineReader::new(source, wide(offset), cap);
    let mut lines = Vec::new();
    while let Some(line) = reader.next_line().unwrap() {
        let content = match line.content {
            LineContent::Bytes(bytes) => Ok(bytes.to_vec()),
            LineContent::TooLong { length } => Err(length),
        };
        lines.push((line.next_offset, line.is_terminated, content));
    }
    assert!(reader.line_capacity() <= cap);
    (lines, reader.offset())
}

#[test]
fn only_lf_ends_a_line_and_blank_lines_are_skipped() {
    let text = "a\u{2028}\u{85}b\r\n\r\n  \n\n123456789\n12345678\r\nlast\r";
    let (lines, end) = read(text.as_bytes(), 3, 8, 0);
    assert_eq!(
        lines,
        [
            (9, true, Ok("a\u{2028}\u{85}b".into())),
            (25, true, Err(9)),
            (35, true, Err(9)),
            (40, false, Ok("last".into())),
        ]
    );
    assert_eq!(end, 40);
}

#[test]
fn a_line_of_the_maximum_length_is_read() {
    let (lines, _) = read(b"12345678\n123456789", 64, 8, 0);
    assert_eq!(lines, [(9, true, Ok(b"12345678".into())), (18, false, Err(9))]);
}

#[test]
fn a_file_is_read_from_an_offset_within_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"one\ntwo\n").unwrap();
    let mut reader = LineReader::open(file.path(), 4).unwrap();
    let line = reader.next_line().unwrap().unwrap();
    assert_eq!((line.next_offset, line.content), (8, LineContent::Bytes(b"two")));
    assert_eq!(reader.next_line().unwrap(), None);
    assert_eq!(
        LineReader::open(file.path(), 8).unwrap().next_line().unwrap(),
        None
    );
    assert!(LineReader::open(file.path(), 9).is_err());
    assert_eq!(
        sha256_file(file.path()).unwrap(),
        (
            8,
            "c3f9c8c283a2b1f2f1896f27a01cbe3cddc0c9d93f752e4639035a0f5b36f6e8".to_owned()
        )
    );
}

#[test]
fn a_request_line_has_exactly_these_bytes() {
    let line = encode_request_line(
        Endpoint::Responses,
        "v_1",
        &json!({"input": "a\nb\u{2028}\u{85}é\u{2029}\u{2027}"}),
    )
    .unwrap();
    assert_eq!(
        String::from_utf8(line).unwrap(),
        "{\"custom_id\":\"v_1\",\"method\":\"POST\",\"url\":\"/v1/responses\",\
         \"body\":{\"input\":\"a\\nb\\u2028\\u0085é\\u2029\u{2027}\"}}\n"
    );
    let spread = RawValue::from_string("{\n}".to_owned()).unwrap();
    let mut out = Vec::new();
    let mut writer = LineWriter::new(&mut out, Endpoint::Responses);
    let error = writer.write("v_1", &spread).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!((writer.lines(), writer.bytes()), (0, 0));
    assert!(out.is_empty());
}

#[test]
fn recovery_reads_ids_and_metadata_and_names_bad_lines() {
    let text = concat!(
        r#"{"custom_id":"a","body":{"metadata":{"job":"1","n":2},"input":[{"x":[1]}]}}"#,
        "\n\n{\"custom_id\":7}\n",
        r#"{"custom_id":"b","body":{"metadata":null}}"#,
    );
    let lines = request_lines(text.as_bytes()).collect::<Vec<_>>();
    let first = lines[0].as_ref().unwrap();
    assert_eq!(first.custom_id, "a");
    assert_eq!(first.metadata, BTreeMap::from([("job".into(), "1".into())]));
    assert!(lines[1].as_ref().unwrap_err().to_string().starts_with("line 2: "));
    assert_eq!(lines[2].as_ref().unwrap().custom_id, "b");
    assert_eq!(lines.len(), 3);
}

/// Bytes in which line ends, blanks and quotes are frequent.
fn jsonl_like_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\n'), Just(b'\r'), Just(b' '), Just(b'"'), any::<u8>(),];
    prop::collection::vec(byte, 0..200)
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        entries in prop::collection::vec(("[a-zA-Z0-9_-]{1,64}", any::<String>()), 0..20),
        chunk in 1_usize..64,
    ) {
        let mut out = Vec::new();
        let mut writer = LineWriter::new(&mut out, Endpoint::Responses);
        for (id, text) in &entries {
            writer.write(id, &json!({"input": text, "metadata": {"text": text}})).unwrap();
        }
        let written = writer.finish().unwrap();
        prop_assert_eq!(written.bytes, wide(out.len()));
        prop_assert_eq!(written.lines, wide(entries.len()));
        prop_assert_eq!(&written.sha256_hex, &hex::encode(&Sha256::digest(&out)));
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::new(|line: &[u8]| lines.push(line.to_vec()));
        out.chunks(chunk).for_each(|part| splitter.write_all(part).unwrap());
        splitter.finish();
        let whole: Vec<_> = out.split(|byte| *byte == b'\n').take(entries.len()).collect();
        prop_assert_eq!(lines, whole);
        let back = request_lines(BufReader::with_capacity(chunk, out.as_slice()))
            .map(|line| line.map(|line| (line.custom_id, line.metadata["text"].clone())))
            .collect::<io::Result<Vec<_>>>()
            .unwrap();
        prop_assert_eq!(back, entries);
    }

    #[test]
    fn the_chunks_of_the_source_do_not_matter(
        bytes in jsonl_like_bytes(), chunk in 1_usize..20, cap in 1_usize..30,
    ) {
        prop_assert_eq!(
            read(&bytes, chunk, cap, 0),
            read(&bytes, bytes.len().max(1), cap, 0)
        );
    }

    #[test]
    fn reading_goes_on_from_every_offset_it_gave(bytes in jsonl_like_bytes(), cap in 1_usize..30) {
        let (lines, end) = read(&bytes, 7, cap, 0);
        prop_assert_eq!(end, wide(bytes.len()));
        for (index, (next, _, _)) in lines.iter().enumerate() {
            let offset = usize::try_from(*next).unwrap();
            let (rest, _) = read(&bytes, 7, cap, offset);
            prop_assert_eq!(&rest, &lines[index + 1..]);
        }
    }

    #[test]
    fn nothing_in_an_input_file_panics(bytes in jsonl_like_bytes()) {
        for line in request_lines(bytes.as_slice()) {
            prop_assert!(line.is_ok() || line.is_err());
        }
    }
}
