//! A fault that a check of the database finds.

/// A row or an object of the schema that breaks an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The view that must be empty, or the check.
    pub invariant: &'static str,
    /// The job, batch, row or object.
    pub subject: String,
    /// The problem.
    pub finding: String,
}
