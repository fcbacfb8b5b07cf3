//! A simulated OpenAI: Files, Batches and Responses, as far as a batch client needs them.
//!
//! The demo, the tests and engineers without a key use it. It refuses what the real one refuses, keeps its
//! state in a folder, and fails on demand. It knows nothing of jobs, lots or the store.
//!
//! - [`model`] holds the state and the rules. Its calls take plain arguments and give typed results or a
//!   [`model::ErrorReply`].
//! - [`http`] serves the model over HTTP, and carries out the faults that concern a connection.

pub mod http;
pub mod model;

pub use http::Sandbox;
pub use model::{
    Fault, FaultRule, Latencies, ODD_UNICODE, Pace, ProjectKey, Reasoning, SandboxSettings, SimulatedModel,
    StateFolderError, UnknownFile, expected_description, expected_translation, image_names,
};
