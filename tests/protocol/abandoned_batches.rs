//! Batches that an operator abandons, and batches that never ran.

use crate::MINUTE;
use std::time::Duration;

use crate::world::openai::{Course, End, Fate, Fault, Op, error_entry};
use crate::world::{ALL_WORKERS, Ticked, World};
use batchkeeper::domain::batch::{BatchState, Stage};
use batchkeeper::domain::job::JobStatus;

const HOUR: Duration = Duration::from_hours(1);
const ANSWERED: &str = "SELECT count(*) FROM batch_lots WHERE vision_result IS NOT NULL";

/// A world in which every worker takes turns, with a job of 40 lots.
fn forty_lots() -> (World, String) {
    let mut world = World::new();
    world.turns = ALL_WORKERS;
    let texts: Vec<String> = (0..40).map(|lot| format!("lot number {lot}.")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let job = world.submit(&texts, &["en"]);
    (world, job)
}

/// Every download of that file goes wrong.
fn refuse_download(world: &World, file: Option<&str>, fault: Fault) {
    let file = file.expect("a file").to_owned();
    world.openai.state().of_objects.push((Op::Download, file, fault));
}

fn lines_of_batches(world: &World) -> Vec<usize> {
    let openai = world.openai.state();
    openai.batches.iter().map(|batch| batch.lines.len()).collect()
}

#[test]
fn answers_in_the_spool_are_kept_when_the_error_file_cannot_be_fetched() {
    let (mut world, job) = forty_lots();
    let fate = ("number 7.", Stage::Vision, Fate::Status(500), 1);
    world.openai.state().fates.push(fate);
    let row = world.run_to(BatchState::Ended);
    world.tick("ingester");
    refuse_download(&world, row.error_file.id.as_deref(), Fault::Html(502));
    world.run_for(3 * HOUR);
    assert_eq!(world.number(ANSWERED), 39, "{}", world.dump());
    let alerts = world.open_alerts();
    assert!(alerts.contains(&"results_unavailable".into()), "{alerts:?}");
    assert_eq!(world.made(), 1);
    assert_eq!(world.abandon(row.id), 0);
    world.run_for(10 * MINUTE);
    world.assert_answered(&job);
    assert_eq!(lines_of_batches(&world), [40, 1]);
    assert!(world.open_alerts().is_empty(), "{}", world.dump());
    // The error file can be fetched after all.
    world.openai.state().of_objects.clear();
    world.settle();
    world.assert_at_rest();
    assert_eq!(lines_of_batches(&world), [40, 1]);
}

#[test]
fn complete_lines_of_a_broken_download_are_kept() {
    let (mut world, job) = forty_lots();
    let row = world.run_to(BatchState::Ended);
    world.openai.state().fail(Op::Download, Fault::Cut);
    world.tick("ingester");
    refuse_download(&world, row.output.id.as_deref(), Fault::Refused(404, "", ""));
    world.run_for(3 * HOUR);
    assert_eq!((world.number(ANSWERED), world.made()), (0, 1));
    // As far as the database knows, none of the 40 answers was fetched.
    assert_eq!(world.abandon(row.id), 40);
    world.run_for(10 * MINUTE);
    world.assert_answered(&job);
    let sent_again = lines_of_batches(&world)[1];
    assert!((20..=22).contains(&sent_again), "{}", world.dump());
    let never_fetched =
        "SELECT count(*) FROM events WHERE kind = 'abandoned' AND detail LIKE '%answered_by_openai=40%'";
    assert_eq!(world.number(never_fetched), 1, "{}", world.dump());
}

#[test]
fn a_batch_that_cannot_be_read_is_watched_and_its_late_answers_count() {
    let (mut world, job) = forty_lots();
    let course = Course {
        latency: 5 * HOUR,
        ..Course::default()
    };
    world.openai.state().courses.push_back(course);
    let row = world.run_to(BatchState::Submitted);
    let refused = Fault::Refused(404, "", "");
    for op in [Op::Batch, Op::Cancel] {
        world.openai.state().always.push((op, refused.clone()));
    }
    // Nothing of it is sent again by itself.
    world.run_for(3 * HOUR);
    assert_eq!(world.made(), 1, "{}", world.dump());
    assert_eq!(world.abandon(row.id), 40);
    world.run_for(MINUTE);
    world.openai.state().fail(Op::Create, Fault::Refused(500, "", ""));
    world
        .openai
        .state()
        .always
        .push((Op::Create, Fault::Refused(500, "", "")));
    world.run_for(3 * HOUR);
    assert!(!world.job(&job).status.is_final());
    // It can be read again: its answers are the first ones.
    world.openai.state().always.retain(|(op, _)| *op == Op::Create);
    world.run_for(HOUR);
    world.assert_answered(&job);
    world.openai.state().always.clear();
    world.run_for(25 * HOUR);
    world.assert_at_rest();
    assert_eq!(world.number("SELECT count(*) FROM reservations"), 0);
}

#[test]
fn a_batch_that_is_gone_is_over_with_its_window() {
    let (mut world, job) = forty_lots();
    let row = world.run_to(BatchState::Submitted);
    let id = row.openai_batch_id.unwrap_or_default();
    let gone = (Op::Batch, id, Fault::Refused(404, "", ""));
    world.openai.state().of_objects.push(gone);
    world.run_for(HOUR);
    assert_eq!(world.abandon(row.id), 40);
    world.run_for(HOUR);
    world.assert_answered(&job);
    let state = format!("SELECT state FROM openai_batches WHERE id = {}", row.id);
    assert_eq!(world.texts(&state), ["submitted"]);
    // While it may run, its money is reserved and its rows are kept.
    assert_eq!(world.number("SELECT count(*) FROM reservations"), 1);
    world.run_for(25 * HOUR);
    assert_eq!(world.texts(&state), ["failed"]);
    assert_eq!(world.number("SELECT count(*) FROM reservations"), 0);
    assert!(world.open_alerts().is_empty(), "{}", world.dump());
}

#[test]
fn a_batch_that_openai_still_cancels_is_not_billed_again() {
    let (mut world, job) = forty_lots();
    let course = Course {
        latency: 5 * HOUR,
        ..Course::default()
    };
    world.openai.state().courses.push_back(course);
    let row = world.run_to(BatchState::Submitted);
    assert_eq!(world.abandon(row.id), 40);
    world.openai.state().billed_again = 0;
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.openai.count(Op::Cancel), 1);
    assert_eq!(lines_of_batches(&world), [40, 40]);
    assert_eq!(
        world.number("SELECT count(*) FROM openai_batches WHERE abandoned_at IS NOT NULL"),
        0
    );
}

#[test]
fn early_answers_finish_a_job_whose_batch_is_not_ingested() {
    let (mut world, job) = forty_lots();
    // A line in both files is answered: the job needs nothing of the error file.
    let fate = ("number 7.", Stage::Vision, Fate::InBoth, 1);
    world.openai.state().fates.push(fate);
    let row = world.run_to(BatchState::Ended);
    world.tick("ingester");
    refuse_download(&world, row.error_file.id.as_deref(), Fault::Html(502));
    world.run_for(MINUTE);
    assert_eq!(world.job(&job).status, JobStatus::Completed, "{}", world.dump());
    assert_eq!(world.number("SELECT count(*) FROM reservations"), 1);
    world.restart_with(world.openai.clone(), |config| {
        config.retention.results = HOUR;
        config.retention.remote_files = HOUR;
    });
    world.run_for(30 * HOUR);
    assert!(world.batch_in(BatchState::Ended).is_some());
    assert_eq!(world.number("SELECT count(*) FROM reservations"), 1);
    assert_eq!(world.openai.count(Op::Delete), 0);
    assert_eq!(
        world.number("SELECT count(*) FROM batch_jobs WHERE cleaning_since IS NOT NULL"),
        0
    );
    world.openai.state().of_objects.clear();
    world.run_for(HOUR);
    assert_eq!(world.number("SELECT count(*) FROM reservations"), 0);
    world.run_for(3 * HOUR);
    assert_eq!(
        world.number("SELECT count(*) FROM batch_jobs WHERE cleaned_at IS NOT NULL"),
        1
    );
    assert!(world.openai.count(Op::Delete) > 0);
    assert_eq!(world.made(), 1);
}

#[test]
fn a_batch_given_up_meanwhile_is_not_created() {
    let mut world = World::new();
    world.submit(&["dented door"], &["en"]);
    let row = world.run_to(BatchState::Uploaded);
    world
        .execute(&format!(
            "UPDATE openai_batches SET state = 'failed', error = 'given up' WHERE id = {};
             UPDATE batch_lines SET settled = 1; UPDATE requests SET state = 'waiting'",
            row.id
        ))
        .unwrap();
    let ticked = world.tick("submitter");
    assert!(matches!(ticked, Ticked::Did(_)), "{ticked:?}");
    world.settle();
    assert_eq!(world.made(), 1);
}

#[test]
fn batches_that_clients_cancel_say_nothing_of_their_model() {
    let mut world = World::new();
    for _ in 0..3 {
        let job = world.submit(&["one", "two"], &["en"]);
        world.run_to(BatchState::Submitted);
        world.cancel(&job);
        world.settle();
    }
    assert_eq!(world.number("SELECT count(*) FROM pauses"), 0);
    assert!(world.open_alerts().is_empty(), "{}", world.dump());
}

#[test]
fn what_a_full_queue_did_not_take_is_not_sent_again_before_the_pause() {
    let mut world = World::new();
    let texts: Vec<String> = (0..700).map(|n| format!("lot number {n}.")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let refused = vec![error_entry("token_limit_exceeded", None)];
    let refused = Course::ends(End::Refused(refused));
    world.openai.state().courses.push_back(refused);
    let job = world.submit(&texts, &["en"]);
    world.run_for(world.config.batch.queue_backoff - MINUTE);
    assert_eq!(world.made(), 1);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 3, "it was halved");
}

#[test]
fn a_refusal_is_not_counted_together_with_batches_that_nobody_wanted() {
    let mut world = World::new();
    for _ in 0..3 {
        let job = world.submit(&["dented door"], &["en"]);
        world.run_to(BatchState::Sealed);
        world.cancel(&job);
        world.settle();
    }
    let job = world.submit(&["dented door"], &["en"]);
    let refused = vec![error_entry("token_limit_exceeded", None)];
    world
        .openai
        .state()
        .courses
        .push_back(Course::ends(End::Refused(refused)));
    world.run_for(world.config.batch.queue_backoff * 3);
    world.assert_answered(&job);
}

#[test]
fn a_batch_whose_requests_are_all_answered_elsewhere_is_not_created() {
    let mut world = World::new();
    world.is_restored = true; // Of what is given up no row knows, for a while.
    let job = world.submit(&["dented door"], &["en"]);
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    let row = world.run_to(BatchState::Creating);
    world.abandon(row.id);
    let busy = Fault::Refused(429, "rate_limit_exceeded", "");
    world.openai.state().always.push((Op::Create, busy));
    world.run_for(10 * MINUTE);
    assert!(world.batch_in(BatchState::Uploaded).is_some());
    world.crash();
    world.run_for(60 * MINUTE);
    world.openai.state().always.clear();
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1, "{}", world.dump());
}

#[test]
fn a_batch_that_was_given_up_and_is_found_is_on_its_jobs() {
    let mut world = World::new();
    world.is_restored = true; // Of what is given up no row knows, for a while.
    world.submit(&["dented door"], &["en"]);
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    let row = world.run_to(BatchState::Creating);
    world.abandon(row.id);
    world.run_to(BatchState::Failed);
    world.crash();
    world.tick("submitter");
    assert!(world.batch_in(BatchState::Submitted).is_some());
    assert_eq!(world.number("SELECT count(*) FROM v_bad_links"), 0);
}
