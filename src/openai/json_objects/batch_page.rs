//! Parses a page of batches while it arrives, without what no listing needs.

use std::fmt;
use std::io;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

/// Parses a page of batches without their `errors`. A failed batch may have an error for each of its 50,000 lines.
pub(in crate::openai) fn batches_without_errors(source: impl io::Read) -> serde_json::Result<Value> {
    let BatchPage { batches, has_more } = serde_json::from_reader(source)?;
    let data: Vec<_> = batches.into_iter().map(|it| it.batch).collect();
    Ok(json!({"data": data, "has_more": has_more}))
}

/// A list object, or a bare array.
#[derive(Default)]
struct BatchPage {
    batches: Vec<BatchWithoutErrors>,
    has_more: Value,
}

#[derive(Deserialize)]
struct BatchWithoutErrors {
    #[serde(default, rename = "errors")]
    _errors: IgnoredAny,
    #[serde(flatten)]
    batch: Map<String, Value>,
}

impl<'de> Deserialize<'de> for BatchPage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PageVisitor)
    }
}

struct PageVisitor;

impl<'de> Visitor<'de> for PageVisitor {
    type Value = BatchPage;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of batches")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<BatchPage, A::Error> {
        let mut page = BatchPage::default();
        while let Some(batch) = list.next_element()? {
            page.batches.push(batch);
        }
        Ok(page)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<BatchPage, A::Error> {
        let mut page = BatchPage::default();
        let mut has_data = false;
        while let Some(member) = object.next_key::<String>()? {
            match member.as_str() {
                "data" => {
                    page.batches = object.next_value()?;
                    has_data = true;
                }
                "has_more" => page.has_more = object.next_value()?,
                _ => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        match has_data {
            true => Ok(page),
            false => Err(serde::de::Error::missing_field("data")),
        }
    }
}
