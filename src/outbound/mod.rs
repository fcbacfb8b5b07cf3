//! Requests to addresses that others name: clients' webhooks and images, the operator's alert URLs.
//!
//! - [`ssrf_guard`]: the rule that decides which addresses may be connected to.
//! - [`url`]: reads a URL.
//! - [`ca_file`]: the operator's certificate authorities; OpenAI's client uses them, too.
//! - [`client`]: the HTTP client whose every connection passes the guard.
//! - [`image_probe`], [`probe_pool`]: check whether images can be fetched.
//! - [`program`]: runs a program of the operator.
//! - [`local_client`]: an HTTP client without the guard, for URLs that the program made itself.

mod ca_file;
mod client;
mod image_probe;
mod local_client;
pub mod probe_pool;
mod program;
mod ssrf_guard;
mod url;

pub use ca_file::{CaFile, CaFileError, certificate_problem, tls_config};
pub use client::{GuardedClient, HttpPost, OutboundError, PostResponse};
pub use image_probe::{ImageLimits, ImageProblem};
pub use local_client::LocalClient;
pub use program::{PROGRAM_TIMEOUT, ProgramError, run_program};
pub use ssrf_guard::SsrfGuard;
pub use url::{ParsedUrl, UrlProblem, host_and_port};
