//! SIGKILL at random moments under load. Each run prints its seed. `BATCHKEEPER_CRASH_SEED` repeats
//! the moments of a seed; `BATCHKEEPER_CRASH_KILLS` sets the number of kills.

use std::time::Duration;

use serde_json::{Value, json};

use super::environment;
use super::rig::{Expected, Options, Rig, pause};

/// The SplitMix64 generator.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

fn seed() -> u64 {
    environment("BATCHKEEPER_CRASH_SEED").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0)
}

/// Kills `kills` times while at least three jobs run. Of a hundred kills, `sandbox` hit the sandbox
/// alone and `both` hit both processes; the others hit the daemon alone.
fn kill_at_random(kills: u64, sandbox: u64, both: u64, faults: &Value) {
    let seed = seed();
    println!("BATCHKEEPER_CRASH_SEED={seed} kills={kills}");
    let mut draw = Draw(seed);
    let mut rig = Rig::new(Options {
        pace: 60,
        ..Options::default()
    });
    rig.faults(faults);
    let sizes = [7, 40, 260];
    for lots in sizes {
        rig.submit(lots, &["en", "ru"]);
    }
    for _ in 0..kills {
        // Most kills come within the first second, in which most of the work is done; some come
        // much later.
        let longest = [30, 150, 400, 900][usize::try_from(draw.below(4)).unwrap()];
        pause(Duration::from_millis(draw.below(longest)));
        let which = draw.below(100);
        if which < sandbox {
            rig.kill_sandbox();
            pause(Duration::from_millis(draw.below(200)));
            rig.start_sandbox();
        } else if which < sandbox + both {
            rig.kill();
            rig.kill_sandbox();
            rig.start_sandbox();
            rig.start();
        } else {
            rig.kill();
            rig.start();
        }
        if rig.is_done() {
            let lots = sizes[usize::try_from(draw.below(3)).unwrap()];
            rig.submit(lots, &["en", "de"]);
        }
    }
    rig.no_faults();
    rig.finish(Expected::default());
}

#[test]
fn the_daemon_at_random_moments() {
    kill_at_random(15, 0, 0, &json!([]));
}

#[test]
fn the_daemon_at_random_moments_while_everything_goes_wrong() {
    kill_at_random(10, 0, 0, &all_faults());
}

/// The faults that happen beside the kills. None of them makes OpenAI answer a line twice.
fn all_faults() -> Value {
    json!([
        {"fault": "refuse", "value": 503, "probability": 0.05},
        {"fault": "lost_reply", "probability": 0.05},
        {"fault": "lost_upload_reply", "probability": 0.1},
        {"fault": "lost_create_reply", "probability": 0.3},
        {"fault": "late_reply", "value": 300, "probability": 0.1},
        {"fault": "list_lag", "value": 600, "probability": 0.3},
        {"fault": "file_lag_create", "value": 200, "probability": 0.2},
        {"fault": "html_502_on_poll", "probability": 0.1},
        {"fault": "content_502", "probability": 0.1},
        {"fault": "content_truncated", "probability": 0.2},
        {"fault": "late_file_ids", "value": 200, "probability": 0.2},
        {"fault": "token_limit_async", "times": 1},
        {"fault": "expire_partial", "times": 2},
        {"fault": "line_500", "times": 9},
        {"fault": "line_429", "times": 3},
        {"fault": "duplicate_lines", "probability": 0.05},
        {"fault": "extra_lines", "probability": 0.05},
        {"fault": "hook_status", "value": 503, "times": 2},
    ])
}

#[test]
fn the_daemon_and_openai_at_random_moments() {
    kill_at_random(10, 40, 30, &json!([]));
}

/// Takes backups at random moments, and restores each of them at another random moment.
#[test]
fn older_databases_at_random_moments() {
    restore_at_random(3);
}

fn restore_at_random(restores: u64) {
    let seed = seed();
    let mut draw = Draw(seed);
    for round in 0..restores {
        println!("BATCHKEEPER_CRASH_SEED={seed} restore={round}");
        let mut rig = Rig::new(Options {
            pace: 60,
            ..Options::default()
        });
        for lots in [7, 40, 260] {
            rig.submit(lots, &["en", "ru"]);
        }
        pause(Duration::from_millis(draw.below(700)));
        rig.back_up("backup.db");
        pause(Duration::from_millis(draw.below(900)));
        if draw.below(2) == 0 {
            rig.kill();
        } else {
            assert_eq!(rig.terminate().code(), Some(0));
        }
        rig.restore("backup.db");
        rig.start();
        pause(Duration::from_millis(draw.below(300)));
        let (status, said) = rig.command(&["recover", "--apply"]);
        assert_eq!(status, Some(0), "{said}");
        println!("{said}");
        rig.finish(Expected::default());
    }
}

#[test]
#[ignore = "long: BATCHKEEPER_CRASH_KILLS says how long"]
fn torture() {
    let kills = environment("BATCHKEEPER_CRASH_KILLS").unwrap_or(200);
    kill_at_random(kills, 15, 10, &all_faults());
}

#[test]
#[ignore = "long: BATCHKEEPER_CRASH_RESTORES says how long"]
fn torture_with_older_databases() {
    restore_at_random(environment("BATCHKEEPER_CRASH_RESTORES").unwrap_or(40));
}
