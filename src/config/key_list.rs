//! Every key of the configuration: the keys whose values may be shown, and those whose values are secrets. A key that is
//! in neither list is not shown; a test finds it.

/// The keys of each section whose values may be shown. The first section is the top.
pub(super) const SHOWN: [(&str, &[&str]); 19] = [
    (
        "",
        &[
            "listen",
            "ops_listen",
            "ops_hosts",
            "ops_token_file",
            "ops_read_token_file",
            "ops_read_texts",
            "ops_actions",
            "database",
            "log",
            "log_format",
            "legacy_unsigned_reads",
        ],
    ),
    (
        "clients",
        &[
            "name",
            "key_files",
            "legacy",
            "signature_prefix",
            "webhook_key_file",
            "webhook_hosts",
            "budget",
        ],
    ),
    (
        "openai",
        &[
            "base_url",
            "api_key_file",
            "ca_file",
            "organization",
            "project",
            "allow_plain_http",
            "trust_date",
            "endpoint",
            "batch_listing",
            "token_limit",
            "poll_interval",
            "settling_time",
            "create_timeout",
            "retry_interval",
            "results_timeout",
            "size_check_interval",
        ],
    ),
    (
        "vision",
        &[
            "model",
            "prompt",
            "detail",
            "max_output_tokens",
            "reasoning_effort",
        ],
    ),
    (
        "translation",
        &["model", "prompt", "max_output_tokens", "reasoning_effort"],
    ),
    (
        "batch",
        &[
            "max_wait",
            "max_requests",
            "max_bytes",
            "max_active",
            "max_attempts",
            "retry_period",
            "transient_timeout",
            "queue_backoff",
        ],
    ),
    ("images", &["check", "concurrency", "max_per_lot"]),
    (
        "synchronous",
        &["enabled", "timeout", "concurrency", "per_client", "max_images"],
    ),
    (
        "webhooks",
        &[
            "retry_delays",
            "timeout",
            "concurrency",
            "signature_prefix",
            "max_body",
        ],
    ),
    ("network", &["allow_private", "ca_file"]),
    (
        "http",
        &[
            "trusted_proxies",
            "connections",
            "connections_per_peer",
            "requests_per_connection",
            "head_bytes",
            "headers",
            "header_timeout",
            "idle_timeout",
            "body_stall",
            "write_stall",
            "body_memory",
            "workers",
            "downloads",
        ],
    ),
    (
        "limits",
        &[
            "submit",
            "synchronous",
            "read",
            "lots_per_day",
            "dedupe_window",
            "languages",
            "max_body",
            "disk_reserve",
        ],
    ),
    ("retention", &["results", "remote_files"]),
    ("prices", &["model", "since", "batch", "synchronous", "provider"]),
    ("budgets", &["total", "on_exceeded", "show_costs"]),
    ("backup", &["dir", "keep", "late_after"]),
    (
        "alerts",
        &[
            "instance",
            "webhook_key_file",
            "heartbeat_interval",
            "stuck_after",
            "expiry_warning",
            "failed_lines_percent",
        ],
    ),
    (
        "alert_receivers",
        &["name", "kind", "mail_header", "least_severity"],
    ),
    ("steps", &["idle", "audit", "reconcile"]),
];

/// The keys of each section whose values are secrets. URLs of webhooks and heartbeats often hold a token, and so may
/// the arguments of a program.
#[cfg(test)]
const SECRET: [(&str, &[&str]); 4] = [
    ("clients", &["keys", "webhook_key"]),
    ("openai", &["headers"]),
    ("alerts", &["webhook_url", "webhook_key", "heartbeat_url"]),
    ("alert_receivers", &["url", "token", "command"]),
];

/// The keys without a default value, and what is in force while they are not set.
pub(super) const UNSET: [(&str, &str, &str); 9] = [
    ("", "ops_token_file", "the operators' pages need no token"),
    ("", "ops_read_token_file", "there is no token that may only read"),
    ("openai", "api_key_file", "OPENAI_API_KEY of the environment"),
    ("openai", "ca_file", "the public certificate authorities"),
    ("openai", "headers", "no more header fields"),
    ("network", "ca_file", "the public certificate authorities"),
    ("budgets", "total", "no limit"),
    ("alerts", "webhook_key", "webhook_key_file, or a client's keys"),
    ("alerts", "webhook_key_file", "webhook_key, or a client's keys"),
];

/// Whether the value of a key may be shown. The section is empty for a key at the top.
pub(super) fn may_show(section: &str, key: &str) -> bool {
    SHOWN
        .iter()
        .any(|(of, keys)| *of == section && keys.contains(&key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::tests::{LEAST, complaint};

    /// The sections that are lists of tables.
    const LISTS: [&str; 3] = ["alert_receivers", "clients", "prices"];

    /// The keys of a section, by what the program expects in place of an unknown one.
    fn keys_of(section: &str) -> BTreeSet<String> {
        let error = complaint(&match section {
            "" => format!("no_such_key = 1\n{LEAST}"),
            list if LISTS.contains(&list) => format!("{LEAST}[[{list}]]\nno_such_key = 1\n"),
            section => format!("{LEAST}[{section}]\nno_such_key = 1\n"),
        });
        let (_, expected) = error.split_once("expected").unwrap_or_else(|| panic!("{error}"));
        expected
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn each_key_is_shown_or_secret() {
        let sections: BTreeSet<&str> = SHOWN.iter().map(|(section, _)| *section).collect();
        for section in &sections {
            let named = |list: &[(&str, &[&str])]| {
                let keys = list.iter().filter(|(of, _)| of == section);
                keys.flat_map(|(_, keys)| keys.iter().map(|key| (*key).to_owned()))
                    .collect::<BTreeSet<_>>()
            };
            let (shown, secret) = (named(&SHOWN), named(&SECRET));
            assert_eq!(shown.intersection(&secret).count(), 0, "[{section}]");
            let listed: BTreeSet<String> = shown.union(&secret).cloned().collect();
            let mut keys = keys_of(section);
            match *section {
                "" => keys.retain(|key| !sections.contains(key.as_str())),
                // The form of requests is stored with the parameters of a stage, and comes from [openai].
                "vision" | "translation" => keys.retain(|key| key != "endpoint" && key != "token_limit"),
                _ => {}
            }
            assert_eq!(keys, listed, "[{section}]");
        }
    }

    #[test]
    fn each_key_without_a_default_says_what_is_in_force() {
        let example: toml::Table = toml::from_str(include_str!("../../config.example.toml")).expect("TOML");
        let mut without = BTreeSet::new();
        for (section, keys) in SHOWN
            .iter()
            .chain(&SECRET)
            .filter(|(section, _)| !LISTS.contains(section))
        {
            let table = match *section {
                "" => Some(&example),
                section => example.get(section).and_then(toml::Value::as_table),
            };
            let keys = keys
                .iter()
                .filter(|key| table.is_none_or(|table| !table.contains_key(**key)));
            without.extend(keys.map(|key| (*section, *key)));
        }
        let listed: BTreeSet<_> = UNSET.iter().map(|(section, key, _)| (*section, *key)).collect();
        assert_eq!(without, listed);
    }
}
