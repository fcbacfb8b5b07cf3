//! The submission protocol's story, a test for each promise it makes.

mod world;

use batchkeeper::job::JobStatus;
use world::World;

#[test]
fn a_job_in_three_languages_is_described_and_translated() {
    let mut world = World::new();
    let job = world.submit(&["dented door", "cracked lamp"], &["en", "de", "pt-BR"]);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 2);
    assert_eq!(world.job(&job).status, JobStatus::Completed);
    assert!(world.open_alerts().is_empty());
}
