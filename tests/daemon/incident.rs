//! The incident that this program was written for: OpenAI completed the batches of seven jobs of
//! the earlier service, and the service never fetched the results. One command must complete all
//! seven.

use crate::appliance::{Appliance, in_languages};
use batchkeeper::base::clock::Timestamp;
use batchkeeper::sandbox::{expected_description, expected_translation};
use serde_json::{Value, json};

const INCIDENT: &str = include_str!("../fixtures/incident.json");
const LANGUAGES: [&str; 3] = ["en", "ru", "de"];
const LOTS: usize = 10;
/// Jobs with a special history, by their index in the fixture.
const TRANSLATED: usize = 1;
const WITHOUT_INPUT: usize = 2;
const CREATED_TWICE: usize = 3;
const OLDER_IDS: usize = 4;

/// One of the seven jobs.
struct Lost {
    job: String,
    batch: String,
    /// Seconds, as in the batch's id.
    created_at: i64,
}

fn seven() -> Vec<Lost> {
    let incident: Value = serde_json::from_str(INCIDENT).unwrap();
    let links = incident["links"].as_array().unwrap();
    let lost = |link: &Value| {
        let text = |name: &str| link[name].as_str().unwrap().to_owned();
        let (job, batch) = (text("job_id"), text("openai_batch_id"));
        let created_at = i64::from_str_radix(&batch["batch_".len()..][..8], 16).unwrap();
        Lost {
            job,
            batch,
            created_at,
        }
    };
    links.iter().map(lost).collect()
}

/// The lot ids of the n-th job. Ids may contain colons.
fn lot_id(nth: usize, lot: usize) -> String {
    match lot {
        0 => format!("11-{nth}:{lot}:ru"),
        _ => format!("5YJ3E1EB5KF43{nth}{lot:03}"),
    }
}

fn info(nth: usize, lot: usize) -> String {
    format!("Lot {lot} of the client's job {nth}, front \"collision\"")
}

fn image(nth: usize, lot: usize) -> String {
    format!("https://img.example/{nth}/{lot}.jpg")
}

fn description(nth: usize, lot: usize) -> String {
    expected_description(&info(nth, lot), &[&image(nth, lot)])
}

fn vision_line(custom_id: String, nth: usize, lot: usize) -> Value {
    json!({"custom_id": custom_id, "body": {"input": [{"role": "user", "content": [
        {"type": "input_text", "text": info(nth, lot)},
        {"type": "input_image", "image_url": image(nth, lot), "detail": "low"},
    ]}]}})
}

fn planted(appliance: &Appliance, id: &str, at: i64, description: &str, lines: &[Value], drop_input: bool) {
    appliance.seed(&json!({
        "id": id, "created_at": at, "metadata": {"description": description}, "lines": lines,
        "model": "o4-mini", "drop_input_file": drop_input,
    }));
}

/// Creates the earlier service's batches in the sandbox.
fn plant(appliance: &Appliance, seven: &[Lost]) {
    for (nth, lost) in seven.iter().enumerate() {
        let custom_id = |lot: usize| match nth {
            OLDER_IDS => format!("vision:{}:{}", lost.job, lot_id(nth, lot)),
            _ => format!("vision:{}", lot_id(nth, lot)),
        };
        let lines: Vec<_> = (0..LOTS)
            .map(|lot| vision_line(custom_id(lot), nth, lot))
            .collect();
        let named = format!("Vision processing for job {}", lost.job);
        planted(
            appliance,
            &lost.batch,
            lost.created_at,
            &named,
            &lines,
            nth == WITHOUT_INPUT,
        );
        if nth == CREATED_TWICE {
            // The old client repeated a create whose answer was lost.
            planted(
                appliance,
                "batch_6892745fffff81908eae72a93d6f23f0",
                lost.created_at + 2,
                &named,
                &lines,
                false,
            );
        }
        if nth == TRANSLATED {
            let translate = |lot: usize| {
                ["ru", "de"].map(|language| {
                    let custom_id = format!("tr:{}:{language}", lot_id(nth, lot));
                    json!({"custom_id": custom_id, "body": {
                        "input": description(nth, lot), "metadata": {"language": language}, "model": "gpt-4.1-mini",
                    }})
                })
            };
            let lines: Vec<_> = (0..LOTS).flat_map(translate).collect();
            let named = format!("Translation processing for job {}", lost.job);
            planted(
                appliance,
                "batch_68935c00d188190be07ad19a87606b80",
                lost.created_at + 900,
                &named,
                &lines,
                false,
            );
        }
    }
    // Batches of jobs that are in no table any more, and batches of another program.
    let line = [vision_line("vision:X1".into(), 9, 9)];
    let named = "Vision processing for job 00000000-0000-4000-8000-000000000000";
    planted(
        appliance,
        "batch_68927f0000008190b4dba024a381aa00",
        seven[0].created_at,
        named,
        &line,
        false,
    );
    planted(
        appliance,
        "batch_68927f0100008190b4dba024a381aa01",
        seven[0].created_at,
        "nightly summaries",
        &line,
        false,
    );
}

/// The dump of the earlier service's tables.
fn dump(appliance: &Appliance, seven: &[Lost]) -> Value {
    let time = |seconds: i64| Timestamp::from_seconds(seconds).to_string()[..19].to_owned();
    let jobs = seven.iter().enumerate().map(|(nth, lost)| {
        json!({
            "id": lost.job, "status": "processing", "created_at": time(lost.created_at - 75),
            "updated_at": time(lost.created_at), "openai_batch_id": null, "openai_vision_batch_id": null,
            "openai_translation_batch_id": null, "languages": LANGUAGES, "total_lots": LOTS,
            "webhook_url": appliance.hook(&format!("lost-{nth}")), "retry_count": 0,
        })
    });
    let lots = seven.iter().enumerate().flat_map(|(nth, lost)| {
        (0..LOTS).map(move |lot| {
            // A model answered with its formatting options; the service stored them as a
            // description.
            let result = (nth == 5 && lot == 1).then_some("{'format': {'type': 'text'}}");
            json!({
                "batch_job_id": lost.job, "lot_id": lot_id(nth, lot), "additional_info": info(nth, lot),
                "image_urls": [image(nth, lot)], "status": "pending", "vision_result": result,
            })
        })
    });
    json!({"batch_jobs": jobs.collect::<Value>(), "batch_lots": lots.collect::<Value>(), "batch_results": []})
}

fn orphans(appliance: &Appliance) -> i64 {
    appliance.cell("SELECT count(*) FROM v_orphans")
}

#[test]
fn one_command_completes_all_seven_lost_jobs() {
    let mut appliance = Appliance::without_daemon("");
    let seven = seven();
    assert_eq!(seven.len(), 7);
    plant(&appliance, &seven);
    let file = appliance.path("dump.json");
    std::fs::write(&file, dump(&appliance, &seven).to_string()).unwrap();
    let file = file.to_str().unwrap();

    let dry = appliance.run(&["import-legacy", file, "--dry-run"]);
    assert_eq!(dry.status, 0, "{}", dry.err);
    assert!(
        dry.out.contains("7 jobs with 70 lots imported") && dry.out.contains("nothing was changed"),
        "{}",
        dry.out
    );
    assert!(!appliance.database().exists(), "a dry run makes no database");
    let import = appliance.run(&["import-legacy", file]);
    assert_eq!(import.status, 0, "{}", import.err);
    assert!(
        import
            .out
            .contains("7 jobs with 70 lots imported, 0 here already, 0 rows refused"),
        "{}",
        import.out
    );
    assert_eq!(orphans(&appliance), 7);
    assert_eq!(
        appliance.cell::<i64>("SELECT count(*) FROM batch_lots WHERE vision_result IS NOT NULL"),
        0
    );
    assert_eq!(appliance.run(&["doctor"]).status, 1, "orphans are findings");

    // The daemon does not send these jobs: their work may be paid already.
    appliance.start_daemon();
    let alive = appliance.job(&appliance.lots(2), &["en"]);
    appliance.results(&alive);
    appliance.wait_until_ingested();
    assert_eq!(orphans(&appliance), 7);
    assert_eq!(appliance.state()["executed"], 2);
    appliance.kill_daemon();

    // A dry run changes nothing.
    let before = appliance.dump();
    let look = appliance.run(&["recover"]);
    assert_eq!(look.status, 1, "{}", look.err);
    for lost in &seven {
        let line = look.out.lines().find(|line| line.contains(&lost.batch)).unwrap();
        assert!(line.starts_with("link ") && line.contains(&lost.job), "{line}");
        assert!(line.contains("its metadata names the job"), "{line}");
    }
    assert!(look.out.contains("9 batches can be linked"), "{}", look.out);
    assert!(
        !look.out.contains("68927f01"),
        "the other program's batches: {}",
        look.out
    );
    assert_eq!(appliance.dump(), before);
    let json = appliance.run(&["recover", "--json"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    let findings = json["findings"].as_array().unwrap();
    let linkable = findings.iter().filter(|it| it["linkable"] == true);
    assert_eq!(linkable.count(), 9, "{json}");

    appliance.start_daemon();
    let recover = appliance.run(&["recover", "--apply"]);
    assert_eq!(recover.status, 0, "{}{}", recover.out, recover.err);
    assert!(recover.out.contains("9 batches linked"), "{}", recover.out);
    for (nth, lost) in seven.iter().enumerate() {
        let results = appliance.results(&lost.job);
        let lots = results["results"]["lots"].as_array().unwrap();
        assert_eq!(lots.len(), LOTS);
        for (lot, found) in lots.iter().enumerate() {
            assert_eq!(found["lot_id"], lot_id(nth, lot));
            assert_eq!(found["status"], "completed", "{found}");
            assert_eq!(
                found["descriptions"],
                in_languages(&description(nth, lot), &LANGUAGES),
                "{found}"
            );
        }
        let status = appliance.status(&lost.job);
        if nth != CREATED_TWICE {
            assert_eq!(status["openai_batch_id"], lost.batch);
        }
        assert_eq!(
            (
                &status["progress"]["processed_lots"],
                &status["progress"]["failed_lots"]
            ),
            (&json!(10), &json!(0))
        );
        let deliveries = appliance.delivered(&format!("lost-{nth}"), 1);
        let event: Value = serde_json::from_str(deliveries[0]["body"].as_str().unwrap()).unwrap();
        assert_eq!(
            (&event["event"], &event["job_id"]),
            (&json!("batch_job_completed"), &json!(lost.job))
        );
        assert_eq!(event["lots"], results["results"]["lots"]);
    }
    appliance.assert_sound();
    // The adopted batches were paid when OpenAI ran them. Today's budget is not charged.
    let of_vision = "FROM job_usage u JOIN batch_jobs j ON j.seq = u.job
                     WHERE j.origin = 'import' AND u.stage = 'vision'";
    let days = "SELECT date(openai_time, 'unixepoch') FROM openai_batches WHERE scheme = 'legacy'";
    let other = format!("SELECT count(*) {of_vision} AND u.day NOT IN ({days})");
    assert_eq!(appliance.cell::<i64>(&other), 0);
    let all = format!("SELECT count(*) {of_vision}");
    assert_eq!(appliance.cell::<i64>(&all), 7);
    assert!(!appliance.daemon_said("stuck_batch"));
    // No request that OpenAI had answered was sent again. The new requests are six jobs'
    // translations into two languages, and the two lots from above.
    assert_eq!(appliance.state()["executed"], 2 + 6 * LOTS * 2);
    let text = expected_translation(&description(TRANSLATED, 7), "ru");
    let stored = format!(
        "SELECT t.text FROM lot_translations t JOIN batch_lots l ON l.id = t.lot WHERE t.language = 'ru' AND l.lot_id = '{}'",
        lot_id(TRANSLATED, 7)
    );
    assert_eq!(appliance.cell::<String>(&stored), text);

    // Repeating all commands changes nothing.
    let delivered = "SELECT count(*) FROM webhook_deliveries WHERE state <> 'delivered'";
    crate::appliance::wait_for("webhooks noted", || {
        (appliance.cell::<i64>(delivered) == 0).then_some(())
    });
    let before = appliance.dump();
    let import = appliance.run(&["import-legacy", file]);
    assert!(
        import.out.contains("0 jobs with 0 lots imported, 7 here already"),
        "{}",
        import.out
    );
    for arguments in [&["recover"][..], &["recover", "--apply"]] {
        let recover = appliance.run(arguments);
        assert!(!recover.out.contains("link "), "{}", recover.out);
    }
    assert_eq!(appliance.dump(), before);
    for nth in 0..7 {
        assert_eq!(appliance.delivered(&format!("lost-{nth}"), 1).len(), 1);
    }
    assert_eq!(orphans(&appliance), 0);
}

#[test]
fn a_batch_is_adopted_only_where_its_custom_ids_fit() {
    let mut appliance = Appliance::without_daemon("");
    let seven = &seven()[..2];
    let lines = |nth: usize| {
        (0..LOTS)
            .map(|lot| vision_line(format!("vision:{}", lot_id(nth, lot)), nth, lot))
            .collect::<Vec<_>>()
    };
    for (nth, lost) in seven.iter().enumerate() {
        appliance.seed(
            &json!({"id": lost.batch, "created_at": lost.created_at, "lines": lines(nth),
            "metadata": {"description": "by hand"}}),
        );
    }
    let mut stray = lines(0);
    stray.push(vision_line("vision:of another".into(), 0, 0));
    let strays = "batch_68936300f1008190b420012a7a510ccf";
    appliance.seed(&json!({"id": strays, "created_at": seven[0].created_at, "lines": stray, "metadata": {"description": "by hand"}}));
    let file = appliance.path("dump.json");
    std::fs::write(&file, dump(&appliance, seven).to_string()).unwrap();
    appliance.run(&["import-legacy", file.to_str().unwrap()]);

    // The daemon is not running: its own rows, such as alerts about orphans, would change the dump.
    let before = appliance.dump();
    let adopt = |appliance: &Appliance, job: &str, batch: &str| {
        appliance.run(&["adopt", "--job", job, "--batch", batch])
    };
    let (first, second) = (&seven[0], &seven[1]);
    for (job, batch, says) in [
        (first.job.as_str(), second.batch.as_str(), "don't fit"),
        (&second.job, &first.batch, "don't fit"),
        (&first.job, strays, "don't fit"),
        (
            &first.job,
            "batch_00000000000000000000000000000000",
            "No batch found",
        ),
        ("00000000-0000-4000-8000-000000000000", &first.batch, "no job"),
    ] {
        let refused = adopt(&appliance, job, batch);
        assert_eq!(refused.status, 1, "{}", refused.out);
        assert!(refused.err.contains(says), "{}", refused.err);
    }
    // Metadata without a job is no evidence, and neither is the time alone.
    let recover = appliance.run(&["recover", "--apply"]);
    assert!(
        recover.out.contains("0 batches linked, 2 findings left"),
        "{}",
        recover.out
    );
    assert_eq!(appliance.dump(), before);
    assert_eq!(orphans(&appliance), 2);

    appliance.start_daemon();
    for lost in seven {
        let adopted = adopt(&appliance, &lost.job, &lost.batch);
        assert_eq!(adopted.status, 0, "{}", adopted.err);
        let results = appliance.results(&lost.job);
        assert_eq!(results["processing_summary"]["failed_lots"], 0);
    }
    let again = adopt(&appliance, &first.job, &first.batch);
    assert!(
        again.status == 1 && again.err.contains("has its row already"),
        "{}",
        again.err
    );
    let late = "batch_68936300f1008190b420012a7a510cd0";
    appliance.seed(&json!({"id": late, "created_at": seven[0].created_at, "lines": lines(0)}));
    let late = adopt(&appliance, &first.job, late);
    assert!(
        late.status == 1 && late.err.contains("completed for good"),
        "{}",
        late.err
    );
    appliance.assert_sound();
}

#[test]
fn an_orphan_without_a_batch_is_sent_only_on_request() {
    let mut appliance = Appliance::without_daemon("[images]\ncheck = false");
    let lost = &seven()[..1];
    let file = appliance.path("dump.json");
    std::fs::write(&file, dump(&appliance, lost).to_string()).unwrap();
    appliance.run(&["import-legacy", file.to_str().unwrap()]);
    appliance.start_daemon();
    let recover = appliance.run(&["recover", "--apply"]);
    assert!(
        recover.out.contains("no batch at OpenAI belongs to it"),
        "{}",
        recover.out
    );
    assert_eq!(orphans(&appliance), 1);
    assert_eq!(appliance.state()["creates"], 0);
    let retry = appliance.run(&["jobs", "retry", &lost[0].job]);
    assert!(
        retry.out.contains("10 held requests"),
        "{}{}",
        retry.out,
        retry.err
    );
    let results = appliance.results(&lost[0].job);
    for (lot, found) in results["results"]["lots"].as_array().unwrap().iter().enumerate() {
        assert_eq!(
            found["descriptions"],
            in_languages(&description(0, lot), &LANGUAGES),
            "{found}"
        );
    }
    appliance.assert_sound();
}

#[test]
fn the_images_of_an_orphan_are_checked_before_it_is_sent_again() {
    let mut appliance = Appliance::without_daemon("");
    let lost = &seven()[..1];
    let mut dump = dump(&appliance, lost);
    let lots = dump["batch_lots"].as_array_mut().unwrap();
    lots.truncate(4);
    let (good, missing) = (appliance.image("truck.jpg"), appliance.image("missing.jpg"));
    lots[0]["image_urls"] = json!([good]);
    lots[1]["image_urls"] = json!([{"url": good}]);
    lots[2]["image_urls"] = json!([missing]);
    lots[3]["image_urls"] = json!([]);
    let file = appliance.path("dump.json");
    std::fs::write(&file, dump.to_string()).unwrap();
    appliance.run(&["import-legacy", file.to_str().unwrap()]);
    appliance.start_daemon();
    appliance.run(&["jobs", "retry", &lost[0].job]);
    let results = appliance.results(&lost[0].job);
    let lot = |position: usize| &results["results"]["lots"][position];
    for position in [0, 1] {
        let text = expected_description(&info(0, position), &[&good]);
        assert_eq!(lot(position)["descriptions"], in_languages(&text, &LANGUAGES));
    }
    for (position, code) in [(2, "IMAGE_UNREACHABLE"), (3, "INVALID_IMAGE_URLS")] {
        let error = lot(position)["error_message"].as_str().unwrap();
        assert!(error.starts_with(code), "{error}");
    }
    // One description and two translations of each lot, and nothing of the other jobs.
    assert_eq!(appliance.state()["executed"], 2 * 3);
    let again = appliance.run(&["jobs", "retry", &lost[0].job]);
    assert!(
        again.status == 1 && again.err.contains("no held requests"),
        "{}",
        again.err
    );
    appliance.assert_sound();
}

#[test]
fn a_link_in_the_dump_counts_if_openai_confirms_it() {
    let mut appliance = Appliance::without_daemon("");
    let seven = &seven()[..2];
    // No metadata: only the ids in the job's own columns point to the batches.
    let (first, second) = (&seven[0], &seven[1]);
    let lines: Vec<_> = (0..LOTS)
        .map(|lot| vision_line(format!("vision:{}", lot_id(0, lot)), 0, lot))
        .collect();
    appliance.seed(&json!({"id": first.batch, "created_at": first.created_at, "lines": lines, "metadata": {"description": "x"}}));
    let mut dump = dump(&appliance, seven);
    dump["batch_jobs"][0]["openai_vision_batch_id"] = json!(first.batch);
    dump["batch_jobs"][1]["openai_batch_id"] = json!(second.batch);
    let file = appliance.path("dump.json");
    std::fs::write(&file, dump.to_string()).unwrap();
    let import = appliance.run(&["import-legacy", file.to_str().unwrap()]);
    assert!(
        import
            .out
            .contains(&format!("its batch {} is confirmed and linked", first.batch)),
        "{}",
        import.out
    );
    assert!(
        import.out.contains(&format!("not linked to {}", second.batch)),
        "{}",
        import.out
    );
    appliance.start_daemon();
    appliance.results(&first.job);
    assert_eq!(appliance.status(&second.job)["status"], "processing");
    assert_eq!(orphans(&appliance), 1);
}

#[test]
fn a_job_that_names_its_vision_batch_may_have_had_its_translations_too() {
    let mut appliance = Appliance::without_daemon("");
    let seven = seven();
    plant(&appliance, &seven);
    let mut dump = dump(&appliance, &seven);
    dump["batch_jobs"][TRANSLATED]["openai_vision_batch_id"] = json!(seven[TRANSLATED].batch);
    let file = appliance.path("dump.json");
    std::fs::write(&file, dump.to_string()).unwrap();
    let import = appliance.run(&["import-legacy", file.to_str().unwrap()]);
    assert!(import.out.contains("is confirmed and linked"), "{}", import.out);
    appliance.run(&["recover", "--apply"]);
    appliance.start_daemon();
    let job = &seven[TRANSLATED].job;
    appliance.results(job);
    let made: String = appliance.cell(&format!(
        "SELECT group_concat(b.scheme || ' ' || b.stage, ', ' ORDER BY b.stage)
         FROM openai_batches b JOIN batch_links k ON k.batch_id = b.id JOIN batch_jobs j ON j.seq = k.job
         WHERE j.id = '{job}'"
    ));
    assert_eq!(made, "legacy translation, legacy vision");
}

#[test]
fn unanswered_requests_of_a_lost_batch_are_sent_again_and_equal_lots_share_an_answer() {
    let mut appliance = Appliance::without_daemon("");
    let lost = &seven()[..1];
    let lines: Vec<_> = (0..LOTS)
        .map(|lot| vision_line(format!("vision:{}", lot_id(0, lot)), 0, lot))
        .collect();
    let named = format!("Vision processing for job {}", lost[0].job);
    appliance.seed(&json!({
        "id": lost[0].batch, "created_at": lost[0].created_at, "lines": lines,
        "metadata": {"description": named}, "status": "expired",
    }));
    // Lot ids were not unique within a job: the last lot occurs twice.
    let mut dump = dump(&appliance, lost);
    let twin = dump["batch_lots"][LOTS - 1].clone();
    dump["batch_lots"].as_array_mut().unwrap().push(twin);
    let file = appliance.path("dump.json");
    std::fs::write(&file, dump.to_string()).unwrap();
    appliance.run(&["import-legacy", file.to_str().unwrap()]);
    appliance.start_daemon();
    let recover = appliance.run(&["recover", "--apply"]);
    assert_eq!(recover.status, 0, "{}{}", recover.out, recover.err);
    let results = appliance.results(&lost[0].job);
    let lots = results["results"]["lots"].as_array().unwrap();
    assert_eq!(lots.len(), LOTS + 1);
    for (lot, found) in lots.iter().enumerate() {
        let text = description(0, lot.min(LOTS - 1));
        assert_eq!(found["descriptions"], in_languages(&text, &LANGUAGES), "{found}");
    }
    appliance.assert_sound();
    // Each translation once, and the expired half of the descriptions. Both lots with the same id
    // may be in that half.
    let executed = appliance.state()["executed"].as_u64().unwrap();
    let again = executed - 2 * (LOTS as u64 + 1);
    assert!((5..=6).contains(&again), "{again}");
}
