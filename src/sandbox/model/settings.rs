//! How the simulated OpenAI behaves: keys, models, limits and pace.

use serde::{Deserialize, Serialize};

use crate::sandbox::model::ids;

/// Everything that can be set; read from JSON or TOML where that is handy, each member optional.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxSettings {
    /// Keys that are let in. A key listed with several projects may choose one by `OpenAI-Project`;
    /// its first is the default.
    pub api_keys: Vec<ProjectKey>,
    /// The models that exist.
    pub models: Vec<SimulatedModel>,
    /// How fast batches advance.
    pub pace: Pace,
    /// How long a batch may take before it expires, in milliseconds (24 hours).
    pub window_ms: u64,
    /// What a create from an unknown file does; both have been seen.
    pub unknown_file: UnknownFile,
    /// Batches that may be created in an hour by a project.
    pub creates_per_hour: usize,
    /// The largest input file.
    pub max_upload_bytes: usize,
    /// The status that a too large upload is answered with: 413, or 400 as in 2024.
    pub too_large_status: u16,
    /// The most lines that a batch may have.
    pub max_lines: usize,
    /// Whether an upload's file name may have no extension at all.
    pub allow_no_extension: bool,
    /// How long files of the purposes `batch` and `batch_output` live, in seconds (30 days).
    pub file_lifetime_seconds: u64,
    /// Whether result lines come in another order than the input's.
    pub shuffle: bool,
    /// Makes ids differ from those of another sandbox.
    pub seed: String,
}

/// A key and the project that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectKey {
    /// What stands after `Bearer`.
    pub key: String,
    /// The project's id.
    pub project: String,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimulatedModel {
    /// The alias that requests name.
    pub name: String,
    /// The dated model that answers name; accepted in requests as well.
    pub snapshot: String,
    /// Whether it reasons, so that a reasoning item precedes its message.
    pub reasoning: Reasoning,
    /// How many tokens its unfinished batches may hold in a project; none: no limit.
    #[serde(default)]
    pub enqueued_tokens: Option<u64>,
}

/// Whether a model reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reasoning {
    /// It does not; the parameter `reasoning` is refused.
    Never,
    /// Unless the effort is `none`.
    Optional,
    /// Always; the effort `none` is refused.
    Always,
}

/// What a create from an unknown file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownFile {
    /// 400 with the param `file_id`.
    Refuse,
    /// A batch that becomes `failed` with `invalid_request`, param `file_id`.
    FailLater,
}

/// How fast batches advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// All alike.
    Fixed(Latencies),
    /// Drawn for each batch from what was measured of 2,321 real ones: 130 s at the median, three
    /// hours at the ninetieth percentile.
    Real,
}

/// How long a batch stays in each state, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latencies {
    /// `validating`.
    pub validating: u64,
    /// `in_progress`.
    pub in_progress: u64,
    /// `finalizing`.
    pub finalizing: u64,
    /// `cancelling`; the real one is never below 605 s.
    pub cancel: u64,
    /// `finalizing` of a batch whose window closed; the real one is about 605 s.
    pub expire: u64,
}

/// Seconds at quantiles (per mille) of `in_progress` to `finalizing`.
const MEASURED_RUN: [(u64, u64); 8] = [
    (0, 1),
    (250, 21),
    (500, 114),
    (750, 2_132),
    (900, 11_089),
    (950, 21_148),
    (990, 44_527),
    (1000, 75_587),
];

impl Pace {
    /// The latencies of one batch.
    pub(in crate::sandbox) fn of(self, batch: &str) -> Latencies {
        match self {
            Self::Fixed(latencies) => latencies,
            Self::Real => {
                let drawn = ids::number(&["pace", batch]) % 1001;
                Latencies {
                    validating: if drawn.is_multiple_of(20) {
                        61_000
                    } else {
                        1_000
                    },
                    in_progress: measured_run(drawn) * 1000,
                    finalizing: 1_000,
                    cancel: 606_000,
                    expire: 605_000,
                }
            }
        }
    }
}

fn measured_run(per_mille: u64) -> u64 {
    MEASURED_RUN
        .windows(2)
        .find_map(|pair| match pair {
            [(low, from), (high, to)] if per_mille <= *high => {
                Some(from + (to - from) * (per_mille - low) / (high - low))
            }
            _ => None,
        })
        .unwrap_or(MEASURED_RUN[7].1)
}

impl Default for SandboxSettings {
    fn default() -> Self {
        Self {
            api_keys: vec![ProjectKey {
                key: "sk-sandbox".into(),
                project: "proj_sandbox".into(),
            }],
            models: default_models(),
            pace: Pace::Fixed(Latencies {
                validating: 500,
                in_progress: 2_000,
                finalizing: 300,
                cancel: 1_000,
                expire: 1_000,
            }),
            window_ms: 86_400_000,
            unknown_file: UnknownFile::Refuse,
            creates_per_hour: 2_000,
            max_upload_bytes: 209_715_200,
            too_large_status: 413,
            max_lines: 50_000,
            allow_no_extension: false,
            file_lifetime_seconds: 2_592_000,
            shuffle: true,
            seed: "sandbox".into(),
        }
    }
}

impl SandboxSettings {
    /// For tests: every state lasts some milliseconds.
    pub fn fast() -> Self {
        Self {
            pace: Pace::Fixed(Latencies {
                validating: 5,
                in_progress: 20,
                finalizing: 5,
                cancel: 20,
                expire: 5,
            }),
            ..Self::default()
        }
    }

    /// As slow as the real one, cancellations of ten minutes included.
    pub fn real() -> Self {
        Self {
            pace: Pace::Real,
            ..Self::default()
        }
    }

    /// The model of that name or snapshot.
    pub(in crate::sandbox) fn model(&self, name: &str) -> Option<&SimulatedModel> {
        self.models
            .iter()
            .find(|model| model.name == name || model.snapshot == name)
    }
}

fn default_models() -> Vec<SimulatedModel> {
    [
        ("gpt-6-luna", "2026-09-22", Reasoning::Optional),
        ("gpt-6-sol", "2026-09-03", Reasoning::Optional),
        ("gpt-6.1-terra", "2026-10-20", Reasoning::Optional),
        ("gpt-5.6-luna", "2026-05-12", Reasoning::Optional),
        ("gpt-5-mini", "2025-08-07", Reasoning::Always),
        ("o4-mini", "2025-04-16", Reasoning::Always),
        ("gpt-4.1", "2025-04-14", Reasoning::Never),
        ("gpt-4.1-mini", "2025-04-14", Reasoning::Never),
        ("gpt-4.1-nano", "2025-04-14", Reasoning::Never),
        ("gpt-4o-mini", "2024-07-18", Reasoning::Never),
    ]
    .into_iter()
    .map(|(name, date, reasoning)| SimulatedModel {
        name: name.into(),
        snapshot: format!("{name}-{date}"),
        reasoning,
        enqueued_tokens: None,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_pace_lies_within_what_was_measured() {
        for batch in 0..2000 {
            let latencies = Pace::Real.of(&format!("batch_{batch}"));
            assert!((1_000..=75_587_000).contains(&latencies.in_progress));
            assert!(latencies.cancel >= 605_000);
        }
        assert_eq!(measured_run(500), 114);
        assert_eq!(measured_run(1000), 75_587);
    }
}
