//! A disk that fails: each write, sync, truncation, renaming and new file of a short run in turn is
//! the one that fails, or the last that the process does. And one that is full for a while.
//!
//! `BATCHKEEPER_TORTURE_EVERY` takes only every so many of the operations (1).

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use batchkeeper::clock::{Clock, SystemClock};
use signal_hook::consts::SIGKILL;

use super::environment;
use super::rig::{EIO, ENOSPC, Expected, Options, Reply, Rig, Strike, pause, until};
use super::worlds::side_by_side;

/// How long the disk stays full.
const FULL: Duration = Duration::from_millis(150);

const OPTIONS: Options = Options {
    pace: 0,
    settling: 600,
    tidy: false,
    shim: true,
};

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
        let mut rig = Rig::without_daemon(OPTIONS);
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
        while !rig.is_through() {
            run.goes_on(&mut rig);
            pause(Duration::from_millis(2));
        }
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
    let tasks = FAULTS.iter().enumerate().flat_map(|(at, fault)| {
        // Not the same ones for each.
        let first = 1 + u32::try_from(at * every / FAULTS.len()).unwrap();
        (first..=operations).step_by(every).map(|nth| (*fault, nth))
    });
    let runs = side_by_side(tasks, |(fault, nth)| fault.run(nth));
    let mut all_violated = Vec::new();
    for fault in FAULTS {
        let runs = || runs.iter().filter(|((of, _), _)| *of == fault);
        let struck = runs().filter(|(_, struck)| *struck == Some(true)).count();
        let violated = runs().filter(|(_, struck)| struck.is_none());
        let violated: Vec<u32> = violated.map(|((_, nth), _)| *nth).collect();
        println!("| {fault:?} | {struck} | {} |", violated.len());
        assert!(struck > 0, "{fault:?} struck nothing");
        all_violated.extend(violated.into_iter().map(|nth| (fault, nth)));
    }
    let took = clock.now().steady.saturating_sub(started);
    println!("{operations} operations, {took:?}");
    assert!(all_violated.is_empty(), "{all_violated:?}");
}

fn operations_of_a_run() -> u32 {
    let mut rig = Rig::without_daemon(OPTIONS);
    rig.plan().strike(Strike::KillAtFile(u32::MAX));
    rig.start();
    rig.submit(2, &["en", "ru"]);
    rig.finish(Expected::default());
    rig.plan().seen()
}

#[test]
fn operations_on_files_fail() {
    torture(41);
}

#[test]
#[ignore = "long"]
fn torture_of_every_operation_on_a_file() {
    torture(environment("BATCHKEEPER_TORTURE_EVERY").unwrap_or(1));
}
