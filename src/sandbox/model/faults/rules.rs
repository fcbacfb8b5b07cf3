//! The fault rules that are active, and which of them a target triggers.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Fault;
use crate::base::clock::Timestamp;
use crate::sandbox::model::ids;
use crate::sandbox::model::ledger::LedgerEntry;
use crate::sandbox::model::lock::lock;
use crate::sandbox::model::storage::{StateFolderError, Storage};
use crate::sandbox::model::text_form;

/// The file of the rules.
const FILE: &str = "faults.json";

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
    /// The number of targets that the rule still lets pass.
    #[serde(default)]
    pub skip: u64,
    /// Milliseconds after which the rule ends; `None` if it does not.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// Assigned by [`FaultRules::add`], from `for_ms`.
    #[serde(default)]
    ends_ms: Option<i64>,
    /// The probability, 0 to 1, that a target triggers the rule. It always is the same for the same target.
    #[serde(default)]
    pub probability: Option<f64>,
    /// Texts, each of which one of the target's names must contain. If a text ends with `$`, the name must end
    /// with the text before it.
    #[serde(default, rename = "match")]
    pub name_parts: NameParts,
    /// See [`Fault`].
    #[serde(default)]
    pub value: Value,
}

/// One text or several.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NameParts {
    /// One.
    One(String),
    /// Several.
    All(Vec<String>),
}

impl Default for NameParts {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl NameParts {
    fn texts(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::All(texts) => texts,
        }
    }
}

impl FaultRule {
    /// A rule for every target, without limit and value.
    pub fn new(fault: Fault) -> Self {
        Self {
            id: 0,
            fault,
            times: None,
            skip: 0,
            for_ms: None,
            ends_ms: None,
            probability: None,
            name_parts: NameParts::default(),
            value: Value::Null,
        }
    }

    /// The same with a value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Value>) -> Self {
        self.value = value.into();
        self
    }

    /// The same for this number of targets.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// The same for targets whose names contain all of these texts.
    #[must_use]
    pub fn matching(mut self, texts: &[&str]) -> Self {
        self.name_parts = NameParts::All(texts.iter().map(|text| (*text).to_owned()).collect());
        self
    }

    /// The same with a probability.
    #[must_use]
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = Some(probability);
        self
    }

    fn applies(&self, target: &FaultTarget<'_>, now: Timestamp) -> bool {
        let has_part = |part: &String| target.names.iter().any(|name| is_match(name, part));
        self.times != Some(0)
            && self.ends_ms.is_none_or(|end| now.millis() < end)
            && self.name_parts.texts().iter().all(has_part)
            && self.probability.is_none_or(|probability| {
                let drawn = ids::number(&[&self.id.to_string(), target.seed]) % 1_000_000;
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

/// What a fault may happen to: a call, a batch, a request or a line.
#[derive(Clone, Copy)]
pub struct FaultTarget<'a> {
    /// Names that `match` is compared with; the first goes into the ledger.
    pub names: &'a [&'a str],
    /// Decides the target's chance.
    pub seed: &'a str,
}

/// One request to a model as the rules see it.
pub struct RequestTarget<'a> {
    /// Its names and its chance.
    pub target: FaultTarget<'a>,
    /// The time of the request.
    pub at: Timestamp,
    /// An entry for each fault that the request triggered.
    pub triggered: &'a mut Vec<LedgerEntry>,
}

impl RequestTarget<'_> {
    /// Triggers a fault if a rule says so, and gives the rule's value.
    pub fn trigger(&mut self, rules: &FaultRules, fault: Fault) -> Option<Value> {
        let value = rules.trigger(fault, self.target, self.at)?;
        self.triggered
            .push(LedgerEntry::fault(fault.as_str(), self.target.names));
        Some(value)
    }
}

#[derive(Default)]
struct RuleList {
    rules: Vec<FaultRule>,
    newest_id: u64,
    /// Whether the file holds an older list.
    is_unsaved: bool,
}

/// The active rules, and the file that keeps them.
pub struct FaultRules {
    storage: Storage,
    list: Mutex<RuleList>,
    /// Read on every call without a lock.
    is_empty: AtomicBool,
}

impl FaultRules {
    /// Reads the rules of a state folder.
    pub fn open(storage: Storage) -> Result<Self, StateFolderError> {
        let rules: Vec<FaultRule> = storage.read_record(FILE)?.unwrap_or_default();
        Ok(Self {
            storage,
            is_empty: AtomicBool::new(rules.is_empty()),
            list: Mutex::new(RuleList {
                newest_id: rules.iter().map(|rule| rule.id).max().unwrap_or(0),
                rules,
                is_unsaved: false,
            }),
        })
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.is_empty.load(Ordering::Relaxed)
    }

    /// Triggers a fault if a rule says so for a target, and gives the rule's value.
    pub fn trigger(&self, fault: Fault, target: FaultTarget<'_>, now: Timestamp) -> Option<Value> {
        if self.is_empty() {
            return None;
        }
        let mut list = lock(&self.list);
        let mut is_changed = false;
        let mut value = None;
        for rule in list.rules.iter_mut().filter(|rule| rule.fault == fault) {
            if !rule.applies(&target, now) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                is_changed = true;
                continue;
            }
            if let Some(times) = &mut rule.times {
                *times -= 1;
                is_changed = true;
            }
            value = Some(rule.value.clone());
            break;
        }
        list.is_unsaved |= is_changed;
        value
    }

    /// Adds rules and gives each an id, which is returned.
    pub fn add(&self, rules: Vec<FaultRule>, now: Timestamp) -> Vec<u64> {
        let mut list = lock(&self.list);
        let mut ids = Vec::with_capacity(rules.len());
        for mut rule in rules {
            list.newest_id += 1;
            rule.id = list.newest_id;
            rule.ends_ms = rule.for_ms.map(|time| now.millis().saturating_add_unsigned(time));
            ids.push(rule.id);
            list.rules.push(rule);
        }
        list.is_unsaved = true;
        self.is_empty.store(list.rules.is_empty(), Ordering::Relaxed);
        ids
    }

    /// Deletes the rules with one of these ids.
    pub fn remove(&self, ids: &[u64]) {
        let mut list = lock(&self.list);
        list.rules.retain(|rule| !ids.contains(&rule.id));
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
            self.storage.write_record(FILE, &list.rules)?;
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

    fn target<'a>(names: &'a [&'a str], seed: &'a str) -> FaultTarget<'a> {
        FaultTarget { names, seed }
    }

    #[test]
    fn rules_are_triggered_as_often_as_they_say_and_outlive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::Folder(folder.path().to_owned());
        let now = Timestamp::from_seconds(1);
        let rules = FaultRules::open(storage.clone()).unwrap();
        let added = vec![
            rule(r#"{"fault":"line_429","times":2,"match":"v_1"}"#).unwrap(),
            rule(r#"{"fault":"cut_line","probability":0.3}"#).unwrap(),
        ];
        rules.add(added, now);
        assert_eq!(rules.list().len(), 2);
        assert_eq!(rules.trigger(Fault::Line429, target(&["v_2"], "a"), now), None);
        assert!(is_match("v_1a_1", "a_1$") && !is_match("v_1a_12", "a_1$"));
        assert_eq!(
            rules.trigger(Fault::Line429, target(&["x", "v_12"], "a"), now),
            Some(Value::Null)
        );
        rules.save().unwrap();
        let rules = FaultRules::open(storage).unwrap();
        assert!(
            rules
                .trigger(Fault::Line429, target(&["v_1"], "a"), now)
                .is_some()
        );
        assert!(
            rules
                .trigger(Fault::Line429, target(&["v_1"], "a"), now)
                .is_none()
        );
        let triggered = (0..1000)
            .filter(|seed| {
                rules
                    .trigger(Fault::CutLine, target(&[], &seed.to_string()), now)
                    .is_some()
            })
            .count();
        assert!((230..370).contains(&triggered), "{triggered}");
        assert!(rule(r#"{"fault":"no_such"}"#).is_err());
        assert!(rule(r#"{"fault":"delay","tmes":1}"#).is_err());
        rules.clear();
        assert!(rules.is_empty());
    }

    #[test]
    fn a_rule_skips_targets_needs_all_texts_and_ends_after_its_time() {
        let rules = FaultRules::open(Storage::Memory(std::sync::Arc::default())).unwrap();
        let now = Timestamp::from_seconds(1);
        let of = r#"{"fault":"line_500","skip":1,"for_ms":1000,"match":["vision","door"]}"#;
        rules.add(vec![rule(of).unwrap()], now);
        let hit = |names: &[&str], at| rules.trigger(Fault::Line500, target(names, ""), at).is_some();
        assert!(!hit(&["vision", "lamp"], now));
        assert!(!hit(&["vision", "a door"], now), "the first is let pass");
        assert!(hit(&["vision", "a door"], now));
        assert!(!hit(&["vision", "a door"], Timestamp::from_seconds(2)));
    }
}
