//! Threads of one kind, as many as there is work for. A thread that finds work has another one started if none waits
//! any more, up to a limit. If too many wait, the one with the highest number ends. So an idle pool always has the
//! same threads.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::thread_group::ThreadGroup;

/// How many threads a pool has.
#[derive(Clone, Copy, Debug)]
pub struct PoolSize {
    threads: usize,
    /// The number of threads that wait for long.
    least_waiting: usize,
    /// The number of threads that wait after their work.
    most_waiting: usize,
}

impl PoolSize {
    /// Up to `threads` threads, which start when there is work, and end when they have waited for long. New work calls
    /// [`ThreadPool::start_if_none_waits`].
    pub fn on_demand(threads: usize) -> Self {
        Self {
            threads,
            least_waiting: 0,
            most_waiting: threads,
        }
    }

    /// Up to `threads` threads, of which one waits for work.
    pub fn one_waits(threads: usize) -> Self {
        Self {
            threads,
            least_waiting: 1,
            most_waiting: 1,
        }
    }
}

/// What each thread does. Returns whether the process may go on without the thread.
type Run = dyn Fn(&Arc<PoolThread>) -> bool + Send + Sync;

/// A pool of threads.
pub struct ThreadPool {
    group: ThreadGroup,
    name: String,
    size: PoolSize,
    run: Box<Run>,
    state: Mutex<PoolState>,
}

#[derive(Default)]
struct PoolState {
    /// The numbers of its threads.
    numbers: BTreeSet<usize>,
    /// The numbers of those that wait for work.
    waiting: BTreeSet<usize>,
}

impl ThreadPool {
    /// Starts a pool with as many threads as wait at least. Each thread calls `run`, which returns whether the
    /// process may go on without it. The threads' names are `name` and a number.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(
        group: &ThreadGroup,
        name: &str,
        size: PoolSize,
        run: impl Fn(&Arc<PoolThread>) -> bool + Send + Sync + 'static,
    ) -> io::Result<Arc<Self>> {
        let pool = Arc::new(Self {
            group: group.clone(),
            name: name.to_owned(),
            size,
            run: Box::new(run),
            state: Mutex::default(),
        });
        for _ in 0..size.least_waiting {
            let number = pool.lock().add_thread(size.threads);
            number.map_or(Ok(()), |number| pool.spawn(number))?;
        }
        Ok(pool)
    }

    /// Starts a thread for new work if none waits. Returns false if the pool has no thread, because the system
    /// refuses one; otherwise a thread of the pool does the work.
    pub fn start_if_none_waits(self: &Arc<Self>) -> bool {
        self.start_if_fewer_wait(1)
    }

    /// The same if fewer threads wait than pieces of work do.
    pub fn start_if_fewer_wait(self: &Arc<Self>, work: usize) -> bool {
        let mut state = self.lock();
        if state.waiting.len() >= work {
            return true;
        }
        let number = state.add_thread(self.size.threads);
        drop(state);
        if let Some(number) = number
            && let Err(error) = self.spawn(number)
        {
            log::warn!(event = "thread_refused", pool:% = self.name, error:%; "");
        }
        !self.lock().numbers.is_empty()
    }

    fn spawn(self: &Arc<Self>, number: usize) -> io::Result<()> {
        let thread = Arc::new(PoolThread {
            pool: self.clone(),
            number,
        });
        let name = thread.name();
        self.group
            .spawn_temporary(&name, move || (thread.pool.run)(&thread))
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolState {
    /// Adds a thread that waits. Returns the least free number from 1 up; `None` if there are `most` threads.
    fn add_thread(&mut self, most: usize) -> Option<usize> {
        let number = (1..=most).find(|number| !self.numbers.contains(number))?;
        self.numbers.insert(number);
        self.waiting.insert(number);
        Some(number)
    }
}

/// A thread of a pool.
pub struct PoolThread {
    pool: Arc<ThreadPool>,
    number: usize,
}

impl PoolThread {
    /// Its name.
    pub fn name(&self) -> String {
        format!("{}-{}", self.pool.name, self.number)
    }

    /// Notes that this thread has found work. Another one waits in its place.
    pub fn begin_work(&self) {
        if self.pool.lock().waiting.remove(&self.number) {
            self.pool.start_if_none_waits();
        }
    }

    /// Notes that this thread has no work. Returns whether it must end, because others wait for work.
    pub fn end_work(&self) -> bool {
        self.wait_or_end(self.pool.size.most_waiting)
    }

    /// Notes that this thread has waited for long. Returns whether it must end.
    pub fn end_wait(&self) -> bool {
        self.wait_or_end(self.pool.size.least_waiting)
    }

    fn wait_or_end(&self, most: usize) -> bool {
        let mut state = self.pool.lock();
        state.waiting.insert(self.number);
        let ends = state.waiting.len() > most && state.waiting.last() == Some(&self.number);
        if ends {
            state.waiting.remove(&self.number);
        }
        ends
    }
}

impl Drop for PoolThread {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        state.numbers.remove(&self.number);
        state.waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{Receiver, bounded, unbounded};

    use super::*;

    /// How long a thread waits for work before it asks whether it must end.
    const WAIT: Duration = Duration::from_millis(1);

    /// A pool whose work is to wait until `done` is dropped. Each begun piece sends the thread's name.
    fn pool(size: PoolSize, work: Receiver<Receiver<()>>) -> (Arc<ThreadPool>, Receiver<String>) {
        let (begun, names) = unbounded();
        let (group, _) = ThreadGroup::new();
        let run = move |thread: &Arc<PoolThread>| loop {
            match work.recv_timeout(WAIT) {
                Ok(done) => {
                    thread.begin_work();
                    begun.send(thread.name()).unwrap();
                    assert!(done.recv().is_err());
                    if thread.end_work() {
                        return true;
                    }
                }
                Err(error) if error.is_timeout() && !thread.end_wait() => {}
                Err(_) => return true,
            }
        };
        (ThreadPool::start(&group, "piece", size, run).unwrap(), names)
    }

    fn wait_for(pool: &ThreadPool, threads: usize) {
        while pool.lock().numbers.len() != threads {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_pool_grows_with_its_work_up_to_its_limit_and_shrinks_again() {
        let size = PoolSize::one_waits(3);
        let (to_do, work) = unbounded();
        let (pool, names) = pool(size, work);
        assert_eq!(pool.lock().numbers.len(), 1);
        let pieces: Vec<_> = (0..4).map(|_| bounded::<()>(0)).collect();
        for (_, done) in &pieces {
            to_do.send(done.clone()).unwrap();
        }
        let mut running: Vec<String> = (0..3).map(|_| names.recv().unwrap()).collect();
        running.sort();
        assert_eq!(running, ["piece-1", "piece-2", "piece-3"]);
        assert!(names.try_recv().is_err());
        drop(pieces);
        names.recv().unwrap();
        wait_for(&pool, 1);
        assert_eq!(pool.lock().waiting, BTreeSet::from([1]));
        drop(to_do);
        wait_for(&pool, 0);
    }

    #[test]
    fn a_pool_without_work_may_have_no_thread() {
        let size = PoolSize::on_demand(2);
        let (to_do, work) = unbounded();
        let (pool, names) = pool(size, work);
        assert_eq!(pool.lock().numbers.len(), 0);
        for _ in 0..2 {
            let (running, done) = bounded(0);
            to_do.send(done).unwrap();
            assert!(pool.start_if_none_waits());
            names.recv().unwrap();
            drop(running);
            wait_for(&pool, 0);
        }
    }
}
