//! The fault rules that are active, and which of them a target triggers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Fault;
use crate::sandbox::model::disk::{self, StateFolderError};
use crate::sandbox::model::ids;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::lock::lock;
use crate::sandbox::model::text_form;

/// Which fault happens to which targets, how often and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// Assigned by [`FaultRules::add`].
    #[serde(default)]
    id: u64,
    /// The fault.
    #[serde(with = "text_form")]
    pub fault: Fault,
    /// How often the rule may still be triggered; `None` if without limit.
    #[serde(default)]
    pub times: Option<u64>,
    /// The probability, 0 to 1, that a target triggers the rule. It always is the same for the same target.
    #[serde(default)]
    pub probability: Option<f64>,
    /// Text that one of the target's names must contain. If it ends with `$`, the name must end with the text
    /// before it.
    #[serde(default, rename = "match")]
    pub name_part: Option<String>,
    /// See [`Fault`].
    #[serde(default)]
    pub value: Value,
}

impl FaultRule {
    fn applies(&self, fault: Fault, names: &[&str], seed: &str) -> bool {
        self.fault == fault
            && self.times != Some(0)
            && self
                .name_part
                .as_deref()
                .is_none_or(|part| names.iter().any(|name| is_match(name, part)))
            && self.probability.is_none_or(|probability| {
                let drawn = ids::number(&[&self.id.to_string(), seed]) % 1_000_000;
                (drawn as f64) < probability * 1e6
            })
    }
}

fn is_match(name: &str, part: &str) -> bool {
    match part.strip_suffix('$') {
        Some(end) => name.ends_with(end),
        None => name.contains(part),
    }
}

/// One request to a model as the rules see it.
pub struct FaultTarget<'a> {
    /// Names that `match` is compared with; the first goes into the ledger.
    pub names: &'a [&'a str],
    /// Decides the target's chance.
    pub seed: &'a str,
    /// An entry for each fault that the target triggered.
    pub triggered: &'a mut Vec<LedgerEntry>,
}

impl FaultTarget<'_> {
    /// Triggers a fault if a rule says so, and gives the rule's value.
    pub fn trigger(&mut self, rules: &FaultRules, fault: Fault) -> Option<Value> {
        let value = rules.trigger(fault, self.names, self.seed)?;
        self.triggered
            .push(LedgerEntry::fault(fault.as_str(), self.names));
        Some(value)
    }
}

#[derive(Default)]
struct RuleList {
    rules: Vec<FaultRule>,
    /// Whether the file holds an older list.
    is_unsaved: bool,
}

/// The active rules, and the file that keeps them.
pub struct FaultRules {
    path: PathBuf,
    list: Mutex<RuleList>,
    /// Read on every call without a lock.
    is_empty: AtomicBool,
}

impl FaultRules {
    /// Reads the rules of a state folder.
    pub fn open(folder: &Path) -> Result<Self, StateFolderError> {
        let path = folder.join("faults.json");
        let rules: Vec<FaultRule> = if path.exists() {
            disk::read_json(&path)?
        } else {
            Vec::new()
        };
        Ok(Self {
            path,
            is_empty: AtomicBool::new(rules.is_empty()),
            list: Mutex::new(RuleList {
                rules,
                is_unsaved: false,
            }),
        })
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.is_empty.load(Ordering::Relaxed)
    }

    /// Triggers a fault if a rule says so for a target of these names, and gives the rule's value.
    pub fn trigger(&self, fault: Fault, names: &[&str], seed: &str) -> Option<Value> {
        if self.is_empty() {
            return None;
        }
        let mut list = lock(&self.list);
        let rule = list
            .rules
            .iter_mut()
            .find(|rule| rule.applies(fault, names, seed))?;
        let value = rule.value.clone();
        if let Some(times) = &mut rule.times {
            *times -= 1;
            list.is_unsaved = true;
        }
        Some(value)
    }

    /// Adds rules and gives each an id.
    pub fn add(&self, rules: Vec<FaultRule>) {
        let mut list = lock(&self.list);
        for mut rule in rules {
            rule.id = list.rules.iter().map(|rule| rule.id).max().unwrap_or(0) + 1;
            list.rules.push(rule);
        }
        list.is_unsaved = true;
        self.is_empty.store(list.rules.is_empty(), Ordering::Relaxed);
    }

    /// Deletes every rule.
    pub fn clear(&self) {
        let mut list = lock(&self.list);
        list.rules.clear();
        list.is_unsaved = true;
        self.is_empty.store(true, Ordering::Relaxed);
    }

    /// The rules; `times` is what is left.
    pub fn list(&self) -> Vec<FaultRule> {
        lock(&self.list).rules.clone()
    }

    /// Writes the rules to their file if they changed.
    pub fn save(&self) -> io::Result<()> {
        let mut list = lock(&self.list);
        if list.is_unsaved {
            disk::write_json(&self.path, &list.rules)?;
            list.is_unsaved = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Result<FaultRule, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn rules_are_triggered_as_often_as_they_say_and_outlive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let rules = FaultRules::open(folder.path()).unwrap();
        rules.add(vec![
            rule(r#"{"fault":"line_429","times":2,"match":"v_1"}"#).unwrap(),
            rule(r#"{"fault":"cut_line","probability":0.3}"#).unwrap(),
        ]);
        assert_eq!(rules.list().len(), 2);
        assert_eq!(rules.trigger(Fault::Line429, &["v_2"], "a"), None);
        assert!(is_match("v_1a_1", "a_1$") && !is_match("v_1a_12", "a_1$"));
        assert_eq!(
            rules.trigger(Fault::Line429, &["x", "v_12"], "a"),
            Some(Value::Null)
        );
        rules.save().unwrap();
        let rules = FaultRules::open(folder.path()).unwrap();
        assert!(rules.trigger(Fault::Line429, &["v_1"], "a").is_some());
        assert!(rules.trigger(Fault::Line429, &["v_1"], "a").is_none());
        let triggered = (0..1000)
            .filter(|seed| rules.trigger(Fault::CutLine, &[], &seed.to_string()).is_some())
            .count();
        assert!((230..370).contains(&triggered), "{triggered}");
        assert!(rule(r#"{"fault":"no_such"}"#).is_err());
        assert!(rule(r#"{"fault":"delay","tmes":1}"#).is_err());
        rules.clear();
        assert!(rules.is_empty());
    }
}
