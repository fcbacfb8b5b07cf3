//! A WAL that lost its end: cut, or followed by noise, at each frame and within each frame. This is
//! the state after a power failure on a disk that reports a sync too early. The database then lacks
//! its last transactions, but OpenAI does not. The daemon must agree with OpenAI again, and nothing
//! may be billed twice.
//!
//! `BATCHKEEPER_TORTURE_FRAMES=n` tests every `n`th frame only (default: 1).

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use batchkeeper::base::clock::{Clock, SystemClock};

use super::environment;
use super::rig::{Expected, OfCommit, Options, Rig, Strike, until};
use super::worlds::{side_by_side, worlds};

/// The size of a WAL's header, and of a frame: its header and a page.
const HEAD: u64 = 32;
const FRAME: u64 = 24 + 4096;

/// The content of the WAL after the torn place.
#[derive(Clone, Copy, Debug)]
enum Rest {
    Nothing,
    Noise,
}

/// Records a job's whole life in one WAL. The daemon is killed after the webhook; the job itself is
/// already in the database.
fn recorded() -> Rig {
    let mut rig = Rig::new(Options::torture());
    let before_its_batch = Strike::Commit("submitter", 1, OfCommit::Ahead);
    rig.strike(before_its_batch);
    rig.submit_and_be_killed(2, &["en", "ru"]);
    rig.empty_wal();
    let delivered = Strike::Commit("webhook_sender-*", 2, OfCommit::Done);
    rig.plan().strike(delivered);
    rig.start_blindly();
    rig.wait_until_killed();
    rig.kill_sandbox();
    rig.keep("torn");
    rig
}

/// Starts on the recorded files, with the WAL torn at `place`. Returns whether an operator had to
/// run `recover`.
fn recover_after(rig: &mut Rig, place: u64, rest: Rest) -> bool {
    rig.put_back("torn");
    let path = rig.path("data/batchkeeper.db-wal");
    let wal = File::options().write(true).open(path).unwrap();
    match rest {
        Rest::Nothing => wal.set_len(place).unwrap(),
        Rest::Noise => {
            let noise: Vec<u8> = (0..2 * FRAME).map(|at| (at * 31 % 251) as u8).collect();
            wal.write_all_at(&noise, place).unwrap();
        }
    }
    rig.start_sandbox();
    rig.start();
    let stopped = "SELECT count(*) FROM pauses WHERE scope = 'creates'";
    let helped = until("recovery, or a pause that asks for `recover`", || {
        if rig.number(stopped) == 1 {
            return Some(true);
        }
        rig.is_through().then_some(false)
    });
    if helped {
        let (status, said) = rig.command(&["recover", "--apply"]);
        assert_eq!(status, Some(0), "{said}");
    }
    rig.finish(Expected { batches: Some(2) });
    rig.kill();
    rig.kill_sandbox();
    helped
}

/// Tears every `every`th frame, in worlds that run at the same time.
fn torture(every: u64) {
    let clock = SystemClock::new();
    let started = clock.now().steady;
    let worlds = worlds();
    let shares = side_by_side(0..worlds, move |share| {
        let mut rig = recorded();
        let length = fs::metadata(rig.path("torn/data/batchkeeper.db-wal"))
            .unwrap()
            .len();
        let (mut starts, mut helped) = (0, 0);
        for frame in (0..length / FRAME).step_by(usize::try_from(every).unwrap()) {
            if frame / every % u64::from(worlds) != u64::from(share) {
                continue;
            }
            let begin = HEAD + frame * FRAME;
            for (place, rest) in [
                (begin, Rest::Nothing),
                // Within the frame, sometimes within its header.
                (begin + frame * 997 % FRAME, Rest::Nothing),
                (begin + frame * 499 % 24, Rest::Noise),
            ] {
                println!("torn at {place} of {length}: {rest:?}");
                starts += 1;
                helped += u32::from(recover_after(&mut rig, place, rest));
            }
        }
        (starts, helped)
    });
    let shares: Vec<_> = shares.collect();
    let violated = shares.iter().filter(|(_, share)| share.is_none()).count();
    let (starts, helped) = shares
        .iter()
        .flat_map(|(_, share)| share)
        .fold((0, 0), |sum, share| (sum.0 + share.0, sum.1 + share.1));
    let took = clock.now().steady.saturating_sub(started);
    println!("{starts} torn WALs, {helped} with `recover --apply`, {violated} violations, {took:?}");
    assert_eq!(violated, 0);
    assert!(0 < helped && helped < starts);
}

#[test]
fn a_wal_without_its_end() {
    torture(16);
}

#[test]
#[ignore = "long"]
fn torture_of_every_frame() {
    torture(environment("BATCHKEEPER_TORTURE_FRAMES").unwrap_or(1));
}
