//! How the simulated OpenAI behaves: keys, models, limits and pace.

use serde::{Deserialize, Serialize};

use super::ids;

/// All settings of a sandbox. Each member may be left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxSettings {
    /// The keys that are accepted. A caller whose key is listed with several projects may name one of them
    /// with the header `OpenAI-Project`; the default is the first.
    pub api_keys: Vec<ProjectKey>,
    /// The models that exist.
    pub models: Vec<SimulatedModel>,
    /// The time that batches spend in each state.
    pub pace: Pace,
    /// Milliseconds from a batch's creation to its expiry (24 hours).
    pub window_ms: u64,
    /// The answer to a create that names an unknown file. The real API has given both.
    pub unknown_file: UnknownFile,
    /// The most batches that one project may create in an hour.
    pub creates_per_hour: usize,
    /// The most bytes that an input file may have.
    pub max_upload_bytes: usize,
    /// The status of the answer to an input file that is too large: 413, or 400 as in 2024.
    pub too_large_status: u16,
    /// The most lines that a batch may have.
    pub max_lines: usize,
    /// Whether an input file's name may lack an extension.
    pub allow_no_extension: bool,
    /// Seconds until files of the purposes `batch` and `batch_output` expire (30 days).
    pub file_lifetime_seconds: u64,
    /// Whether result lines come in another order than the input lines.
    pub shuffle: bool,
    /// The input and output tokens of every answer; `None` if they follow from the texts.
    pub answer_tokens: Option<[u64; 2]>,
    /// Text that goes into every id, so that two sandboxes make different ids.
    pub seed: String,
}

/// A key and the project that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectKey {
    /// The key as it follows `Bearer` in the header `Authorization`.
    pub key: String,
    /// The project's id.
    pub project: String,
}

/// A model that the simulated OpenAI offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimulatedModel {
    /// The alias that requests name.
    pub name: String,
    /// The dated model that responses name. Requests may name it too.
    pub snapshot: String,
    /// Whether a reasoning item precedes its message.
    pub reasoning: Reasoning,
    /// The most tokens that the unfinished batches of one project may hold; `None` if there is no limit.
    #[serde(default)]
    pub enqueued_tokens: Option<u64>,
}

/// Whether a model reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reasoning {
    /// The model never reasons; it refuses the parameter `reasoning`.
    Never,
    /// The model reasons unless the effort is `none`.
    Optional,
    /// The model always reasons; it refuses the effort `none`.
    Always,
}

/// The answer to a create that names an unknown file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownFile {
    /// 400 with the param `file_id`.
    Refuse,
    /// 200, and the batch becomes `failed` with `invalid_request` and the param `file_id`.
    FailLater,
}

/// The time that batches spend in each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// The same for all batches.
    Fixed(Latencies),
    /// As measured of 2,321 real batches, at random for each batch: 130 s at the median, three hours at the
    /// ninetieth percentile.
    Real,
}

/// The milliseconds that a batch spends in each state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latencies {
    /// `validating`.
    pub validating: u64,
    /// `in_progress`.
    pub in_progress: u64,
    /// `finalizing`.
    pub finalizing: u64,
    /// `cancelling`; never less than 605 s at the real API.
    pub cancel: u64,
    /// `finalizing` of a batch whose window closed; about 605 s at the real API.
    pub expire: u64,
}

/// Seconds from `in_progress` to `finalizing` at quantiles (per mille).
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
    pub(super) fn latencies(self, batch: &str) -> Latencies {
        match self {
            Self::Fixed(latencies) => latencies,
            Self::Real => {
                let quantile = ids::number(&["pace", batch]) % 1001;
                Latencies {
                    validating: if quantile.is_multiple_of(20) {
                        61_000
                    } else {
                        1_000
                    },
                    in_progress: measured_run(quantile) * 1000,
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
            answer_tokens: None,
            seed: "sandbox".into(),
        }
    }
}

impl SandboxSettings {
    /// Settings for tests: every state lasts some milliseconds.
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

    /// Settings with the pace of the real API, cancellations of ten minutes included.
    pub fn real() -> Self {
        Self {
            pace: Pace::Real,
            ..Self::default()
        }
    }

    /// The model of that name or snapshot.
    pub(super) fn model(&self, name: &str) -> Option<&SimulatedModel> {
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
        // No price is known of it.
        ("of-our-own", "2026-01-01", Reasoning::Never),
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
            let latencies = Pace::Real.latencies(&format!("batch_{batch}"));
            assert!((1_000..=75_587_000).contains(&latencies.in_progress));
            assert!(latencies.cancel >= 605_000);
        }
        assert_eq!(measured_run(500), 114);
        assert_eq!(measured_run(1000), 75_587);
    }
}
