//! The golden files of one test: a folder in `tests/fixtures/golden`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// If this variable is 1, the files are written instead of compared.
const UPDATE: &str = "GOLDEN_UPDATE";
/// The number of characters shown before and after the first difference in a line.
const AROUND: (usize, usize) = (60, 140);

/// The texts that a test compares.
pub struct Fixtures {
    folder: PathBuf,
    files: BTreeMap<String, String>,
}

impl Fixtures {
    /// The files in this folder. No other test may use the folder.
    pub fn of(folder: &str) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden");
        Self {
            folder: root.join(folder),
            files: BTreeMap::new(),
        }
    }

    /// Adds the expected text of a file.
    pub fn add(&mut self, file: &str, text: impl Into<String>) {
        let before = self.files.insert(file.to_owned(), text.into());
        assert_eq!(before, None, "{file} is written twice");
    }

    /// Compares all files, or writes them.
    #[track_caller]
    pub fn check(&self) {
        if std::env::var(UPDATE).is_ok_and(|value| value == "1") {
            self.write();
            return;
        }
        let mut complaints = Vec::new();
        for (name, text) in &self.files {
            let path = self.folder.join(name);
            let complaint = match fs::read_to_string(&path) {
                Ok(golden) => difference(&golden, text),
                Err(error) => Some(error.to_string()),
            };
            complaints.extend(complaint.map(|it| format!("{}: {it}", path.display())));
        }
        for name in self.existing() {
            if !self.files.contains_key(&name) {
                complaints.push(format!("{}: no test writes it", self.folder.join(name).display()));
            }
        }
        assert!(
            complaints.is_empty(),
            "{} of {} golden files differ; {UPDATE}=1 accepts what is said now\n\n{}",
            complaints.len(),
            self.files.len(),
            complaints.join("\n\n")
        );
    }

    fn write(&self) {
        fs::create_dir_all(&self.folder).unwrap();
        for name in self.existing() {
            fs::remove_file(self.folder.join(name)).unwrap();
        }
        for (name, text) in &self.files {
            fs::write(self.folder.join(name), text).unwrap();
        }
    }

    /// The names of the files in the folder.
    fn existing(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let files = entries.map(Result::unwrap).filter(|entry| entry.path().is_file());
        files
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect()
    }
}

/// The first line that differs, from both texts; `None` if the texts are equal.
fn difference(golden: &str, found: &str) -> Option<String> {
    if golden == found {
        return None;
    }
    let split = |text: &str| text.split('\n').map(str::to_owned).collect::<Vec<_>>();
    let (golden, found) = (split(golden), split(found));
    let same = golden.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let line = |side: &[String]| side.get(same).cloned();
    let (golden, found) = (line(&golden), line(&found));
    let letters = |side: &Option<String>| side.iter().flat_map(|it| it.chars()).collect::<Vec<_>>();
    let pairs = letters(&golden).into_iter().zip(letters(&found));
    let column = pairs.take_while(|(a, b)| a == b).count();
    Some(format!(
        "line {}, column {}\n  golden: {}\n  found:  {}",
        same + 1,
        column + 1,
        excerpt(golden.as_deref(), column),
        excerpt(found.as_deref(), column)
    ))
}

/// The part of a line around a column. `line` is `None` after the end of the text.
fn excerpt(line: Option<&str>, column: usize) -> String {
    let Some(line) = line else {
        return "(the end)".to_owned();
    };
    let (before, after) = AROUND;
    let first = column.saturating_sub(before);
    let shown: String = line.chars().skip(first).take(column - first + after).collect();
    let begins = if first > 0 { "…" } else { "" };
    let ends = if line.chars().count() > column + after {
        "…"
    } else {
        ""
    };
    format!("{begins}{}{ends}", shown.escape_debug())
}

#[test]
fn a_difference_names_its_line_and_shows_both_sides() {
    assert_eq!(difference("a\nb\n", "a\nb\n"), None);
    let said = difference("a\nтекст b\nc", "a\nтекст d\nc").unwrap();
    assert_eq!(said, "line 2, column 7\n  golden: текст b\n  found:  текст d");
    let said = difference("a", "a\n").unwrap();
    assert_eq!(said, "line 2, column 1\n  golden: (the end)\n  found:  ");
    let long = |end: &str| format!("{}{end}{}", "x".repeat(100), "y".repeat(200));
    let said = difference(&long("1"), &long("2")).unwrap();
    let shown = format!("…{}1{}…", "x".repeat(60), "y".repeat(139));
    assert!(said.contains(&shown), "{said}");
}
