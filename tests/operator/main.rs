//! The operator's interfaces: commands, pages, SQL.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed"
)]

#[path = "../support/appliance/mod.rs"]
mod appliance;
#[path = "../support/pages/mod.rs"]
mod pages;

mod actions;
mod command_line;
mod commands;
mod console;
mod days;
mod keys;
mod on_call;
mod readme;
mod reference;
mod sqlite_docs;
mod status_page;
