//! Alerts and pauses as data: the kind of an alert, its subject, and the scope of a pause.
//!
//! Each has one text form. The database, JSON, logs and metrics all hold that text.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use crate::base::text_enum::{UnknownText, text_enum};
use crate::domain::batch::Stage;

text_enum! {
    /// The kind of a problem. `docs/reference/alerts.md` says when an alert of each kind opens and closes.
    AlertKind {
        /// A view that must be empty has a row.
        Invariant = "invariant",
        /// A value of a row cannot be read.
        UnreadableRow = "unreadable_row",
        /// A request of a job waits for too long.
        StuckJob = "stuck_job",
        /// A batch has not moved for too long.
        StuckBatch = "stuck_batch",
        /// A batch has not ended although OpenAI's window for it is over.
        BatchOverdue = "batch_overdue",
        /// OpenAI's window for a batch closes soon, and the batch has not ended.
        BatchExpiring = "batch_expiring",
        /// OpenAI does not list a running batch.
        BatchNotListed = "batch_not_listed",
        /// OpenAI answers 404 for a running batch.
        BatchGone = "batch_gone",
        /// OpenAI refuses to show one batch, and shows others.
        BatchRefused = "batch_refused",
        /// OpenAI reports a state of a batch that this program does not know, or gives answers about it that it
        /// cannot read.
        UnknownState = "unknown_state",
        /// OpenAI has another submission under the id of a batch.
        WrongLink = "wrong_link",
        /// OpenAI has a second batch under one submission key.
        DuplicateBatch = "duplicate_batch",
        /// OpenAI has batches of this database that the database does not know. Where the server lists no batches: the
        /// database has begun fewer creates than the file beside it says.
        RestoredDatabase = "restored_database",
        /// A batch was made under another account than the configured one.
        OtherIdentity = "other_identity",
        /// The configured key seems to belong to another project than a doubtful create.
        OtherProject = "other_project",
        /// OpenAI refuses the account.
        OpenAiAccount = "openai_account",
        /// OpenAI refuses a batch of a model.
        ModelRefused = "model_refused",
        /// Too many lines of a model fail transiently.
        ModelFails = "model_fails",
        /// Creates wait for OpenAI's list of batches, which cannot be read.
        ListingFails = "listing_fails",
        /// Too many of the lines that were ingested lately have no answer.
        FailedLines = "failed_lines",
        /// Every line of a batch failed because of a setting.
        Misconfigured = "misconfigured",
        /// OpenAI refuses an input file.
        UploadFailed = "upload_failed",
        /// OpenAI answered a create with the id of another batch. Where the server lists no batches: a create was not
        /// answered.
        CreateUnclear = "create_unclear",
        /// OpenAI refuses to create a batch.
        CreateRefused = "create_refused",
        /// The rows of a sealed batch no longer give its input file.
        InputChanged = "input_changed",
        /// A result file cannot be fetched.
        ResultsUnavailable = "results_unavailable",
        /// A receiver takes no webhook.
        WebhookReceiver = "webhook_receiver",
        /// A webhook failed after its last attempt.
        WebhookFailed = "webhook_failed",
        /// OpenAI's token count of a batch differs from the sum of its lines.
        UsageDiffers = "usage_differs",
        /// OpenAI stated tokens that no line or batch can have.
        UsageUnknown = "usage_unknown",
        /// The costs cannot be added up.
        CostsUnreadable = "costs_unreadable",
        /// 80 % of a budget are used.
        Budget80 = "budget_80",
        /// A budget is used up.
        Budget100 = "budget_100",
        /// The operator paused something.
        Paused = "paused",
        /// The disk has less free space than `limits.disk_reserve`.
        DiskLow = "disk_low",
        /// The newest backup is too old.
        BackupLate = "backup_late",
        /// OpenAI's `Date` contradicts the machine's clock.
        ClockSkew = "clock_skew",
        /// The machine's clock has not been confirmed for a week.
        ClockUnconfirmed = "clock_unconfirmed",
        /// Alerts could not be sent to a receiver.
        NotificationFailed = "notification_failed",
        /// A thread does not tick.
        ThreadStuck = "thread_stuck",
        /// The client port does not answer.
        PortSilent = "port_silent",
    }
}

text_enum! {
    /// What happened to an alert.
    AlertChange {
        /// It was opened.
        Opened = "opened",
        /// Its cause is gone.
        Closed = "closed",
    }
}

/// What an alert is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AlertSubject {
    /// A batch, by its row.
    Batch(i64),
    /// A batch's token counts, by its row.
    Usage(i64),
    /// A webhook delivery, by its row.
    Delivery(i64),
    /// A scope that can be paused.
    Scope(PauseScope),
    /// A budget.
    Budget {
        /// Its client; `None` for the budget of all clients together.
        client: Option<String>,
        /// Its day (`2026-11-24`) or month (`2026-11`).
        period: String,
    },
    /// What an invariant found.
    Finding {
        /// The view that must be empty.
        view: String,
        /// The view's `subject`: a job, a batch, …
        subject: String,
    },
    /// A job's id, a receiver's host or a thread's name: the text alone.
    Named(String),
    /// The client API.
    ClientApi,
    /// The database's disk.
    Disk,
    /// The backups.
    Backup,
    /// The machine's clock.
    Clock,
    /// The costs.
    Costs,
    /// The lines of all batches.
    Lines,
    /// The notifications to `alerts.webhook_url`.
    Notifications,
    /// The notifications to a receiver of `[[alert_receivers]]`, by its name.
    AlertReceiver(String),
}

/// The name of the receiver of signed alert notifications: the key that names its URL.
pub const SIGNED_RECEIVER: &str = "alerts.webhook_url";

impl AlertSubject {
    /// The notifications to a receiver, by its name.
    pub fn notifications_to(receiver: &str) -> Self {
        match receiver {
            SIGNED_RECEIVER => Self::Notifications,
            name => Self::AlertReceiver(name.to_owned()),
        }
    }

    /// A model, by its name.
    pub fn model(name: &str) -> Self {
        Self::Scope(PauseScope::Model(name.to_owned()))
    }
}

impl fmt::Display for AlertSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(id) => write!(f, "batch:{id}"),
            Self::Usage(id) => write!(f, "usage:{id}"),
            Self::Delivery(id) => write!(f, "delivery:{id}"),
            Self::Scope(scope) => scope.fmt(f),
            Self::Budget { client: None, period } => write!(f, "total {period}"),
            Self::Budget {
                client: Some(client),
                period,
            } => write!(f, "client:{client} {period}"),
            Self::Finding { view, subject } => write!(f, "{view}:{subject}"),
            Self::Named(name) => f.write_str(name),
            Self::ClientApi => f.write_str("api"),
            Self::Disk => f.write_str("disk"),
            Self::Backup => f.write_str("backup"),
            Self::Clock => f.write_str("clock"),
            Self::Costs => f.write_str("costs"),
            Self::Lines => f.write_str("lines"),
            Self::Notifications => f.write_str(SIGNED_RECEIVER),
            Self::AlertReceiver(name) => write!(f, "alert_receiver:{name}"),
        }
    }
}

impl FromStr for AlertSubject {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(prefixed(text).unwrap_or_else(|| match text {
            "api" => Self::ClientApi,
            "disk" => Self::Disk,
            "backup" => Self::Backup,
            "clock" => Self::Clock,
            "costs" => Self::Costs,
            "lines" => Self::Lines,
            SIGNED_RECEIVER => Self::Notifications,
            _ => text
                .parse()
                .map_or_else(|_| Self::Named(text.to_owned()), Self::Scope),
        }))
    }
}

/// The subjects whose text begins with a word of their own.
fn prefixed(text: &str) -> Option<AlertSubject> {
    if let Some(period) = text.strip_prefix("total ") {
        let period = period.to_owned();
        return Some(AlertSubject::Budget { client: None, period });
    }
    let (word, rest) = text.split_once(':')?;
    let row = || rest.parse().ok().filter(|id| *id >= 0_i64);
    match word {
        "batch" => row().map(AlertSubject::Batch),
        "usage" => row().map(AlertSubject::Usage),
        "delivery" => row().map(AlertSubject::Delivery),
        "alert_receiver" => Some(AlertSubject::AlertReceiver(rest.to_owned())),
        "client" => {
            let (client, period) = rest.rsplit_once(' ')?;
            Some(AlertSubject::Budget {
                client: Some(client.to_owned()),
                period: period.to_owned(),
            })
        }
        _ if word.starts_with("v_") => Some(AlertSubject::Finding {
            view: word.to_owned(),
            subject: rest.to_owned(),
        }),
        _ => None,
    }
}

/// What a pause stops.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PauseScope {
    /// All work at OpenAI.
    OpenAi,
    /// Requests that OpenAI works on: uploads, creates, synchronous calls.
    Sending,
    /// The creation of batches.
    Creates,
    /// Synchronous calls: OpenAI asked to wait.
    Synchronous,
    /// Batches of one model.
    Model(String),
    /// Batches of one stage: a setting of it is wrong.
    Stage(Stage),
    /// New jobs; paused by the operator.
    Intake,
    /// All that is sent to OpenAI for the first time; paused by the operator.
    Submissions,
    /// Webhooks; paused by the operator.
    Webhooks,
}

impl PauseScope {
    /// The scopes that an operator pauses and resumes.
    pub const OPERATORS: [Self; 3] = [Self::Intake, Self::Submissions, Self::Webhooks];

    /// What the pause stops, for people.
    pub fn in_words(&self) -> String {
        match self {
            Self::OpenAi => "all work at OpenAI is".into(),
            Self::Sending => "sending to OpenAI is".into(),
            Self::Creates => "the creation of batches is".into(),
            Self::Synchronous => "synchronous calls are".into(),
            Self::Model(name) => format!("batches of {name} are"),
            Self::Stage(stage) => format!("the {stage} stage is"),
            Self::Intake => "new jobs are".into(),
            Self::Submissions => "submissions to OpenAI are".into(),
            Self::Webhooks => "webhooks are".into(),
        }
    }
}

impl fmt::Display for PauseScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenAi => f.write_str("openai"),
            Self::Sending => f.write_str("openai:sending"),
            Self::Creates => f.write_str("creates"),
            Self::Synchronous => f.write_str("synchronous"),
            Self::Model(name) => write!(f, "model:{name}"),
            Self::Stage(stage) => write!(f, "stage:{stage}"),
            Self::Intake => f.write_str("intake"),
            Self::Submissions => f.write_str("submissions"),
            Self::Webhooks => f.write_str("webhooks"),
        }
    }
}

impl FromStr for PauseScope {
    type Err = UnknownText;

    fn from_str(text: &str) -> Result<Self, UnknownText> {
        Ok(match text {
            "openai" => Self::OpenAi,
            "openai:sending" => Self::Sending,
            "creates" => Self::Creates,
            "synchronous" => Self::Synchronous,
            "intake" => Self::Intake,
            "submissions" => Self::Submissions,
            "webhooks" => Self::Webhooks,
            _ => match text.split_once(':') {
                Some(("model", model)) => Self::Model(model.to_owned()),
                Some(("stage", stage)) => Self::Stage(stage.parse()?),
                _ => {
                    return Err(UnknownText {
                        text: text.to_owned(),
                        verdict: "no scope that can be paused".to_owned(),
                    });
                }
            },
        })
    }
}

/// A reason for an alert: its subject, and the message for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertCause {
    /// The affected thing.
    pub subject: AlertSubject,
    /// The problem, and the command that fixes it.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subject_is_read_back_from_its_text() {
        let scopes = PauseScope::OPERATORS
            .into_iter()
            .chain([
                PauseScope::OpenAi,
                PauseScope::Sending,
                PauseScope::Creates,
                PauseScope::Synchronous,
                PauseScope::Model("gpt-5:mini".into()),
                PauseScope::Stage(Stage::Vision),
            ])
            .map(AlertSubject::Scope);
        let budget = |client: Option<&str>| AlertSubject::Budget {
            client: client.map(str::to_owned),
            period: "2026-11".into(),
        };
        let subjects = scopes.chain([
            AlertSubject::Batch(7),
            AlertSubject::Usage(7),
            AlertSubject::Delivery(7),
            budget(None),
            budget(Some("shop")),
            AlertSubject::Finding {
                view: "v_bad_state_counts".into(),
                subject: "jobs pending".into(),
            },
            AlertSubject::Named("client.test".into()),
            AlertSubject::ClientApi,
            AlertSubject::Disk,
            AlertSubject::Backup,
            AlertSubject::Clock,
            AlertSubject::Costs,
            AlertSubject::Lines,
            AlertSubject::Notifications,
            AlertSubject::AlertReceiver("on-call".into()),
        ]);
        for subject in subjects {
            let text = subject.to_string();
            assert_eq!(text.parse(), Ok(subject), "{text}");
        }
        for odd in ["", "batch:", "batch:x", "batch:-1", "client:x", "model"] {
            assert_eq!(odd.parse(), Ok(AlertSubject::Named(odd.into())), "{odd}");
        }
    }
}
