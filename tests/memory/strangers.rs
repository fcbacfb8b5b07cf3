//! Large requests with wrong signatures, as a stranger without a key may send them, take little memory, and
//! the daemon gives it back.

use std::thread;

use crate::appliance::{Answer, Appliance, call};

/// The most that the daemon may grow in any such run, in KiB.
const MOST_GROWTH: u64 = 300 * 1024;
/// The most that is left of it half a minute later, in KiB.
const MOST_KEPT: u64 = 64 * 1024;
/// Bytes of each body.
const BODY: usize = 41_000_000;
/// Requests at the same time, and in a row.
const SENDERS: usize = 4;
const ROUNDS: usize = 8;

fn body_of(element: &str) -> Vec<u8> {
    let mut body = String::from("{\"lots\":[");
    while body.len() < BODY {
        body.push_str(element);
        body.push(',');
    }
    body.push_str("0]}");
    body.into_bytes()
}

fn send(appliance: &Appliance, body: &[u8]) -> Answer {
    let url = format!("{}/api/v1/generate-descriptions", appliance.api);
    call("POST", &url, &[("X-Signature", &"0".repeat(64))], body)
}

#[test]
fn large_bodies_with_wrong_signatures_take_little_memory() {
    let _alone = crate::alone();
    let appliance = Appliance::start();
    let idle = appliance.resident_memory();
    let nested = format!("{}{}", "[".repeat(900), "]".repeat(900));
    let bodies = [
        body_of("{\"\":1}"),
        body_of(&nested),
        body_of("[]"),
        body_of("5e-324"),
        format!("{{{}\"z\":0}}", "\"\":1,".repeat(BODY / 5)).into_bytes(),
    ];
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (bodies, appliance) = (&bodies, &appliance);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let answer = send(appliance, &bodies[(sender + round) % bodies.len()]);
                    assert!(
                        matches!(answer.status, 400 | 401 | 403 | 503),
                        "{}",
                        answer.status
                    );
                }
            });
        }
    });
    let peak = appliance.peak_memory();
    println!(
        "{idle} KiB idle, {peak} KiB at most, {} KiB afterwards",
        appliance.resident_memory()
    );
    assert!(peak - idle < MOST_GROWTH, "{idle} KiB idle, {peak} KiB at most");
    crate::appliance::wait_for("memory to be given back", || {
        (appliance.resident_memory() < idle + MOST_KEPT).then_some(())
    });
}
