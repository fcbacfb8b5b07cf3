//! args → config → logger → run; nothing else.

use std::process::ExitCode;

use batchkeeper::commands;

fn main() -> ExitCode {
    match commands::parse(lexopt::Parser::from_env()) {
        Ok(command) => commands::run(command),
        Err(usage) => commands::refuse(&usage),
    }
}
