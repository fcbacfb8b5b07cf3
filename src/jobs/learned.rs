//! Tokens that requests of one kind took on average, and what is assumed before any was answered.

use crate::domain::usage::TokenUsage;
use crate::store::money::Learned;

/// Characters of English text in a token, about.
pub(super) const CHARACTERS_PER_TOKEN: u64 = 4;
/// Input tokens of one image in low detail, about.
const TOKENS_PER_IMAGE: u64 = 85;
/// Input tokens of one image in another detail, at most: OpenAI caps the number of patches.
const TOKENS_PER_DETAILED_IMAGE: u64 = 1_536;

/// The number of answers that the averages are made from.
pub(super) fn count_answers(learned: &[Learned]) -> u64 {
    learned.iter().map(|it| it.answers).sum()
}

/// The tokens of `requests` requests that take as many as those answered before; `None` if there were none.
pub(super) fn average(learned: &[Learned], requests: u64) -> Option<TokenUsage> {
    let answers = count_answers(learned);
    let all = learned.iter().map(|it| it.tokens).sum::<TokenUsage>();
    let share = |tokens: u64| {
        let whole = u128::from(tokens) * u128::from(requests) / u128::from(answers.max(1));
        u64::try_from(whole).unwrap_or(u64::MAX)
    };
    (answers > 0).then(|| all.map(share))
}

/// Input tokens of one image in that detail.
pub(super) fn tokens_per_image(detail: &str) -> u64 {
    match detail {
        "low" => TOKENS_PER_IMAGE,
        _ => TOKENS_PER_DETAILED_IMAGE,
    }
}

pub(super) fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
