//! What `recover` takes up, and what it leaves alone.

use crate::MINUTE;
use crate::world::World;
use crate::world::openai::{Course, End, Fate, Fault, Op, error_entry};
use batchkeeper::base::clock::Clock;
use batchkeeper::domain::batch::{BatchState, Stage};
use batchkeeper::domain::job::LotStatus;
use batchkeeper::jobs::lot_json::LotJson;
use batchkeeper::openai::BatchApi;
use batchkeeper::recovery::Recovery;
use batchkeeper::recovery::import::read_dump;
use batchkeeper::store::report::batch_costs;
use batchkeeper::store::{Store, legacy, retention};
use serde_json::json;
use std::sync::Arc;

#[test]
fn a_restored_backup_goes_on_when_what_it_missed_is_gone_for_good() {
    let mut world = World::new();
    let backup = world.back_up();
    world.submit(&["cracked lamp"], &["en"]);
    world.settle();
    // The files are removed a week after they were ingested. The batch stays listed.
    let api: &dyn BatchApi = world.openai.as_ref();
    for file in world.openai.files() {
        api.delete_file(&file).unwrap();
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
        for file in &world.openai.files()[..2] {
            api.delete_file(file).unwrap();
        }
        world.restore(&backup);
        world.run_for(5 * MINUTE);
        assert_eq!(world.recover(), None);
        // The second request for the description is refused, before or after the translation is ingested.
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
        assert_eq!(results["descriptions"][0]["error"], json!(lot.error_message));
    }
}

#[test]
fn a_language_that_was_not_asked_for_before_its_description_failed_has_its_reason() {
    let mut world = World::with(|config| config.batch.max_requests = 1);
    let job = world.submit(&["dented door"], &["de", "fr"]);
    let backup = world.back_up();
    world.settle();
    // The batches of the description and of the second translation have no lines left to ingest.
    let api: &dyn BatchApi = world.openai.as_ref();
    let files = world.openai.files();
    for file in [0, 1, 3, 5] {
        api.delete_file(&files[file]).unwrap();
    }
    world.restore(&backup);
    world.run_for(5 * MINUTE);
    let fate = ("dented", Stage::Vision, Fate::Status(400), 99);
    world.openai.state().fates.push(fate);
    assert_eq!(world.recover(), None);
    world.settle();
    world.assert_accounted_for();
    let lot = &world.lots(&job)[0];
    assert_eq!((lot.status, lot.translations.len()), (LotStatus::Completed, 1));
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

/// A course whose batch has OpenAI's own usage.
fn with_usage() -> Course {
    Course {
        usage_beyond: Some(0),
        ..Course::default()
    }
}

#[test]
fn what_was_paid_for_jobs_that_a_backup_misses_is_counted_without_a_job() {
    let mut world = World::new();
    world
        .openai
        .state()
        .courses
        .extend([with_usage(), with_usage(), with_usage()]);
    let early = world.submit(&["dented door"], &["en"]);
    let backup = world.back_up();
    // One batch for the early job and a later one, then two batches for the later one alone.
    let later = world.submit(&["cracked lamp", "worn seat"], &["en"]);
    world.settle();
    world.submit(&["broken mirror"], &["en"]);
    world.settle();
    world.restore(&backup);
    world.forget_jobs_that_are_gone();
    world.run_for(5 * MINUTE);
    assert_eq!(world.recover(), None);
    world.settle();
    world.assert_answered(&early);
    assert_ne!(early, later);
    world.advance(2 * MINUTE);
    world.tick("auditor");
    assert!(world.open_alerts().is_empty(), "{:?}", world.open_alerts());
    // 100 input tokens at 0.05 dollars per million and 10 output tokens at 0.25 a line.
    let line = 100 * 50_000 + 10 * 250_000;
    let spent = |client: &str| {
        world.number(&format!(
            "SELECT sum(cost_picodollars) FROM v_spending WHERE client = '{client}'"
        ))
    };
    assert_eq!((spent("without a job"), spent("a")), (3 * line, line));
    assert_eq!(
        world.number("SELECT sum(cost_picodollars) FROM v_costs"),
        4 * line
    );
    let costs = world.store().read(|view| batch_costs(view, 0, i64::MAX)).unwrap();
    let without_job: Vec<(String, u64, i64)> = costs
        .iter()
        .map(|it| {
            (
                it.owner.clone(),
                it.lines_without_job,
                it.cost_without_job.unwrap().0,
            )
        })
        .collect();
    let no_job = "without a job".to_owned();
    assert_eq!(without_job, [(early, 2, 2 * line), (no_job, 1, line)]);
}

#[test]
fn what_was_paid_is_unknown_if_openai_does_not_say() {
    let mut world = World::new();
    let backup = world.back_up();
    world.submit(&["cracked lamp"], &["en"]);
    world.settle();
    world.restore(&backup);
    world.forget_jobs_that_are_gone();
    world.run_for(5 * MINUTE);
    assert_eq!(world.recover(), None);
    world.settle();
    let spent = world.texts("SELECT cost_usd FROM v_spending WHERE client = 'without a job'");
    assert_eq!(spent, ["unknown"]);
    assert_eq!(world.texts("SELECT cost_usd FROM v_costs"), ["unknown"]);
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
        let next = world.store().read(|view| retention::next_expired(view, before));
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
    let recovery = Recovery::new(store, api, |_| {});
    let linked = [1, 2].map(|_| recovery.apply(&recovery.survey().unwrap(), now));
    assert_eq!(linked.map(Result::unwrap), [1, 0]);
}
