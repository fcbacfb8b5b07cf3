//! What the ingester makes of result files and their lines.

use crate::MINUTE;
use crate::world::World;
use crate::world::openai::{Course, End, Fate, Fault, IMAGES, Ids, Op};
use batchkeeper::domain::batch::{BatchState, Stage};
use batchkeeper::domain::job::JobStatus;
use std::time::Duration;

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
fn an_image_that_openai_names_is_left_out_and_the_bytes_of_the_sealed_batch_stay() {
    for (fate, text, missing) in [
        (Fate::ImageNamed, "dented door", 1),
        (Fate::ImagePlaced, "dented door", 1),
        (Fate::ImagePlaced, "", 1),
        (Fate::ImageUnnamed, "dented door", 0),
    ] {
        let mut world = World::new();
        world.images = 4;
        world.openai.state().fates.push((text, Stage::Vision, fate, 1));
        // The answer of the upload is lost: the same bytes are written again.
        world.openai.state().fail(Op::Upload, Fault::ReplyLost);
        let job = world.submit(&[text], &["en", "de"]);
        world.settle();
        world.assert_answered(&job);
        let lot = world.lots(&job).remove(0);
        assert_eq!(lot.missing_images, IMAGES[4 - missing..], "{fate:?}");
        assert_eq!(lot.missing_reasons().len(), missing);
        let attempts = world.number("SELECT attempts FROM requests WHERE stage = 'vision'");
        // An image that is left out costs no attempt.
        assert_eq!(attempts, 1 - i64::try_from(missing).unwrap(), "{fate:?}");
    }
}

#[test]
fn an_image_without_which_too_few_are_left_is_sent_twice_more() {
    let mut world = World::new();
    world.images = 3;
    let fate = ("dented", Stage::Vision, Fate::ImageNamed, 9);
    world.openai.state().fates.push(fate);
    let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
    world.settle();
    let lot = world.lots(&job).remove(0);
    assert_eq!(lot.missing_images, IMAGES[2..3]);
    let reason = lot.error_message.unwrap();
    assert!(
        reason.starts_with("IMAGE_UNREACHABLE") && reason.contains(IMAGES[2]),
        "{reason}"
    );
    assert_eq!(
        world.number("SELECT image_failures FROM requests WHERE state = 'failed'"),
        2
    );
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
