//! What the database itself refuses.

use crate::world::World;
use batchkeeper::domain::batch::BatchState;

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
        ("DELETE FROM openai_batches", "FOREIGN KEY constraint failed"),
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
