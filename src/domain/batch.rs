//! Batches: their stages and states, the outcomes of their lines, and custom ids.

use std::fmt;
use std::str::FromStr;

use crate::base::text_enum::{UnknownText, text_enum};

text_enum! {
    /// What a batch asks of OpenAI.
    Stage {
        /// Images and text of a lot → an English description.
        Vision = "vision",
        /// A description → its translation into one language.
        Translation = "translation",
    }
}

text_enum! {
    /// How far a batch is. `ARCHITECTURE.md` says what each state makes certain.
    BatchState {
        /// Requests are being claimed, perhaps not all yet.
        Planned = "planned",
        /// Its lines are fixed: count, order and the file's SHA-256.
        Sealed = "sealed",
        /// OpenAI has the input file.
        Uploaded = "uploaded",
        /// A create may have reached OpenAI.
        Creating = "creating",
        /// OpenAI's batch id is stored.
        Submitted = "submitted",
        /// OpenAI's final state and file ids are stored.
        Ended = "ended",
        /// Every line is settled.
        Ingested = "ingested",
        /// OpenAI refused it, or it was abandoned; the reason is stored.
        Failed = "failed",
    }
}

text_enum! {
    /// How a batch's custom ids are made.
    Scheme {
        /// [`CustomId`].
        Own = "own",
        /// The earlier service's: `vision:<lot id>`, `tr:<lot id>:<language>` and their variants.
        Legacy = "legacy",
    }
}

text_enum! {
    /// One of a batch's two result files; the text is the prefix of its columns.
    ResultKind {
        /// Lines answered with 2xx.
        Output = "output",
        /// Lines that failed or never ran.
        Error = "error",
    }
}

text_enum! {
    /// The result of a line.
    Outcome {
        /// The line brought a text.
        Answered = "answered",
        /// The model refused.
        Refused = "refused",
        /// The answer's cap was too low.
        Truncated = "truncated",
        /// A content filter stopped the answer.
        Filtered = "filtered",
        /// OpenAI could not fetch an image, or cannot use it.
        ImageUnreachable = "image_unreachable",
        /// A transient failure, known by its status or code: 429, 5xx, a time-out, `batch_expired`,
        /// `batch_cancelled`, a run that failed inside an answer with 200.
        Passing = "passing",
        /// A setting is wrong: the model's name, a parameter that it does not take, the key.
        Misconfigured = "misconfigured",
        /// The request itself is wrong.
        Wrong = "wrong",
        /// The line, or the answer in it, cannot be read.
        Unreadable = "unreadable",
        /// The line is in neither file.
        Missing = "missing",
        /// The whole batch was refused before any line ran.
        NotRun = "not_run",
    }
}

/// The custom id of one of our lines. It names the lot that the line belongs to without any row.
///
/// `v_<job id, 32 hex>_<position>` or `t_<job id>_<position>_<language>`, at most 64 characters of
/// `[A-Za-z0-9_-]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CustomId {
    /// The job, as a lower-case UUID with hyphens.
    pub job: String,
    /// The lot's position in the job, from 0.
    pub position: u32,
    /// The language of a translation; `None` for a vision line.
    pub language: Option<String>,
}

impl CustomId {
    /// The stage of its line.
    pub fn stage(&self) -> Stage {
        if self.language.is_some() {
            Stage::Translation
        } else {
            Stage::Vision
        }
    }
}

impl fmt::Display for CustomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = self.job.chars().filter(|c| *c != '-').collect::<String>();
        match &self.language {
            None => write!(f, "v_{hex}_{}", self.position),
            Some(language) => write!(f, "t_{hex}_{}_{language}", self.position),
        }
    }
}

impl FromStr for CustomId {
    type Err = UnknownText;

    fn from_str(text: &str) -> Result<Self, UnknownText> {
        parse_custom_id(text).ok_or_else(|| UnknownText {
            text: text.to_owned(),
            verdict: "no custom id".to_owned(),
        })
    }
}

fn parse_custom_id(text: &str) -> Option<CustomId> {
    let (kind, rest) = text.split_once('_')?;
    let (hex, rest) = rest.split_once('_')?;
    if hex.len() != 32 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let (position, language) = match kind {
        "v" => (rest, None),
        "t" => rest
            .split_once('_')
            .map(|(position, language)| (position, Some(language.to_owned())))?,
        _ => return None,
    };
    let position = position
        .parse::<u32>()
        .ok()
        .filter(|n| n.to_string() == position)?;
    let job = format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    );
    Some(CustomId {
        job,
        position,
        language,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_ids_read_back_and_fit_sixty_four_characters() {
        let job = "6908f1d2-39b9-4721-bb8a-dba18120df5f".to_owned();
        for language in [
            None,
            Some("ru".to_owned()),
            Some("zh-Hant-TW-x-abcdefgh".chars().take(20).collect()),
        ] {
            let id = CustomId {
                job: job.clone(),
                position: 49_999,
                language,
            };
            let text = id.to_string();
            assert!(text.len() <= 64, "{text}");
            assert_eq!(text.parse(), Ok(id));
        }
        for text in [
            "",
            "v_6908_1",
            "v_6908f1d239b94721bb8adba18120df5f_01",
            "x_6908f1d239b94721bb8adba18120df5f_1",
        ] {
            assert!(text.parse::<CustomId>().is_err(), "{text}");
        }
    }
}
