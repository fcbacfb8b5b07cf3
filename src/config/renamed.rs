//! Configuration keys that have a new name. A file that still has an old name is refused with the new one.

use toml::Table;

/// Section, old key, new key.
const RENAMED: [(&str, &str, &str); 8] = [
    ("openai", "results_patience", "results_timeout"),
    ("batch", "queue_pause", "queue_backoff"),
    ("webhooks", "retries", "retry_delays"),
    ("budgets", "over", "on_exceeded"),
    ("http", "idle", "idle_timeout"),
    ("http", "head_deadline", "header_timeout"),
    ("limits", "body", "max_body"),
    ("alerts", "heartbeat_every", "heartbeat_interval"),
];

/// A sentence for each old key in the configuration, or `None` if there is none.
pub(super) fn find(text: &str) -> Option<String> {
    let table: Table = toml::from_str(text).ok()?;
    let has = |section: &str, key: &str| table.get(section).and_then(|value| value.get(key)).is_some();
    let sentences: Vec<String> = RENAMED
        .iter()
        .filter(|(section, old, _)| has(section, old))
        .map(|(section, old, new)| format!("{section}.{old} is now called {section}.{new}: rename it"))
        .collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn an_old_key_is_refused_with_its_new_name() {
        for (section, old, new) in RENAMED {
            let text = format!("[{section}]\n{old} = \"1s\"\n");
            let error = Config::parse(&text).expect_err("an old key is refused");
            assert_eq!(
                error.to_string(),
                format!("{section}.{old} is now called {section}.{new}: rename it")
            );
        }
    }

    #[test]
    fn every_old_key_is_named_at_once() {
        let text = "[http]\nidle = \"1s\"\n[limits]\nbody = 5\n[steps]\nidle = \"1s\"\n";
        assert_eq!(
            find(text).as_deref(),
            Some(
                "http.idle is now called http.idle_timeout: rename it; \
                 limits.body is now called limits.max_body: rename it"
            )
        );
        assert_eq!(find("[http]\nidle_timeout = \"1s\""), None);
        assert_eq!(find("no TOML"), None);
    }
}
