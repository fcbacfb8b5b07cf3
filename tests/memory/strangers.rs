//! Large requests with wrong signatures, as a stranger without a key may send them, take little memory, and
//! the daemon gives it back.

use std::thread;

use crate::appliance::{Answer, Appliance, call, wait_for};

/// The most that is left of it half a minute later, in kB.
const MOST_KEPT: u64 = 64 * 1024;

fn list_of(element: &str, bytes: usize) -> Vec<u8> {
    let mut body = String::from("{\"lots\":[");
    while body.len() < bytes {
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

/// Sends the hostile bodies, `rounds` of them from each of four senders at once, and returns by how many kB
/// the daemon grew.
fn growth_under_attack(bytes: usize, rounds: usize) -> u64 {
    let appliance = Appliance::start();
    let idle = appliance.resident_memory();
    let nested = format!("{}{}", "[".repeat(900), "]".repeat(900));
    let bodies = [
        list_of("{\"\":1}", bytes),
        list_of(&nested, bytes),
        list_of("[]", bytes),
        list_of("5e-324", bytes),
        format!("{{{}\"z\":0}}", "\"\":1,".repeat(bytes / 5)).into_bytes(),
    ];
    thread::scope(|scope| {
        for sender in 0..4 {
            let (bodies, appliance) = (&bodies, &appliance);
            scope.spawn(move || {
                for round in 0..rounds {
                    let answer = send(appliance, &bodies[(sender + round) % bodies.len()]);
                    assert!(matches!(answer.status, 400 | 403 | 503), "{}", answer.status);
                }
            });
        }
    });
    let peak = appliance.peak_memory();
    println!(
        "{idle} kB idle, {peak} kB at most, {} kB afterwards",
        appliance.resident_memory()
    );
    wait_for("memory to be given back", || {
        (appliance.resident_memory() < idle + MOST_KEPT).then_some(())
    });
    peak - idle
}

#[test]
fn large_bodies_with_wrong_signatures_take_little_memory() {
    let _alone = crate::alone();
    let grown = growth_under_attack(5_000_000, 2);
    assert!(grown < 80 * 1024, "{grown} kB");
}

/// The promise of `SECURITY.md`, with the largest bodies: `cargo test --release --test memory -- --ignored`.
#[test]
#[ignore = "it takes minutes in a debug build"]
fn the_largest_bodies_with_wrong_signatures_take_three_hundred_megabytes_at_most() {
    let _alone = crate::alone();
    let grown = growth_under_attack(41_000_000, 8);
    assert!(grown < 300 * 1024, "{grown} kB");
}
