//! `[alerts]` and `[[alert_receivers]]`: notifications to the operator.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::error::{
    check_header_text, check_longer_than_zero, check_not_empty, check_range, invalid, refuse,
};
use super::units::duration;
use super::{Config, ConfigError, Secret, SecretSource};
use crate::domain::alert::SIGNED_RECEIVER;
use crate::domain::alert_words::Severity;
use crate::domain::signature::Key;

/// The time that OpenAI has for a batch.
const WINDOW: Duration = Duration::from_hours(24);

/// `[alerts]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// The name of this installation in notifications for people.
    pub instance: String,
    /// Where alerts are sent, signed like webhooks. Empty sends none.
    pub webhook_url: String,
    pub(super) webhook_key: Secret,
    pub(super) webhook_key_file: Option<PathBuf>,
    /// The URL that is requested with `GET` while the daemon works. Empty turns the heartbeat off.
    pub heartbeat_url: String,
    /// The time between two heartbeats.
    #[serde(with = "duration")]
    pub heartbeat_interval: Duration,
    /// How long a job may wait, or a finished batch may lie, before an alert reports it.
    #[serde(with = "duration")]
    pub stuck_after: Duration,
    /// The time before the end of OpenAI's window at which a batch that runs is reported. 0: never.
    #[serde(with = "duration")]
    pub expiry_warning: Duration,
    /// The share of failed lines, in percent of the last hour's, above which an alert is opened. 100: never.
    pub failed_lines_percent: u32,
    #[serde(skip)]
    pub(super) loaded: Vec<Key>,
}

impl AlertsConfig {
    /// The keys that alert notifications are signed with: those of `[alerts]`, else those of the client
    /// `default`, else those of the first client.
    pub fn keys(&self) -> &[Key] {
        &self.loaded
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (key, url) in [
            (SIGNED_RECEIVER, &self.webhook_url),
            ("alerts.heartbeat_url", &self.heartbeat_url),
        ] {
            if !url.is_empty() {
                check_scheme(key, url)?;
            }
        }
        check_not_empty("alerts.instance", &self.instance)?;
        check_header_text("alerts.instance", &self.instance)?;
        check_range("alerts.failed_lines_percent", self.failed_lines_percent, 1, 100)?;
        if self.expiry_warning >= WINDOW {
            return refuse(
                "alerts.expiry_warning must be shorter than 24h, the time that OpenAI has for a batch",
            );
        }
        check_longer_than_zero("alerts.heartbeat_interval", self.heartbeat_interval)
    }
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            instance: "batchkeeper".into(),
            webhook_url: String::new(),
            webhook_key: Secret::default(),
            webhook_key_file: None,
            heartbeat_url: String::new(),
            heartbeat_interval: Duration::from_mins(1),
            stuck_after: Duration::from_mins(10),
            expiry_warning: Duration::from_hours(2),
            failed_lines_percent: 20,
            loaded: Vec::new(),
        }
    }
}

/// The form in which a receiver of `[[alert_receivers]]` takes alerts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReceiverKind {
    /// A webhook of Slack, or of a chat that takes the same.
    #[default]
    Slack,
    /// A topic of ntfy.
    Ntfy,
    /// A program on this machine.
    Command,
}

/// `[[alert_receivers]]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ReceiverConfig {
    name: String,
    kind: Option<ReceiverKind>,
    url: Option<SecretSource>,
    token: Option<SecretSource>,
    command: Vec<String>,
    mail_header: bool,
    #[serde(deserialize_with = "severity")]
    least_severity: Option<Severity>,
    #[serde(skip)]
    loaded_url: Secret,
    #[serde(skip)]
    loaded_token: Secret,
}

impl ReceiverConfig {
    /// What of it is secret.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        self.url.iter().chain(&self.token)
    }

    /// How errors name one of its keys.
    fn setting(&self, key: &str) -> String {
        format!("alert_receivers {:?}: {key}", self.name)
    }

    pub(super) fn load_secrets(&mut self) -> Result<(), ConfigError> {
        if let Some(url) = &self.url {
            self.loaded_url = url.load(&self.setting("url"))?;
            check_scheme(&self.setting("url"), self.loaded_url.reveal())?;
        }
        if let Some(token) = &self.token {
            self.loaded_token = token.load(&self.setting("token"))?;
            check_header_text(&self.setting("token"), self.loaded_token.reveal())?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if self.name.is_empty() || self.name.len() > 40 || !self.name.chars().all(is_name) {
            return refuse(format!(
                "alert_receivers.name = {:?}: write 1 to 40 letters, digits, - or _",
                self.name
            ));
        }
        let Some(kind) = self.kind else {
            return refuse(format!(
                "{} is missing: write \"slack\", \"ntfy\" or \"command\"",
                self.setting("kind")
            ));
        };
        let is_command = kind == ReceiverKind::Command;
        for (key, is_set, is_wanted) in [
            ("url", self.url.is_some(), !is_command),
            ("command", !self.command.is_empty(), is_command),
        ] {
            match (is_set, is_wanted) {
                (false, true) => return refuse(format!("{} is missing", self.setting(key))),
                (true, false) => return self.refuse_key(key, kind),
                _ => {}
            }
        }
        if self.token.is_some() && kind != ReceiverKind::Ntfy {
            return self.refuse_key("token", kind);
        }
        if self.mail_header && !is_command {
            return self.refuse_key("mail_header", kind);
        }
        match self.command.first() {
            Some(program) if !program.starts_with('/') => refuse(format!(
                "{} begins with {program:?}: write the program's whole path; it gets no PATH",
                self.setting("command")
            )),
            _ => Ok(()),
        }
    }

    fn refuse_key(&self, key: &str, kind: ReceiverKind) -> Result<(), ConfigError> {
        let kind = format!("{kind:?}").to_lowercase();
        refuse(format!(
            "{} has no meaning for kind = {kind:?}",
            self.setting(key)
        ))
    }

    fn receiver(&self) -> AlertReceiver {
        let url = self.loaded_url.clone();
        AlertReceiver {
            name: self.name.clone(),
            least_severity: self.least_severity.unwrap_or(Severity::Notice),
            channel: match self.kind.unwrap_or_default() {
                ReceiverKind::Slack => AlertChannel::Slack { url },
                ReceiverKind::Ntfy => AlertChannel::Ntfy {
                    url,
                    token: self.loaded_token.clone(),
                },
                ReceiverKind::Command => AlertChannel::Command {
                    command: self.command.clone(),
                    mail_header: self.mail_header,
                },
            },
        }
    }
}

/// Checks the receivers, and that their names differ.
pub(super) fn check_receivers(receivers: &[ReceiverConfig]) -> Result<(), ConfigError> {
    let mut names = HashSet::new();
    for receiver in receivers {
        receiver.check()?;
        if !names.insert(&receiver.name) {
            return refuse(format!(
                "alert_receivers.name = {:?} is there twice",
                receiver.name
            ));
        }
    }
    Ok(())
}

/// Refuses a URL that is not HTTP. The URL may be a secret, so the message does not show it.
fn check_scheme(key: &str, url: &str) -> Result<(), ConfigError> {
    match url.starts_with("https://") || url.starts_with("http://") {
        true => Ok(()),
        false => refuse(format!("{key} does not begin with https:// or http://")),
    }
}

fn severity<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Severity>, D::Error> {
    let text = String::deserialize(from)?;
    let severity = text.parse();
    severity
        .map(Some)
        .map_err(|_| invalid(text, "severity; write \"notice\", \"warning\" or \"critical\""))
}

/// How a receiver takes alerts.
#[derive(Clone, Debug)]
pub enum AlertChannel {
    /// JSON by POST to `alerts.webhook_url`, signed like webhooks; one alert each.
    Signed {
        /// The URL.
        url: Secret,
    },
    /// A webhook of Slack, or of a chat that takes the same.
    Slack {
        /// The URL.
        url: Secret,
    },
    /// A topic of ntfy.
    Ntfy {
        /// The URL of the topic.
        url: Secret,
        /// The access token. Empty sends none.
        token: Secret,
    },
    /// A program on this machine. It gets the text on its standard input.
    Command {
        /// The program and its arguments.
        command: Vec<String>,
        /// Whether the text begins with the header fields of a mail.
        mail_header: bool,
    },
}

impl AlertChannel {
    /// The URL that is called; `None` if a program is run.
    pub fn url(&self) -> Option<&str> {
        match self {
            Self::Signed { url } | Self::Slack { url } | Self::Ntfy { url, .. } => Some(url.reveal()),
            Self::Command { .. } => None,
        }
    }

    /// The program that is run; `None` if a URL is called.
    pub fn program(&self) -> Option<&Path> {
        match self {
            Self::Command { command, .. } => command.first().map(Path::new),
            _ => None,
        }
    }
}

/// A receiver of alerts.
#[derive(Clone, Debug)]
pub struct AlertReceiver {
    /// Its name in the database, in alerts and in the log.
    pub name: String,
    /// Alerts of a lower severity are not sent to it.
    pub least_severity: Severity,
    /// How it takes alerts.
    pub channel: AlertChannel,
}

impl Config {
    /// A sentence for each program of a receiver that the service cannot run.
    pub fn unusable_alert_programs(&self) -> Vec<String> {
        let receivers = self.alert_receivers();
        let problem = |receiver: &AlertReceiver| {
            let program = receiver.channel.program()?;
            let problem = program_problem(program)?;
            let (name, program) = (&receiver.name, program.display());
            Some(format!("alert_receivers {name:?}: command: {program} {problem}"))
        };
        receivers.iter().filter_map(problem).collect()
    }

    /// Every receiver of alerts: the one of `alerts.webhook_url` first.
    pub fn alert_receivers(&self) -> Vec<AlertReceiver> {
        let signed = (!self.alerts.webhook_url.is_empty()).then(|| AlertReceiver {
            name: SIGNED_RECEIVER.to_owned(),
            least_severity: Severity::Notice,
            channel: AlertChannel::Signed {
                url: Secret::new(&self.alerts.webhook_url),
            },
        });
        let others = self.alert_receivers.iter().map(ReceiverConfig::receiver);
        signed.into_iter().chain(others).collect()
    }
}

/// Why a program cannot be run; `None` if it can.
fn program_problem(program: &Path) -> Option<String> {
    let file = match fs::metadata(program) {
        Ok(file) => file,
        Err(error) => return Some(format!("cannot be run: {error}")),
    };
    match file.permissions().mode() {
        _ if !file.is_file() => Some("is no file".into()),
        mode if mode & 0o111 == 0 => Some("is not executable".into()),
        mode if mode & 0o6000 != 0 => Some(
            "takes rights of its own when it starts (setuid or setgid), which the service's unit forbids; take \
             another program, such as msmtp"
                .into(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{LEAST, complaint};

    fn receivers(text: &str) -> String {
        format!("{LEAST}[[alert_receivers]]\n{text}\n")
    }

    #[test]
    fn receivers_are_read_with_their_secrets() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "https://ntfy.example/T0PIC\n").expect("written");
        let text = format!(
            "{LEAST}[alerts]\nwebhook_url = \"https://alerts.example/\"\n\
             [[alert_receivers]]\nname = \"chat\"\nkind = \"slack\"\nurl = \"https://hooks.example/S3CRET\"\n\
             [[alert_receivers]]\nname = \"phone\"\nkind = \"ntfy\"\nurl = {{ file = {:?} }}\ntoken = \"tk_T0KEN\"\n\
             least_severity = \"critical\"\n\
             [[alert_receivers]]\nname = \"mail\"\nkind = \"command\"\ncommand = [\"/bin/cat\"]\n",
            file.path()
        );
        let config = Config::parse(&text).expect("valid");
        let found = config.alert_receivers();
        let shown: Vec<(&str, Severity, Option<&str>)> = found
            .iter()
            .map(|it| (it.name.as_str(), it.least_severity, it.channel.url()))
            .collect();
        assert_eq!(
            shown,
            [
                (SIGNED_RECEIVER, Severity::Notice, Some("https://alerts.example/")),
                ("chat", Severity::Notice, Some("https://hooks.example/S3CRET")),
                ("phone", Severity::Critical, Some("https://ntfy.example/T0PIC")),
                ("mail", Severity::Notice, None),
            ]
        );
        let shown = format!(
            "{config:?} {found:?} {:?}",
            Config::show(&text, &[]).expect("valid")
        );
        for secret in ["S3CRET", "T0PIC", "T0KEN"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn a_program_that_cannot_be_run_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        for (mode, said) in [
            (0o755, None),
            (0o644, Some("is not executable")),
            (0o2755, Some("setgid")),
            (0o4755, Some("setgid")),
        ] {
            let path = folder.path().join(format!("{mode:o}"));
            fs::write(&path, "").expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            let text = receivers(&format!("name = \"a\"\nkind = \"command\"\ncommand = [{path:?}]"));
            let problems = Config::parse(&text).expect("valid").unusable_alert_programs();
            match said {
                None => assert_eq!(problems, [""; 0]),
                Some(said) => assert!(problems[0].contains(said), "{problems:?}"),
            }
        }
        let text = receivers("name = \"a\"\nkind = \"command\"\ncommand = [\"/nonexistent/x\"]");
        let problems = Config::parse(&text).expect("valid").unusable_alert_programs();
        assert!(
            problems[0].contains("/nonexistent/x cannot be run"),
            "{problems:?}"
        );
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_not() {
        for (text, said) in [
            (
                "kind = \"slack\"\nurl = \"https://a/S3CRET\"",
                "alert_receivers.name = \"\"",
            ),
            (
                "name = \"a b\"\nkind = \"slack\"\nurl = \"https://a/S3CRET\"",
                "\"a b\"",
            ),
            (
                "name = \"a\"\nurl = \"https://a/S3CRET\"",
                "\"a\": kind is missing",
            ),
            ("name = \"a\"\nkind = \"slack\"", "\"a\": url is missing"),
            (
                "name = \"a\"\nkind = \"slack\"\nurl = \"ftp://S3CRET\"",
                "\"a\": url does not begin with",
            ),
            (
                "name = \"a\"\nkind = \"slack\"\nurl = \"https://a/\"\ntoken = \"S3CRET\"",
                "token has no meaning",
            ),
            (
                "name = \"a\"\nkind = \"ntfy\"\nurl = \"https://a/\"\ntoken = \"S3CRET\\n1\"",
                "token has U+000A",
            ),
            ("name = \"a\"\nkind = \"command\"", "\"a\": command is missing"),
            (
                "name = \"a\"\nkind = \"command\"\ncommand = [\"msmtp\"]",
                "whole path",
            ),
            (
                "name = \"a\"\nkind = \"command\"\ncommand = [\"/bin/cat\"]\nurl = \"https://S3CRET/\"",
                "url has no meaning for kind = \"command\"",
            ),
            (
                "name = \"a\"\nkind = \"slack\"\nurl = \"https://a/\"\nleast_severity = \"dire\"",
                "\"dire\" is no severity",
            ),
            (
                "name = \"a\"\nkind = \"slack\"\nulr = \"https://a/S3CRET\"",
                "unknown field `ulr`",
            ),
            (
                "name = \"a\"\nkind = \"slack\"\nurl = { fiel = \"S3CRET\" }",
                "url",
            ),
            (
                "name = \"a\"\nkind = \"slack\"\nurl = \"https://a/S3CRET",
                "line 7, column 24 (url)",
            ),
            (
                "name = \"a\"\nkind = \"command\"\ncommand = \"/bin/S3CRET\"",
                "command",
            ),
        ] {
            let error = complaint(&receivers(text));
            assert!(error.contains(said), "{text}: {error}");
            assert!(!error.contains("S3CRET"), "{text}: {error}");
        }
        let one = "name = \"a\"\nkind = \"command\"\ncommand = [\"/bin/cat\"]\n[[alert_receivers]]\n";
        let twice = receivers(&format!("{one}{}", one.trim_end_matches("[[alert_receivers]]\n")));
        assert!(complaint(&twice).contains("\"a\" is there twice"));
        let scheme = format!("{LEAST}[alerts]\nwebhook_url = \"hooks.example/S3CRET\"\n");
        assert!(!complaint(&scheme).contains("S3CRET"));
    }
}
