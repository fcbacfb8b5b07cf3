//! A batch from its creation to its end, restarts, and past batches.

use super::*;

#[test]
fn a_batch_lives_through_its_states_and_answers_every_line() {
    let folder = folder();
    let world = World::new(folder.path());
    let mut lines = vision_lines(20);
    let bad = vision_body("x", &["http://h/a/missing.jpg"]);
    lines.push_str(&line("v_bad", &bad));
    let id = world.batch(&lines, "t1");
    let made = world.get(&format!("/v1/batches/{id}"));
    let text = String::from_utf8(made.bytes.clone()).unwrap();
    assert!(text.starts_with(&format!("{{\"id\":\"{id}\",\"object\":\"batch\",\"endpoint\":\"/v1/responses\",\"model\":null,\"errors\":null,\"input_file_id\":\"file-")), "{text}");
    assert!(text.ends_with("\"request_counts\":{\"total\":0,\"completed\":0,\"failed\":0},\"usage\":{\"input_tokens\":0,\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":0,\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":0},\"metadata\":{\"submission\":\"t1\"}}"), "{text}");
    assert!(
        made.headers
            .iter()
            .any(|(name, value)| name == "x-request-id" && value.starts_with("req_"))
    );
    assert_eq!(made.json()["status"], "validating");
    world.wait(6);
    let running = world.poll(&id);
    assert_eq!(running["status"], "in_progress");
    assert_eq!(running["model"], "gpt-6-luna-2026-09-22");
    assert_eq!(
        running["request_counts"],
        json!({"total": 21, "completed": 9, "failed": 0})
    );
    assert_eq!(running["output_file_id"], Value::Null);
    world.wait(5);
    assert_eq!(world.poll(&id)["status"], "finalizing");
    world.wait(100);
    let done = world.poll(&id);
    assert_eq!(done["status"], "completed");
    assert_eq!(done["completed_at"], START / 1000 + 12);
    assert_eq!(
        done["request_counts"],
        json!({"total": 21, "completed": 20, "failed": 1})
    );
    let output = world.results(&done, "output_file_id");
    let order = output
        .iter()
        .map(|line| line["custom_id"].as_str().unwrap())
        .collect::<Vec<_>>();
    let mut sorted = order.clone();
    sorted.sort_by_key(|id| id[2..].parse::<u32>().unwrap());
    assert_ne!(order, sorted, "shuffled");
    assert_eq!(sorted.len(), 20);
    for line in &output {
        let number = &line["custom_id"].as_str().unwrap()[2..];
        assert_eq!(
            text_of(line),
            expected_description(&format!("lot {number}"), &["http://h/images/truck.jpg"])
        );
        assert_eq!(line["response"]["body"]["text"]["format"]["type"], "text");
    }
    let errors = world.results(&done, "error_file_id");
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0]["error"], Value::Null);
    assert_eq!(errors[0]["response"]["body"]["error"]["code"], "invalid_value");
    assert_eq!(errors[0]["response"]["body"]["error"]["param"], "url");
    let state = world.state();
    assert_eq!(state["executed"], 21);
    assert_eq!(state["max_executions"], 1);
    assert_eq!(state["flags"], json!([]));
    assert_eq!(state["batches"]["completed"], 1);
}

#[test]
fn translations_come_in_their_language_and_reasoning_comes_first() {
    let folder = folder();
    let world = World::new(folder.path());
    let body = json!({"model": "o4-mini", "instructions": "Translate.", "metadata": {"language": "ru"},
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "The front door."}]}]});
    let id = world.batch(&line("t_1", &body), "t");
    world.wait(60);
    let output = world.results(&world.poll(&id), "output_file_id");
    assert_eq!(text_of(&output[0]), expected_translation("The front door.", "ru"));
    let body = &output[0]["response"]["body"];
    assert_eq!(body["output"][0]["type"], "reasoning");
    assert_eq!(body["model"], "o4-mini-2025-04-16");
    // The same over the synchronous endpoint.
    let answer = world.post("/v1/responses", &vision_body("a lot", &[]));
    assert_eq!(answer.status, 200);
    assert_eq!(
        text_of(&json!({"response": {"body": answer.json()}})),
        expected_description("a lot", &[])
    );
    let mut short = vision_body("a lot", &[]);
    short["max_output_tokens"] = json!(16);
    let answer = world.post("/v1/responses", &short).json();
    assert_eq!(answer["status"], "incomplete");
    assert_eq!(answer["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(answer["usage"]["output_tokens"], 16);
    short["max_output_tokens"] = json!(15);
    assert_eq!(
        world.post("/v1/responses", &short).error(),
        (400, "integer_below_min_value".into(), "max_output_tokens".into())
    );
    assert_eq!(world.state()["synchronous"], 3);
}

#[test]
fn listings_page_newest_first_and_cancels_take_their_time() {
    let folder = folder();
    let world = World::new(folder.path());
    let lines = vision_lines(10);
    let mut ids = (0..5)
        .map(|n| {
            world.wait(1);
            world.batch(&lines, &n.to_string())
        })
        .collect::<Vec<_>>();
    ids.reverse();
    let first = world.get("/v1/batches?limit=2").json();
    assert_eq!(
        (&first["first_id"], &first["last_id"], &first["has_more"]),
        (&json!(ids[0]), &json!(ids[1]), &json!(true))
    );
    let rest = world.get(&format!("/v1/batches?limit=3&after={}", ids[1])).json();
    assert_eq!(
        (&rest["last_id"], &rest["has_more"]),
        (&json!(ids[4]), &json!(false))
    );
    // A batch cancelled in `validating` has executed nothing and has no files. One cancelled in `in_progress`
    // has the results of the lines that were executed.
    let fresh = world.batch(&lines, "fresh");
    let cancel = |id: &str| world.send("POST", &format!("/v1/batches/{id}/cancel"), &[], b"");
    assert_eq!(cancel(&fresh).json()["status"], "cancelling");
    world.wait(5);
    assert_eq!(cancel(&ids[0]).json()["status"], "cancelling");
    world.wait(604);
    assert_eq!(world.poll(&ids[0])["status"], "cancelling");
    world.wait(2);
    let (fresh, half) = (world.poll(&fresh), world.poll(&ids[0]));
    assert_eq!(
        (
            &fresh["status"],
            &fresh["output_file_id"],
            &fresh["error_file_id"]
        ),
        (&json!("cancelled"), &Value::Null, &Value::Null)
    );
    assert_eq!(half["status"], "cancelled");
    let ran = world.results(&half, "output_file_id").len();
    let left = world.results(&half, "error_file_id");
    assert_eq!((ran, left.len()), (4, 6));
    assert_eq!(left[0]["error"]["code"], "batch_cancelled");
    assert_eq!(left[0]["response"], Value::Null);
    assert_eq!(
        half["request_counts"],
        json!({"total": 10, "completed": 4, "failed": 0})
    );
    // A second cancel gives the same answer.
    assert_eq!(cancel(half["id"].as_str().unwrap()).json(), half);
    assert_eq!(world.state()["flags"], json!([]));
}

#[test]
fn a_restart_on_the_same_folder_goes_on_and_runs_nothing_twice() {
    let folder = folder();
    let copy = tempfile::tempdir().unwrap();
    let id;
    {
        let world = World::new(folder.path());
        id = world.batch(&vision_lines(50), "t");
        world.fault(json!({"fault": "line_429", "times": 5}));
        world.wait(5);
        assert_eq!(world.poll(&id)["status"], "in_progress");
        // A copy of the state before the batch is executed.
        copy_folder(folder.path(), copy.path());
    }
    let world = World::at(folder.path(), settings(), START + 60_000);
    let done = world.poll(&id);
    assert_eq!(done["status"], "completed");
    assert_eq!(
        done["request_counts"],
        json!({"total": 50, "completed": 45, "failed": 5})
    );
    assert_eq!(world.state()["executed"], 50);
    // A kill after the ledger counted the execution and before the record was written leaves this.
    for name in [format!("batches/{id}.json"), format!("batches/{id}.input")] {
        std::fs::copy(copy.path().join(&name), folder.path().join(&name)).unwrap();
    }
    let result = json!({"counts": done["request_counts"], "usage": done["usage"],
        "output_bytes": 1, "error_bytes": 1});
    std::fs::write(
        folder.path().join(format!("batches/{id}.result")),
        result.to_string(),
    )
    .unwrap();
    drop(world);
    let world = World::at(folder.path(), settings(), START + 120_000);
    let again = world.poll(&id);
    assert_eq!(again["output_file_id"], done["output_file_id"]);
    assert_eq!(again["request_counts"], done["request_counts"]);
    let state = world.state();
    assert_eq!(
        (&state["executed"], &state["max_executions"]),
        (&json!(50), &json!(1))
    );
    // A create after a restart gets an id of its own.
    assert_ne!(world.batch(&vision_lines(1), "u"), id);
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_planted_batch_looks_as_if_it_had_run_long_ago() {
    let folder = folder();
    let world = World::new(folder.path());
    let id = "batch_68936221f1008190b420012a7a510ccf";
    let lines = (0..3)
        .map(|n| {
            let mut body = vision_body(&format!("lot {n}"), &[]);
            body["model"] = json!("o4-mini");
            body.as_object_mut().unwrap().remove("reasoning");
            json!({"custom_id": format!("vision:LOT{n}"), "body": body})
        })
        .collect::<Vec<_>>();
    let seed = json!({"id": id, "drop_input_file": true, "lines": lines,
        "metadata": {"description": "Vision processing for job 6908f1d2-39b9-4721-bb8a-dba18120df5f"}});
    let planted = world.post("/sandbox/batches/seed", &seed);
    assert_eq!(planted.status, 200, "{}", String::from_utf8_lossy(&planted.bytes));
    assert_eq!(world.post("/sandbox/batches/seed", &seed).status, 400);
    drop(world);
    let world = World::new(folder.path());
    let batch = world.get("/v1/batches").json()["data"][0].clone();
    assert_eq!(batch["id"], id);
    assert_eq!(batch["created_at"], 0x6893_6221);
    assert_eq!(
        (&batch["status"], &batch["model"]),
        (&json!("completed"), &json!("o4-mini-2025-04-16"))
    );
    assert_eq!(batch["request_counts"]["completed"], 3);
    let input = batch["input_file_id"].as_str().unwrap();
    assert_eq!(world.get(&format!("/v1/files/{input}/content")).status, 404);
    let output = world.results(&batch, "output_file_id");
    assert_eq!(output.len(), 3);
    assert_eq!(output[0]["response"]["body"]["output"][0]["type"], "reasoning");
    let number = output[0]["custom_id"].as_str().unwrap().replace("vision:LOT", "");
    assert_eq!(
        text_of(&output[0]),
        expected_description(&format!("lot {number}"), &[])
    );
    let state = world.state();
    assert_eq!(
        (&state["executed"], &state["seeded_lines"], &state["creates"]),
        (&json!(0), &json!(3), &json!(0))
    );
    for (status, ran) in [("expired", 1), ("cancelled", 1), ("failed", 0)] {
        let planted = world
            .post(
                "/sandbox/batches/seed",
                &json!({"status": status, "lines": lines, "created_at": 1_750_000_000}),
            )
            .json();
        assert_eq!(planted["status"], status);
        assert_eq!(world.results(&planted, "output_file_id").len(), ran);
    }
}

/// Takes some seconds even without optimization. `--release -- --ignored` measures its time.
#[test]
#[ignore = "about 190 MB of input"]
fn fifty_thousand_lines_of_190_megabytes() {
    let folder = folder();
    let world = World::new(folder.path());
    let mut lines = String::with_capacity(200_000_000);
    for number in 0..50_000 {
        let body = vision_body(
            &format!("lot {number} {}", "x".repeat(3_400)),
            &["http://h/images/truck.jpg"],
        );
        writeln!(lines, "{}", line(&format!("v_{number}"), &body)).unwrap();
    }
    let id = world.batch(&lines, "big");
    world.wait(60);
    assert_eq!(world.poll(&id)["request_counts"]["completed"], 50_000);
    assert_eq!(world.state()["max_executions"], 1);
}
