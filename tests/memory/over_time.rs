//! Memory of the daemon under the three attacks that once filled it, one after another, as a picture.
//!
//! `cargo test --release --test memory over_time -- --ignored --nocapture` runs them; with `GOLDEN_UPDATE=1` it draws
//! `docs/pictures/memory-under-attack.svg`.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::appliance::{Appliance, call, now, wait_for};

const EVERY: Duration = Duration::from_millis(100);
/// How much memory may grow, and how much of that may be left half a minute later, in MB.
const MOST_GROWTH: f64 = 300.0;
const MOST_KEPT: f64 = 64.0;
/// The size of the picture, and the left and lower margin of the chart.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 320.0;
const MARGIN: f64 = 48.0;

/// Samples of the resident memory: seconds since the start, and MB.
type Samples = Vec<(f64, f64)>;

/// Time passes, while the daemon works.
fn pause(time: Duration) {
    thread::park_timeout(time);
}

/// Lots with a hundred images each, every image on a silent host of its own.
fn silent_lots(job: usize, port: u16) -> Vec<Value> {
    let images = |lot: usize| {
        (0..100).map(move |image| format!("http://127.{}.{lot}.{image}:{port}/1.jpg", job % 250 + 1))
    };
    let lot = |lot| json!({"lot_id": format!("{job}-{lot}"), "images": images(lot).collect::<Vec<_>>()});
    (0..50).map(lot).collect()
}

fn hostile_body(element: &str, bytes: usize) -> Vec<u8> {
    format!(
        "{{\"lots\":[{}0]}}",
        format!("{element},").repeat(bytes / (element.len() + 1))
    )
    .into_bytes()
}

/// Bodies of 41 and 24 MB with wrong signatures, 32 of them.
fn send_bodies(appliance: &Appliance) {
    let nested = format!("{}{}", "[".repeat(900), "]".repeat(900));
    let bodies = [
        hostile_body("{\"\":1}", 41_000_000),
        hostile_body(&nested, 24_000_000),
    ];
    let url = format!("{}/api/v1/generate-descriptions", appliance.api);
    thread::scope(|scope| {
        for sender in 0..4 {
            let (bodies, url) = (&bodies, &url);
            scope.spawn(move || {
                for round in 0..8 {
                    let answer = call(
                        "POST",
                        url,
                        &[("X-Signature", &"0".repeat(64))],
                        &bodies[(sender + round) % 2],
                    );
                    assert!(matches!(answer.status, 400 | 403 | 503), "{}", answer.status);
                }
            });
        }
    });
}

/// Jobs whose images are on silent hosts; each is cancelled after three seconds, or at the end.
fn send_silent(appliance: &Appliance, jobs: usize, port: u16) {
    let taken: Vec<String> = (0..jobs)
        .map(|job| appliance.job(&silent_lots(job, port), &["en"]))
        .collect();
    pause(Duration::from_secs(3));
    for job in taken {
        assert_eq!(appliance.run(&["jobs", "cancel", &job]).status, 0);
    }
}

#[test]
#[ignore = "some two minutes of attacks; in a release build"]
fn three_attacks_are_survived_in_little_memory() {
    let appliance = Appliance::with("[synchronous]\nenabled = false\n[images]\nconcurrency = 64");
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (start, is_over) = (now(), AtomicBool::new(false));
    let seconds = || now().since(start).as_secs_f64();
    let megabytes = || appliance.resident_memory() as f64 / 1024.0;
    let idle = megabytes();
    let mut marks: Vec<(f64, &str)> = Vec::new();
    let mut kept: Vec<f64> = Vec::new();
    let samples = thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut samples = Samples::new();
            while !is_over.load(Ordering::Relaxed) {
                samples.push((seconds(), megabytes()));
                pause(EVERY);
            }
            samples
        });
        for (name, attack) in [
            ("32 large bodies", &send_bodies as &dyn Fn(&Appliance)),
            ("1 job, 5,000 silent hosts", &|appliance| {
                send_silent(appliance, 1, port)
            }),
            ("240 such jobs", &|appliance| send_silent(appliance, 240, port)),
        ] {
            marks.push((seconds(), name));
            attack(&appliance);
            wait_for("memory to be given back", || {
                (megabytes() < idle + MOST_KEPT).then_some(())
            });
            kept.push(megabytes() - idle);
        }
        is_over.store(true, Ordering::Relaxed);
        sampler.join().unwrap()
    });
    let most = samples.iter().map(|(_, memory)| *memory).fold(0.0, f64::max);
    println!("idle {idle:.0} MB, at most {most:.0} MB, kept after each attack {kept:.0?} MB");
    assert!(most - idle < MOST_GROWTH, "{most} MB");
    if std::env::var("GOLDEN_UPDATE").is_ok_and(|value| value == "1") {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures/memory-under-attack.svg");
        std::fs::write(path, draw(&samples, &marks, idle)).unwrap();
    }
}

/// A chart: memory over time, the bound as a dashed line, and the name of each attack at its start.
fn draw(samples: &Samples, marks: &[(f64, &str)], idle: f64) -> String {
    let end = samples.last().map_or(1.0, |(at, _)| *at);
    let top = idle + MOST_GROWTH + 40.0;
    let x = |at: f64| MARGIN + at / end * (WIDTH - MARGIN - 12.0);
    let y = |memory: f64| HEIGHT - MARGIN - memory / top * (HEIGHT - MARGIN - 24.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    for memory in (0..)
        .step_by(100)
        .map(f64::from)
        .take_while(|memory| *memory < top)
    {
        let at = y(memory);
        svg.push_str(&format!("<path d=\"M{MARGIN} {at:.1}H{WIDTH}\" stroke=\"#ddd\"/><text x=\"4\" y=\"{:.1}\" fill=\"#555\">{memory} MB</text>\n",
            at + 4.0
        ));
    }
    for second in (0..)
        .step_by(20)
        .map(f64::from)
        .take_while(|second| *second < end)
    {
        svg.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555\">{second} s</text>\n",
            x(second),
            HEIGHT - MARGIN + 18.0
        ));
    }
    let bound = y(idle + MOST_GROWTH);
    svg.push_str(&format!(
        "<path d=\"M{MARGIN} {bound:.1}H{WIDTH}\" stroke=\"#b00\" stroke-dasharray=\"6 4\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#b00\">the bound: 300 MB above idle</text>\n",
        MARGIN + 6.0,
        bound - 6.0
    ));
    for (number, (at, name)) in (0_u32..).zip(marks) {
        let height = HEIGHT - 8.0 - 13.0 * f64::from(number % 2);
        svg.push_str(&format!("<path d=\"M{0:.1} 24V{1:.1}\" stroke=\"#888\" stroke-dasharray=\"2 3\"/><text x=\"{0:.1}\" y=\"{2:.1}\" fill=\"#333\">{name}</text>\n",
            x(*at),
            HEIGHT - MARGIN,
            height + 4.0
        ));
    }
    let points: Vec<String> = samples
        .iter()
        .map(|(at, memory)| format!("{:.1},{:.1}", x(*at), y(*memory)))
        .collect();
    svg.push_str(&format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#0a58ca\" stroke-width=\"1.5\"/>\n</svg>\n",
        points.join(" ")
    ));
    svg
}
