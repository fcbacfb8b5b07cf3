//! Costs and queues: the cost of a job, its limit, and OpenAI's limit of enqueued tokens.

use std::time::Duration;

use crate::appliance::{Appliance, call, sign_bytes, submission, wait_for};
use crate::world::World;
use crate::world::openai::{Course, Rule};
use batchkeeper::config::BudgetPolicy;
use batchkeeper::domain::job::Mode;
use batchkeeper::domain::{budgets::SpendingLimits, money::Money};
use serde_json::{Value, json};

const SUMS: &str = "SELECT count(*) FROM v_costs c WHERE (c.input_tokens, c.cached_tokens, c.output_tokens, c.reasoning_tokens)
     <> (SELECT sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens) FROM batch_lines l
         WHERE l.batch_id = c.batch_id)";

fn course_with_excess_usage(usage_beyond: u64) -> Course {
    Course {
        usage_beyond: Some(usage_beyond),
        ..Course::default()
    }
}

#[test]
fn the_usage_of_the_lines_equals_openai_s_total_or_an_alert_opens() {
    let mut world = World::new();
    world
        .openai
        .state()
        .courses
        .extend([course_with_excess_usage(0), course_with_excess_usage(0)]);
    world.submit(&["one", "two", "three"], &["en", "de"]);
    world.settle();
    assert_eq!(world.number(SUMS), 0);
    let said = "SELECT count(*) FROM openai_batches WHERE openai_input_tokens = input_tokens AND openai_output_tokens = output_tokens";
    assert_eq!(world.number(said), 2);
    // Luna in a batch costs 0.05 dollars per million input tokens and 0.25 dollars per million
    // output tokens. Each stage has 300 input tokens and 30 output tokens.
    let cost = "SELECT sum(cost_picodollars) FROM v_costs";
    assert_eq!(world.number(cost), 2 * (300 * 50_000 + 30 * 250_000));
    let of_job = "SELECT sum(cost_picodollars) FROM v_job_costs";
    assert_eq!(world.number(of_job), world.number(cost));
    let of_client = "SELECT sum(cost_picodollars) FROM v_spending WHERE client = 'a'";
    assert_eq!(world.number(of_client), world.number(cost));
    world.tick("auditor");
    assert!(world.open_alerts().is_empty());

    world
        .openai
        .state()
        .courses
        .push_back(course_with_excess_usage(7));
    world.submit(&["four"], &["en"]);
    world.settle();
    world.advance(Duration::from_mins(2));
    world.tick("auditor");
    assert_eq!(world.open_alerts(), ["usage_differs"]);
}

#[test]
fn the_cost_of_an_unknown_model_is_unknown_and_never_zero() {
    let mut world = World::with(|config| config.vision.model = "of-our-own".into());
    world.submit(&["one"], &["en"]);
    world.settle();
    for view in ["v_costs", "v_job_costs", "v_spending"] {
        let shown = world.texts(&format!("SELECT cost_usd FROM {view}"));
        assert_eq!(shown, ["unknown"], "{view}");
        let counted = format!("SELECT count(cost_picodollars) FROM {view}");
        assert_eq!(world.number(&counted), 0, "{view}");
    }
    let estimated = world.texts("SELECT estimated_usd FROM v_job_costs");
    assert_eq!(estimated, ["unknown"]);
}

/// A world whose OpenAI accepts 200,000 enqueued tokens of a model and names the limit only in its
/// refusals.
fn limited_world() -> World {
    let mut world = World::with(|config| {
        config.vision.max_output_tokens = 256;
        config.openai.poll_interval = Duration::from_secs(60);
    });
    world.check_every = u32::MAX;
    world.openai.state().rules = vec![Rule::TokensOf(200_000)];
    world
}

/// The cost of twenty lines with 100 input tokens and 10 output tokens, in dollars.
const TWENTY_LINES: &str = "0.00015";

/// A world in which the client `a` has a budget that its jobs must wait for.
fn waiting_for(budget: SpendingLimits) -> World {
    World::with(|config| {
        config.vision.max_output_tokens = 16;
        config.budgets.on_exceeded = BudgetPolicy::Wait;
        config.clients[0].budget = budget;
    })
}

/// Submits a job of the client `a` with `number` lots.
fn submit_many(world: &mut World, number: usize) -> String {
    let lots: Vec<String> = (0..number).map(|number| format!("lot {number}")).collect();
    let lots: Vec<&str> = lots.iter().map(String::as_str).collect();
    world.submit_as("a", &lots, &["en"])
}

#[test]
fn once_its_limit_and_its_count_are_known_openai_refuses_no_batch() {
    let mut world = limited_world();
    let job = submit_many(&mut world, 5_000);
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.number("SELECT tokens FROM queue_limits"), 200_000);
    // The first refusal names the limit, the second one shows that caps count.
    let refused = "SELECT count(*) FROM openai_batches WHERE state = 'failed'";
    assert_eq!(world.number(refused), 2);
    let alerts = world.number("SELECT count(*) FROM alerts WHERE kind = 'model_refused'");
    assert_eq!(alerts, 0, "no alert is needed");
    // Several batches fit at the same time.
    let together = "SELECT max((SELECT count(*) FROM openai_batches o WHERE o.created_at <= b.submitted_at
                               AND o.ended_at > b.submitted_at AND o.state = 'ingested')) FROM openai_batches b";
    assert!(world.number(together) >= 2);
}

#[test]
fn a_small_job_is_in_the_next_batch_although_another_client_s_large_job_waits() {
    let mut world = limited_world();
    submit_many(&mut world, 2_000);
    world.run_for(Duration::from_mins(10));
    let before = world.number("SELECT max(id) FROM openai_batches");
    let small = world.submit_as("b", &["one", "two"], &["en"]);
    world.settle();
    world.assert_answered(&small);
    let first = world.number(&format!(
        "SELECT min(k.batch_id) FROM batch_links k JOIN batch_jobs j ON j.seq = k.job WHERE j.id = '{small}'"
    ));
    assert!(first <= before + 1, "{first} after {before}");
}

#[test]
fn a_job_over_its_budget_waits_for_the_next_day_and_no_other_job_does() {
    let mut world = waiting_for(SpendingLimits {
        per_day: Money::parse(TWENTY_LINES),
        per_month: None,
    });
    let large = submit_many(&mut world, 30);
    let other = world.submit_as("b", &["one"], &["en"]);
    world.run_for(Duration::from_hours(1));
    world.assert_answered(&other);
    let planned = world.number("SELECT count(*) FROM openai_batches WHERE state = 'planned'");
    assert_eq!(planned, 0, "a waiting job leaves no half-made batch");
    assert!(world.job(&large).completed_at.is_none());
    let spent = "SELECT sum(cost_picodollars) FROM v_spending WHERE client = 'a'";
    assert!(world.number(spent) <= Money::parse(TWENTY_LINES).unwrap().0);
    // The rest of the budget does not pay for one more line.
    world.tick("auditor");
    assert!(world.open_alerts().contains(&"budget_100".to_owned()));
    world.settle();
    world.assert_answered(&large);
    world.advance(Duration::from_mins(2));
    world.tick("auditor");
    assert!(world.open_alerts().is_empty());
}

#[test]
fn a_separate_batch_over_its_budget_stops_no_other_job() {
    let mut world = waiting_for(SpendingLimits {
        per_day: None,
        per_month: Money::parse(TWENTY_LINES),
    });
    let large = submit_many(&mut world, 30);
    world.run_for(Duration::from_hours(1));
    assert!(world.job(&large).completed_at.is_none());
    // The remaining lines are sent in smaller batches, as after a refused batch.
    world
        .execute("UPDATE requests SET batch_cap = 5 WHERE state = 'waiting'")
        .unwrap();
    let other = world.submit_as("b", &["one"], &["en"]);
    world.run_for(Duration::from_hours(1));
    world.assert_answered(&other);
    assert!(world.job(&large).completed_at.is_none());
}

#[test]
fn estimates_are_right_from_the_second_job_on_and_budgets_refuse_jobs_that_exceed_them() {
    let mut appliance = Appliance::with("[budgets]\nshow_costs = true");
    let mut lots: Value = serde_json::from_str(include_str!("../../src/cli/demo/lots.json")).unwrap();
    for lot in lots.as_array_mut().unwrap() {
        for image in lot["images"].as_array_mut().unwrap() {
            let path = image["url"].as_str().unwrap();
            *image = json!(format!("{}{path}", appliance.sandbox));
        }
    }
    let lots = lots.as_array().unwrap().clone();
    let languages = ["en", "ru", "de"];
    let (first, second) = lots.split_at(lots.len() / 2);
    let job = appliance.job(first, &languages);
    appliance.results(&job);
    let job = appliance.job(second, &languages);
    let results = appliance.results(&job);
    let (estimated, cost): (i64, i64) = (
        appliance.cell(&format!(
            "SELECT estimated_picodollars FROM v_job_costs WHERE job_id = '{job}'"
        )),
        appliance.cell(&format!(
            "SELECT cost_picodollars FROM v_job_costs WHERE job_id = '{job}'"
        )),
    );
    assert!(
        (estimated - cost).abs() * 100 <= cost * 15,
        "{estimated} for {cost}"
    );
    let told = Money(cost).to_string();
    assert_eq!(
        appliance.status(&job)["processing_details"]["cost"]["usd"],
        json!(told)
    );
    assert_eq!(results["processing_details"]["cost"]["usd"], json!(told));
    let differing: i64 = appliance.cell(SUMS);
    assert_eq!(differing, 0);
    let unsaid: i64 =
        appliance.cell("SELECT count(*) FROM openai_batches WHERE openai_input_tokens IS NOT input_tokens");
    assert_eq!(unsaid, 0);
    let page = call("GET", &format!("{}/api/ops/costs", appliance.ops), &[], b"").json();
    assert_eq!(page["jobs"][0]["cost_usd"], json!(told), "{page}");
    let metrics = call("GET", &format!("{}/metrics", appliance.ops), &[], b"");
    let metrics = String::from_utf8(metrics.body).unwrap();
    assert!(metrics.contains("batchkeeper_cost_dollars_total{model=\"gpt-6-luna\",mode=\"batch\"}"));

    appliance.kill_daemon();
    appliance.configure("[budgets]\ntotal = { per_day = \"0.000001\" }");
    appliance.start_daemon();
    let body = submission(first, &["en"]).to_string();
    let answer = appliance.post(&[("X-Signature", &sign_bytes(body.as_bytes()))], body.as_bytes());
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (402, &json!("BUDGET_EXCEEDED"))
    );
}

#[test]
fn a_synchronous_job_does_not_wait_for_a_budget() {
    let mut world = World::with(|config| {
        config.budgets.on_exceeded = BudgetPolicy::Wait;
        config.clients[0].budget = SpendingLimits {
            per_day: Money::parse("0.000001"),
            per_month: None,
        };
    });
    // After this refusal, the client submits it as a job that may wait.
    let job = world.submit_in(Mode::Synchronous, "a", &["one"], &["en"]);
    let modes = world.texts("SELECT processing_mode FROM batch_jobs");
    assert_eq!(modes, ["batch"]);
    world.run_for(Duration::from_hours(1));
    assert!(world.job(&job).completed_at.is_none());
    assert_eq!(world.made(), 0);
    // A budget that is too small does not hold a job forever: an operator can raise it.
    let openai = world.openai.clone();
    world.restart_with(openai, |config| {
        config.clients[0].budget = SpendingLimits::default();
    });
    world.settle();
    world.assert_answered(&job);
}

#[test]
fn a_wait_for_a_budget_is_named_wherever_an_operator_looks() {
    // A line reserves more than that, so nothing is spent and nothing is sent.
    let config = "[budgets]\ntotal = { per_day = \"0.000010\" }\non_exceeded = \"wait\"";
    let mut appliance = Appliance::with(config);
    let job = appliance.job(&appliance.lots(2), &["en"]);
    // The images are checked; the first audit comes with the start.
    wait_for("the requests", || {
        let due: i64 = appliance.cell("SELECT count(*) FROM requests WHERE images_due = 1");
        (due == 0).then_some(())
    });
    appliance.kill_daemon();
    appliance.start_daemon();
    let alert = wait_for("the alert", || {
        let alerts: Value = serde_json::from_str(&appliance.run(&["alerts", "--json"]).out).unwrap();
        let mut opened = alerts.as_array().unwrap().iter();
        opened.find(|alert| alert["kind"] == "budget_100").cloned()
    });
    let message = alert["message"].as_str().unwrap();
    assert!(message.contains("2 requests wait"), "{message}");
    // Until OpenAI's batches have been listed after the start, everything waits for that.
    let page = wait_for("a page that names the budget", || {
        let page = call("GET", &appliance.ops, &[], b"");
        let page = String::from_utf8(page.body).unwrap();
        page.contains("for the budget total ").then_some(page)
    });
    assert!(!page.contains("to be packed"), "{page}");
    let costs = call("GET", &format!("{}/api/ops/costs", appliance.ops), &[], b"").json();
    assert_eq!(costs["budgets"][0]["waiting_requests"], 2, "{costs}");
    let shown = appliance.run(&["jobs", "show", &job, "--json"]);
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    let budget = shown["waits_for_budget"].as_str().unwrap();
    assert!(budget.starts_with("total "), "{budget}");
}
