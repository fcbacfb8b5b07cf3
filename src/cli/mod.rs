//! The command line: one file a subcommand, each with its options and what it prints.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod adopt;
mod alerts;
mod allocator;
mod backup;
mod batch_probe;
mod batches;
mod check_config;
mod clock;
mod config;
mod context;
mod convert_database;
mod demo;
mod doctor;
mod error;
mod healthcheck;
mod import_legacy;
mod init;
mod jobs;
mod logger;
mod output;
mod pause;
mod progress;
mod recover;
mod report;
mod resume;
mod sandbox;
mod serve;
mod sign;
mod version;
mod webhooks;

use context::Context;
use error::CommandError;
use output::{complain, print};

/// What `--help` prints after the options.
const EXIT_STATUS: &str = "\
Exit status: 0 success; 1 the command failed, or found something to report; 2 wrong usage.
`batchkeeper COMMAND --help` explains a command.";

/// Takes jobs of car lots through OpenAI's Batch API and cannot lose a batch
#[derive(Parser)]
#[command(name = "batchkeeper", version, after_help = EXIT_STATUS, arg_required_else_help = false, term_width = 80)]
struct CommandLine {
    #[command(flatten)]
    context: Context,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service: the client API, the operator's pages, and the workers that send batches
    Serve,
    /// Write a configuration and its keys into a folder
    Init(init::InitOptions),
    /// Run the whole chain on the built-in sandbox; nothing else is needed
    Demo(demo::DemoOptions),
    /// Run the simulated OpenAI alone
    Sandbox(sandbox::SandboxOptions),
    /// Check the configuration
    CheckConfig(check_config::CheckOptions),
    /// Show the configuration in force
    Config {
        #[command(subcommand)]
        action: config::ConfigCommand,
    },
    /// Sign a request, for people who write clients
    Sign(sign::SignOptions),
    /// Import the jobs of the earlier service
    ImportLegacy(import_legacy::ImportOptions),
    /// Compare jobs with the batches at OpenAI, and link those that belong together
    Recover(recover::RecoverOptions),
    /// Link an OpenAI batch to a job by hand
    Adopt(adopt::AdoptOptions),
    /// List, show, cancel, retry or delete jobs
    Jobs {
        #[command(subcommand)]
        action: Option<jobs::JobsCommand>,
    },
    /// List, show or abandon batches
    Batches {
        #[command(subcommand)]
        action: Option<batches::BatchesCommand>,
    },
    /// List, show, resend or abandon webhook deliveries
    Webhooks {
        #[command(subcommand)]
        action: Option<webhooks::WebhooksCommand>,
    },
    /// Pause new jobs, submissions to OpenAI, or webhooks
    Pause(pause::PauseOptions),
    /// End a pause
    Resume(pause::PauseOptions),
    /// Make a verified copy of the database, while the daemon runs
    Backup(backup::BackupOptions),
    /// Copy a database of the program before this one into a new file
    ConvertDatabase(convert_database::ConvertOptions),
    /// Confirm the machine's clock, where OpenAI's answers do not
    Clock {
        #[command(subcommand)]
        action: clock::ClockCommand,
    },
    /// List open alerts, or show one; exit status 1 if one is open
    Alerts {
        #[command(subcommand)]
        action: Option<alerts::AlertsCommand>,
    },
    /// Check the database's integrity, links and invariants; exit status 1 with findings
    Doctor,
    /// Print the completions for a shell, for its own folder of completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Ask the running daemon whether it is healthy; exit status 1 if it is not
    Healthcheck,
    /// Show the version, the commit, the schema and SQLite's version
    Version,
    /// Account for the jobs and batches of a period; exit status 1 if it does not balance
    Report(report::ReportOptions),
}

impl Command {
    /// The name of a command that prints what happens line by line, and so has no JSON.
    fn without_json(&self) -> Option<&'static str> {
        match self {
            Self::Serve => Some("serve"),
            Self::Completions { .. } => Some("completions"),
            Self::Demo(_) => Some("demo"),
            Self::Sandbox(_) => Some("sandbox"),
            _ => None,
        }
    }
}

/// Whether a command found something that the operator should look at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Clean,
    Findings,
}

impl Verdict {
    fn clean_if(is_clean: bool) -> Self {
        match is_clean {
            true => Self::Clean,
            false => Self::Findings,
        }
    }
}

type Outcome = Result<Verdict, CommandError>;

/// Runs the command of this process's arguments. Its exit status tells how the command ended.
pub fn main() -> ExitCode {
    match CommandLine::try_parse() {
        Ok(CommandLine { context, command }) => finish(run(command, &context)),
        Err(error) if error.use_stderr() => refuse(&error),
        // Help and version are errors of clap that belong on standard output.
        Err(error) => finish(print(&error.to_string())),
    }
}

fn run(command: Command, context: &Context) -> Outcome {
    if let Some(name) = command.without_json().filter(|_| context.output.json) {
        return Err(CommandError::Usage(format!("{name} takes no --json")));
    }
    match command {
        Command::Serve => serve::run(context),
        Command::Init(options) => init::run(context, &options),
        Command::Demo(options) => demo::run(&options),
        Command::Sandbox(options) => sandbox::run(&options),
        Command::CheckConfig(options) => check_config::run(context, &options),
        Command::Config { action } => config::run(context, action),
        Command::Completions { shell } => print_completions(shell),
        Command::Healthcheck => healthcheck::run(context),
        Command::Version => version::run(context),
        Command::Sign(options) => sign::run(context, &options),
        Command::ImportLegacy(options) => import_legacy::run(context, &options),
        Command::Recover(options) => recover::run(context, &options),
        Command::Adopt(options) => adopt::run(context, &options),
        Command::Jobs { action } => jobs::run(context, action.unwrap_or_default()),
        Command::Batches { action } => batches::run(context, action.unwrap_or_default()),
        Command::Webhooks { action } => webhooks::run(context, action.unwrap_or_default()),
        Command::Pause(options) => pause::run(context, &options),
        Command::Resume(options) => resume::run(context, &options),
        Command::Backup(options) => backup::run(context, options),
        Command::ConvertDatabase(options) => convert_database::run(context, &options),
        Command::Clock { action } => clock::run(context, &action),
        Command::Alerts { action } => alerts::run(context, action.unwrap_or_default()),
        Command::Doctor => doctor::run(context),
        Command::Report(options) => report::run(context, &options),
    }
}

fn print_completions(shell: clap_complete::Shell) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "batchkeeper", &mut text);
    output::print_raw(&text)
}

fn finish(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(Verdict::Clean) => ExitCode::SUCCESS,
        Ok(Verdict::Findings) => ExitCode::from(1),
        Err(CommandError::Usage(message)) => {
            complain(&format!("{message}\nTry: batchkeeper --help"));
            ExitCode::from(2)
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(1)
        }
    }
}

fn refuse(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    complain(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn what_a_command_does_not_take_is_refused() {
        let is_taken = |line: &str| {
            let words = std::iter::once("batchkeeper").chain(line.split(' '));
            CommandLine::try_parse_from(words).is_ok()
        };
        for line in [
            "serve --config c.toml",
            "--json jobs",
            "jobs retry J",
            "jobs retry J --failed-lots --dry-run",
            "webhooks resend 1",
            "webhooks abandon 1 --json",
            "batches abandon 1",
            "batches abandon 1 --bill-again 40",
            "pause intake",
            "clock confirm",
            "config show --json",
            "version --json",
            "healthcheck",
            "completions bash",
            "batches show 1 --json",
            "recover --apply",
            "sign job.json --client a",
            "sign --headers --get /api/v1/batch-status/J",
            "init",
            "init first --sandbox",
            "import-legacy dump.json --dry-run",
            "report --from 2026-11-24 --json",
        ] {
            assert!(is_taken(line), "{line}");
        }
        for line in [
            "jobs retry J --dry-run",
            "jobs cancel J --failed-lots",
            "webhooks retry 1",
            "pause intake webhooks",
            "adopt --job J --batch B --dry-run",
            "recover --dry-run",
            "jobs frob",
            "clock",
            "init a b",
            "sign job.json --get /health",
            "jobs list J",
            "demo all",
            "serve --keep",
            "batches retry 1",
        ] {
            assert!(!is_taken(line), "{line}");
        }
    }
}
