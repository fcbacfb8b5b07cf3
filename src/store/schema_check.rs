//! Whether the database's tables, views, triggers and indexes are those that this program makes. A backup from elsewhere
//! may hold a trigger that changes rows.

use std::collections::BTreeMap;

use rusqlite::{Connection, Statement};

use super::finding::Finding;
use super::migrate::make_schema;
use super::{Stored, View};

/// The statement that made each object, by the object's kind and name.
type Objects = BTreeMap<(String, String), String>;

const OBJECTS: &str = "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL";

/// Each object that is missing or different, and each trigger that is not ours. Other tables, views and indexes of an operator's own
/// change no row of ours.
pub(super) fn findings(view: &View) -> Stored<Vec<Finding>> {
    let mut fresh = Connection::open_in_memory()?;
    make_schema(&mut fresh)?;
    let (expected, found) = (
        objects(&mut fresh.prepare(OBJECTS)?)?,
        objects(&mut *view.prepare_cached(OBJECTS)?)?,
    );
    let mut findings = Vec::new();
    for (object, sql) in &expected {
        match found.get(object) {
            None => findings.push(finding(object, "is missing")),
            Some(other) if other != sql => findings.push(finding(object, "differs from this program's")),
            Some(_) => {}
        }
    }
    let strange = found
        .keys()
        .filter(|object| object.0 == "trigger" && !expected.contains_key(*object));
    findings.extend(strange.map(|object| finding(object, "is not this program's, and may change rows")));
    Ok(findings)
}

fn finding((kind, name): &(String, String), finding: &str) -> Finding {
    Finding {
        invariant: "schema",
        subject: format!("{kind} {name}"),
        finding: format!("the {kind} {finding}"),
    }
}

fn objects(query: &mut Statement<'_>) -> Stored<Objects> {
    let rows = query.query_map([], |row| {
        Ok(((row.get("type")?, row.get("name")?), row.get("sql")?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::store::Store;

    #[test]
    fn changed_objects_and_strange_triggers_are_found_and_own_tables_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("batchkeeper.db");
        let store = Store::open(&path, Timestamp::from_seconds(1_795_400_000)).expect("a store");
        let found = || store.read(findings).expect("read");
        assert_eq!(found(), []);
        let other = Connection::open(&path).expect("opened");
        other
            .execute_batch(
                "CREATE TABLE my_notes (text TEXT);
                 CREATE TRIGGER steal AFTER INSERT ON batch_jobs BEGIN DELETE FROM events; END;
                 DROP VIEW v_orphans;
                 DROP INDEX batch_lots_status; CREATE INDEX batch_lots_status ON batch_lots (status);",
            )
            .expect("changed");
        let subjects: Vec<String> = found().into_iter().map(|it| it.subject).collect();
        assert_eq!(
            subjects,
            ["index batch_lots_status", "view v_orphans", "trigger steal"]
        );
    }
}
