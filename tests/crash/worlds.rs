//! Worlds that run at the same time, because they wait more than they work.
//! `BATCHKEEPER_TORTURE_WORLDS` sets their number (default: 4).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use batchkeeper::base::thread_group;
use crossbeam_channel::unbounded;

use super::environment;

/// The number of worlds.
pub fn worlds() -> u32 {
    environment("BATCHKEEPER_TORTURE_WORLDS").unwrap_or(4)
}

/// Runs each task in a world of its own and yields the results as they come. The result is `None`
/// if the task panicked: the oracle was violated.
pub fn side_by_side<T, R>(
    tasks: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> R + Send + Sync + 'static,
) -> impl Iterator<Item = (T, Option<R>)>
where
    T: Copy + Send + 'static,
    R: Send + 'static,
{
    let (order, orders) = unbounded();
    for task in tasks {
        order.send(task).unwrap();
    }
    drop(order);
    let (sender, results) = unbounded();
    let work = Arc::new(work);
    for _ in 0..worlds() {
        let (orders, sender, work) = (orders.clone(), sender.clone(), work.clone());
        let world = move || {
            for task in orders {
                let done = catch_unwind(AssertUnwindSafe(|| work(task))).ok();
                sender.send((task, done)).unwrap();
            }
        };
        thread_group::spawn_ungrouped("world", world).unwrap();
    }
    drop(sender);
    results.into_iter()
}
