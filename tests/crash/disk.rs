//! A disk that fails. In a short run, each file operation (write, sync, truncate, rename, create)
//! fails in turn, or the process is killed before it. Other tests fill the disk for a while.
//!
//! `BATCHKEEPER_TORTURE_EVERY=n` tests every `n`th operation only (default: 1).

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use batchkeeper::base::clock::{Clock, SystemClock};
use serde_json::json;
use signal_hook::consts::SIGKILL;

use super::environment;
use super::rig::{EIO, ENOSPC, Expected, Options, Reply, Rig, Strike, pause, until};
use super::worlds::side_by_side;

/// How long the disk stays full.
const FULL: Duration = Duration::from_millis(150);

/// What happens at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// SIGKILL.
    Killed,
    /// EIO, once.
    Broken,
    /// ENOSPC, once.
    FullOnce,
    /// ENOSPC at this operation, and at all operations that follow for a while.
    Full,
}

const FAULTS: [Fault; 4] = [Fault::Killed, Fault::Broken, Fault::FullOnce, Fault::Full];

impl Fault {
    fn strike(self, nth: u32) -> Strike<'static> {
        let (error, lasting) = match self {
            Self::Killed => return Strike::KillAtFile(nth),
            Self::Broken => (EIO, false),
            Self::FullOnce => (ENOSPC, false),
            Self::Full => (ENOSPC, true),
        };
        Strike::FailFile { nth, error, lasting }
    }

    fn is_full(self) -> bool {
        matches!(self, Self::FullOnce | Self::Full)
    }

    /// Runs a short job on a disk that fails at its `nth` operation. Returns false if the run had
    /// fewer operations.
    fn run(self, nth: u32) -> bool {
        let mut rig = Rig::without_daemon(Options::torture());
        rig.plan().strike(self.strike(nth));
        let mut run = Run::new(self);
        if let Some(status) = rig.try_to_start() {
            run.restart(&mut rig, status);
        }
        let struck_early = rig.plan().struck() > 0;
        rig.submit_until_stored(2, &["en", "ru"], |rig, reply| {
            if self.is_full() && matches!(reply, Reply::Refused) {
                assert_eq!(rig.number("SELECT count(*) FROM batch_jobs"), 0);
            }
            run.keep_going(rig);
        });
        until("the end of the job", || {
            run.keep_going(&mut rig);
            rig.is_through().then_some(())
        });
        let struck = rig.plan().struck() > 0;
        if struck && !self.is_full() {
            until("the daemon's end", || {
                run.keep_going(&mut rig);
                (run.ends == 1).then_some(())
            });
        }
        // A start may need free space. After a failed sync, the content of the page is unknown.
        if self.is_full() && !struck_early && !rig.plan().struck_a_sync() {
            assert_eq!(run.ends, 0, "the daemon did not continue by itself");
        }
        rig.plan().lift();
        rig.finish(Expected::default());
        struck
    }
}

/// The progress of a run.
struct Run {
    fault: Fault,
    has_space: bool,
    ends: u32,
}

impl Run {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            has_space: fault != Fault::Full,
            ends: 0,
        }
    }

    /// Frees space on the disk after a while, and restart_after_end a daemon that has ended.
    fn keep_going(&mut self, rig: &mut Rig) {
        if !self.has_space && rig.plan().struck() > 0 {
            pause(FULL);
            rig.plan().lift();
            self.has_space = true;
        }
        if let Some(status) = rig.has_ended() {
            self.restart(rig, status);
        }
    }

    fn restart(&mut self, rig: &mut Rig, status: ExitStatus) {
        match self.fault {
            Fault::Killed => assert_eq!(status.signal(), Some(SIGKILL)),
            _ => assert_eq!(status.code(), Some(1)),
        }
        self.ends += 1;
        rig.plan().lift();
        rig.start();
    }
}

/// Lets every `every`th operation fail in turn, with each fault. Prints one row for each fault.
fn torture(every: usize) {
    let clock = SystemClock::new();
    let started = clock.now().steady;
    let operations = operations_of_a_run();
    let mut all_violated = Vec::new();
    for (at, fault) in FAULTS.into_iter().enumerate() {
        // Each fault begins at another operation.
        let first = 1 + u32::try_from(at * every / FAULTS.len()).unwrap();
        let (mut struck, mut violated) = (0, Vec::new());
        let tasks = (first..=operations).step_by(every);
        for (nth, run) in side_by_side(tasks, move |nth| fault.run(nth)) {
            struck += u32::from(run == Some(true));
            if run.is_none() {
                violated.push(nth);
            }
        }
        println!("| {fault:?} | {struck} | {} |", violated.len());
        assert!(struck > 0, "{fault:?} struck nothing");
        all_violated.extend(violated.into_iter().map(|nth| (fault, nth)));
    }
    let took = clock.now().steady.saturating_sub(started);
    println!("{operations} operations, {took:?}");
    assert!(all_violated.is_empty(), "{all_violated:?}");
}

fn operations_of_a_run() -> u32 {
    let mut rig = Rig::without_daemon(Options::torture());
    rig.plan().strike(Strike::KillAtFile(u32::MAX));
    rig.start();
    rig.submit(2, &["en", "ru"]);
    rig.finish(Expected::default());
    rig.plan().seen()
}

#[test]
fn operations_on_files_fail() {
    torture(127);
}

#[test]
fn an_io_error_while_the_database_is_made_ends_the_daemon() {
    let runs = side_by_side((1..=25).step_by(3), |nth| Fault::Broken.run(nth));
    for (nth, struck) in runs {
        assert_eq!(struck, Some(true), "at operation {nth}");
    }
}

#[test]
#[ignore = "long"]
fn torture_of_every_operation_on_a_file() {
    torture(environment("BATCHKEEPER_TORTURE_EVERY").unwrap_or(1));
}

#[test]
fn an_io_error_that_only_a_client_sees_ends_the_daemon() {
    let mut rig = Rig::new(Options::torture());
    // The daemon's own work after a start may be struck first.
    let mut seen = false;
    while !seen {
        rig.plan().strike(Fault::Broken.strike(1));
        let mut was_refused = false;
        rig.submit_until_stored(2, &["en", "ru"], |rig, reply| {
            seen |= matches!(reply, Reply::Refused);
            was_refused = true;
            restart_after_end(rig);
        });
        if !was_refused {
            restart_after_end(&mut rig);
        }
    }
    rig.finish(Expected::default());
}

/// Waits until the daemon ends by itself, and starts it again.
fn restart_after_end(rig: &mut Rig) {
    let ended = until("the daemon's end", || rig.has_ended());
    assert_eq!(ended.code(), Some(1));
    rig.start();
}

/// Submits jobs until the disk is full. While it is full, clients get an error and can still read
/// all accepted jobs. When there is free space again, the daemon continues without a restart.
fn fill_and_free(rig: &mut Rig, fill: impl Fn(&Rig), free: impl Fn(&Rig)) {
    rig.faults(&json!([{"fault": "stall_in_progress", "match": "translation"}]));
    rig.submit(30, &["en", "ru"]);
    let on_its_way = "SELECT 1 FROM openai_batches WHERE stage = 'translation' AND state = 'submitted'";
    rig.wait_for(on_its_way);
    fill(rig);
    // The WAL may still have space for more jobs.
    until("a refusal", || (!rig.try_submit(30, &["en"])).then_some(()));
    rig.no_faults();
    pause(FULL * 4);
    assert!(!rig.try_submit(30, &["en"]));
    until("an unhealthy answer", || (rig.health() == 503).then_some(()));
    rig.assert_all_readable();
    free(rig);
    until("free space", || rig.try_submit(2, &["en"]).then_some(()));
    rig.finish(Expected::default());
    until("a healthy answer", || (rig.health() == 200).then_some(()));
    assert_eq!(rig.has_ended(), None);
}

#[test]
fn a_full_disk_stops_intake_until_there_is_free_space() {
    let full = |rig: &Rig| rig.plan().strike(Fault::Full.strike(1));
    fill_and_free(&mut Rig::new(Options::torture()), full, |rig| rig.plan().lift());
}

/// A file system in memory. It is unmounted when it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn at(path: PathBuf) -> Self {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
            .arg(&path)
            .status();
        assert!(mounted.unwrap().success(), "mount failed; only root may mount");
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(gone.is_ok_and(|status| status.success()));
    }
}

#[test]
#[ignore = "needs root, to mount a small tmpfs"]
fn torture_of_a_tmpfs_that_fills_up() {
    let full = |rig: &Rig| {
        let mut file = File::create(rig.path("data/filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    };
    let free = |rig: &Rig| fs::remove_file(rig.path("data/filler")).unwrap();
    for _ in 0..10 {
        let mut rig = Rig::without_daemon(Options::torture());
        let _mounted = Mounted::at(rig.path("data"));
        rig.start();
        fill_and_free(&mut rig, full, free);
        println!("full, and free space again: {} jobs", rig.jobs.len());
    }
}
