//! Alerts in words: how urgent each kind is, its title, and the commands in its message.

use super::alert::AlertKind;
use crate::base::text_enum::text_enum;

text_enum! {
    /// How urgent an alert is. Its word stands on pages, in notifications and in the configuration.
    Severity {
        /// Nothing stops; a person should know.
        Notice = "notice",
        /// A part of the work waits, or will.
        Warning = "warning",
        /// Work or money may be lost, or all work waits.
        Critical = "critical",
    }
}

impl AlertKind {
    /// How urgent an alert of this kind is.
    pub fn severity(self) -> Severity {
        match self {
            Self::Invariant
            | Self::UnreadableRow
            | Self::BatchGone
            | Self::WrongLink
            | Self::DuplicateBatch
            | Self::RestoredDatabase
            | Self::OpenAiAccount
            | Self::InputChanged
            | Self::Misconfigured
            | Self::Budget100
            | Self::DiskLow
            | Self::ThreadStuck
            | Self::PortSilent => Severity::Critical,
            Self::UsageDiffers
            | Self::UsageUnknown
            | Self::CostsUnreadable
            | Self::Budget80
            | Self::Paused
            | Self::ClockUnconfirmed => Severity::Notice,
            _ => Severity::Warning,
        }
    }

    /// The problem in a few words.
    pub fn title(self) -> &'static str {
        match self {
            Self::Invariant => "The database contradicts itself",
            Self::UnreadableRow => "A row cannot be read",
            Self::StuckJob => "A request waits for too long",
            Self::StuckBatch => "A batch does not move",
            Self::BatchOverdue => "A batch is older than OpenAI's window",
            Self::BatchNotListed => "OpenAI does not list a batch",
            Self::BatchGone => "OpenAI no longer knows a batch",
            Self::BatchRefused => "OpenAI refuses to show a batch",
            Self::UnknownState => "OpenAI reports an unknown state",
            Self::WrongLink => "A batch has the id of another submission",
            Self::DuplicateBatch => "OpenAI has a second batch of one submission",
            Self::RestoredDatabase => "OpenAI has batches that this database does not know",
            Self::OtherIdentity => "A batch belongs to another account",
            Self::OtherProject => "The key may belong to another project",
            Self::OpenAiAccount => "OpenAI refuses the account",
            Self::ModelRefused => "OpenAI refuses batches of a model",
            Self::ModelFails => "A model fails",
            Self::ListingFails => "OpenAI's list of batches cannot be read",
            Self::Misconfigured => "A setting makes every line fail",
            Self::UploadFailed => "OpenAI refuses an input file",
            Self::CreateUnclear => "The answer to a create names another batch",
            Self::CreateRefused => "OpenAI refuses to create a batch",
            Self::InputChanged => "A sealed batch has changed",
            Self::ResultsUnavailable => "A result file cannot be fetched",
            Self::WebhookReceiver => "A receiver takes no webhook",
            Self::WebhookFailed => "A webhook failed after its last attempt",
            Self::UsageDiffers => "OpenAI counts other tokens",
            Self::UsageUnknown => "OpenAI stated impossible tokens",
            Self::CostsUnreadable => "The costs cannot be added up",
            Self::Budget80 => "80 % of a budget are used",
            Self::Budget100 => "A budget is used up",
            Self::Paused => "Paused by the operator",
            Self::DiskLow => "The disk is almost full",
            Self::BackupLate => "The newest backup is too old",
            Self::ClockSkew => "The machine's clock is wrong",
            Self::ClockUnconfirmed => "The machine's clock is not confirmed",
            Self::BatchExpiring => "A batch may not end within OpenAI's window",
            Self::FailedLines => "Too many lines fail",
            Self::NotificationFailed => "Alerts do not reach their receiver",
            Self::ThreadStuck => "A thread does not tick",
            Self::PortSilent => "The client API does not answer",
        }
    }
}

/// A piece of an alert's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessagePart<'m> {
    /// Text for people.
    Text(&'m str),
    /// A command to copy into a shell.
    Command(&'m str),
}

/// The programs whose calls are commands, and the number of words of a call; `None` if it goes on to the next
/// punctuation mark.
const PROGRAMS: [(&str, Option<usize>); 3] = [
    ("batchkeeper ", None),
    ("systemctl ", Some(3)),
    ("journalctl ", Some(3)),
];

/// The parts of an alert's message. A command stands after a colon.
pub fn message_parts(message: &str) -> Vec<MessagePart<'_>> {
    let mut parts = Vec::new();
    let mut rest = message;
    while let Some((start, end)) = find_command(rest) {
        parts.push(MessagePart::Text(&rest[..start]));
        parts.push(MessagePart::Command(&rest[start..end]));
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        parts.push(MessagePart::Text(rest));
    }
    parts
}

fn find_command(text: &str) -> Option<(usize, usize)> {
    let after_colon = |(at, _): (usize, &str)| text[at + 2..].split_whitespace().next().map(|_| at + 2);
    let starts = text.match_indices(": ").filter_map(after_colon);
    starts
        .filter_map(|start| {
            let (program, words) = PROGRAMS
                .iter()
                .find(|(name, _)| text[start..].starts_with(name))?;
            let call = &text[start..];
            let stop = call.find(['.', ';', ',', '(', ')']).unwrap_or(call.len());
            let end = match words {
                None => stop,
                Some(words) => nth_word_end(call, *words).min(stop),
            };
            let call = call[..end].trim_end();
            (call.len() > program.len()).then_some((start, start + call.len()))
        })
        .next()
}

/// Where the word of that number ends.
fn nth_word_end(text: &str, number: usize) -> usize {
    let mut gaps = text.match_indices(' ').map(|(at, _)| at);
    gaps.nth(number - 1).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_in_messages() {
        use MessagePart::{Command, Text};
        for (message, parts) in [
            (
                "submissions paused; go on with: batchkeeper resume submissions",
                vec![
                    Text("submissions paused; go on with: "),
                    Command("batchkeeper resume submissions"),
                ],
            ),
            (
                "is read by: systemctl restart batchkeeper has read it. Where: batchkeeper report",
                vec![
                    Text("is read by: "),
                    Command("systemctl restart batchkeeper"),
                    Text(" has read it. Where: "),
                    Command("batchkeeper report"),
                ],
            ),
            (
                "works: batchkeeper webhooks resend 5; if never: batchkeeper webhooks abandon 5. The end",
                vec![
                    Text("works: "),
                    Command("batchkeeper webhooks resend 5"),
                    Text("; if never: "),
                    Command("batchkeeper webhooks abandon 5"),
                    Text(". The end"),
                ],
            ),
            ("batchkeeper: nothing", vec![Text("batchkeeper: nothing")]),
            ("error: batchkeeper ", vec![Text("error: batchkeeper ")]),
            ("", vec![]),
        ] {
            assert_eq!(message_parts(message), parts, "{message}");
        }
    }

    #[test]
    fn each_kind_has_a_title_of_its_own() {
        let titles: std::collections::BTreeSet<_> = AlertKind::ALL.iter().map(|kind| kind.title()).collect();
        assert_eq!(titles.len(), AlertKind::ALL.len());
    }
}
