//! A database that is reached by a second name: one daemon serves it, and no other file takes its log.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use crate::appliance::{Appliance, assert_results};

/// Starts a second daemon on this database, which must end by itself. `timeout` ends one that does not.
fn second_daemon(appliance: &Appliance, database: &Path) -> Output {
    appliance.configure(&format!("database = {database:?}"));
    Command::new("timeout")
        .args(["60", env!("CARGO_BIN_EXE_batchkeeper"), "serve", "--config"])
        .arg(appliance.config())
        .output()
        .unwrap()
}

fn refused(appliance: &Appliance, database: &Path, reason: &str) {
    let ended = second_daemon(appliance, database);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{database:?}: {said}");
    assert!(said.contains(reason), "{database:?}: {said}");
}

#[test]
fn one_daemon_serves_a_database_whatever_its_name() {
    let appliance = Appliance::start();
    let lots = appliance.lots(3);
    let job = appliance.job(&lots, &["en", "de"]);

    let link = appliance.path("link.db");
    symlink(appliance.database(), &link).unwrap();
    refused(&appliance, &link, "another batchkeeper serves this database");
    let folder = appliance.path("folder");
    symlink(".", &folder).unwrap();
    let through = folder.join("batchkeeper.db");
    refused(&appliance, &through, "another batchkeeper serves this database");
    // The folder has a second name, and the lock's own file is gone: the database's file is locked itself.
    let lock = appliance.path("batchkeeper.db.lock");
    assert!(lock.exists());
    fs::remove_file(&lock).unwrap();
    refused(&appliance, &through, "another batchkeeper serves this database");
    refused(
        &appliance,
        &appliance.database(),
        "another batchkeeper serves this database",
    );
    let hard = appliance.path("hard.db");
    fs::hard_link(appliance.database(), &hard).unwrap();
    refused(&appliance, &hard, "2 hard links");
    // A command would open a log of its own beside the other name.
    for command in ["jobs", "doctor", "backup", "recover"] {
        let ran = appliance.run(&[command]);
        assert_eq!(ran.status, 1, "{command}: {}", ran.out);
        assert!(ran.err.contains("2 hard links"), "{command}: {}", ran.err);
    }
    assert!(!appliance.path("hard.db-wal").exists());
    fs::remove_file(&hard).unwrap();

    // Commands work by a symbolic link: SQLite follows it to the one log.
    appliance.configure(&format!("database = {link:?}"));
    assert_eq!(appliance.run(&["jobs"]).status, 0);
    appliance.configure("");
    assert_results(&appliance.results(&job), &lots, &["en", "de"], &[]);
    appliance.assert_sound();
}

/// SQLite's own locks belong to the process: closing any other descriptor of the file would drop them.
#[test]
fn the_daemon_keeps_the_descriptor_of_its_lock_and_commands_have_none() {
    let mut appliance = Appliance::start();
    appliance.results(&appliance.job(&appliance.lots(2), &["en"]));
    let file = fs::canonicalize(appliance.database()).unwrap();
    let id = appliance.daemon_id();
    let open = || {
        let descriptors = fs::read_dir(format!("/proc/{id}/fd"))
            .unwrap()
            .map_while(Result::ok);
        let paths = descriptors.filter_map(|it| Some((it.file_name(), fs::read_link(it.path()).ok()?)));
        let mine = paths.filter(|(_, path)| *path == file);
        mine.map(|(number, _)| number.into_string().unwrap().parse::<u32>().unwrap())
            .min()
    };
    let lowest = open().unwrap();
    let info = fs::read_to_string(format!("/proc/{id}/fdinfo/{lowest}")).unwrap();
    assert!(info.contains("FLOCK") && info.contains("WRITE"), "{info}");
    for command in ["jobs", "doctor", "alerts", "report"] {
        assert_eq!(appliance.run(&[command]).status, 0, "{command}");
    }
    assert_eq!(open(), Some(lowest));
    // The last process that closes a database removes its log. The commands saw the daemon's locks.
    assert!(appliance.path("batchkeeper.db-wal").exists());
    appliance.kill_daemon();
    appliance.start_daemon();
    appliance.results(&appliance.job(&appliance.lots(3), &["en"]));
}
