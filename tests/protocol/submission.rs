//! The submission protocol's story, a test for each promise that it makes.

use std::sync::Arc;
use std::time::Duration;

use crate::world::openai::{Course, End, Fate, Fault, Ids, Op, OpenAi, Rule, error_entry};
use crate::world::{OPENAI, Ticked, World};
use batchkeeper::base::clock::Clock;
use batchkeeper::domain::batch::{BatchState, Stage};
use batchkeeper::domain::job::{JobStatus, LotStatus};
use batchkeeper::domain::openai::BatchStatus;
use batchkeeper::jobs::lot_json::LotJson;
use batchkeeper::jobs::webhook_body::webhook_body;
use batchkeeper::openai::BatchApi;
use batchkeeper::recovery::Recovery;
use batchkeeper::recovery::import::read_dump;
use batchkeeper::store::{Store, legacy, retention};
use serde_json::json;

const MINUTE: Duration = Duration::from_mins(1);

// The way of a job.

#[test]
fn a_job_in_three_languages_is_described_and_translated() {
    let mut world = World::new();
    let job = world.submit(&["dented door", "cracked lamp"], &["en", "de", "pt-BR"]);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 2);
    assert!(world.open_alerts().is_empty());
}

#[test]
fn an_english_job_needs_no_translation_batch() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en-GB"]);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}

#[test]
fn jobs_of_several_clients_share_a_batch() {
    let mut world = World::new();
    let jobs = [
        world.submit_as("a", &["one", "two"], &["de"]),
        world.submit_as("b", &["three"], &["de"]),
    ];
    world.settle();
    for job in &jobs {
        world.assert_answered(job);
    }
    assert_eq!(world.made(), 2);
}

#[test]
fn more_than_a_batch_holds_goes_into_several() {
    let mut world = World::with(|config| config.batch.max_requests = 3);
    let job = world.submit(
        &["one", "two", "three", "four", "five", "six", "seven"],
        &["de"],
    );
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 6);
}

#[test]
fn a_request_that_fits_into_no_batch_fails_alone() {
    let mut world = World::with(|config| config.batch.max_bytes = 2000);
    let long = "long ".repeat(600);
    let job = world.submit(&["dented door", &long], &["en"]);
    world.settle();
    let job = world.job(&job);
    assert_eq!((job.status, job.failed_lots), (JobStatus::Completed, 1));
}

// A crash in each state: what is certain there, and what a restart does.

/// Runs to a state, crashes in it and settles: one batch a stage, everything answered.
fn crash_in(state: BatchState) {
    let mut world = World::new();
    let job = world.submit(&["dented door", "cracked lamp"], &["en", "de"]);
    world.run_to(state);
    world.crash();
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 2, "{}", world.dump());
}

#[test]
fn a_crash_while_planned_seals_what_is_there() {
    crash_in(BatchState::Planned);
}

#[test]
fn a_crash_before_anything_was_claimed_drops_the_empty_batch() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.advance(MINUTE);
    world.tick("submitter");
    world.cut_power("INSERT", "batch_lines");
    assert_eq!(world.tick("submitter"), Ticked::Crashed);
    assert!(world.batch_in(BatchState::Planned).is_some());
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}

#[test]
fn a_crash_while_sealed_uploads_the_same_bytes() {
    crash_in(BatchState::Sealed);
}

#[test]
fn a_sealed_input_that_vanished_is_written_again() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    let row = world.run_to(BatchState::Sealed);
    for file in std::fs::read_dir(world.config.spool()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    world.crash();
    let uploaded = world.run_to(BatchState::Uploaded);
    assert_eq!(uploaded.input_sha256, row.input_sha256);
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_crash_while_uploaded_creates_it_once() {
    crash_in(BatchState::Uploaded);
}

#[test]
fn a_crash_while_creating_looks_for_it_first() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter] {
        let mut world = World::new();
        let job = world.submit(&["dented door"], &["en"]);
        world.run_to(BatchState::Uploaded);
        world.openai.state().fail(Op::Create, fault);
        world.settle();
        world.assert_answered(&job);
        assert_eq!(world.made(), 1, "{}", world.dump());
    }
}

#[test]
fn a_crash_while_submitted_polls_on() {
    crash_in(BatchState::Submitted);
}

#[test]
fn a_crash_while_ended_takes_in_from_where_it_was() {
    crash_in(BatchState::Ended);
}

#[test]
fn a_crash_between_chunks_takes_each_line_in_once() {
    let mut world = World::new();
    let texts: Vec<String> = (0..700).map(|n| format!("lot number {n}.")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let job = world.submit(&texts, &["en"]);
    world.run_to(BatchState::Ended);
    while !world.is_settled() {
        world.tick("ingester");
        world.crash();
        world.tick("finisher");
    }
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}

#[test]
fn a_result_file_that_vanished_from_the_spool_is_fetched_again() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Ended);
    world.tick("ingester");
    for file in std::fs::read_dir(world.config.spool()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.openai.count(Op::Download), 2);
}

#[test]
fn a_crash_after_the_upload_finds_it_by_its_name() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.openai.state().fail(Op::Upload, Fault::CrashAfter);
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Upload), world.made()), (1, 1));
}

// Lost answers.

#[test]
fn a_lost_answer_to_the_upload_is_found_by_its_name() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.openai.state().fail(Op::Upload, Fault::ReplyLost);
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Upload), world.made()), (1, 1));
}

#[test]
fn a_lost_answer_to_the_create_is_found_by_listing() {
    let mut world = World::new();
    world.openai.state().list_lag = 8 * MINUTE;
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    let job = world.submit(&["dented door"], &["en"]);
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Create), world.made()), (1, 1));
}

#[test]
fn a_lost_answer_is_found_on_a_later_page() {
    let mut world = World::with(|config| config.batch.max_requests = 1);
    world.openai.state().page = 2;
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    let job = world.submit(&["one", "two", "three", "four", "five", "six"], &["en"]);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 6);
}

#[test]
fn a_listing_that_breaks_off_proves_nothing() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Uploaded);
    {
        let mut openai = world.openai.state();
        openai.fail(Op::Create, Fault::ReplyLost);
        openai.always.push((Op::List, Fault::Html(502)));
    }
    world.run_for(60 * MINUTE);
    assert_eq!(world.openai.count(Op::Create), 1);
    world.openai.state().always.clear();
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}

#[test]
fn a_create_that_is_not_found_is_made_again_once_after_the_settling_time() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Uploaded);
    world.openai.state().fail(Op::Create, Fault::Lost);
    world.run_to(BatchState::Creating);
    world.run_for(world.config.openai.settling_time - MINUTE);
    assert_eq!(world.openai.count(Op::Create), 1);
    world.run_for(2 * MINUTE);
    assert_eq!(world.openai.count(Op::Create), 2);
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Create), world.made()), (2, 1));
}

#[test]
fn a_restart_begins_the_settling_time_anew() {
    let mut world = World::new();
    world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Uploaded);
    world.openai.state().fail(Op::Create, Fault::Lost);
    world.run_to(BatchState::Creating);
    world.run_for(world.config.openai.settling_time - MINUTE);
    world.crash();
    world.run_for(world.config.openai.settling_time - MINUTE);
    assert_eq!(world.openai.count(Op::Create), 1);
}

#[test]
fn a_doubtful_create_holds_up_no_other_batch() {
    let mut world = World::new();
    let first = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Uploaded);
    world.openai.state().fail(Op::Create, Fault::Lost);
    world.run_to(BatchState::Creating);
    let second = world.submit(&["cracked lamp"], &["en"]);
    world.run_for(5 * MINUTE);
    world.assert_answered(&second);
    world.settle();
    world.assert_answered(&first);
}

#[test]
fn a_refused_create_was_none_and_is_made_again_without_asking() {
    for fault in [
        Fault::NotSent,
        Fault::Refused(429, "rate_limit_exceeded", ""),
        Fault::Refused(400, "", "file_id"),
    ] {
        let mut world = World::new();
        let job = world.submit(&["dented door"], &["en"]);
        world.run_to(BatchState::Uploaded);
        let listings = world.openai.count(Op::List);
        world.openai.state().fail(Op::Create, fault);
        world.settle();
        world.assert_answered(&job);
        assert_eq!(world.openai.count(Op::List), listings);
        assert_eq!(world.made(), 1);
    }
}

#[test]
fn an_input_that_openai_lost_is_uploaded_again() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    let row = world.run_to(BatchState::Uploaded);
    world
        .openai
        .state()
        .always
        .push((Op::Create, Fault::NotSent));
    world.run_for(5 * MINUTE);
    let api: &dyn BatchApi = world.openai.as_ref();
    api.delete_file(&row.input_file_id.unwrap()).unwrap();
    world.openai.state().always.clear();
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Upload), world.made()), (2, 1));
}

#[test]
fn an_input_that_no_create_finds_is_uploaded_as_another_file() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    let first = world.run_to(BatchState::Uploaded).input_file_id;
    let not_found = Fault::Refused(400, "", "file_id");
    world.openai.state().always.push((Op::Create, not_found));
    world.run_for(2 * MINUTE);
    world.openai.state().always.clear();
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Upload), world.made()), (2, 1));
    let api: &dyn BatchApi = world.openai.as_ref();
    let gone = api.file(&first.unwrap()).unwrap_err();
    assert!(gone.is_not_found(), "{gone}");
}

#[test]
fn nothing_is_created_twice_when_a_create_fails_with_5xx_after_its_effect() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.openai.state().fail(Op::Create, Fault::Html(502));
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}

// After a start, and after a restore.

#[test]
fn nothing_is_created_before_the_comparison_after_a_start() {
    let mut world = World::new();
    world
        .openai
        .state()
        .always
        .push((Op::List, Fault::Refused(500, "server_error", "")));
    let job = world.submit(&["dented door"], &["en"]);
    world.run_for(30 * MINUTE);
    assert_eq!(world.openai.count(Op::Create), 0);
    world.openai.state().always.clear();
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_restored_backup_that_missed_a_batch_stops_all_creates() {
    let mut world = World::new();
    let first = world.submit(&["dented door"], &["en"]);
    world.settle();
    world.assert_answered(&first);
    let backup = world.back_up();
    world.submit(&["cracked lamp"], &["en"]);
    world.settle();
    world.restore(&backup);
    world.forget_jobs_that_are_gone();
    world.submit(&["worn seat"], &["en"]);
    world.run_for(60 * MINUTE);
    assert_eq!(world.made(), 2);
    assert_eq!(world.open_alerts(), ["restored_database"]);
    world.crash();
    world.run_for(60 * MINUTE);
    assert_eq!(world.made(), 2);
}

/// A backup from when a batch stood in `state`, put back after the batch was made.
fn restore_to(state: BatchState) -> World {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.run_to(state);
    let backup = world.back_up();
    world.run_to(BatchState::Submitted);
    world.restore(&backup);
    world.run_for(120 * MINUTE);
    assert_eq!(world.made(), 1, "{}", world.dump());
    if state != BatchState::Planned {
        world.assert_answered(&job);
    }
    world
}

#[test]
fn a_restored_backup_finds_the_batch_of_a_submission_that_it_has_under_way() {
    for state in [
        BatchState::Sealed,
        BatchState::Uploaded,
        BatchState::Submitted,
    ] {
        let world = restore_to(state);
        assert!(world.open_alerts().is_empty(), "{}", world.dump());
    }
}

#[test]
fn a_restored_backup_does_not_trust_a_batch_that_it_had_not_sealed() {
    let mut world = restore_to(BatchState::Planned);
    assert_eq!(world.open_alerts(), ["restored_database"]);
    world.crash();
    world.run_for(60 * MINUTE);
    assert_eq!(world.made(), 1);
    assert_eq!(world.open_alerts(), ["restored_database"]);
}

#[test]
fn another_databases_batches_are_left_alone() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.settle();
    world.assert_answered(&job);
    let other = [("batchkeeper", "somebody else"), ("submission", "theirs")];
    let other = other.map(|(key, value)| (key.to_owned(), value.to_owned()));
    world.is_restored = true; // Of theirs no row knows.
    let file = world.openai.upload_theirs();
    world
        .openai
        .state()
        .add_batch(&file, other.into(), false)
        .unwrap();
    world.crash();
    let second = world.submit(&["cracked lamp"], &["en"]);
    world.settle();
    world.assert_answered(&second);
    assert!(world.open_alerts().is_empty());
}

// Another account.

#[test]
fn under_another_account_nothing_is_created_again_and_nothing_fails() {
    for state in [
        BatchState::Uploaded,
        BatchState::Creating,
        BatchState::Submitted,
        BatchState::Ended,
    ] {
        let mut world = World::new();
        let job = world.submit(&["dented door"], &["en"]);
        if state == BatchState::Creating {
            world.openai.state().fail(Op::Create, Fault::ReplyLost);
        }
        world.run_to(state);
        let home = Arc::clone(&world.openai);
        let elsewhere = Arc::new(OpenAi::new("https://elsewhere.test/v1"));
        world.is_restored = true; // OpenAI's batches are not where we look.
        world.restart_with(elsewhere, |config| {
            config.openai.base_url = "https://elsewhere.test/v1".into();
        });
        world.run_for(180 * MINUTE);
        assert_eq!(world.made(), 0, "{state}");
        assert_eq!(world.open_alerts(), ["other_identity"], "{state}");
        let row = world.batch_in(state);
        assert!(row.is_some(), "{state}\n{}", world.dump());
        world.restart_with(home, |config| config.openai.base_url = OPENAI.into());
        world.settle();
        world.assert_answered(&job);
        assert_eq!(world.made(), 1);
        assert!(world.open_alerts().is_empty(), "{state}");
    }
}

#[test]
fn what_openai_has_not_heard_of_moves_to_the_new_account() {
    for state in [BatchState::Planned, BatchState::Sealed] {
        let mut world = World::new();
        let job = world.submit(&["dented door"], &["en"]);
        world.run_to(state);
        world.restart_with(
            Arc::new(OpenAi::new("https://elsewhere.test/v1")),
            |config| config.openai.base_url = "https://elsewhere.test/v1".into(),
        );
        world.settle();
        world.assert_answered(&job);
    }
}

#[test]
fn a_refused_key_pauses_everything_and_goes_on_by_itself() {
    let refused = Fault::Refused(401, "invalid_api_key", "");
    for op in [
        Op::List,
        Op::Upload,
        Op::Create,
        Op::Batch,
        Op::File,
        Op::Download,
    ] {
        let mut world = World::new();
        let job = world.submit(&["dented door"], &["en"]);
        world.openai.state().always.push((op, refused.clone()));
        world.run_for(120 * MINUTE);
        assert_eq!(world.open_alerts(), ["openai_account"], "{op:?}");
        let calls = world.openai.state().calls.len();
        assert!(calls < 120, "{op:?}: {calls} calls in two hours");
        world.openai.state().always.clear();
        world.settle();
        world.assert_answered(&job);
        assert!(world.open_alerts().is_empty(), "{op:?}\n{}", world.dump());
        assert_eq!(world.made(), 1, "{op:?}");
        assert_eq!(world.number("SELECT sum(attempts) FROM requests"), 0);
    }
}

// Taking in.

#[test]
fn both_files_are_read_before_anything_is_sent_again() {
    let mut world = World::new();
    world
        .openai
        .state()
        .fates
        .push(("dented", Stage::Vision, Fate::Status(500), 1));
    world
        .openai
        .state()
        .fail(Op::Download, Fault::Refused(500, "server_error", ""));
    let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.run_to(BatchState::Ended);
    while world.batch_in(BatchState::Ended).is_some() {
        let waiting = world.number("SELECT count(*) FROM requests WHERE state = 'waiting'");
        let spooled = world.number(
            "SELECT count(*) FROM openai_batches WHERE output_bytes IS NOT NULL AND error_bytes IS NOT NULL
             AND output_ingested = output_bytes AND error_ingested = error_bytes",
        );
        assert!(waiting == 0 || spooled == 1, "{}", world.dump());
        world.tick("ingester");
        world.advance(Duration::from_secs(1));
    }
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_download_that_is_cut_is_fetched_again() {
    for fault in [Fault::Cut, Fault::QuietCut, Fault::Html(502)] {
        let mut world = World::new();
        world.openai.state().fail(Op::Download, fault);
        let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
        world.settle();
        world.assert_answered(&job);
        assert_eq!((world.openai.count(Op::Download), world.made()), (2, 1));
    }
}

/// What becomes of a job of two lots when the first goes through `fate` once.
fn after_one(fate: Fate) -> (World, String) {
    let mut world = World::new();
    let fate = ("dented", Stage::Vision, fate, 1);
    world.openai.state().fates.push(fate);
    let job = world.submit(&["dented door", "cracked lamp"], &["en", "de"]);
    world.settle();
    (world, job)
}

#[test]
fn lines_that_may_do_better_are_sent_again_alone() {
    for fate in [
        Fate::Missing,
        Fate::Garbled,
        Fate::Torn,
        Fate::Status(429),
        Fate::Status(500),
        Fate::FailedInside,
        Fate::Incomplete,
        Fate::ImageGone,
    ] {
        let (world, job) = after_one(fate);
        world.assert_answered(&job);
        let lines: Vec<usize> = world
            .openai
            .state()
            .batches
            .iter()
            .map(|batch| batch.lines.len())
            .collect();
        assert_eq!(lines.iter().sum::<usize>(), 5, "{fate:?}: {lines:?}");
    }
}

#[test]
fn odd_lines_with_a_text_are_answers() {
    for fate in [Fate::Repeated, Fate::InBoth, Fate::Reasoned] {
        let (world, job) = after_one(fate);
        world.assert_answered(&job);
        assert_eq!(world.made(), 2, "{fate:?}");
    }
}

#[test]
fn lines_that_will_not_do_better_fail_their_lot_alone() {
    for fate in [Fate::Refused, Fate::Status(400)] {
        let (world, job) = after_one(fate);
        world.assert_accounted_for();
        let job = world.job(&job);
        assert_eq!((job.status, job.failed_lots), (JobStatus::Completed, 1));
        assert_eq!(world.made(), 2, "{fate:?}");
    }
}

#[test]
fn an_answer_that_is_cut_short_is_tried_once_with_a_higher_cap() {
    let (world, job) = {
        let mut world = World::new();
        let fate = ("dented", Stage::Vision, Fate::Endless, 9);
        world.openai.state().fates.push(fate);
        let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
        world.settle();
        (world, job)
    };
    assert_eq!(world.made(), 2);
    let lots = world.lots(&job);
    let reason = lots[0].error_message.as_deref().unwrap();
    assert!(reason.contains("cut short"), "{reason}");
}

#[test]
fn a_line_that_nobody_sent_is_noted() {
    let mut world = World::new();
    world.openai.state().courses.push_back(Course {
        stranger: true,
        unended: true,
        ..Course::default()
    });
    let job = world.submit(&["dented door"], &["en"]);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.number("SELECT unknown_lines FROM openai_batches"), 1);
}

#[test]
fn a_failed_translation_leaves_the_other_languages() {
    let mut world = World::new();
    let fate = ("dented", Stage::Translation, Fate::Status(400), 1);
    world.openai.state().fates.push(fate);
    let job = world.submit(&["dented door"], &["de", "fr"]);
    world.settle();
    world.assert_accounted_for();
    let job = world.job(&job);
    assert_eq!((job.status, job.failed_lots), (JobStatus::Completed, 0));
    assert_eq!(
        world.number("SELECT count(*) FROM lot_translations WHERE error IS NOT NULL"),
        1
    );
}

#[test]
fn when_every_request_failed_only_the_error_file_is_read() {
    let mut world = World::new();
    let fate = ("", Stage::Vision, Fate::Status(400), 99);
    world.openai.state().fates.push(fate);
    let job = world.submit(&["dented door", "cracked lamp"], &["de"]);
    world.settle();
    world.assert_accounted_for();
    assert_eq!(world.job(&job).status, JobStatus::Failed);
    assert_eq!((world.made(), world.openai.count(Op::Download)), (1, 1));
}

#[test]
fn files_that_come_late_are_waited_for() {
    for ids in [Ids::Late(30 * MINUTE), Ids::OutputLate(30 * MINUTE)] {
        let mut world = World::new();
        world.openai.state().courses.push_back(Course {
            ids,
            ..Course::default()
        });
        let fate = ("dented", Stage::Vision, Fate::Status(400), 1);
        world.openai.state().fates.push(fate);
        world.submit(&["dented door", "cracked lamp"], &["en"]);
        world.settle();
        world.assert_accounted_for();
        assert_eq!(world.made(), 1, "{ids:?}\n{}", world.dump());
    }
}

#[test]
fn a_clock_set_forward_makes_nobody_miss_late_files() {
    let mut world = World::new();
    world.openai.state().courses.push_back(Course {
        ids: Ids::OutputLate(30 * MINUTE),
        ..Course::default()
    });
    let fate = ("dented", Stage::Vision, Fate::Status(400), 1);
    world.openai.state().fates.push(fate);
    world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.run_for(10 * MINUTE);
    world.shift_clock(24 * 3_600_000);
    world.settle();
    world.assert_accounted_for();
    assert_eq!(world.made(), 1);
}

#[test]
fn files_that_never_come_are_given_up_after_the_patience() {
    let mut world = World::new();
    world.openai.state().courses.push_back(Course {
        ids: Ids::Never,
        ..Course::default()
    });
    let job = world.submit(&["dented door"], &["en"]);
    world.run_for(world.config.openai.results_timeout);
    assert_eq!(world.made(), 1);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 2);
}

#[test]
fn the_rest_of_an_expired_or_cancelled_batch_is_sent_again() {
    for end in [End::Expires(2), End::Cancelled(2)] {
        let mut world = World::new();
        world.openai.state().courses.push_back(Course::ends(end));
        let job = world.submit(&["one", "two", "three", "four", "five"], &["en"]);
        world.settle();
        world.assert_answered(&job);
        let lines: Vec<usize> = world
            .openai
            .state()
            .batches
            .iter()
            .map(|batch| batch.lines.len())
            .collect();
        assert_eq!(lines, [5, 3]);
    }
}

#[test]
fn five_attempts_and_the_lot_fails_alone_with_the_reason() {
    let mut world = World::new();
    let fate = ("dented", Stage::Vision, Fate::Status(500), 99);
    world.openai.state().fates.push(fate);
    let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.settle();
    assert_eq!(world.made(), 5, "{}", world.dump());
    let lots = world.lots(&job);
    let reason = lots[0].error_message.as_deref().unwrap();
    assert!(reason.contains("after 5 attempts"), "{reason}");
    assert_eq!(lots[1].error_message, None);
    assert_eq!(world.job(&job).failed_lots, 1);
}

// Refused batches.

#[test]
fn a_line_that_is_to_blame_fails_and_the_others_go_again() {
    let mut world = World::new();
    world.openai.state().rules.push(Rule::Blame("dented"));
    let job = world.submit(&["cracked lamp", "dented door", "worn seat"], &["en"]);
    world.settle();
    world.assert_accounted_for();
    let lots = world.lots(&job);
    let failed: Vec<bool> = lots.iter().map(|lot| lot.error_message.is_some()).collect();
    assert_eq!(failed, [false, true, false]);
    assert_eq!(world.made(), 2);
    assert_eq!(world.number("SELECT sum(attempts) FROM requests"), 0);
}

#[test]
fn a_batch_refused_without_a_line_is_halved_until_it_is_found() {
    let mut world = World::new();
    world.openai.state().rules.push(Rule::Poison("dented"));
    let job = world.submit(
        &[
            "one", "two", "three", "four", "dented", "six", "seven", "eight",
        ],
        &["en"],
    );
    world.settle();
    world.assert_accounted_for();
    let lots = world.lots(&job);
    let failed: Vec<usize> = (0..8)
        .filter(|at| lots[*at].error_message.is_some())
        .collect();
    assert_eq!(failed, [4]);
}

#[test]
fn a_full_queue_is_waited_for_with_smaller_batches() {
    let mut world = World::new();
    world.openai.state().rules.push(Rule::QueueOf(2));
    let job = world.submit(
        &["one", "two", "three", "four", "five", "six", "seven"],
        &["en"],
    );
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.number("SELECT sum(attempts) FROM requests"), 0);
    assert!(world.made() < 20, "{}", world.dump());
    assert!(world.open_alerts().is_empty(), "{:?}", world.open_alerts());
}

#[test]
fn a_queue_that_takes_nothing_is_tried_ever_more_seldom() {
    let mut world = World::new();
    world.openai.state().rules.push(Rule::QueueOf(0));
    let job = world.submit(&["one", "two"], &["en"]);
    world.run_for(Duration::from_hours(12));
    assert!(world.made() < 20, "{}", world.dump());
    assert_eq!(world.open_alerts(), ["model_refused"]);
    world.openai.state().rules.clear();
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn an_input_that_openai_cannot_find_blames_no_lot() {
    let mut world = World::new();
    let mut error = error_entry("invalid_request", None);
    error.param = Some("file_id".into());
    world
        .openai
        .state()
        .courses
        .push_back(Course::ends(End::Refused(vec![error])));
    let job = world.submit(&["dented door"], &["en"]);
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_model_that_batches_cannot_have_blames_no_lot() {
    let mut world = World::new();
    let errors = vec![
        error_entry("model_not_found", Some(1)),
        error_entry("model_not_found", Some(2)),
    ];
    world
        .openai
        .state()
        .courses
        .push_back(Course::ends(End::Refused(errors)));
    let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.run_to(BatchState::Failed);
    assert_eq!(world.open_alerts(), ["model_refused"]);
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_model_that_fails_every_line_three_times_pauses() {
    let mut world = World::new();
    let fate = ("lot", Stage::Vision, Fate::Status(404), 99);
    world.openai.state().fates.push(fate);
    for _ in 0..3 {
        world.submit(&["lot one", "lot two"], &["en"]);
        world.settle();
    }
    assert_eq!(world.open_alerts(), ["model_fails"]);
    let job = world.submit(&["other"], &["en"]);
    world.run_for(30 * MINUTE);
    assert_eq!(world.made(), 3);
    world.settle();
    world.assert_answered(&job);
    assert!(world.open_alerts().is_empty());
}

// Two batches under one key.

#[test]
fn a_second_batch_under_one_key_is_taken_in_too() {
    let mut world = World::new();
    let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.openai.state().fail(Op::Create, Fault::Twice);
    world.run_to(BatchState::Submitted);
    world.crash();
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 2);
    assert_eq!(world.texts("SELECT kind FROM alerts"), ["duplicate_batch"]);
    assert_eq!(
        world.number("SELECT count(*) FROM openai_batches WHERE duplicate_of IS NOT NULL AND state = 'ingested'"),
        1
    );
}

#[test]
fn what_the_first_of_two_could_not_do_the_second_may() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    {
        let mut openai = world.openai.state();
        openai.fail(Op::Create, Fault::Twice);
        openai.courses.push_back(Course {
            latency: 20 * MINUTE,
            ..Course::default()
        });
        openai.courses.push_back(Course::default());
        openai
            .fates
            .push(("dented", Stage::Vision, Fate::Missing, 1));
    }
    world.run_to(BatchState::Submitted);
    world.crash();
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_second_batch_that_still_runs_is_cancelled() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    {
        let mut openai = world.openai.state();
        openai.fail(Op::Create, Fault::Twice);
        for minutes in [30, 300] {
            openai.courses.push_back(Course {
                latency: minutes * MINUTE,
                ..Course::default()
            });
        }
    }
    world.run_to(BatchState::Submitted);
    world.crash();
    world.settle();
    world.assert_answered(&job);
    let openai = world.openai.state();
    let cancelled =
        |batch: &&crate::world::openai::HeldBatch| batch.status == BatchStatus::Cancelled;
    assert_eq!(openai.batches.iter().filter(cancelled).count(), 1);
}

// Jobs that are cancelled.

#[test]
fn a_batch_that_nobody_wants_any_more_is_not_created() {
    for state in [
        BatchState::Sealed,
        BatchState::Uploaded,
        BatchState::Creating,
    ] {
        let mut world = World::new();
        let job = world.submit(&["dented door"], &["en"]);
        world.openai.state().fail(Op::Create, Fault::Lost);
        world.run_to(state);
        world.cancel(&job);
        world.settle();
        assert_eq!(world.made(), 0, "{state}");
        assert_eq!(world.job(&job).status, JobStatus::Cancelled);
    }
}

#[test]
fn a_batch_that_nobody_wants_any_more_is_cancelled_and_what_it_answered_is_kept() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en", "de"]);
    world.run_to(BatchState::Ended);
    world.cancel(&job);
    let other = world.submit(&["cracked lamp"], &["en"]);
    world.run_to(BatchState::Submitted);
    world.cancel(&other);
    world.settle();
    assert!(world.lots(&job)[0].vision_result.is_some());
    assert_eq!(world.job(&job).status, JobStatus::Cancelled);
    assert_eq!(world.openai.count(Op::Cancel), 1);
    assert_eq!(world.made(), 2);
}

// Clocks that are set.

#[test]
fn a_clock_that_is_set_delays_nothing_by_more_than_an_interval() {
    const DAY: i64 = 24 * 3_600_000;
    for by in [-DAY, DAY] {
        for state in [
            BatchState::Planned,
            BatchState::Uploaded,
            BatchState::Submitted,
            BatchState::Ended,
        ] {
            let mut world = World::with(|config| config.batch.max_requests = 2);
            let job = world.submit(
                &["one", "two", "three", "four", "five", "six"],
                &["en", "de"],
            );
            world.run_to(state);
            world.shift_clock(by);
            let settled = world.settle_within(60 * MINUTE);
            assert!(settled, "{by} in {state}\n{}", world.dump());
            world.assert_answered(&job);
            assert_eq!(world.made(), 6);
        }
    }
}

#[test]
fn a_clock_set_back_lets_no_batch_starve_behind_another() {
    let mut world = World::with(|config| config.batch.max_requests = 1);
    for minutes in [600, 30, 30] {
        world.openai.state().courses.push_back(Course {
            latency: minutes * MINUTE,
            ..Course::default()
        });
    }
    let job = world.submit(&["one", "two", "three"], &["en"]);
    world.run_for(10 * MINUTE);
    world.shift_clock(-24 * 3_600_000);
    world.run_for(60 * MINUTE);
    assert_eq!(world.job(&job).processed_lots, 2, "{}", world.dump());
}

#[test]
fn a_clock_set_back_delays_missing_lines_by_their_patience_at_most() {
    let mut world = World::new();
    let fate = ("dented", Stage::Vision, Fate::Missing, 1);
    world.openai.state().fates.push(fate);
    let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.run_to(BatchState::Ended);
    world.shift_clock(-24 * 3_600_000);
    let settled = world.settle_within(world.config.openai.results_timeout * 2);
    assert!(settled, "{}", world.dump());
    world.assert_answered(&job);
}

// Another process changes rows between a step's look and its write.

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

// What is said of batches that were never OpenAI's, or that nobody wanted.

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
    world.give_up(row.id);
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
    world.give_up(row.id);
    world.crash();
    world.tick("submitter");
    assert!(world.batch_in(BatchState::Submitted).is_some());
    assert_eq!(world.number("SELECT count(*) FROM v_bad_links"), 0);
}

// What cannot be learned.

#[test]
fn a_batch_past_its_window_that_cannot_be_polled_is_reported() {
    let mut world = World::new();
    world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Submitted);
    world
        .openai
        .state()
        .always
        .push((Op::Batch, Fault::Html(502)));
    world.run_for(Duration::from_hours(23));
    assert!(world.open_alerts().is_empty());
    world.run_for(Duration::from_hours(2));
    assert_eq!(world.open_alerts(), ["batch_overdue"]);
    world.openai.state().always.clear();
    world.settle();
    assert!(world.open_alerts().is_empty());
}

#[test]
fn lines_missing_from_an_expired_batch_are_waited_for() {
    let mut world = World::new();
    {
        let mut openai = world.openai.state();
        openai.courses.push_back(Course::ends(End::Expires(2)));
        openai
            .fates
            .push(("dented", Stage::Vision, Fate::Missing, 1));
    }
    let job = world.submit(&["dented door", "cracked lamp", "worn seat"], &["en"]);
    world.run_to(BatchState::Submitted);
    world.run_for(Duration::from_hours(25));
    assert_eq!(world.made(), 1, "{}", world.dump());
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 2);
}

#[test]
fn a_part_of_an_upload_that_is_gone_already_holds_nothing_up() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    let row = world.run_to(BatchState::Sealed);
    let part = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(part.path(), "a part\n").unwrap();
    let api: &dyn BatchApi = world.openai.as_ref();
    api.upload(&format!("batchkeeper-{}.jsonl", row.key), part.path())
        .unwrap();
    world
        .openai
        .state()
        .always
        .push((Op::Delete, Fault::Refused(404, "", "id")));
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}

#[test]
fn a_listing_without_times_proves_nothing() {
    let mut world = World::with(|config| config.batch.max_requests = 1);
    world.openai.state().page = 2;
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    let job = world.submit(&["one", "two", "three", "four", "five", "six"], &["en"]);
    world.openai.state().without_times = true;
    world.run_for(60 * MINUTE);
    world.openai.state().without_times = false;
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 6);
}

#[test]
fn nothing_is_left_in_the_spool_of_a_batch_that_the_auditor_found() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    world.run_to(BatchState::Creating);
    while world.batch_in(BatchState::Submitted).is_none() {
        world.advance(MINUTE);
        world.tick("auditor");
    }
    world.settle();
    world.assert_answered(&job);
    assert_eq!(std::fs::read_dir(world.config.spool()).unwrap().count(), 0);
}

#[test]
fn a_webhook_whose_body_would_be_too_long_leaves_the_lots_out() {
    let mut world = World::new();
    let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.settle();
    let url = "https://client.test/hook";
    let body = |max| webhook_body(world.store(), &world.job(&job), url, max).unwrap();
    let whole = body(1_000_000);
    let length = whole.len() as u64;
    assert_eq!(body(length), whole);
    for max in [length - 1, 100] {
        let text = String::from_utf8(body(max)).unwrap();
        assert!(text.contains(r#""lots_truncated":true"#) && !text.contains("\"lots\""));
    }
}

// Recovery.

#[test]
fn a_restored_backup_goes_on_when_what_it_missed_is_gone_for_good() {
    let mut world = World::new();
    let backup = world.back_up();
    world.submit(&["cracked lamp"], &["en"]);
    world.settle();
    // The files go a week after they were taken in, the batch stays listed.
    let api: &dyn BatchApi = world.openai.as_ref();
    for file in ["file-0001", "file-0002"] {
        api.delete_file(file).unwrap();
    }
    world.restore(&backup);
    let job = world.submit(&["worn seat"], &["en"]);
    world.run_for(30 * MINUTE);
    assert_eq!(world.open_alerts(), ["restored_database"]);
    assert_eq!(world.recover(), None);
    world.settle();
    world.assert_answered(&job);
    assert!(world.open_alerts().is_empty(), "{}", world.dump());
}

#[test]
fn a_description_that_fails_after_its_translations_were_recovered_has_its_reason() {
    for latency in [1, 600] {
        let mut world = World::new();
        let job = world.submit(&["dented door"], &["en", "de"]);
        let backup = world.back_up();
        world.settle();
        // What the descriptions' batch held is gone from OpenAI; the translations' is there to be found.
        let api: &dyn BatchApi = world.openai.as_ref();
        for file in ["file-0001", "file-0002"] {
            api.delete_file(file).unwrap();
        }
        world.restore(&backup);
        world.run_for(5 * MINUTE);
        assert_eq!(world.recover(), None);
        // Asked for anew, the description is refused, before or after the translation is taken in.
        let fate = ("dented", Stage::Vision, Fate::Status(400), 99);
        world.openai.state().fates.push(fate);
        world.openai.state().courses.push_back(Course {
            latency: latency * MINUTE,
            ..Course::default()
        });
        world.settle();
        world.assert_accounted_for();
        let lot = &world.lots(&job)[0];
        assert_eq!(lot.status, LotStatus::Completed);
        assert!(lot.translations["de"].is_ok() && lot.error_message.is_some());
        let results = LotJson::new(&["en".into(), "de".into()], lot).to_value();
        assert_eq!(
            results["descriptions"][0]["error"],
            json!(lot.error_message)
        );
    }
}

#[test]
fn a_language_that_was_not_asked_for_before_its_description_failed_has_its_reason() {
    let mut world = World::with(|config| config.batch.max_requests = 1);
    let job = world.submit(&["dented door"], &["de", "fr"]);
    let backup = world.back_up();
    world.settle();
    // Of the description's batch and of the second translation's nothing is left to be taken in.
    let api: &dyn BatchApi = world.openai.as_ref();
    for file in [1, 2, 4, 6] {
        api.delete_file(&format!("file-000{file}")).unwrap();
    }
    world.restore(&backup);
    world.run_for(5 * MINUTE);
    let fate = ("dented", Stage::Vision, Fate::Status(400), 99);
    world.openai.state().fates.push(fate);
    assert_eq!(world.recover(), None);
    world.settle();
    world.assert_accounted_for();
    let lot = &world.lots(&job)[0];
    assert_eq!(
        (lot.status, lot.translations.len()),
        (LotStatus::Completed, 1)
    );
    assert!(lot.error_message.is_some());
}

#[test]
fn a_batch_that_was_taken_up_early_learns_its_model() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    let backup = world.back_up();
    world.run_to(BatchState::Submitted);
    world.restore(&backup);
    // OpenAI names no model while it validates.
    assert_eq!(world.recover(), None);
    assert_eq!(world.texts("SELECT model FROM openai_batches"), [""]);
    world.settle();
    world.assert_answered(&job);
    let unknown = "SELECT count(*) FROM v_costs WHERE cost_usd = 'unknown'";
    assert_eq!(world.number(unknown), 0, "{}", world.dump());
}

#[test]
fn what_a_recovered_batch_holds_leaves_the_batch_that_was_being_planned() {
    let mut world = World::new();
    world.openai.state().courses.push_back(Course {
        latency: 300 * MINUTE,
        ..Course::default()
    });
    let job = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Planned);
    let backup = world.back_up();
    world.run_to(BatchState::Submitted);
    world.restore(&backup);
    // As if what was being planned then had come to nothing, and another batch held its request.
    world
        .execute("UPDATE openai_batches SET submission_key = 'came to nothing'")
        .unwrap();
    world.run_for(5 * MINUTE);
    assert_eq!(world.recover(), None);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1, "{}", world.dump());
}

#[test]
fn a_recovered_batch_that_was_refused_blames_no_lot() {
    let mut world = World::new();
    let refused = vec![error_entry("invalid_json_line", Some(1))];
    let refused = Course::ends(End::Refused(refused));
    world.openai.state().courses.push_back(refused);
    let job = world.submit(&["one", "two"], &["en"]);
    let backup = world.back_up();
    world.run_to(BatchState::Submitted);
    world.restore(&backup);
    world.run_for(5 * MINUTE);
    assert_eq!(world.recover(), None);
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_recovery_takes_no_part_of_an_input_for_the_whole() {
    let mut world = World::new();
    let job = world.submit(&["one", "two", "three", "four"], &["en"]);
    let backup = world.back_up();
    world.run_to(BatchState::Submitted);
    world.restore(&backup);
    world.run_for(5 * MINUTE);
    world.openai.state().fail(Op::Download, Fault::QuietCut);
    assert_eq!(world.recover(), None);
    world.run_for(5 * MINUTE);
    assert_eq!(world.recover(), None);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1, "{}", world.dump());
}

#[test]
fn an_imported_job_is_kept_from_its_import_on() {
    let dump = r#"{"batch_jobs": [{"id": "6908f1d2-39b9-4721-bb8a-dba18120df5f", "status": "completed", "total_lots": 1,
                                   "created_at": "2025-08-06T14:02:11", "languages": ["en"]}],
                   "batch_lots": [{"batch_job_id": "6908f1d2-39b9-4721-bb8a-dba18120df5f", "lot_id": "A",
                                   "vision_result": "A car."}]}"#;
    let dump = read_dump(dump.as_bytes()).unwrap();
    let world = World::new();
    let now = world.clock.now().wall;
    let inserted = world
        .store()
        .write(now, |tx| legacy::insert_job(tx, &dump.jobs[0]));
    assert!(inserted.unwrap());
    let old = |before| {
        let next = world
            .store()
            .read(|view| retention::next_expired(view, before));
        next.unwrap().is_some()
    };
    assert!(!old(now), "it ended long ago, and is here since now");
    assert!(old(now + MINUTE));
}

#[test]
fn recover_may_be_run_again_while_a_job_is_an_orphan_still() {
    const JOB: &str = "6908f1d2-39b9-4721-bb8a-dba18120df5f";
    // The batch that the job names asked for the first of its two lots alone.
    let world = World::new();
    let line = r#"{"custom_id":"vision:A","method":"POST","url":"/v1/responses","body":{"model":"o4-mini","input":[]}}"#;
    let input = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(input.path(), format!("{line}\n")).unwrap();
    let api: Arc<dyn BatchApi> = world.openai.clone();
    let input = api.upload("theirs.jsonl", input.path()).unwrap();
    let batch = world
        .openai
        .state()
        .add_batch(&input.id, [].into(), true)
        .unwrap();
    let dump = format!(
        r#"{{"batch_jobs": [{{"id": "{JOB}", "status": "processing", "created_at": "2026-11-23T02:00:00",
              "openai_batch_id": "{}", "languages": ["en"]}}],
            "batch_lots": [{{"batch_job_id": "{JOB}", "lot_id": "A"}}, {{"batch_job_id": "{JOB}", "lot_id": "B"}}]}}"#,
        batch.id
    );
    let dump = read_dump(dump.as_bytes()).unwrap();
    let now = world.clock.now().wall;
    let store = Arc::new(Store::open(&world.config.database, now).unwrap());
    let taken = store.write(now, |tx| legacy::insert_job(tx, &dump.jobs[0]));
    assert!(taken.unwrap());
    let recovery = Recovery::new(store, api);
    let linked = [1, 2].map(|_| recovery.apply(&recovery.survey().unwrap(), now));
    assert_eq!(linked.map(Result::unwrap), [1, 0]);
}

// What the database itself refuses.

#[test]
fn the_database_refuses_what_would_lose_a_batch() {
    let mut world = World::new();
    world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Uploaded);
    for (sql, why) in [
        (
            "UPDATE openai_batches SET state = 'submitted'",
            "CHECK constraint failed",
        ),
        (
            "UPDATE openai_batches SET state = 'ended'",
            "CHECK constraint failed",
        ),
        (
            "UPDATE openai_batches SET state = 'creating', input_file_id = NULL",
            "CHECK constraint failed",
        ),
        (
            "UPDATE openai_batches SET state = 'failed', error = NULL",
            "CHECK constraint failed",
        ),
        (
            "UPDATE batch_jobs SET openai_batch_id = 'batch_nobody_knows'",
            "FOREIGN KEY constraint failed",
        ),
        (
            "UPDATE batch_jobs SET openai_translation_batch_id = 'batch_nobody_knows'",
            "FOREIGN KEY constraint failed",
        ),
        (
            "INSERT INTO batch_lines (batch_id, request_id) VALUES (999, 1)",
            "FOREIGN KEY constraint failed",
        ),
        (
            "INSERT INTO batch_lines (batch_id, request_id) VALUES (NULL, 1)",
            "NOT NULL constraint failed",
        ),
        (
            "INSERT INTO batch_lines (batch_id, request_id) SELECT batch_id, request_id FROM batch_lines",
            "UNIQUE constraint failed",
        ),
        (
            "DELETE FROM openai_batches",
            "FOREIGN KEY constraint failed",
        ),
        (
            "UPDATE batch_jobs SET processed_lots = 2",
            "CHECK constraint failed",
        ),
    ] {
        world.execute("PRAGMA foreign_keys = ON").unwrap();
        let refused = world.execute(sql).expect_err(sql).to_string();
        assert!(refused.contains(why), "{sql}: {refused}");
    }
}
