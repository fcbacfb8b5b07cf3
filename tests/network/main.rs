//! Both directions of HTTP: the listeners, and the calls to OpenAI and to other servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

#[path = "../support/appliance/mod.rs"]
mod appliance;
mod front_door;
mod images;
mod listener;
mod openai_client;
mod outbound;
mod private_ca;
mod proxies;
mod recorded;
#[path = "../support/tls.rs"]
mod tls;
