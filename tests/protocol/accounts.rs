//! Another account, another project under the same settings, a key that is revoked, no money, a
//! copied database: none makes a second paid batch, none fails a job for good. Each opens an
//! alert that names the remedy, and closes by itself after it.

use std::sync::Arc;
use std::time::Duration;

use crate::world::openai::{Course, End, Fault, Op, OpenAi, error_entry};
use crate::world::{OPENAI, World};
use batchkeeper::base::clock::Clock;
use batchkeeper::domain::batch::BatchState;
use batchkeeper::store::identity::take_new_identity;

const MINUTE: Duration = Duration::from_mins(1);
const WITH_AUDITOR: &[&str] = &["submitter", "poller", "ingester", "finisher", "auditor"];

fn world() -> World {
    let mut world = World::new();
    world.turns = WITH_AUDITOR;
    world
}

/// Every open alert names its remedy.
fn each_names_what_mends_it(world: &World) {
    let messages = world.texts("SELECT message FROM alerts WHERE closed_at IS NULL");
    assert!(!messages.is_empty(), "{}", world.dump());
    for message in messages {
        assert!(
            message.contains("batchkeeper ") || message.contains("systemctl"),
            "{message}"
        );
    }
}

fn attempts(world: &World) -> i64 {
    world.number("SELECT coalesce(sum(attempts), 0) FROM requests")
}

#[test]
fn a_key_of_another_project_makes_no_second_batch() {
    for state in [BatchState::Creating, BatchState::Submitted, BatchState::Ended] {
        let mut world = world();
        let job = world.submit(&["dented door"], &["en"]);
        if state == BatchState::Creating {
            world.openai.state().fail(Op::Create, Fault::ReplyLost);
        }
        world.run_to(state);
        let home = Arc::clone(&world.openai);
        world.is_restored = true; // OpenAI's batches are not where we look.
        // The settings say nothing of it: the key alone is another project's.
        world.restart_with(Arc::new(OpenAi::new(OPENAI)), |_| {});
        world.run_for(Duration::from_hours(12));
        assert_eq!(world.made(), 0, "{state}\n{}", world.dump());
        assert!(!world.job(&job).status.is_final(), "{state}");
        assert!(world.batch_in(state).is_some(), "{state}\n{}", world.dump());
        assert_eq!(attempts(&world), 0);
        each_names_what_mends_it(&world);
        world.restart_with(home, |_| {});
        world.settle();
        world.run_for(15 * MINUTE);
        world.assert_answered(&job);
        assert_eq!(world.made(), 1, "{state}");
        assert!(world.open_alerts().is_empty(), "{state}\n{}", world.dump());
    }
}

#[test]
fn a_key_of_another_project_does_not_end_what_a_restore_stopped() {
    let mut world = world();
    let first = world.submit(&["dented door"], &["en"]);
    let backup = world.back_up();
    world.settle();
    world.restore(&backup);
    world.run_for(10 * MINUTE);
    assert_eq!(world.open_alerts(), ["restored_database"]);
    let home = Arc::clone(&world.openai);
    world.restart_with(Arc::new(OpenAi::new(OPENAI)), |_| {});
    world.run_for(Duration::from_hours(2));
    assert_eq!(world.made(), 0, "{}", world.dump());
    // Nor does a recovery that sees nothing of ours.
    assert_eq!(world.recover(), None);
    world.run_for(Duration::from_hours(2));
    assert_eq!(world.made(), 0, "{}", world.dump());
    let alerts = world.open_alerts();
    assert!(alerts.contains(&"restored_database".into()), "{alerts:?}");
    world.restart_with(home, |_| {});
    world.run_for(15 * MINUTE);
    assert_eq!(world.recover(), None);
    world.settle();
    world.run_for(15 * MINUTE);
    world.assert_answered(&first);
    assert_eq!(world.made(), 1);
    assert!(world.open_alerts().is_empty(), "{}", world.dump());
}

#[test]
fn what_was_certainly_not_created_is_created_under_the_new_key() {
    let mut world = world();
    let job = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Uploaded);
    world.restart_with(Arc::new(OpenAi::new(OPENAI)), |_| {});
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}

#[test]
fn an_empty_account_pauses_everything_and_goes_on_by_itself() {
    for code in ["insufficient_quota", "billing_hard_limit_reached"] {
        for op in [Op::Upload, Op::Create, Op::Batch] {
            let mut world = world();
            let job = world.submit(&["dented door"], &["en"]);
            let refused = Fault::Refused(429, code, "");
            world.openai.state().always.push((op, refused));
            world.run_for(Duration::from_hours(2));
            let alerts = world.open_alerts();
            assert!(alerts.contains(&"openai_account".into()), "{alerts:?}");
            each_names_what_mends_it(&world);
            assert!(world.openai.count(op) < 120, "{op:?}");
            world.openai.state().always.clear();
            world.settle();
            world.run_for(5 * MINUTE);
            world.assert_answered(&job);
            assert_eq!((world.made(), attempts(&world)), (1, 0), "{code} {op:?}");
            assert!(world.open_alerts().is_empty(), "{}", world.dump());
        }
    }
}

#[test]
fn want_of_money_stops_what_is_sent_alone_and_is_told_of_once() {
    for (status, code) in [(429, "insufficient_quota"), (403, "missing_scope")] {
        let mut world = world();
        let course = Course {
            latency: Duration::from_hours(1),
            ..Course::default()
        };
        world.openai.state().courses.push_back(course);
        let paid = world.submit(&["dented door"], &["en"]);
        world.run_to(BatchState::Submitted);
        let refused = Fault::Refused(status, code, "");
        world.openai.state().always.push((Op::Create, refused));
        let waiting = world.submit(&["cracked lamp"], &["en"]);
        world.run_for(Duration::from_hours(3));
        world.assert_answered(&paid);
        let told = "SELECT count(*) FROM alerts WHERE kind = 'openai_account'";
        assert_eq!(world.number(told), 1, "{}", world.dump());
        assert_eq!(world.open_alerts(), ["openai_account"]);
        each_names_what_mends_it(&world);
        world.openai.state().always.clear();
        world.settle();
        world.run_for(5 * MINUTE);
        world.assert_answered(&waiting);
        assert_eq!((world.made(), attempts(&world)), (2, 0));
        assert!(world.open_alerts().is_empty(), "{}", world.dump());
    }
}

#[test]
fn money_that_nothing_waits_for_any_more_is_missed_no_more() {
    let mut world = world();
    let refused = Fault::Refused(429, "insufficient_quota", "");
    world.openai.state().always.push((Op::Create, refused));
    let job = world.submit(&["dented door"], &["en"]);
    world.run_for(Duration::from_hours(1));
    assert_eq!(world.open_alerts(), ["openai_account"]);
    world.cancel(&job);
    world.run_for(Duration::from_hours(1));
    assert!(world.open_alerts().is_empty(), "{}", world.dump());
    assert_eq!(world.texts("SELECT scope FROM pauses"), [""; 0]);
}

#[test]
fn a_batch_refused_for_want_of_money_is_tried_again_and_counts_as_no_attempt() {
    for code in ["insufficient_quota", "billing_hard_limit_reached"] {
        let mut world = world();
        for _ in 0..3 {
            let refused = End::Refused(vec![error_entry(code, None)]);
            world.openai.state().courses.push_back(Course::ends(refused));
        }
        let job = world.submit(&["dented door", "cracked lamp"], &["en"]);
        world.run_to(BatchState::Failed);
        assert_eq!(world.open_alerts(), ["model_refused"]);
        each_names_what_mends_it(&world);
        world.settle();
        world.run_for(5 * MINUTE);
        world.assert_answered(&job);
        assert_eq!(attempts(&world), 0);
        assert_eq!(world.made(), 4);
        assert!(world.open_alerts().is_empty(), "{}", world.dump());
    }
}

#[test]
fn a_revoked_key_and_another_account_are_told_of_with_what_mends_them() {
    let mut world = world();
    world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Submitted);
    let refused = Fault::Refused(401, "invalid_api_key", "");
    world.openai.state().always.push((Op::Batch, refused));
    world.run_for(10 * MINUTE);
    assert_eq!(world.open_alerts(), ["openai_account"]);
    each_names_what_mends_it(&world);
    world.is_restored = true;
    let elsewhere = Arc::new(OpenAi::new("https://elsewhere.test/v1"));
    world.restart_with(elsewhere, |config| {
        config.openai.base_url = "https://elsewhere.test/v1".into();
    });
    world.run_for(30 * MINUTE);
    assert_eq!(world.open_alerts(), ["other_identity"]);
    each_names_what_mends_it(&world);
}

#[test]
fn a_copy_stops_when_the_original_goes_on_and_is_told_what_to_do() {
    let mut world = world();
    world.submit(&["dented door"], &["en"]);
    world.settle();
    let copy = world.back_up();
    let job = world.submit(&["cracked lamp"], &["en"]);
    world.settle();
    world.assert_answered(&job);
    world.restore(&copy);
    world.submit(&["worn seat"], &["en"]);
    world.run_for(Duration::from_hours(2));
    assert_eq!(world.made(), 2);
    let alerts = world.open_alerts();
    assert!(alerts.contains(&"restored_database".into()), "{alerts:?}");
    let told = world.texts("SELECT message FROM alerts WHERE kind = 'restored_database'");
    assert!(told[0].contains("batchkeeper recover --apply"), "{told:?}");
    assert!(told[0].contains("recover --new-identity"), "{told:?}");
}

#[test]
fn a_copy_that_was_made_another_database_leaves_the_originals_work_to_it() {
    for state in [
        None,
        Some(BatchState::Planned),
        Some(BatchState::Sealed),
        Some(BatchState::Uploaded),
        Some(BatchState::Creating),
        Some(BatchState::Submitted),
        Some(BatchState::Ended),
    ] {
        let mut world = world();
        let job = world.submit(&["dented door", "cracked lamp"], &["en", "de"]);
        if let Some(state) = state {
            if state == BatchState::Creating {
                world.openai.state().fail(Op::Create, Fault::ReplyLost);
            }
            world.run_to(state);
        }
        let copy = world.back_up();
        // The original does its work.
        world.settle();
        world.assert_answered(&job);
        assert_eq!(world.made(), 2);
        world.restore(&copy);
        let now = world.clock.now().wall;
        world.store().write(now, take_new_identity).unwrap();
        world.is_copy = true;
        world.crash();
        world.run_for(Duration::from_hours(2));
        assert_eq!(world.made(), 2, "{state:?}\n{}", world.dump());
        assert_eq!(world.openai.count(Op::Cancel), 0);
        assert!(!world.job(&job).status.is_final());
        // The copy's own work goes on.
        let own = world.submit(&["worn seat"], &["en"]);
        world.run_for(Duration::from_hours(2));
        world.assert_answered(&own);
        assert_eq!(world.made(), 3, "{state:?}");
        let alerts = world.open_alerts();
        assert!(
            alerts.iter().all(|kind| kind == "invariant") && !alerts.is_empty(),
            "{alerts:?}"
        );
        let told = world.texts("SELECT message FROM alerts WHERE closed_at IS NULL");
        assert!(told.iter().all(|it| it.contains("held")), "{told:?}");
        let held = "SELECT count(*) FROM requests WHERE state = 'held'";
        assert!(world.number(held) > 0, "{state:?}");
    }
}
