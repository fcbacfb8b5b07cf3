//! Batches that were made under another account, and keys that are refused.

use crate::MINUTE;
use crate::world::openai::{Fault, Op, OpenAi};
use crate::world::{OPENAI, World};
use batchkeeper::domain::batch::BatchState;
use std::sync::Arc;

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
        world.restart_with(Arc::new(OpenAi::new("https://elsewhere.test/v1")), |config| {
            config.openai.base_url = "https://elsewhere.test/v1".into()
        });
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
