//! The real binary is killed with SIGKILL at every point of a batch's life and started again on the
//! same files. It must lose nothing and do nothing twice.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "clippy does not count the helpers of an integration test as tests"
)]

mod disk;
mod points;
mod random;
mod restore;
mod rig;
mod states;
mod stop;
mod torn;
mod worlds;

/// A number from an environment variable.
fn environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}
