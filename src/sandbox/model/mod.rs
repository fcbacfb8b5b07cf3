//! The simulated OpenAI without a connection: its state, its rules, its time, and what can go wrong.
//!
//! A front end authenticates a call, asks for the faults of that call ([`SimulatedOpenAi::trigger_fault_before`],
//! [`SimulatedOpenAi::trigger_fault_after`]) and makes the call. After each call it saves the fault rules.
//!
//! A batch advances only when a call reads it: its states follow from the clock that was handed in. New ids
//! follow from [`SandboxSettings::seed`], chance from the ids of calls, batches and lines. So a run can be
//! repeated.

mod batches;
mod call_faults;
mod error_reply;
mod faults;
mod files;
mod ids;
mod ledger;
mod list_page;
mod lock;
mod metadata;
mod records;
mod responses;
mod settings;
mod simulated_openai;
mod state_summary;
mod storage;
mod text_form;
mod usage;

pub use batches::{BatchErrors, BatchListQuery, BatchView, PastBatch, PastLine};
pub use error_reply::ErrorReply;
pub use faults::{ApiCall, ConnectionFault, Fault, FaultRule, NameParts};
pub use files::{FileContent, FileListQuery, FileUpload, FileView};
pub use ids::request_id;
pub use ledger::LedgerEntry;
pub use list_page::ListPage;
pub use records::{LineCounts, LineError};
pub use responses::{
    ODD_UNICODE, RequestResult, expected_description, expected_translation, image_names, sample_image,
};
pub use settings::{Latencies, Pace, ProjectKey, Reasoning, SandboxSettings, SimulatedModel, UnknownFile};
pub use simulated_openai::{CallingProject, SimulatedOpenAi};
pub use state_summary::{DuplicateSubmission, FlagCount, StateSummary};
pub use storage::{Content, StateFolderError};
pub use usage::{InputTokenDetails, OutputTokenDetails, UsageObject};
