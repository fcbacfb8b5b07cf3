//! The command line: what was asked for, and what it prints.

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use lexopt::{Arg, Parser, ValueExt};
use serde_json::{Value, json};

use crate::base::clock::{Clock, SystemClock};
use crate::config::Config;
use crossbeam_channel::never;

use crate::daemon::{self, Daemon, DaemonError};
use crate::store::Store;

mod backup;
mod convert_database;
mod demo;
mod incoming;
mod logger;
mod look;
mod moves;
mod progress;
mod repair;
mod report;
mod serve_sandbox;
mod sign;

/// What `--help` prints.
const HELP: &str = "\
batchkeeper takes jobs of car lots through OpenAI's Batch API and cannot lose a batch.

    batchkeeper serve                  the daemon
    batchkeeper demo [--keep]          the whole chain on the built-in sandbox; nothing else is needed
    batchkeeper sandbox --listen ADDR --state DIR
                [--pace P]             the simulated OpenAI alone; P: fast, real, or milliseconds a state
                [--queue-tokens N]     its queue of a model takes so many tokens, which only its refusals say
    batchkeeper check-config           whether the configuration is good
    batchkeeper sign [FILE]            the signature of a request body (FILE, or standard input)
                                       [--job ID] of a read; [--webhook-secret] for receivers;
                                       [--client NAME] of another client than default
    batchkeeper import-legacy FILE [--dry-run]
                                       takes the earlier service's jobs over
    batchkeeper recover [--apply]      what is orphaned on either side, with the evidence; --apply links it
                [--new-identity]       makes a copied database another one
    batchkeeper adopt --job JOB --batch BATCH
                                       links an OpenAI batch by hand
    batchkeeper jobs [list | show JOB | cancel JOB | retry JOB]
                                       list, as those of batches and webhooks: 200 at most, open ones first;
                                       retry sends an orphan's held requests; with --failed-lots the
                                       failed lots of a job that ended, paid anew (--dry-run: what it takes)
    batchkeeper batches [list | show ID | give-up ID]
    batchkeeper webhooks [list | show ID | resend ID | give-up ID]
                                       resend makes a new delivery, with an id of its own; give-up lets go of
                                       one that did not arrive, which keeps its job from being cleaned
    batchkeeper pause | resume intake | submissions | webhooks
                                       new jobs are not taken; nothing new is sent to OpenAI; nobody is told
    batchkeeper backup [FILE | --dir DIR] [--keep N]
                                       a verified copy of the database, while it is worked on; without FILE into
                                       DIR (default: backup.dir), of which the newest N stay (backup.keep)
    batchkeeper convert-database OLD NEW
                                       copies a database of the program before this one into a new file
    batchkeeper alerts [list | show ID]
                                       what a person should know; status 1 where something is open
    batchkeeper doctor                 integrity, links, invariants; status 1 with findings
    batchkeeper report [--from T] [--to T]
                                       what was accepted and what became of it, each batch's owner and
                                       cost, against OpenAI's listing; status 1 where it does not balance;
                                       T: a day or a time (2026-11-24, 2026-11-24T02:24:00Z), by default the
                                       last 24 hours

Every command takes --config FILE (default: the environment's BATCHKEEPER_CONFIG, else
/etc/batchkeeper/config.toml), --json (serve, demo and sandbox apart), and exits with 0, 1 (findings, or
refused) or 2 (usage).
";

/// Where the configuration lies when nobody says otherwise.
const DEFAULT_CONFIG: &str = "/etc/batchkeeper/config.toml";

/// A command line that asks for nothing that there is.
#[derive(Debug)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<lexopt::Error> for Usage {
    fn from(error: lexopt::Error) -> Self {
        Self(error.to_string())
    }
}

/// What was asked for.
#[derive(Debug, Default)]
pub struct Command {
    name: String,
    operands: Vec<String>,
    config: Option<PathBuf>,
    json: bool,
    help: bool,
    apply: bool,
    dry_run: bool,
    keep: bool,
    keep_copies: Option<String>,
    dir: Option<PathBuf>,
    new_identity: bool,
    failed_lots: bool,
    webhook_secret: bool,
    job: Option<String>,
    batch: Option<String>,
    from: Option<String>,
    to: Option<String>,
    client: Option<String>,
    listen: Option<String>,
    state: Option<PathBuf>,
    pace: Option<String>,
    queue_tokens: Option<u64>,
}

/// Reads a command line.
///
/// # Errors
/// When it names an option that there is not, or lacks a value.
pub fn parse(mut parser: Parser) -> Result<Command, Usage> {
    let mut command = Command::default();
    let text = |value: OsString| value.string();
    let mut options = Vec::new();
    while let Some(arg) = parser.next()? {
        if let Arg::Long(name) = arg {
            options.push(name.to_owned());
        }
        match arg {
            Arg::Long("config") => command.config = Some(parser.value()?.into()),
            Arg::Long("json") => command.json = true,
            Arg::Long("apply") => command.apply = true,
            Arg::Long("dry-run") => command.dry_run = true,
            Arg::Long("keep") if command.name == "backup" => {
                command.keep_copies = Some(text(parser.value()?)?);
            }
            Arg::Long("keep") => command.keep = true,
            Arg::Long("dir") => command.dir = Some(parser.value()?.into()),
            Arg::Long("new-identity") => command.new_identity = true,
            Arg::Long("failed-lots") => command.failed_lots = true,
            Arg::Long("webhook-secret") => command.webhook_secret = true,
            Arg::Long("job") => command.job = Some(text(parser.value()?)?),
            Arg::Long("batch") => command.batch = Some(text(parser.value()?)?),
            Arg::Long("from") => command.from = Some(text(parser.value()?)?),
            Arg::Long("to") => command.to = Some(text(parser.value()?)?),
            Arg::Long("client") => command.client = Some(text(parser.value()?)?),
            Arg::Long("listen") => command.listen = Some(text(parser.value()?)?),
            Arg::Long("pace") => command.pace = Some(text(parser.value()?)?),
            Arg::Long("queue-tokens") => command.queue_tokens = Some(parser.value()?.parse()?),
            Arg::Long("state") => command.state = Some(parser.value()?.into()),
            Arg::Long("help") | Arg::Short('h') => command.help = true,
            Arg::Long("version") | Arg::Short('V') => command.name = "version".into(),
            Arg::Value(value) if command.name.is_empty() => command.name = text(value)?,
            Arg::Value(value) => command.operands.push(text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    if !command.help {
        check(&command, &options)?;
    }
    Ok(command)
}

/// Refuses what a command does not take: an option that is passed over, such as `jobs retry JOB
/// --dry-run`, would have done what nobody asked for.
fn check(command: &Command, options: &[String]) -> Result<(), Usage> {
    let verb = command.operands.first().map(String::as_str);
    let (takes, operands): (&[&str], usize) = match (command.name.as_str(), verb) {
        ("serve" | "check-config" | "doctor", _) => (&[], 0),
        ("demo", _) => (&["keep"], 0),
        ("backup", _) => (&["dir", "keep"], 1),
        ("convert-database", _) => (&[], 2),
        ("sandbox", _) => (&["listen", "state", "pace", "queue-tokens"], 0),
        ("sign", _) => (&["job", "webhook-secret", "client"], 1),
        ("import-legacy", _) => (&["dry-run"], 1),
        ("recover", _) => (&["apply", "new-identity"], 0),
        ("adopt", _) => (&["job", "batch"], 0),
        ("report", _) => (&["from", "to"], 0),
        ("pause" | "resume", _) => (&[], 1),
        ("jobs" | "batches" | "webhooks" | "alerts", None | Some("list")) => (&[], 1),
        ("jobs", Some("retry")) if command.failed_lots => (&["failed-lots", "dry-run"], 2),
        ("jobs", Some("show" | "retry" | "cancel"))
        | ("alerts", Some("show"))
        | ("batches", Some("show" | "give-up"))
        | ("webhooks", Some("show" | "resend" | "give-up")) => (&[], 2),
        ("jobs" | "batches" | "webhooks" | "alerts", Some(verb)) => {
            return Err(Usage(format!("there is no `{} {verb}`", command.name)));
        }
        _ => return Ok(()),
    };
    let everywhere: &[&str] = match command.name.as_str() {
        // They print what happens, line by line.
        "serve" | "demo" | "sandbox" => &["config"],
        _ => &["config", "json"],
    };
    if let Some(option) = options
        .iter()
        .map(String::as_str)
        .find(|option| !takes.contains(option) && !everywhere.contains(option))
    {
        return Err(Usage(format!("{} takes no --{option}", command.name)));
    }
    match command.operands.get(operands) {
        None => Ok(()),
        Some(extra) => Err(Usage(format!("{} takes no {extra:?}", command.name))),
    }
}

/// Says what is wrong with a command line.
pub fn refuse(usage: &Usage) -> ExitCode {
    complain(&format!("{usage}\nTry: batchkeeper --help"));
    ExitCode::from(2)
}

/// Why a command did not do it.
enum Refused {
    Usage(String),
    Failed(String),
}

impl From<String> for Refused {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl From<crate::store::StoreError> for Refused {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<crate::recovery::RecoveryError> for Refused {
    fn from(error: crate::recovery::RecoveryError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<DaemonError> for Refused {
    fn from(error: DaemonError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a command came to: whether it found nothing to complain of.
type Outcome = Result<bool, Refused>;

/// Runs a command; its exit status says how it went.
pub fn run(command: Command) -> ExitCode {
    let outcome = match command.name.as_str() {
        name if command.help => help(name),
        "help" => help(""),
        "version" => print(concat!("batchkeeper ", env!("CARGO_PKG_VERSION"), "\n")),
        "serve" => serve(&command),
        "demo" => demo::run(command.keep),
        "sandbox" => serve_sandbox::run(&command),
        "check-config" => checked_configuration(&command).and_then(|(config, absent)| {
            daemon::check_outgoing(&config)?;
            let exposed = config.exposed_files(&config_path(&command)).into_iter();
            let unseen = absent.iter().map(|path| {
                let path = path.display();
                format!("{path} is there only while the service runs: no key was looked at")
            });
            let keyless = (!config.has_openai_key()).then(|| {
                "no OpenAI key here: set openai.api_key_file, or the service needs OPENAI_API_KEY".to_owned()
            });
            let warnings: Vec<String> = exposed.chain(unseen).chain(keyless).collect();
            let text: String = warnings
                .iter()
                .map(|it| format!("warning: {it}\n"))
                .collect();
            say(
                &command,
                &json!({"good": true, "warnings": warnings}),
                &format!("{text}the configuration is good\n"),
            )
        }),
        "sign" => sign::run(&command),
        "import-legacy" => incoming::run(&command),
        "recover" => repair::recover(&command),
        "adopt" => repair::adopt(&command),
        "jobs" => look::jobs(&command),
        "batches" => look::batches(&command),
        "webhooks" => look::webhooks(&command),
        "pause" => moves::pause(&command),
        "resume" => moves::resume(&command),
        "alerts" => look::alerts(&command),
        "doctor" => look::doctor(&command),
        "report" => report::run(&command),
        "backup" => backup::run(&command),
        "convert-database" => convert_database::run(&command),
        "" => Err(Refused::Usage("no command".into())),
        other => Err(Refused::Usage(format!("there is no command {other:?}"))),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(Refused::Failed(message)) => {
            complain(&message);
            ExitCode::from(1)
        }
        Err(Refused::Usage(message)) => refuse(&Usage(message)),
    }
}

/// The whole help, or the lines of one command.
fn help(name: &str) -> Outcome {
    let (about, after) = HELP
        .split_once("\n\n")
        .and_then(|(_, rest)| rest.rsplit_once("\n\n"))
        .unwrap_or((HELP, ""));
    let mut lines = String::new();
    let mut is_meant = false;
    for line in about.lines() {
        if let Some(entry) = line.strip_prefix("    batchkeeper ") {
            let mut words = entry.split_whitespace();
            is_meant = words.next() == Some(name)
                || words.next() == Some("|") && words.next() == Some(name);
        }
        if is_meant {
            lines.push_str(line);
            lines.push('\n');
        }
    }
    match (name, lines.is_empty()) {
        ("", _) => print(HELP),
        (_, true) => Err(Refused::Usage(format!("there is no command {name:?}"))),
        (_, false) => print(&format!("{lines}\n{after}")),
    }
}

fn serve(command: &Command) -> Outcome {
    let config = configuration_with_keys(command)?;
    logger::start(&config.log, config.log_format);
    for exposed in config.exposed_files(&config_path(command)) {
        log::warn!(event = "exposed"; "{exposed}");
    }
    let daemon = Daemon::start(config, Arc::new(SystemClock::new()))?;
    daemon.run(&never())?;
    Ok(true)
}

fn config_path(command: &Command) -> PathBuf {
    command
        .config
        .clone()
        .or_else(|| std::env::var_os("BATCHKEEPER_CONFIG").map(PathBuf::from))
        .unwrap_or_else(|| DEFAULT_CONFIG.into())
}

/// The configuration of a command that calls OpenAI, or signs.
fn configuration_with_keys(command: &Command) -> Result<Config, Refused> {
    Ok(Config::load(&config_path(command)).map_err(|error| error.to_string())?)
}

/// The configuration with its keys, or where some of them are the running service's alone, without; and
/// the files of those.
fn checked_configuration(command: &Command) -> Result<(Config, Vec<PathBuf>), Refused> {
    let config = configuration(command)?;
    let absent = config.missing_credentials();
    match absent.is_empty() {
        true => Ok((configuration_with_keys(command)?, absent)),
        false => Ok((config, absent)),
    }
}

/// The configuration of all others.
fn configuration(command: &Command) -> Result<Config, Refused> {
    Ok(Config::load_without_keys(&config_path(command)).map_err(|error| error.to_string())?)
}

/// The database of a command that looks or mends while the daemon may run.
fn open_store(config: &Config) -> Result<Store, Refused> {
    if !config.database.exists() {
        return Err(format!("there is no database at {}", config.database.display()).into());
    }
    Ok(Store::open(
        &config.database,
        SystemClock::new().now().wall,
    )?)
}

fn print(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(true),
    }
}

/// What a command did, for people or as JSON.
fn say(command: &Command, what: &Value, text: &str) -> Outcome {
    match command.json {
        true => print(&format!("{what}\n")),
        false => print(text),
    }
}

fn complain(message: &str) {
    let written = writeln!(std::io::stderr(), "batchkeeper: {message}");
    // There is nowhere left to say it.
    drop(written);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_does_not_take_is_refused() {
        let parsed = |line: &str| parse(Parser::from_args(line.split(' '))).is_ok();
        for line in [
            "serve --config c.toml",
            "--json jobs",
            "jobs retry J",
            "jobs retry J --failed-lots --dry-run",
            "webhooks resend 1",
            "webhooks give-up 1 --json",
            "pause intake",
            "batches show 1 --json",
            "recover --apply",
            "sign job.json --client a",
            "import-legacy dump.json --dry-run",
            "report --from 2026-11-24 --json",
            "serve --help",
        ] {
            assert!(parsed(line), "{line}");
        }
        for line in [
            "jobs retry J --dry-run",
            "jobs cancel J --failed-lots",
            "webhooks retry 1",
            "pause intake webhooks",
            "adopt --job J --batch B --dry-run",
            "recover --dry-run",
            "jobs frob",
            "jobs list J",
            "demo all",
            "serve --keep",
            "batches retry 1",
        ] {
            assert!(!parsed(line), "{line}");
        }
    }
}
