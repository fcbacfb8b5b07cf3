//! A disk that fails: each write, sync, truncation, renaming and new file of a short run in turn is
//! the one that fails, or the last that the process does. And one that is full for a while.
//!
//! `BATCHKEEPER_TORTURE_EVERY` takes only every so many of the operations (1).

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
    /// ENOSPC, there and at all that follow for a while.
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
        Strike::FailFile {
            nth,
            error,
            lasting,
        }
    }

    fn is_full(self) -> bool {
        matches!(self, Self::FullOnce | Self::Full)
    }

    /// A short run on a disk that fails at its `nth` operation; gives whether it had so many.
    fn run(self, nth: u32) -> bool {
        let mut rig = Rig::without_daemon(Options::torture());
        rig.plan().strike(self.strike(nth));
        let mut run = Run::new(self);
        if let Some(status) = rig.try_to_start() {
            run.has_ended(&mut rig, status);
        }
        let struck_early = rig.plan().struck() > 0;
        rig.submit_until_stored(2, &["en", "ru"], |rig, reply| {
            if self.is_full() && matches!(reply, Reply::Refused) {
                assert_eq!(rig.number("SELECT count(*) FROM batch_jobs"), 0);
            }
            run.goes_on(rig);
        });
        until("the end of the job", || {
            run.goes_on(&mut rig);
            rig.is_through().then_some(())
        });
        let struck = rig.plan().struck() > 0;
        if struck && !self.is_full() {
            until("the daemon's end", || {
                run.goes_on(&mut rig);
                (run.ends == 1).then_some(())
            });
        }
        // A start may need room. And what became of a page whose sync failed, nobody knows.
        if self.is_full() && !struck_early && !rig.plan().struck_a_sync() {
            assert_eq!(run.ends, 0, "it does not go on by itself");
        }
        rig.plan().lift();
        rig.finish(Expected::default());
        struck
    }
}

/// What has come of a run so far.
struct Run {
    fault: Fault,
    has_room: bool,
    ends: u32,
}

impl Run {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            has_room: fault != Fault::Full,
            ends: 0,
        }
    }

    /// After a while there is room again; a daemon that has ended is started again.
    fn goes_on(&mut self, rig: &mut Rig) {
        if !self.has_room && rig.plan().struck() > 0 {
            pause(FULL);
            rig.plan().lift();
            self.has_room = true;
        }
        if let Some(status) = rig.has_ended() {
            self.has_ended(rig, status);
        }
    }

    fn has_ended(&mut self, rig: &mut Rig, status: ExitStatus) {
        match self.fault {
            Fault::Killed => assert_eq!(status.signal(), Some(SIGKILL)),
            _ => assert_eq!(status.code(), Some(1)),
        }
        self.ends += 1;
        rig.plan().lift();
        rig.start();
    }
}

/// Every so many operations fail in turn, with each fault; prints a line for each fault.
fn torture(every: usize) {
    let clock = SystemClock::new();
    let started = clock.now().steady;
    let operations = operations_of_a_run();
    let mut all_violated = Vec::new();
    for (at, fault) in FAULTS.into_iter().enumerate() {
        // Not the same ones for each.
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
    torture(61);
}

#[test]
fn an_io_error_while_the_database_is_made_ends_the_daemon() {
    let runs = side_by_side(1..=25, |nth| Fault::Broken.run(nth));
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
    // What the daemon does by itself after a start may be struck first.
    let mut seen = false;
    while !seen {
        rig.plan().strike(Fault::Broken.strike(1));
        let mut was_told = false;
        rig.submit_until_stored(2, &["en", "ru"], |rig, reply| {
            seen |= matches!(reply, Reply::Refused);
            was_told = true;
            restarts(rig);
        });
        if !was_told {
            restarts(&mut rig);
        }
    }
    rig.finish(Expected::default());
}

/// The daemon ends by itself, and is started again.
fn restarts(rig: &mut Rig) {
    let ended = until("the daemon's end", || rig.has_ended());
    assert_eq!(ended.code(), Some(1));
    rig.start();
}

/// Jobs are taken until the disk is full; then clients are told so, while all that was taken can be
/// read. When there is room again, it all goes on without a restart.
fn fills_up(rig: &mut Rig, fill: impl Fn(&Rig), free: impl Fn(&Rig)) {
    rig.faults(&json!([{"fault": "stall_in_progress", "match": "translation"}]));
    rig.submit(30, &["en", "ru"]);
    let on_its_way =
        "SELECT 1 FROM openai_batches WHERE stage = 'translation' AND state = 'submitted'";
    rig.wait_for(on_its_way);
    fill(rig);
    // The WAL may have room for some more.
    until("a refusal", || (!rig.is_taken(30, &["en"])).then_some(()));
    rig.no_faults();
    pause(FULL * 4);
    assert!(!rig.is_taken(30, &["en"]));
    until("a word of it", || (rig.health() == 503).then_some(()));
    rig.reads_all();
    free(rig);
    until("room", || rig.is_taken(2, &["en"]).then_some(()));
    rig.finish(Expected::default());
    until("health", || (rig.health() == 200).then_some(()));
    assert_eq!(rig.has_ended(), None);
}

#[test]
fn a_full_disk_and_room_again() {
    let full = |rig: &Rig| rig.plan().strike(Fault::Full.strike(1));
    fills_up(&mut Rig::new(Options::torture()), full, |rig| {
        rig.plan().lift()
    });
}

/// A file system in memory; gone with it.
struct Mounted(PathBuf);

impl Mounted {
    fn at(path: PathBuf) -> Self {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
            .arg(&path)
            .status();
        assert!(mounted.unwrap().success(), "only root may mount");
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
        fills_up(&mut rig, full, free);
        println!("full, and room again: {} jobs", rig.jobs.len());
    }
}
