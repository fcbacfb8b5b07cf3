//! args → config → logger → run; nothing else.

use std::process::ExitCode;

use batchkeeper::cli;

fn main() -> ExitCode {
    match cli::parse(lexopt::Parser::from_env()) {
        Ok(command) => cli::run(command),
        Err(usage) => cli::refuse(&usage),
    }
}
