//! Every pair of faults in one small job of two stages, without sampling. A point is one fault at one call, at one
//! batch or at one of its lines, or a crash at one commit. The points of the second fault are those that the run
//! with the first one reaches after it, the repeated calls among them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::chaos::{FATES, batch_faults, call_faults};
use super::openai::IMAGES;
use super::script::{Course, Fate, Fault, Op};
use super::{ALL_WORKERS, World, life};

/// Where a fault can strike: the calls and commits of a run, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Call(Op),
    Commit,
}

/// What strikes there.
#[derive(Clone, Debug)]
pub enum Strike {
    Call(Fault),
    Batch(Course),
    Line(Fate),
    Crash,
}

/// The place's number in its run, and the strike's number among those of the place.
pub type Point = (usize, usize);

impl Place {
    /// All that can strike there, with names.
    pub fn strikes(self) -> Vec<(String, Strike)> {
        let Self::Call(op) = self else {
            return vec![("crash at a commit".into(), Strike::Crash)];
        };
        let calls = call_faults(op).into_iter();
        let mut all: Vec<_> = calls
            .map(|(name, fault)| (format!("{name} at {op:?}"), Strike::Call(fault)))
            .collect();
        if op == Op::Create {
            let batches = batch_faults().into_iter();
            all.extend(batches.map(|(name, course)| (format!("batch {name}"), Strike::Batch(course))));
            all.extend(
                FATES
                    .iter()
                    .map(|fate| (format!("line {fate:?}"), Strike::Line(*fate))),
            );
        }
        all
    }
}

/// The points of a run, and the places that it has passed.
#[derive(Default)]
pub struct Plan {
    points: Vec<Point>,
    places: Vec<Place>,
}

impl Plan {
    /// A place is reached: gives what strikes there.
    pub fn reach(&mut self, place: Place) -> Option<Strike> {
        let number = self.places.len();
        self.places.push(place);
        let (_, strike) = self.points.iter().find(|(at, _)| *at == number)?;
        Some(place.strikes().swap_remove(*strike).1)
    }
}

/// The job with these faults; gives the places that it has passed.
///
/// # Errors
/// The check that failed.
pub fn run(points: &[Point]) -> Result<Vec<Place>, String> {
    let plan = Arc::new(Mutex::new(Plan {
        points: points.to_vec(),
        places: Vec::new(),
    }));
    let of_world = plan.clone();
    let life = catch_unwind(AssertUnwindSafe(move || {
        let mut world = World::with(|config| {
            config.steps.idle = Duration::from_mins(30);
            config.steps.audit = Duration::from_mins(30);
            config.steps.reconcile = Duration::from_hours(1);
            config.openai.poll_interval = Duration::from_mins(10);
        });
        world.images = IMAGES.len();
        world.turns = ALL_WORKERS;
        world.check_every = 10;
        world.follow(of_world);
        let job = world.submit(&["dented door", "cracked lamp"], &["en", "de"]);
        world.run_for(Duration::from_hours(1));
        life::rest(&mut world);
        world.assert_at_rest();
        assert!(world.job(&job).status.is_final(), "{}", world.dump());
    }));
    match life {
        Ok(()) => Ok(std::mem::take(&mut plan.lock().unwrap().places)),
        Err(thrown) => Err(life::said(thrown.as_ref())),
    }
}

/// All points of a run after a place.
pub fn points_after(places: &[Place], after: Option<usize>) -> Vec<Point> {
    let first = after.map_or(0, |place| place + 1);
    let numbered = places.iter().enumerate().skip(first);
    numbered
        .flat_map(|(number, place)| (0..place.strikes().len()).map(move |strike| (number, strike)))
        .collect()
}

/// The faults of a run in words.
pub fn describe(places: &[Place], points: &[Point]) -> String {
    let words = points.iter().map(|(number, strike)| {
        let place = places.get(*number).copied();
        let name = place.and_then(|place| Some(place.strikes().get(*strike)?.0.clone()));
        format!("{number}:{strike} ({})", name.unwrap_or_else(|| "later".into()))
    });
    words.collect::<Vec<_>>().join(", ")
}

/// A run that failed.
pub struct Failure {
    pub points: Vec<Point>,
    pub why: String,
}

/// Runs the faults, and with each all that may follow it, up to `depth` faults more.
fn explore(points: &[Point], depth: u32, every: usize, runs: &AtomicUsize, failed: &Mutex<Vec<Failure>>) {
    runs.fetch_add(1, Ordering::Relaxed);
    let places = match run(points) {
        Ok(places) => places,
        Err(why) => {
            let points = points.to_vec();
            failed.lock().unwrap().push(Failure { points, why });
            return;
        }
    };
    if depth > 0 {
        let last = points.last().map(|(place, _)| *place);
        for next in points_after(&places, last).into_iter().step_by(every) {
            explore(&[points, &[next]].concat(), depth - 1, every, runs, failed);
        }
    }
}

/// Every set of up to `faults` faults whose first is one of the numbered ones. Of the faults that follow, each `every`th
/// is taken. `tell` hears of each first fault that is done, with the number of runs so far.
pub fn explore_all(
    firsts: &[(usize, Point)],
    faults: u32,
    every: usize,
    threads: u32,
    tell: impl Fn(usize, usize) + Sync,
) -> (usize, Vec<Failure>) {
    let (next, runs, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::default());
    let work = || {
        while let Some((number, first)) = firsts.get(next.fetch_add(1, Ordering::Relaxed)) {
            explore(&[*first], faults - 1, every, &runs, &failed);
            tell(*number, runs.load(Ordering::Relaxed));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    (runs.into_inner(), failed.into_inner().unwrap())
}
