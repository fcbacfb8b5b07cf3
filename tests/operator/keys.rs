//! Keys as files really hold them: with a byte order mark, or with a character that no key has.

use std::fs;

use batchkeeper::domain::signature::{Key, Message, sign};
use serde_json::json;

use crate::appliance::{Appliance, submission};

/// The key that the files of these tests hold, with or without something odd.
const FILED: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// Each configuration key that names a file with a key, with a configuration around it.
const KEY_FILES: [(&str, &str); 5] = [
    ("openai.api_key_file", "[openai]\napi_key_file = FILE"),
    (
        "key_files",
        "clients = [{name = \"default\", key_files = [FILE]}]",
    ),
    (
        "webhook_key_file",
        "clients = [{name = \"default\", keys = [\"0123456789abcdef\"], webhook_key_file = FILE}]",
    ),
    ("alerts.webhook_key_file", "[alerts]\nwebhook_key_file = FILE"),
    ("ops_token_file", "ops_token_file = FILE"),
];

/// Checks that `check-config` and `serve` refuse, name each of `named`, and show no part of the key.
fn refused(appliance: &Appliance, named: &[&str]) {
    for command in ["check-config", "serve"] {
        let ran = appliance.run(&[command]);
        assert_eq!(ran.status, 1, "{named:?}: {command}: {}", ran.out);
        for named in named {
            assert!(ran.err.contains(named), "{named}: {command}: {}", ran.err);
        }
        assert!(!ran.err.contains(&FILED[..8]), "{}", ran.err);
        assert!(!ran.err.contains(&FILED[24..]), "{}", ran.err);
    }
}

#[test]
fn what_no_key_has_is_refused_with_its_place() {
    let appliance = Appliance::without_daemon("");
    let path = appliance.path("odd.key");
    let shown = path.display().to_string();
    let (front, back) = FILED.split_at(16);
    let odd: [(&str, Vec<u8>, &str); 12] = [
        (
            "a zero-width space",
            format!("{front}\u{200b}{back}\n").into(),
            "line 1, column 17: U+200B",
        ),
        (
            "a Cyrillic letter",
            format!("{front}\u{430}{back}").into(),
            "line 1, column 17: U+0430",
        ),
        (
            "a quote before",
            format!("\"{FILED}\n").into(),
            "line 1, column 1: U+0022",
        ),
        (
            "a quote behind",
            format!("{FILED}'\r\n").into(),
            "line 1, column 33: U+0027",
        ),
        (
            "a curly quote",
            format!("\u{201c}{FILED}").into(),
            "line 1, column 1: U+201C",
        ),
        (
            "a second byte order mark",
            format!("\u{feff}\u{feff}{FILED}").into(),
            "line 1, column 1: U+FEFF",
        ),
        (
            "a second line",
            format!("\n{FILED}\n{FILED}\n").into(),
            "line 2, column 33: U+000A",
        ),
        ("a NUL", format!("{FILED}\0").into(), "line 1, column 33: U+0000"),
        (
            "a tab",
            format!("{front}\t{back}").into(),
            "line 1, column 17: U+0009",
        ),
        (
            "a no-break space",
            format!("{front}\u{a0}{back}").into(),
            "line 1, column 17: U+00A0",
        ),
        (
            "Latin-1",
            [front.as_bytes(), b"\xe9", back.as_bytes()].concat(),
            "byte 17 is not UTF-8",
        ),
        (
            "UTF-16",
            [0xfeff]
                .into_iter()
                .chain(FILED.encode_utf16())
                .flat_map(u16::to_le_bytes)
                .collect(),
            "byte 1 is not UTF-8",
        ),
    ];
    for (setting, config) in KEY_FILES {
        appliance.configure(&config.replace("FILE", &format!("{shown:?}")));
        for (what, bytes, place) in &odd {
            eprintln!("{setting} with {what}");
            fs::write(&path, bytes).unwrap();
            refused(&appliance, &[setting, &shown, place]);
        }
        // An empty file is refused, too, with its path.
        for bytes in ["", "\u{feff}", " \n"] {
            fs::write(&path, bytes).unwrap();
            refused(&appliance, &[setting, &shown]);
        }
    }
}

#[test]
fn a_key_that_cannot_go_to_openai_is_refused_wherever_it_comes_from() {
    let appliance = Appliance::without_daemon("");
    let path = appliance.path("openai.key");
    let (front, back) = FILED.split_at(16);
    for (text, place) in [
        (format!("Bearer {FILED}"), "line 1, column 7: U+0020"),
        (format!("{front}\"{back}"), "line 1, column 17: U+0022"),
        (format!("OPENAI_API_KEY={FILED}"), "OPENAI_API_KEY="),
    ] {
        fs::write(&path, &text).unwrap();
        refused(
            &appliance,
            &["openai.api_key_file", path.to_str().unwrap(), place],
        );
    }
    fs::write(&path, "sk-sandbox").unwrap();
    for (setting, place) in [
        ("[openai]\norganization = \"org-\u{430}\"", "openai.organization"),
        ("[openai]\nproject = \"proj\u{200b}\"", "openai.project"),
        (
            "[webhooks]\nsignature_prefix = \"sha256\u{200b}=\"",
            "webhooks.signature_prefix",
        ),
        (
            "clients = [{name = \"a\", keys = [\"0123456789abcdef\"], signature_prefix = \"a\\nb\"}]",
            "signature_prefix",
        ),
        (
            "clients = [{name = \"a\", keys = [\"0123456789\u{430}bcdef\"]}]",
            "column 11: U+0430",
        ),
        (
            "[alerts]\nwebhook_key = \"0123456789\u{feff}abcdef\"",
            "column 11: U+FEFF",
        ),
    ] {
        appliance.configure(setting);
        refused(&appliance, &[place]);
    }
}

/// Editors of Windows write a byte order mark. It is no part of the key.
#[test]
fn a_byte_order_mark_is_no_part_of_a_key() {
    let mut appliance = Appliance::without_daemon("");
    for (name, key) in [("openai", "sk-sandbox"), ("client", FILED)] {
        fs::write(
            appliance.path(&format!("{name}.key")),
            format!("\u{feff}{key}\r\n"),
        )
        .unwrap();
    }
    appliance.configure(&format!(
        "clients = [{{name = \"default\", key_files = [{:?}]}}]",
        appliance.path("client.key")
    ));
    // The configuration may begin with one, too.
    let config = fs::read_to_string(appliance.config()).unwrap();
    fs::write(appliance.config(), format!("\u{feff}{config}")).unwrap();
    appliance.start_daemon();
    let mut body = submission(&appliance.lots(1), &["en"]);
    body["webhook_url"] = json!(appliance.hook("bom"));
    let body = body.to_string();
    let signed = |bytes: &[u8]| sign(&Key::new(FILED).unwrap(), Message::Bytes(bytes));
    let answer = appliance.post(&[("X-Signature", &signed(body.as_bytes()))], body.as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.json());
    let delivered = appliance.delivered("bom", 1);
    let headers = json!(delivered[0]["headers"]).to_string();
    let told = delivered[0]["body"].as_str().unwrap();
    assert!(told.contains("batch_job_completed"), "{told}");
    assert!(headers.contains(&signed(told.as_bytes())), "{headers}");
}
