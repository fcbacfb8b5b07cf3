//! The auditor: what it finds, what it corrects by itself, and that every alert closes when its cause is gone.

use std::sync::Arc;
use std::time::Duration;

use crate::world::openai::{Course, End, Fault, Op, OpenAi, Outage, error_entry};
use crate::world::{OPENAI, World};
use batchkeeper::base::clock::Clock;
use batchkeeper::domain::batch::BatchState;
use batchkeeper::domain::openai::Identity;
use batchkeeper::openai::BatchApi;
use batchkeeper::store::{Store, invariants};
use batchkeeper::workers::auditor::Auditor;
use batchkeeper::workers::worker::Worker;

const MINUTE: Duration = Duration::from_mins(1);
/// The workers of the world, with the auditor.
const WITH_AUDITOR: &[&str] = &["submitter", "poller", "ingester", "finisher", "auditor"];
/// The same with the webhook sender.
const ALL: &[&str] = &[
    "submitter",
    "poller",
    "ingester",
    "finisher",
    "webhook_sender",
    "auditor",
];

fn audited(change: impl FnOnce(&mut batchkeeper::config::Config)) -> World {
    let mut world = World::with(change);
    world.turns = WITH_AUDITOR;
    world
}

/// Runs one tick of a separate auditor. (The world checks its own invariants after every tick.)
fn audit(world: &World) {
    let now = world.clock.now();
    let store = Store::open(&world.config.database, now.wall).unwrap();
    let mut auditor = Auditor::new(Arc::new(store), world.openai.clone(), world.config.clone());
    auditor.tick(now).unwrap();
}

fn open(world: &World, kind: &str) -> Vec<String> {
    world.texts(&format!(
        "SELECT subject FROM alerts WHERE closed_at IS NULL AND kind = '{kind}' ORDER BY subject"
    ))
}

/// Breaks what an invariant holds: it is found by that view, told of once, and no more once it is
/// whole again. `live`: by the auditor's look at what is not final; otherwise by doctor alone.
fn breaks(world: &World, view: &str, live: bool, break_it: &str, mend_it: &str) {
    world.execute("PRAGMA foreign_keys = OFF").unwrap();
    world.execute(break_it).expect(break_it);
    audit(world);
    audit(world);
    let found = world.store().read(invariants::findings).unwrap();
    assert!(
        found.iter().any(|finding| finding.invariant == view),
        "{break_it}: {found:?}"
    );
    let told = open(world, "invariant");
    let of_view = told.iter().filter(|it| it.starts_with(&format!("{view}:")));
    assert_eq!(of_view.count() > 0, live, "{break_it}: {told:?}");
    world.execute(mend_it).expect(mend_it);
    audit(world);
    assert!(open(world, "invariant").is_empty(), "{break_it}");
    let found = world.store().read(invariants::findings).unwrap();
    assert!(found.is_empty(), "{break_it}: {found:?}");
}

#[test]
fn what_must_hold_of_a_job_under_way_is_watched() {
    let mut world = World::new();
    world.submit(&["dented door", "cracked lamp"], &["en", "de"]);
    world.run_to(BatchState::Submitted);
    let waiting = "UPDATE requests SET state = 'waiting' WHERE id = 1";
    let claimed = "UPDATE requests SET state = 'claimed' WHERE id = 1";
    breaks(&world, "v_bad_claims", true, waiting, claimed);
    breaks(
        &world,
        "v_bad_claims",
        true,
        "INSERT INTO openai_batches (id, submission_key, stage, scheme, state, base_url, organization, project, model,
             parameters, lines, input_sha256, next_at, created_at)
         SELECT 99, 'another', stage, scheme, 'sealed', base_url, organization, project, model, parameters, 1, 'x',
             next_at, created_at FROM openai_batches WHERE id = 1;
         INSERT INTO batch_lines (batch_id, request_id) VALUES (99, 1); INSERT INTO batch_links VALUES (99, 1)",
        "DELETE FROM batch_lines WHERE batch_id = 99; DELETE FROM batch_links WHERE batch_id = 99;
         DELETE FROM openai_batches WHERE id = 99",
    );
    breaks(
        &world,
        "v_bad_calls",
        true,
        "INSERT INTO synchronous_calls (id, request_id, next_at) VALUES (9, 1, '2026-11-23T00:00:00.000Z')",
        "DELETE FROM synchronous_calls WHERE id = 9",
    );
    breaks(
        &world,
        "v_bad_usage",
        false,
        "INSERT INTO job_usage VALUES (1, 'vision', '', 'a model', 'batch', '2026-11-23', 1, 500, 0, 50, 0, 0)",
        "DELETE FROM job_usage WHERE model = 'a model'; DELETE FROM client_usage WHERE model = 'a model'",
    );
    breaks(
        &world,
        "v_orphans",
        true,
        "UPDATE batch_lines SET settled = 1, outcome = 'missing' WHERE request_id = 1",
        "UPDATE batch_lines SET settled = 0, outcome = NULL WHERE request_id = 1",
    );
    breaks(
        &world,
        "v_bad_lots",
        true,
        "UPDATE requests SET state = 'done' WHERE id = 1",
        claimed,
    );
    breaks(
        &world,
        "v_bad_answers",
        true,
        "UPDATE requests SET state = 'done' WHERE id = 1",
        claimed,
    );
    breaks(
        &world,
        "v_bad_lots",
        true,
        "UPDATE batch_lots SET status = 'completed', vision_result = 'a text' WHERE id = 1",
        "UPDATE batch_lots SET status = 'pending', vision_result = NULL WHERE id = 1",
    );
    breaks(
        &world,
        "v_bad_open_requests",
        true,
        "UPDATE batch_jobs SET open_vision = 1",
        "UPDATE batch_jobs SET open_vision = 2",
    );
    breaks(
        &world,
        "v_bad_finished_lots",
        true,
        "UPDATE batch_jobs SET processed_lots = 1",
        "UPDATE batch_jobs SET processed_lots = 0",
    );
    breaks(
        &world,
        "v_bad_finished_lots",
        true,
        "UPDATE batch_jobs SET total_lots = 3",
        "UPDATE batch_jobs SET total_lots = 2",
    );
    breaks(
        &world,
        "v_bad_deliveries",
        true,
        "UPDATE webhook_deliveries SET state = 'due', next_at = created_at",
        "UPDATE webhook_deliveries SET state = 'scheduled', next_at = NULL",
    );
    breaks(
        &world,
        "v_bad_webhooks",
        true,
        "UPDATE webhook_deliveries SET url = 'https://elsewhere.test/'",
        "UPDATE webhook_deliveries SET url = 'https://client.test/hook'",
    );
    breaks(
        &world,
        "v_bad_links",
        true,
        "DELETE FROM batch_links",
        "INSERT INTO batch_links VALUES (1, 1)",
    );
    breaks(
        &world,
        "v_bad_batches",
        true,
        "UPDATE openai_batches SET lines = 3",
        "UPDATE openai_batches SET lines = 2",
    );
    breaks(
        &world,
        "v_bad_batches",
        true,
        "UPDATE openai_batches SET settled_to = 1",
        "UPDATE openai_batches SET settled_to = 0",
    );
    breaks(
        &world,
        "v_bad_lines",
        false,
        "UPDATE batch_lines SET outcome = 'answered' WHERE request_id = 1",
        "UPDATE batch_lines SET outcome = NULL WHERE request_id = 1",
    );
    breaks(
        &world,
        "v_bad_states",
        false,
        "UPDATE batch_lines SET outcome = 'lost' WHERE request_id = 1",
        "UPDATE batch_lines SET outcome = NULL WHERE request_id = 1",
    );
    world.settle();
}

#[test]
fn what_must_hold_of_what_is_over_is_for_doctor() {
    let mut world = World::new();
    world.turns = ALL;
    world.submit(&["dented door", "cracked lamp"], &["en", "de"]);
    world.settle();
    world.run_for(MINUTE);
    for (view, break_it, mend_it) in [
        (
            "v_bad_final_jobs",
            "UPDATE requests SET state = 'waiting' WHERE id = 1",
            "UPDATE requests SET state = 'done' WHERE id = 1",
        ),
        (
            "v_bad_answers",
            "UPDATE batch_lots SET vision_result = NULL, additional_info = additional_info || vision_result WHERE id = 1",
            "UPDATE batch_lots SET vision_result = substr(additional_info, 12), additional_info = 'dented door' WHERE id = 1",
        ),
        (
            "v_bad_lines",
            "UPDATE lot_translations SET error = text, text = NULL",
            "UPDATE lot_translations SET text = error, error = NULL",
        ),
        (
            "v_bad_batches",
            "UPDATE openai_batches SET output_ingested = output_ingested - 1",
            "UPDATE openai_batches SET output_ingested = output_ingested + 1",
        ),
        (
            "v_bad_batches",
            "UPDATE batch_lines SET settled = 0",
            "UPDATE batch_lines SET settled = 1",
        ),
        (
            "v_bad_attempts",
            "UPDATE webhook_deliveries SET attempts = 7",
            "UPDATE webhook_deliveries SET attempts = 1",
        ),
        (
            "v_bad_attempts",
            "UPDATE delivery_attempts SET response_status = 500",
            "UPDATE delivery_attempts SET response_status = 200",
        ),
        (
            "v_bad_state_counts",
            "UPDATE state_counts SET number = number + 1 WHERE what = 'jobs'",
            "UPDATE state_counts SET number = number - 1 WHERE what = 'jobs'",
        ),
        (
            "v_bad_lots",
            "UPDATE batch_lots SET status = 'failed' WHERE id = 1; UPDATE batch_jobs SET failed_lots = 1",
            "UPDATE batch_lots SET status = 'completed' WHERE id = 1; UPDATE batch_jobs SET failed_lots = 0",
        ),
        (
            "foreign_key_check",
            "UPDATE batch_lots SET batch_job_id = 'nobody' WHERE id = 1",
            "UPDATE batch_lots SET batch_job_id = (SELECT id FROM batch_jobs) WHERE id = 1",
        ),
    ] {
        breaks(&world, view, false, break_it, mend_it);
    }
}

#[test]
fn a_job_that_does_not_name_its_batch_is_linked_again() {
    let mut world = audited(|_| {});
    let job = world.submit(&["dented door"], &["en"]);
    let row = world.run_to(BatchState::Submitted);
    world
        .execute("UPDATE batch_jobs SET openai_batch_id = NULL")
        .unwrap();
    audit(&world);
    assert_eq!(world.job(&job).vision_batch, row.openai_batch_id);
    assert_eq!(
        world.number("SELECT count(*) FROM events WHERE kind = 'linked_again'"),
        1
    );
    assert!(world.open_alerts().is_empty());
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_model_whose_last_batch_was_refused_is_not_told_of_for_ever() {
    for (fails, kind) in [(false, "model_refused"), (true, "model_fails")] {
        let mut world = audited(|_| {});
        if fails {
            world.openai.state().outage = Some(Outage::Alike);
            let jobs = [0, 1].map(|_| world.submit(&["lot"; 30], &["en"]));
            world.run_for(4 * MINUTE);
            jobs.iter().for_each(|job| world.cancel(job));
        } else {
            let refused = End::Refused(vec![error_entry("model_not_found", Some(1))]);
            world.openai.state().courses.push_back(Course::ends(refused));
            let job = world.submit(&["dented door"], &["en"]);
            world.run_to(BatchState::Failed);
            assert_eq!(world.open_alerts(), [kind]);
            world.cancel(&job);
        }
        assert_eq!(world.open_alerts(), [kind]);
        world.run_for(MINUTE);
        assert_eq!(world.open_alerts(), [kind], "while it pauses");
        world.run_for(Duration::from_hours(4));
        assert!(world.open_alerts().is_empty(), "{kind}\n{}", world.dump());
        assert_eq!(world.number("SELECT count(*) FROM pauses"), 0);
    }
}

#[test]
fn a_model_that_something_waits_for_is_told_of_until_it_is_well() {
    let mut world = audited(|_| {});
    world
        .openai
        .state()
        .rules
        .push(crate::world::openai::Rule::QueueOf(0));
    let job = world.submit(&["dented door"], &["en"]);
    world.run_for(Duration::from_hours(6));
    assert_eq!(open(&world, "model_refused").len(), 1);
    world.openai.state().rules.clear();
    world.settle();
    world.run_for(2 * MINUTE);
    world.assert_answered(&job);
    assert!(world.open_alerts().is_empty(), "{}", world.dump());
}

#[test]
fn a_batch_past_its_window_is_told_of_also_when_openai_says_nothing() {
    for silent in [false, true] {
        let mut world = audited(|_| {});
        world.openai.state().courses.push_back(Course {
            latency: Duration::from_hours(26),
            ..Course::default()
        });
        let job = world.submit(&["dented door"], &["en"]);
        world.run_to(BatchState::Submitted);
        if silent {
            world
                .openai
                .state()
                .always
                .push((Op::Batch, Fault::Refused(500, "server_error", "")));
        }
        world.run_for(Duration::from_hours(24));
        assert!(open(&world, "batch_overdue").is_empty());
        world.run_for(45 * MINUTE);
        assert_eq!(open(&world, "batch_overdue"), ["batch:1"]);
        world.openai.state().always.clear();
        world.settle();
        world.run_for(2 * MINUTE);
        world.assert_answered(&job);
        assert!(world.open_alerts().is_empty(), "{}", world.dump());
    }
}

#[test]
fn work_that_stands_still_is_told_of() {
    let mut world = World::new();
    world.submit(&["dented door"], &["en"]);
    let late = world.config.alerts.stuck_after + 30 * MINUTE;
    world.advance(late);
    audit(&world);
    assert_eq!(open(&world, "stuck_job").len(), 1);
    for (state, time) in [
        (BatchState::Sealed, late),
        (BatchState::Submitted, late),
        (BatchState::Ended, late),
    ] {
        world.run_to(state);
        audit(&world);
        let before = open(&world, "stuck_batch");
        world.advance(time);
        audit(&world);
        assert_eq!(open(&world, "stuck_batch"), ["batch:1"], "{state}");
        assert!(open(&world, "stuck_job").is_empty());
        assert!(before.is_empty(), "{state}");
    }
    world.settle();
    audit(&world);
    assert!(world.open_alerts().is_empty());
}

#[test]
fn the_account_that_is_configured_again_ends_the_alert_at_once() {
    let mut world = audited(|_| {});
    world.openai.state().courses.push_back(Course {
        latency: Duration::from_hours(20),
        ..Course::default()
    });
    world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Submitted);
    let home = world.openai.clone();
    world.is_restored = true; // OpenAI's batches are not where we look.
    let elsewhere = Arc::new(OpenAi::new("https://elsewhere.test/v1"));
    let identity: &Identity = elsewhere.identity();
    let base_url = identity.base_url.clone();
    world.restart_with(elsewhere, |config| config.openai.base_url = base_url);
    world.run_for(10 * MINUTE);
    assert_eq!(world.open_alerts(), ["other_identity"]);
    world.restart_with(home, |config| config.openai.base_url = OPENAI.into());
    world.run_for(5 * MINUTE);
    assert!(world.batch_in(BatchState::Submitted).is_some());
    assert!(world.open_alerts().is_empty(), "{}", world.dump());
}

#[test]
fn a_key_that_is_revoked_while_nothing_is_to_do_is_told_of() {
    let mut world = audited(|_| {});
    world.run_for(MINUTE);
    let refused = Fault::Refused(401, "invalid_api_key", "");
    world.openai.state().always.push((Op::List, refused));
    world.run_for(15 * MINUTE);
    assert_eq!(world.open_alerts(), ["openai_account"]);
    world.openai.state().always.clear();
    world.run_for(15 * MINUTE);
    assert!(world.open_alerts().is_empty());
}

#[test]
fn an_id_under_which_openai_has_another_submission_is_told_of() {
    let mut world = audited(|_| {});
    world.openai.state().courses.push_back(Course {
        latency: Duration::from_hours(5),
        ..Course::default()
    });
    world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Submitted);
    world
        .execute("UPDATE openai_batches SET submission_key = 'mine, but not that batch''s'")
        .unwrap();
    world.run_for(15 * MINUTE);
    assert_eq!(open(&world, "wrong_link"), ["batch:1"]);
    let key = world.openai.state().batches[0].metadata["submission"].clone();
    world
        .execute(&format!("UPDATE openai_batches SET submission_key = '{key}'"))
        .unwrap();
    world.run_for(15 * MINUTE);
    assert!(world.open_alerts().is_empty());
}
