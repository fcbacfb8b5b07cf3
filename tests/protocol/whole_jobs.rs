//! Whole jobs, from the submission to their texts.

use crate::world::World;
use batchkeeper::domain::job::JobStatus;

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
    let job = world.submit(&["one", "two", "three", "four", "five", "six", "seven"], &["de"]);
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
