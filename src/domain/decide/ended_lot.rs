//! The final state of a lot: its requests are settled, or its job is cancelled.

use crate::domain::job::{LotStatus, is_english};

/// What a lot has when it ends.
#[derive(Clone, Copy, Debug)]
pub struct LotTexts<'a> {
    /// The languages that its job asks for.
    pub languages: &'a [String],
    /// Whether it has its description, which is the text of every English language.
    pub is_described: bool,
    /// Whether it has a translation into one of the languages.
    pub is_translated: bool,
}

impl LotTexts<'_> {
    /// Whether at least one of the languages has a text.
    fn has_wanted_text(self) -> bool {
        self.is_translated || self.is_described && self.languages.iter().any(|language| is_english(language))
    }

    /// The state of a lot whose requests are all settled.
    pub fn settled(self) -> LotStatus {
        match self.has_wanted_text() {
            true => LotStatus::Completed,
            false => LotStatus::Failed,
        }
    }

    /// The state of a lot that was not finished when its job was cancelled. Texts that come later do not
    /// change it.
    pub fn cancelled(self) -> LotStatus {
        match self.has_wanted_text() {
            true => LotStatus::Completed,
            false => LotStatus::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lot_is_completed_by_a_text_that_was_asked_for() {
        use LotStatus::{Cancelled, Completed, Failed};
        for (languages, is_described, is_translated, settled, cancelled) in [
            (&["en"][..], false, false, Failed, Cancelled),
            (&["en"], true, false, Completed, Completed),
            (&["de", "en-GB"], true, false, Completed, Completed),
            // The description alone was not asked for.
            (&["de"], true, false, Failed, Cancelled),
            (&["de"], true, true, Completed, Completed),
            // The description of an imported lot may be lost.
            (&["de", "en"], false, true, Completed, Completed),
            (&["de", "en"], false, false, Failed, Cancelled),
        ] {
            let languages: Vec<String> = languages.iter().map(|&it| it.into()).collect();
            let texts = LotTexts {
                languages: &languages,
                is_described,
                is_translated,
            };
            assert_eq!(
                (texts.settled(), texts.cancelled()),
                (settled, cancelled),
                "{texts:?}"
            );
        }
    }
}
