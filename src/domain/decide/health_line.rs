//! The sentence at the head of every page, and how serious it is.

use crate::domain::alert_words::Severity;

/// How well it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing to do.
    Good,
    /// Something waits or fails; a person should look.
    Attention,
    /// A person must act.
    Bad,
}

/// At least this many failed lots in 24 hours are worth a look, if they are a tenth of those that ended.
const FEW_LOTS: u64 = 3;

/// What the sentence is about.
#[derive(Clone, Debug, Default)]
pub struct HealthFacts {
    /// Why nothing can be stored.
    pub storage_error: Option<String>,
    /// The first thread that is late or fails, with the reason.
    pub thread: Option<(String, String)>,
    /// The number of open alerts of each severity.
    pub alerts: Vec<(Severity, u64)>,
    /// The paused scopes in words.
    pub pauses: Vec<String>,
    /// Receivers whose last attempt failed.
    pub failing_receivers: u64,
    /// Lots that failed in 24 hours.
    pub failed_lots: u64,
    /// Lots that ended in 24 hours, failed ones included.
    pub ended_lots: u64,
}

impl HealthFacts {
    fn count(&self, severity: Option<Severity>) -> u64 {
        let found = self
            .alerts
            .iter()
            .filter(|(it, _)| severity.is_none_or(|wanted| wanted == *it));
        found.map(|(_, number)| number).sum()
    }

    fn alert_words(&self) -> Option<String> {
        let words = match (self.count(None), self.count(Some(Severity::Critical))) {
            (0, _) => return None,
            (1, 0) => "One alert is open".to_owned(),
            (1, _) => "One critical alert is open".to_owned(),
            (all, 0) => format!("{all} alerts are open"),
            (all, critical) => format!("{all} alerts are open, {critical} critical"),
        };
        Some(words)
    }

    fn has_failing_lots(&self) -> bool {
        self.failed_lots >= FEW_LOTS && self.failed_lots * 10 >= self.ended_lots
    }
}

/// Decides how well it goes, and says why.
pub fn decide(facts: &HealthFacts) -> (Health, String) {
    if let Some(error) = &facts.storage_error {
        return (Health::Bad, format!("Nothing can be stored: {error}"));
    }
    if let Some((thread, reason)) = &facts.thread {
        return (Health::Bad, format!("Thread {thread} {reason}"));
    }
    let mut words: Vec<String> = facts.alert_words().into_iter().collect();
    if facts.alerts.is_empty() && !facts.pauses.is_empty() {
        words.push(format!("Paused: {}", facts.pauses.join(", ")));
    }
    if facts.has_failing_lots() {
        let (failed, ended) = (facts.failed_lots, facts.ended_lots);
        words.push(format!("{failed} of {ended} lots failed in 24 hours"));
    }
    match facts.failing_receivers {
        0 => {}
        1 => words.push("one receiver fails".to_owned()),
        number => words.push(format!("{number} receivers fail")),
    }
    let health = match facts.count(Some(Severity::Critical)) {
        0 if words.is_empty() => Health::Good,
        0 => Health::Attention,
        _ => Health::Bad,
    };
    match health {
        Health::Good => (health, "All is well".to_owned()),
        _ => (health, capitalized(&words.join("; "))),
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_what_is_not_well() {
        let good = HealthFacts::default;
        let alerts = |alerts: &[(Severity, u64)]| HealthFacts {
            alerts: alerts.to_vec(),
            ..good()
        };
        let lots = |failed_lots, ended_lots| HealthFacts {
            failed_lots,
            ended_lots,
            ..good()
        };
        let paused = HealthFacts {
            pauses: vec!["new jobs".into()],
            failing_receivers: 2,
            ..good()
        };
        let storage = HealthFacts {
            storage_error: Some("full".into()),
            ..alerts(&[(Severity::Notice, 1)])
        };
        let thread = HealthFacts {
            thread: Some(("poller".into(), "should have ticked 70 s ago".into())),
            ..good()
        };
        let receiver = HealthFacts {
            failing_receivers: 1,
            ..good()
        };
        for (facts, health, words) in [
            (good(), Health::Good, "All is well"),
            (lots(2, 2), Health::Good, "All is well"),
            (lots(3, 31), Health::Good, "All is well"),
            (
                lots(32, 43),
                Health::Attention,
                "32 of 43 lots failed in 24 hours",
            ),
            (receiver, Health::Attention, "One receiver fails"),
            (paused, Health::Attention, "Paused: new jobs; 2 receivers fail"),
            (
                alerts(&[(Severity::Notice, 1)]),
                Health::Attention,
                "One alert is open",
            ),
            (
                alerts(&[(Severity::Critical, 1)]),
                Health::Bad,
                "One critical alert is open",
            ),
            (
                alerts(&[(Severity::Warning, 2), (Severity::Critical, 1)]),
                Health::Bad,
                "3 alerts are open, 1 critical",
            ),
            (storage, Health::Bad, "Nothing can be stored: full"),
            (thread, Health::Bad, "Thread poller should have ticked 70 s ago"),
        ] {
            assert_eq!(decide(&facts), (health, words.to_owned()), "{facts:?}");
        }
    }
}
