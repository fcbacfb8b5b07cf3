//! Faults by chance.

use std::time::Duration;

use batchkeeper::sandbox::FaultRule;

use super::random::Random;
use super::script::{Course, End, Fate, Fault, Ids, Op, error_entry};

/// Faults by chance.
pub struct Chaos {
    pub random: Random,
    /// Of a thousand calls so many go wrong.
    pub calls: u64,
    /// Of a thousand lines so many go wrong.
    pub lines: u64,
    /// Of a thousand batches so many go wrong.
    pub batches: u64,
}

/// What becomes of lines.
const FATES: [Fate; 14] = [
    Fate::Missing,
    Fate::Repeated,
    Fate::InBoth,
    Fate::Garbled,
    Fate::Torn,
    Fate::Reasoned,
    Fate::Refused,
    Fate::Incomplete,
    Fate::Endless,
    Fate::ImageGone,
    Fate::Status(400),
    Fate::Status(429),
    Fate::Status(500),
    Fate::FailedInside,
];

impl Chaos {
    /// What goes wrong with a call.
    pub(super) fn fault(&mut self, op: Op) -> Option<Fault> {
        if !self.random.chance(self.calls) {
            return None;
        }
        let mut faults = vec![
            Fault::NotSent,
            Fault::Lost,
            Fault::ReplyLost,
            Fault::ReplyLost,
            Fault::Refused(429, "rate_limit_exceeded", ""),
            Fault::Refused(500, "server_error", ""),
            Fault::Refused(401, "invalid_api_key", ""),
            Fault::Html(502),
            Fault::CrashBefore,
            Fault::CrashAfter,
        ];
        match op {
            Op::Download => faults.extend([Fault::Cut, Fault::QuietCut]),
            Op::Create => faults.extend([Fault::Twice, Fault::Refused(400, "", "file_id")]),
            _ => {}
        }
        Some(self.random.pick(&faults))
    }

    /// The rules for lines.
    pub(super) fn line_rules(&self) -> Vec<FaultRule> {
        if self.lines == 0 {
            return Vec::new();
        }
        let each = self.lines as f64 / 1000.0 / FATES.len() as f64;
        let rules = FATES.iter().map(|fate| fate.rule().probability(each));
        rules.collect()
    }

    /// What a batch goes through.
    pub(super) fn change(&mut self, course: &mut Course, lines: usize) {
        let random = &mut self.random;
        course.latency = Duration::from_secs(random.below(1200));
        if !random.chance(self.batches) {
            return;
        }
        let some = usize::try_from(random.below(lines as u64 + 1)).unwrap_or(0);
        course.end = match random.below(5) {
            0 => End::Expires(some),
            1 => End::Cancelled(some),
            2 => End::Refused(vec![error_entry("server_error", None)]),
            3 => End::Refused(vec![error_entry("token_limit_exceeded", None)]),
            _ => End::Completes,
        };
        course.ids = random.pick(&[
            Ids::AtOnce,
            Ids::AtOnce,
            Ids::Late(Duration::from_mins(5)),
            Ids::OutputLate(Duration::from_mins(5)),
        ]);
        course.stranger = random.chance(200);
        course.unended = random.chance(200);
    }
}
