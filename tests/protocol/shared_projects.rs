//! A project at OpenAI that other programs use as well: thousands of foreign batches, pages of the listing that
//! fail, and servers whose listing has another order.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::MINUTE;
use crate::world::World;
use crate::world::openai::{Course, Fault, Op, OpenAi};
use batchkeeper::domain::batch::BatchState;
use batchkeeper::domain::openai::{BatchStatus, RequestCounts, ServerDate};
use batchkeeper::openai::{
    Batch, BatchApi, CallError, CallResult, FileObject, Identity, NewBatch, OpenAiError, Page,
};

/// The order of a listing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    NewestFirst,
    OldestFirst,
}

/// What the listing of the project does.
#[derive(Clone, Copy)]
struct Behaviour {
    order: Order,
    /// Every call of this number is refused with 429.
    refused_every: usize,
    /// A page of more batches than this breaks off.
    longest_page: u32,
    /// Pages after the first one fail.
    fails_after_first: bool,
    /// Our batches are not listed.
    hides_ours: bool,
    /// A foreign batch is said to be made in the year 2099.
    has_future_batch: bool,
}

const WELL: Behaviour = Behaviour {
    order: Order::NewestFirst,
    refused_every: usize::MAX,
    longest_page: 100,
    fails_after_first: false,
    hides_ours: false,
    has_future_batch: false,
};

/// OpenAI with the batches of other programs in the same project.
struct SharedProject {
    openai: Arc<OpenAi>,
    /// Foreign batches that were there at the beginning, and new ones an hour.
    before: i64,
    an_hour: i64,
    beginning: i64,
    behaviour: Mutex<Behaviour>,
}

/// The place of a batch in the listing: its time, whether it is ours, its number.
type Place = (i64, bool, i64);

impl SharedProject {
    fn over(world: &mut World, before: i64, an_hour: i64) -> Arc<Self> {
        let project = Arc::new(Self {
            openai: world.openai.clone(),
            before,
            an_hour,
            beginning: i64::try_from(world.openai.state().now.as_secs()).unwrap(),
            behaviour: Mutex::new(WELL),
        });
        world.look_through(project.clone());
        project
    }

    fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn foreign_place(&self, number: i64) -> Place {
        let time = self.beginning + (number - self.before) * 3600 / self.an_hour.max(1);
        (time, false, number)
    }

    /// The foreign batches of the listing, as places. Only a page of them is made at a time.
    fn foreign(&self, now: i64, after: Option<Place>, order: Order, limit: usize) -> Vec<Place> {
        let all = self.before + (now - self.beginning) * self.an_hour / 3600;
        let is_next = |place: &Place| match (after, order) {
            (None, _) => true,
            (Some(after), Order::NewestFirst) => *place < after,
            (Some(after), Order::OldestFirst) => *place > after,
        };
        let places = (0..all).map(|number| self.foreign_place(number));
        match order {
            Order::NewestFirst => places.rev().filter(is_next).take(limit).collect(),
            Order::OldestFirst => places.filter(is_next).take(limit).collect(),
        }
    }

    fn place_of(&self, id: &str, own: &[Batch]) -> Option<Place> {
        match id.strip_prefix("theirs_") {
            Some(number) => Some(self.foreign_place(number.parse().ok()?)),
            None => own.iter().find(|batch| batch.id == id).map(own_place),
        }
    }
}

fn own_place(batch: &Batch) -> Place {
    let number = batch
        .id
        .strip_prefix("batch_")
        .and_then(|number| number.parse().ok());
    (batch.created_at, true, number.unwrap_or(0))
}

fn foreign_batch((created_at, _, number): Place) -> Batch {
    Batch {
        id: format!("theirs_{number}"),
        status_text: "completed".into(),
        status: Some(BatchStatus::Completed),
        input_file_id: format!("file-theirs-{number}"),
        output_file_id: None,
        error_file_id: None,
        created_at,
        expires_at: None,
        model: None,
        counts: RequestCounts::default(),
        usage: None,
        errors: Vec::new(),
        metadata: [("batchkeeper".to_owned(), "another".to_owned())].into(),
    }
}

impl BatchApi for SharedProject {
    fn batches(&self, after: Option<&str>, limit: u32) -> CallResult<Page<Batch>> {
        let own = self.openai.batches(None, 100)?;
        let behaviour = *self.behaviour.lock().unwrap();
        if self
            .openai
            .count(Op::List)
            .is_multiple_of(behaviour.refused_every)
        {
            return Err(CallError::Refused(OpenAiError {
                status: 429,
                code: "rate_limit_exceeded".into(),
                ..OpenAiError::default()
            }));
        }
        if limit > behaviour.longest_page || after.is_some() && behaviour.fails_after_first {
            return Err(CallError::Unknown {
                message: "the listing broke off".into(),
            });
        }
        let now = own.date.expect("a date").seconds();
        let from = after.map(|id| self.place_of(id, &own.data).expect("a cursor"));
        let limit = limit as usize;
        let foreign = self.foreign(now, from, behaviour.order, limit + 1);
        let is_next = |batch: &Batch| match (from, behaviour.order) {
            (None, _) => true,
            (Some(from), Order::NewestFirst) => own_place(batch) < from,
            (Some(from), Order::OldestFirst) => own_place(batch) > from,
        };
        let mut data: Vec<(Place, Batch)> = own
            .data
            .into_iter()
            .filter(|batch| is_next(batch) && !behaviour.hides_ours)
            .map(|batch| (own_place(&batch), batch))
            .chain(foreign.into_iter().map(|place| (place, foreign_batch(place))))
            .collect();
        data.sort_by_key(|(place, _)| *place);
        if behaviour.order == Order::NewestFirst {
            data.reverse();
        }
        let has_more = data.len() > limit;
        let mut data: Vec<Batch> = data.into_iter().take(limit).map(|(_, batch)| batch).collect();
        if after.is_none() && behaviour.has_future_batch {
            let mut future = foreign_batch((4_070_908_800, false, -1));
            future.id = "from_2099".into();
            data.insert(0, future);
        }
        Ok(Page {
            data,
            has_more: Some(has_more),
            date: own.date,
        })
    }

    fn identity(&self) -> &Identity {
        self.openai.identity()
    }

    fn newest_date(&self) -> Option<ServerDate> {
        self.openai.newest_date()
    }

    fn upload(&self, name: &str, path: &Path) -> CallResult<FileObject> {
        self.openai.upload(name, path)
    }

    fn file(&self, id: &str) -> CallResult<FileObject> {
        self.openai.file(id)
    }

    fn input_files(&self, after: Option<&str>, limit: u32) -> CallResult<Page<FileObject>> {
        self.openai.input_files(after, limit)
    }

    fn delete_file(&self, id: &str) -> CallResult<()> {
        self.openai.delete_file(id)
    }

    fn download(&self, id: &str, into: &mut dyn Write) -> CallResult<u64> {
        self.openai.download(id, into)
    }

    fn create_batch(&self, new: &NewBatch) -> CallResult<Batch> {
        self.openai.create_batch(new)
    }

    fn batch(&self, id: &str) -> CallResult<Batch> {
        self.openai.batch(id)
    }

    fn cancel_batch(&self, id: &str) -> CallResult<Batch> {
        self.openai.cancel_batch(id)
    }
}

const WITH_AUDITOR: &[&str] = &["submitter", "poller", "ingester", "finisher", "auditor"];
const HOUR: Duration = Duration::from_hours(1);

/// The figures in `docs/explanation/reliability.md`.
#[test]
fn each_comparison_of_a_busy_project_reads_only_the_new_pages() {
    let mut world = World::new();
    world.turns = WITH_AUDITOR;
    let project = SharedProject::over(&mut world, 20_000, 5_000);
    project.behave(Behaviour {
        refused_every: 20,
        ..WELL
    });
    let first = world.submit(&["dented door"], &["en"]);
    world.run_for(10 * MINUTE);
    world.assert_answered(&first);
    let in_ten_minutes = world.openai.count(Op::List);
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    let second = world.submit(&["cracked lamp"], &["en"]);
    world.openai.state().fail(Op::Create, Fault::Lost);
    let third = world.submit(&["worn seat"], &["en"]);
    world.run_for(2 * HOUR - 10 * MINUTE);
    world.assert_answered(&second);
    world.assert_answered(&third);
    let in_two_hours = world.openai.count(Op::List);
    println!("list calls: {in_ten_minutes} in ten minutes, {in_two_hours} in two hours");
    assert!(
        in_ten_minutes <= 260,
        "{in_ten_minutes} list calls in ten minutes"
    );
    assert!(in_two_hours <= 900, "{in_two_hours} list calls in two hours");
    assert!(world.open_alerts().is_empty(), "{}", world.dump());
}

#[test]
fn a_batch_on_a_page_that_was_read_is_linked_although_later_pages_fail() {
    let mut world = World::new();
    let project = SharedProject::over(&mut world, 20_000, 5_000);
    let job = world.submit(&["dented door"], &["en"]);
    world.openai.state().always.push((Op::Create, Fault::NotSent));
    // More than a page of others is made after the input file.
    world.run_for(3 * MINUTE);
    world.openai.state().always.clear();
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    project.behave(Behaviour {
        fails_after_first: true,
        ..WELL
    });
    world.run_for(10 * MINUTE);
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}

#[test]
fn a_listing_goes_on_where_a_page_failed() {
    let mut world = World::new();
    SharedProject::over(&mut world, 20_000, 5_000).behave(Behaviour {
        refused_every: 3,
        ..WELL
    });
    let job = world.submit(&["dented door"], &["en"]);
    world.run_for(30 * MINUTE);
    world.assert_answered(&job);
    let calls = world.openai.count(Op::List);
    assert!(
        calls < 330,
        "{calls} calls for 200 pages, of which every third is refused"
    );
}

#[test]
fn one_listing_after_ten_minutes_without_any_proves_nothing() {
    let mut world = World::new();
    let job = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Uploaded);
    {
        let mut openai = world.openai.state();
        openai.list_lag = 9 * MINUTE;
        openai.fail(Op::Create, Fault::ReplyLost);
    }
    world.run_to(BatchState::Creating);
    // The batch is made late in the eyes of the listing: it shows only after the first page that succeeds.
    world.openai.state().always.push((Op::List, Fault::Html(502)));
    world.run_for(8 * MINUTE);
    world.openai.state().always.clear();
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Create), world.made()), (1, 1));

    let mut world = World::new();
    world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Uploaded);
    world.openai.state().fail(Op::Create, Fault::Lost);
    world.run_to(BatchState::Creating);
    world.openai.state().always.push((Op::List, Fault::Html(502)));
    world.run_for(20 * MINUTE);
    world.openai.state().always.clear();
    world.run_for(world.config.openai.settling_time);
    assert_eq!(world.openai.count(Op::Create), 1);
    world.run_for(5 * MINUTE);
    assert_eq!(world.openai.count(Op::Create), 2);
}

#[test]
fn a_server_that_lists_the_oldest_batch_first_gets_no_second_create() {
    let mut world = World::new();
    let project = SharedProject::over(&mut world, 3_000, 60);
    project.behave(Behaviour {
        order: Order::OldestFirst,
        ..WELL
    });
    let job = world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Uploaded);
    world.openai.state().fail(Op::Create, Fault::ReplyLost);
    world.settle();
    world.assert_answered(&job);
    assert_eq!((world.openai.count(Op::Create), world.made()), (1, 1));
}

#[test]
fn a_restored_database_compares_all_of_a_list_that_has_the_oldest_batch_first() {
    let mut world = World::new();
    let project = SharedProject::over(&mut world, 3_000, 60);
    project.behave(Behaviour {
        order: Order::OldestFirst,
        ..WELL
    });
    let backup = world.back_up();
    world.submit(&["cracked lamp"], &["en"]);
    world.settle();
    world.restore(&backup);
    world.forget_jobs_that_are_gone();
    world.submit(&["worn seat"], &["en"]);
    world.run_for(60 * MINUTE);
    assert_eq!(world.made(), 1);
    assert_eq!(world.open_alerts(), ["restored_database"]);
}

#[test]
fn a_batch_that_recover_links_during_a_listing_stops_nothing_again() {
    let mut world = World::new();
    SharedProject::over(&mut world, 2_000, 600);
    let job = world.submit(&["dented door"], &["en"]);
    let backup = world.back_up();
    world.settle();
    world.restore(&backup);
    // The first page has the batch.
    world.tick("submitter");
    assert_eq!(world.open_alerts(), ["restored_database"]);
    assert_eq!(world.recover(), None);
    assert!(world.open_alerts().is_empty());
    while world.number("SELECT compared_at IS NULL FROM instance") == 1 {
        world.tick("submitter");
        assert!(world.open_alerts().is_empty(), "{}", world.dump());
    }
    world.settle();
    world.assert_answered(&job);
    assert_eq!(world.made(), 1);
}

#[test]
fn smaller_pages_are_asked_for_after_one_that_breaks_off() {
    let mut world = World::new();
    let project = SharedProject::over(&mut world, 40, 60);
    project.behave(Behaviour {
        longest_page: 1,
        ..WELL
    });
    let job = world.submit(&["dented door"], &["en"]);
    world.run_for(20 * MINUTE);
    world.assert_answered(&job);
    let calls = world.openai.count(Op::List);
    assert!(calls < 160, "{calls} calls for 40 batches");
}

#[test]
fn an_alert_says_why_creates_wait_for_the_list() {
    let mut world = World::new();
    let project = SharedProject::over(&mut world, 1_000, 60);
    project.behave(Behaviour {
        fails_after_first: true,
        ..WELL
    });
    let job = world.submit(&["dented door"], &["en"]);
    world.run_for(9 * MINUTE);
    assert!(world.open_alerts().is_empty());
    world.run_for(10 * MINUTE);
    assert_eq!(world.open_alerts(), ["listing_fails"]);
    let message = world.texts("SELECT message FROM alerts");
    assert!(message[0].contains("the listing broke off"), "{message:?}");
    project.behave(WELL);
    world.settle();
    world.assert_answered(&job);
    assert!(world.open_alerts().is_empty());
}

#[test]
fn a_running_batch_that_is_not_listed_is_reported_until_it_is() {
    let mut world = World::new();
    world.turns = WITH_AUDITOR;
    let project = SharedProject::over(&mut world, 2_000, 600);
    world.openai.state().courses.push_back(Course {
        latency: Duration::from_hours(5),
        ..Course::default()
    });
    world.submit(&["dented door"], &["en"]);
    world.run_to(BatchState::Submitted);
    project.behave(Behaviour {
        hides_ours: true,
        ..WELL
    });
    world.run_for(25 * MINUTE);
    assert_eq!(world.open_alerts(), ["batch_not_listed"]);
    world.run_for(HOUR);
    assert_eq!(world.open_alerts(), ["batch_not_listed"]);
    project.behave(WELL);
    world.run_for(11 * MINUTE);
    assert!(world.open_alerts().is_empty());
    // The batch still runs, and no listing goes back to it any more.
    let calls = world.openai.count(Op::List);
    world.run_for(HOUR);
    let calls = world.openai.count(Op::List) - calls;
    assert!(calls <= 24, "{calls} list calls in an hour of 600 batches");
}

#[test]
fn a_time_in_the_future_does_not_hide_later_batches() {
    let mut world = World::new();
    let project = SharedProject::over(&mut world, 500, 60);
    project.behave(Behaviour {
        has_future_batch: true,
        ..WELL
    });
    world.submit(&["dented door"], &["en"]);
    world.settle();
    world.crash();
    world.run_for(MINUTE);
    let backup = world.back_up();
    world.submit(&["cracked lamp"], &["en"]);
    world.settle();
    world.restore(&backup);
    world.forget_jobs_that_are_gone();
    world.run_for(60 * MINUTE);
    assert_eq!(world.open_alerts(), ["restored_database"], "{}", world.dump());
}

#[test]
fn a_list_of_another_project_does_not_move_the_mark() {
    let mut world = World::new();
    world.turns = WITH_AUDITOR;
    world.submit(&["dented door"], &["en"]);
    world.settle();
    world.run_for(30 * MINUTE);
    let mark = "SELECT listed_until FROM instance";
    let before = world.number(mark);
    // The same settings, with a key of another project.
    let other = Arc::new(OpenAi::new(&world.config.openai.base_url));
    other.state().now = world.openai.state().now;
    let home = world.openai.clone();
    world.is_restored = true; // OpenAI's batches are not where we look.
    world.restart_with(other, |_| {});
    SharedProject::over(&mut world, 500, 600);
    world.run_for(HOUR);
    assert_eq!(world.number(mark), before);
    home.state().now = world.openai.state().now;
    world.restart_with(home, |_| {});
    SharedProject::over(&mut world, 500, 600);
    world.run_for(HOUR);
    assert!(world.number(mark) > before);
}
