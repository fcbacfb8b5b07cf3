//! OpenAI is down for a while: lines fail transiently, and nothing fails for good because of it.

use std::fmt;
use std::time::Duration;

use batchkeeper::domain::batch::Stage;
use batchkeeper::domain::job::Mode;

use crate::MINUTE;
use crate::world::openai::{Fate, Outage};
use crate::world::{ALL_WORKERS, World};

const HOUR: Duration = Duration::from_hours(1);

/// The work that meets an outage. All jobs have one translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// A job of one lot.
    OneLot,
    /// A synchronous job of one lot.
    Synchronous,
    /// One job of 60 lots.
    OneJob,
    /// Three jobs of 40 lots of one client.
    OneClient,
    /// Jobs of 40 lots of two clients.
    TwoClients,
    /// The same, and a job of 5 lots each half hour as long as the outage lasts.
    Arriving,
}

impl Work {
    const ALL: [Self; 6] = [
        Self::OneLot,
        Self::Synchronous,
        Self::OneJob,
        Self::OneClient,
        Self::TwoClients,
        Self::Arriving,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::OneLot => "one lot",
            Self::Synchronous => "one synchronous lot",
            Self::OneJob => "one job of 60 lots",
            Self::OneClient => "3 jobs of 40 lots, one client",
            Self::TwoClients => "3 jobs of 40 lots, two clients",
            Self::Arriving => "the same, 5 lots more each half hour",
        }
    }

    /// Whether it is enough to tell a failing model from a failing job.
    fn shows_the_model(self) -> bool {
        matches!(self, Self::OneClient | Self::TwoClients | Self::Arriving)
    }

    fn submit(self, world: &mut World) {
        match self {
            Self::OneLot => submit(world, "a", 1),
            Self::Synchronous => {
                world.submit_in(Mode::Synchronous, "a", &["dented door"], &["de"]);
            }
            Self::OneJob => submit(world, "a", 60),
            Self::OneClient => (0..3).for_each(|_| submit(world, "a", 40)),
            Self::TwoClients | Self::Arriving => {
                ["a", "b", "a"]
                    .iter()
                    .for_each(|client| submit(world, client, 40));
            }
        }
    }
}

fn submit(world: &mut World, client: &str, lots: usize) {
    let lots: Vec<String> = (0..lots).map(|lot| format!("lot {lot}")).collect();
    let lots: Vec<&str> = lots.iter().map(String::as_str).collect();
    world.submit_as(client, &lots, &["de"]);
}

fn world() -> World {
    let mut world = World::with(|config| {
        config.steps.idle = 2 * MINUTE;
        config.steps.audit = 10 * MINUTE;
        config.steps.reconcile = 6 * HOUR;
        config.openai.poll_interval = 2 * MINUTE;
    });
    world.turns = ALL_WORKERS;
    world.check_every = 50;
    world
}

/// What an outage has cost.
#[derive(Debug)]
struct Cost {
    /// Lines that were sent.
    sent: usize,
    /// Lines that would have been enough.
    needed: i64,
    /// Requests that failed for good.
    failed: i64,
    /// From the end of the outage until all was answered.
    late: Duration,
    /// Whether an alert told of the model.
    alerted: bool,
}

/// Runs jobs through an outage that begins a minute after they came.
fn run(kind: Outage, length: Duration, work: Work) -> Cost {
    let mut world = world();
    world.openai.state().outage = Some(kind);
    work.submit(&mut world);
    if work == Work::Arriving {
        let end = world.elapsed + length;
        let mut client = 0;
        while world.elapsed < end {
            world.run_for((HOUR / 2).min(end - world.elapsed));
            submit(&mut world, ["a", "b"][client % 2], 5);
            client += 1;
        }
    } else {
        world.run_for(length);
    }
    world.openai.state().outage = None;
    let ended = world.elapsed;
    world.settle();
    let late = world.elapsed - ended;
    // The last webhooks, and the alerts.
    world.run_for(HOUR);
    let batches = &world.openai.state().batches;
    let alerts = "SELECT count(*) FROM alerts WHERE kind = 'model_fails'";
    assert!(world.open_alerts().is_empty(), "{:?}", world.open_alerts());
    Cost {
        sent: batches.iter().map(|batch| batch.lines.len()).sum(),
        needed: world.number("SELECT sum(total_lots) * 2 FROM batch_jobs"),
        failed: world.number("SELECT count(*) FROM requests WHERE state = 'failed'"),
        late,
        alerted: world.number(alerts) > 0,
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {}, ", self.sent, self.needed)?;
        match self.failed {
            0 => write!(f, "{} min", self.late.as_secs() / 60),
            failed => write!(f, "{failed} failed"),
        }
    }
}

#[test]
fn nothing_fails_for_good_because_openai_is_down() {
    for (kind, length, work) in [
        (Outage::Alike, 8 * HOUR, Work::TwoClients),
        (Outage::WithIds, HOUR, Work::OneClient),
        (Outage::Half, HOUR / 2, Work::TwoClients),
        (Outage::ThreeOfFive, HOUR, Work::Arriving),
        (Outage::WithIds, 3 * HOUR, Work::OneJob),
        (Outage::Half, HOUR, Work::OneLot),
        (Outage::WithIds, HOUR, Work::Synchronous),
    ] {
        let cost = run(kind, length, work);
        assert_eq!(cost.failed, 0, "{kind:?} {length:?} {work:?}: {cost:?}");
        assert_eq!(
            cost.alerted,
            work.shows_the_model(),
            "{kind:?} {work:?}: {cost:?}"
        );
    }
}

#[test]
#[ignore = "prints the table of docs/explanation/reliability.md, half an hour"]
fn table_of_outages() {
    println!(
        "| lines that fail | outage | {} |",
        Work::ALL.map(Work::name).join(" | ")
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (kind, name) in [
        (Outage::Alike, "all, equal texts"),
        (Outage::WithIds, "all, texts with ids"),
        (Outage::Half, "500 and 200, half each"),
        (Outage::ThreeOfFive, "three of five"),
    ] {
        for (minutes, shown) in [
            (10, "10 min"),
            (30, "30 min"),
            (60, "1 h"),
            (180, "3 h"),
            (480, "8 h"),
            (1440, "24 h"),
        ] {
            let length = minutes * MINUTE;
            let cells = Work::ALL.map(|work| {
                let cost = run(kind, length, work);
                if work.shows_the_model() || length <= 3 * HOUR {
                    assert_eq!(cost.failed, 0, "{kind:?} {length:?} {work:?}: {cost:?}");
                }
                cost.to_string()
            });
            println!("| {name} | {shown} | {} |", cells.join(" | "));
        }
    }
}

#[test]
fn a_job_that_fails_alone_pauses_no_model_and_has_its_attempts() {
    let mut world = world();
    world
        .openai
        .state()
        .fates
        .push(("unlucky", Stage::Vision, Fate::Status(500), u32::MAX));
    let lots: Vec<String> = (0..60).map(|lot| format!("unlucky {lot}")).collect();
    let lots: Vec<&str> = lots.iter().map(String::as_str).collect();
    let unlucky = world.submit_as("a", &lots, &["de"]);
    submit(&mut world, "b", 60);
    let begun = world.elapsed;
    world.settle();
    // The share of failed lines is reported, and no model is.
    assert_eq!(world.texts("SELECT DISTINCT kind FROM alerts"), ["failed_lines"]);
    assert_eq!(world.job(&unlucky).failed_lots, 60);
    assert_eq!(
        world.number("SELECT count(*) FROM requests WHERE state = 'failed'"),
        60
    );
    // Five attempts, spread over six hours.
    let lines =
        "SELECT count(*) FROM batch_lines l JOIN requests r ON r.id = l.request_id WHERE r.state = 'failed'";
    assert_eq!(world.number(lines), 5 * 60);
    let took = world.elapsed - begun;
    assert!((5 * HOUR..8 * HOUR).contains(&took), "{took:?}");
}

#[test]
fn what_may_be_billed_keeps_its_attempts_in_an_outage() {
    let mut world = world();
    world.openai.state().outage = Some(Outage::WithIds);
    submit(&mut world, "a", 40);
    submit(&mut world, "b", 40);
    world.run_for(HOUR);
    assert!(world.open_alerts().contains(&"model_fails".to_owned()));
    // Answers with usage and no text: sent five times, and not for days.
    world.openai.state().outage = None;
    world
        .openai
        .state()
        .fates
        .push(("lot 7", Stage::Vision, Fate::FailedInside, u32::MAX));
    world.settle();
    assert_eq!(
        world.number("SELECT count(*) FROM requests WHERE state = 'failed'"),
        2
    );
}

#[test]
fn a_paused_model_is_probed_with_a_few_lines_that_have_not_failed() {
    let mut world = world();
    world.openai.state().outage = Some(Outage::WithIds);
    submit(&mut world, "a", 40);
    submit(&mut world, "b", 40);
    world.run_for(HOUR);
    submit(&mut world, "b", 30);
    let before = world.made();
    let failed = world.number("SELECT sum(transient_failures) FROM requests");
    world.run_for(2 * HOUR);
    let after = world.made();
    assert!(after > before, "{}", world.dump());
    for batch in &world.openai.state().batches[before..after] {
        assert!(batch.lines.len() <= 10, "{} lines", batch.lines.len());
    }
    // The probes took the job that came last: the others have failed.
    let probed = "SELECT count(*) FROM requests WHERE job = 3 AND transient_failures > 0";
    assert!(world.number(probed) >= 10, "{}", world.dump());
    let others = "SELECT sum(transient_failures) FROM requests WHERE job < 3";
    assert_eq!(world.number(others), failed, "{}", world.dump());
    // The message has the rate.
    let message = world.texts("SELECT message FROM alerts WHERE kind = 'model_fails'");
    assert!(message.iter().all(|it| it.starts_with("100 % of")), "{message:?}");
    world.openai.state().outage = None;
    world.settle();
    assert!(world.open_alerts().is_empty());
}

#[test]
fn a_wrong_setting_pauses_its_stage_and_fails_nothing() {
    let mut world = world();
    submit(&mut world, "a", 5);
    let job = world.submit_as("a", &["dented door"], &["en"]);
    world.openai.state().outage = Some(Outage::Misconfigured);
    world.run_for(3 * HOUR);
    assert!(world.open_alerts().contains(&"misconfigured".to_owned()));
    let message = world.texts("SELECT message FROM alerts WHERE kind = 'misconfigured'");
    assert!(
        message[0].contains("vision.reasoning_effort = \"none\": unsupported_value"),
        "{message:?}"
    );
    // Probes, ever more seldom, and no attempt of any request.
    assert!((2..=8).contains(&world.made()), "{}", world.dump());
    assert_eq!(world.number("SELECT sum(attempts) FROM requests"), 0);
    // Another value, after which the stage is tried at once.
    let before = world.made();
    let openai = world.openai.clone();
    world.restart_with(openai, |config| {
        config.vision.reasoning_effort = "low".into();
    });
    world.openai.state().outage = None;
    world.run_for(5 * MINUTE);
    assert!(world.made() > before, "{}", world.dump());
    world.settle();
    world.assert_answered(&job);
    assert_eq!(
        world.number("SELECT count(*) FROM requests WHERE state = 'failed'"),
        0
    );
    world.run_for(HOUR);
    assert!(world.open_alerts().is_empty(), "{:?}", world.open_alerts());
}

#[test]
fn a_line_that_blames_a_setting_beside_others_that_ran_fails_alone() {
    let mut world = world();
    world
        .openai
        .state()
        .fates
        .push(("dented", Stage::Vision, Fate::Unsupported, 1));
    world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.settle();
    assert_eq!(
        world.number("SELECT count(*) FROM requests WHERE state = 'failed'"),
        1
    );
    assert_eq!(world.number("SELECT count(*) FROM alerts"), 0);
}
