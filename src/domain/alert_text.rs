//! Notifications of alerts for people: a title, a text, and their forms for chats, phones and programs.
//!
//! Subjects and messages hold text from outside: hosts, errors of servers, ids. In no form can it become a mention,
//! markup or another header field.

use std::collections::BTreeMap;

use serde_json::json;

use super::alert::{AlertChange, AlertKind};
use super::alert_words::Severity;
use crate::base::clock::Timestamp;
use crate::base::escape::escape_controls;

/// The most alerts that a text tells in full. The others are counted.
const MOST_IN_FULL: usize = 5;
/// The most bytes of one alert's message.
const MOST_MESSAGE_BYTES: usize = 600;
/// The most bytes of a text: ntfy makes a file of a message above 4,096.
const MOST_BYTES: usize = 3_900;

/// An alert that opened or closed.
#[derive(Clone, Debug)]
pub struct ChangedAlert<'a> {
    /// What happened to it.
    pub change: AlertChange,
    /// The kind of the problem.
    pub kind: AlertKind,
    /// The affected thing.
    pub subject: String,
    /// The problem, and the command that fixes it.
    pub message: &'a str,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When it was closed; `None` while it is open.
    pub closed_at: Option<Timestamp>,
}

/// A notification for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertText {
    /// The instance, and what happened, in a line of ASCII.
    pub title: String,
    /// What it means and what to do.
    pub body: String,
    /// The highest severity among the alerts that opened; `None` if all of them closed.
    pub severity: Option<Severity>,
}

impl AlertText {
    /// The text about alerts that changed. `instance` is the name of this installation.
    pub fn of(instance: &str, alerts: &[ChangedAlert<'_>]) -> Self {
        let mut sorted: Vec<&ChangedAlert<'_>> = alerts.iter().collect();
        sorted.sort_by_key(|alert| (alert.change, std::cmp::Reverse(alert.kind.severity())));
        let opened = sorted.iter().filter(|alert| alert.change == AlertChange::Opened);
        let severity = opened.map(|alert| alert.kind.severity()).max();
        let title = match sorted.as_slice() {
            [alert] => format!("{}: {}", alert.state(), alert.kind.title()),
            many => sum_up(many, severity),
        };
        let mut parts: Vec<String> = sorted
            .iter()
            .take(MOST_IN_FULL)
            .map(|alert| alert.in_full(sorted.len() > 1))
            .collect();
        parts.extend(count_others(sorted.get(MOST_IN_FULL..).unwrap_or_default()));
        Self {
            title: in_ascii(&format!("[{instance}] {title}")),
            body: cut(&parts.join("\n\n"), MOST_BYTES),
            severity,
        }
    }

    /// The text of a test.
    pub fn test(instance: &str) -> Self {
        Self {
            title: in_ascii(&format!("[{instance}] test: alerts reach this receiver")),
            body: "This is a test by batchkeeper alerts test. Nothing is wrong, and nothing has to be done."
                .into(),
            severity: Some(Severity::Notice),
        }
    }

    /// The body of a POST to a webhook of Slack, or of a chat that takes the same (Mattermost, Rocket.Chat).
    ///
    /// The text stands in a block of code: there, no chat reads links, images or emphasis. Slack reads `<!channel>`
    /// everywhere, so its three control characters are escaped; Mattermost may read `@channel`.
    pub fn to_slack(&self) -> Vec<u8> {
        let escaped = |text: &str| {
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            text.replace('>', "&gt;")
                .replace('`', "'")
                .replace('@', "@\u{200b}")
        };
        let text = format!("*{}*\n```\n{}\n```", escaped(&self.title), escaped(&self.body));
        json!({"text": text, "link_names": false, "parse": "none", "unfurl_links": false})
            .to_string()
            .into_bytes()
    }

    /// The header fields of a POST to a topic of ntfy. The body is [`Self::body`].
    pub fn ntfy_headers(&self) -> Vec<(&'static str, String)> {
        let (priority, tag) = match self.severity {
            Some(Severity::Critical) => ("urgent", "rotating_light"),
            Some(Severity::Warning) => ("high", "warning"),
            Some(Severity::Notice) => ("default", "information_source"),
            None => ("low", "white_check_mark"),
        };
        vec![
            ("Content-Type", "text/plain; charset=utf-8".to_owned()),
            ("Title", self.title.clone()),
            ("Priority", priority.to_owned()),
            ("Tags", tag.to_owned()),
        ]
    }

    /// The text on a program's standard input. `mail_header`: with the fields of a mail in front, the title as its
    /// subject.
    pub fn to_program(&self, mail_header: bool) -> Vec<u8> {
        let Self { title, body, .. } = self;
        let text = match mail_header {
            true => format!(
                "Subject: {title}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
                 Content-Transfer-Encoding: 8bit\n\n{body}\n"
            ),
            false => format!("{title}\n\n{body}\n"),
        };
        text.into_bytes()
    }
}

impl ChangedAlert<'_> {
    /// The severity of an alert that opened, or that it closed.
    fn state(&self) -> &'static str {
        match self.change {
            AlertChange::Opened => self.kind.severity().as_str(),
            AlertChange::Closed => "closed",
        }
    }

    /// Everything that is known of it. `with_title`: it stands among others.
    fn in_full(&self, with_title: bool) -> String {
        let title = match with_title {
            true => format!("{}: {}\n", self.state(), self.kind.title()),
            false => String::new(),
        };
        let subject = escape_controls(&self.subject);
        let opened = self.opened_at.to_seconds_text();
        match (self.change, self.closed_at) {
            (AlertChange::Closed, Some(at)) => format!(
                "{title}About: {subject}\nIts cause is gone. Opened at {opened}, closed at {}.",
                at.to_seconds_text()
            ),
            (AlertChange::Closed, None) => format!("{title}About: {subject}\nIts cause is gone."),
            (AlertChange::Opened, _) => format!(
                "{title}About: {subject}\n{}\nOpened at {opened}.",
                cut(&escape_controls(self.message), MOST_MESSAGE_BYTES)
            ),
        }
    }
}

fn sum_up(alerts: &[&ChangedAlert<'_>], severity: Option<Severity>) -> String {
    let of = |change| alerts.iter().filter(|alert| alert.change == change).count();
    let alerts = |number| match number {
        1 => "1 alert".to_owned(),
        number => format!("{number} alerts"),
    };
    match (of(AlertChange::Opened), of(AlertChange::Closed), severity) {
        (0, closed, _) => format!("{} closed", alerts(closed)),
        (opened, 0, Some(severity)) => format!("{severity}: {} opened", alerts(opened)),
        (opened, closed, severity) => {
            let severity = severity.map_or("", Severity::as_str);
            format!("{severity}: {} opened, {closed} closed", alerts(opened))
        }
    }
}

/// The numbers of the alerts that are not told in full, by kind.
fn count_others(others: &[&ChangedAlert<'_>]) -> Option<String> {
    if others.is_empty() {
        return None;
    }
    let mut kinds: BTreeMap<(AlertChange, AlertKind), usize> = BTreeMap::new();
    for alert in others {
        *kinds.entry((alert.change, alert.kind)).or_default() += 1;
    }
    let counts: Vec<String> = kinds
        .iter()
        .map(|((change, kind), number)| format!("{number} of {kind} {change}"))
        .collect();
    Some(format!(
        "And {} more: {}. All of them: batchkeeper alerts",
        others.len(),
        counts.join(", ")
    ))
}

/// A line of printable ASCII, as header fields need it.
fn in_ascii(text: &str) -> String {
    let line = text.chars();
    line.map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .collect()
}

/// At most `most` bytes of a text; an ellipsis stands for the rest.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most - '…'.len_utf8());
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(
        change: AlertChange,
        kind: AlertKind,
        subject: &str,
        message: &'static str,
    ) -> ChangedAlert<'static> {
        ChangedAlert {
            change,
            kind,
            subject: subject.into(),
            message,
            opened_at: Timestamp::from_seconds(1_795_400_000),
            closed_at: (change == AlertChange::Closed).then(|| Timestamp::from_seconds(1_795_403_600)),
        }
    }

    const DISK: &str = "1 GB is free; see: batchkeeper alerts";

    #[test]
    fn one_alert_is_told_with_its_severity_subject_remedy_and_instance() {
        use AlertChange::{Closed, Opened};
        for (change, title, body, severity) in [
            (
                Opened,
                "[shop] critical: The disk is almost full",
                "About: disk\n1 GB is free; see: batchkeeper alerts\nOpened at 2026-11-23T02:13:20Z.",
                Some(Severity::Critical),
            ),
            (
                Closed,
                "[shop] closed: The disk is almost full",
                "About: disk\nIts cause is gone. Opened at 2026-11-23T02:13:20Z, closed at 2026-11-23T03:13:20Z.",
                None,
            ),
        ] {
            let text = AlertText::of("shop", &[alert(change, AlertKind::DiskLow, "disk", DISK)]);
            let expected = AlertText {
                title: title.into(),
                body: body.into(),
                severity,
            };
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn many_alerts_are_summed_up_the_most_urgent_first() {
        use AlertChange::{Closed, Opened};
        let mut alerts: Vec<ChangedAlert<'_>> = (0..7)
            .map(|at| alert(Opened, AlertKind::WebhookFailed, &format!("delivery:{at}"), DISK))
            .collect();
        alerts.push(alert(Closed, AlertKind::DiskLow, "disk", DISK));
        alerts.push(alert(Opened, AlertKind::BatchGone, "batch:1", DISK));
        let text = AlertText::of("shop", &alerts);
        assert_eq!(text.title, "[shop] critical: 8 alerts opened, 1 closed");
        assert!(
            text.body
                .starts_with("critical: OpenAI no longer knows a batch\nAbout: batch:1\n"),
            "{}",
            text.body
        );
        let end =
            "And 4 more: 3 of webhook_failed opened, 1 of disk_low closed. All of them: batchkeeper alerts";
        assert!(text.body.ends_with(end), "{}", text.body);
        for (changes, title) in [
            (vec![Closed, Closed], "[shop] 2 alerts closed"),
            (vec![Opened, Opened], "[shop] warning: 2 alerts opened"),
            (vec![Opened, Closed], "[shop] warning: 1 alert opened, 1 closed"),
        ] {
            let alerts: Vec<_> = changes
                .into_iter()
                .map(|change| alert(change, AlertKind::WebhookFailed, "delivery:1", DISK))
                .collect();
            assert_eq!(AlertText::of("shop", &alerts).title, title);
        }
    }

    #[test]
    fn hostile_text_stays_text_in_every_form() {
        let hostile = "<!channel> @here ``` ![x](http://evil) &amp;\r\nX-Evil: 1\n\u{202e}\u{0} see: batchkeeper alerts";
        let subject = "a\r\nPriority: min\n<https://evil|click>";
        let text = AlertText::of(
            "sh\r\nX-Evil: 1\u{e9}",
            &[alert(
                AlertChange::Opened,
                AlertKind::WebhookReceiver,
                subject,
                hostile,
            )],
        );
        assert_eq!(
            text.title,
            "[sh??X-Evil: 1?] warning: A receiver takes no webhook"
        );
        for (name, value) in text.ntfy_headers() {
            assert!(
                value.bytes().all(|b| b.is_ascii_graphic() || b == b' '),
                "{name}: {value:?}"
            );
        }
        assert_eq!(text.body.lines().count(), 3, "{}", text.body);
        let slack: serde_json::Value = serde_json::from_slice(&text.to_slack()).expect("JSON");
        let shown = slack["text"].as_str().expect("a text");
        assert!(!shown.contains(['<', '>']) && !shown.contains("@here"), "{shown}");
        assert_eq!(shown.matches('`').count(), 6, "{shown}");
        let mail = String::from_utf8(text.to_program(true)).expect("UTF-8");
        let (head, body) = mail.split_once("\n\n").expect("a header");
        assert_eq!(head.lines().count(), 4, "{head}");
        assert_eq!(body, format!("{}\n", text.body));
    }

    #[test]
    fn a_text_has_a_limit() {
        let long = "é".repeat(9_000);
        let mut alerts = vec![alert(AlertChange::Opened, AlertKind::DiskLow, &long, DISK); 9];
        alerts[0].message = "x";
        let text = AlertText::of("shop", &alerts);
        assert!(
            text.body.len() <= MOST_BYTES && text.body.ends_with('…'),
            "{}",
            text.body.len()
        );
    }
}
