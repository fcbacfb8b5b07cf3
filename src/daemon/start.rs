//! Starts the daemon: the database, the workers, the listeners, the watchdog.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded, never};

use super::heartbeat::Heartbeat;
use super::listeners::{start_client_listener, start_operator_listener};
use super::outgoing::{guarded_client, openai_client};
use super::watchdog::Watchdog;
use super::worker_thread::WorkerThread;
use super::{Daemon, DaemonError};
use crate::api::Api;
use crate::base::clock::Clock;
use crate::base::private_file::make_private_folder;
use crate::base::thread_group::ThreadGroup;
use crate::base::thread_pool::{PoolSize, PoolThread, ThreadPool};
use crate::config::Config;
use crate::http::Server;
use crate::openai::BatchApi;
use crate::openai::client::OpenAiClient;
use crate::ops::{Health, OperatorAuth, Ops, RequestMetrics};
use crate::outbound::GuardedClient;
use crate::outbound::probe_pool::ProbePool;
use crate::store::{
    DaemonLock, Store, Stored, Tx, alerts, batches, calls, lock_until_exit, money, notices, requests,
    synchronous_calls, webhook_deliveries,
};
use crate::workers::alert_notifier::AlertNotifier;
use crate::workers::auditor::Auditor;
use crate::workers::finisher::Finisher;
use crate::workers::image_checker::ImageChecker;
use crate::workers::ingester::Ingester;
use crate::workers::operator_tasks::OperatorTasks;
use crate::workers::poller::Poller;
use crate::workers::remote_cleanup::RemoteCleanup;
use crate::workers::retention::Retention;
use crate::workers::spool::Spool;
use crate::workers::submitter::Submitter;
use crate::workers::synchronous::SynchronousCaller;
use crate::workers::wakeups::{Topic, Wakeups};
use crate::workers::webhook_sender::WebhookSender;
use crate::workers::worker::{Successor, Worker};

impl Daemon {
    /// Opens the database, then starts the workers and the listeners.
    ///
    /// # Errors
    /// When a file cannot be opened, an address cannot be bound, or a thread does not start.
    pub fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self, DaemonError> {
        let config = Arc::new(config);
        let lock = DaemonLock::take(&config.database)?;
        lock_until_exit(&config.database)?;
        let store = Arc::new(open_store(&config, &*clock)?);
        prepare_spool(&store, &config.spool())?;
        prepare_store(&store, &config, &*clock)?;
        let client = Arc::new(openai_client(&config)?);
        let outbound = Arc::new(guarded_client(&config, clock.clone())?);

        let (group, thread_ends) = ThreadGroup::new();
        let (stop, stopped) = bounded(0);
        let shared = Shared {
            outbound,
            health: Arc::new(Health::new(store.clone(), clock.clone(), config.clone())),
            wakeups: Wakeups::default(),
            group,
            stopped,
            store,
            clock,
            config,
        };
        shared.start_workers(shared.workers(&client)?)?;
        shared.start_callers(&client)?;
        let servers = shared.start_listeners(client)?;
        shared.start_watchdog(&servers)?;
        log::info!(
            event = "started", version = env!("CARGO_PKG_VERSION"),
            database:% = shared.config.database.display(); ""
        );
        Ok(Self {
            group: shared.group,
            thread_ends,
            stop,
            servers,
            store: shared.store,
            _lock: lock,
        })
    }
}

/// What workers and listeners share.
struct Shared {
    config: Arc<Config>,
    clock: Arc<dyn Clock>,
    store: Arc<Store>,
    outbound: Arc<GuardedClient>,
    health: Arc<Health>,
    wakeups: Wakeups,
    group: ThreadGroup,
    stopped: Receiver<Infallible>,
}

impl Shared {
    /// Every worker of which there is one. The watchdog is started after them.
    fn workers(&self, client: &Arc<OpenAiClient>) -> Result<WorkerList, DaemonError> {
        let (store, clock, config) = (&self.store, &self.clock, &self.config);
        let (outbound, health) = (&self.outbound, &self.health);
        let api: Arc<dyn BatchApi> = client.clone();
        let mut workers = WorkerList::default();
        workers.add(Submitter::new(store.clone(), api.clone(), config.clone()));
        workers.add(Poller::new(store.clone(), api.clone(), config.clone()));
        workers.add(Ingester::new(store.clone(), api.clone(), config.clone()));
        workers.add(Auditor::new(store.clone(), api.clone(), config.clone()));
        workers.add(RemoteCleanup::new(store.clone(), api.clone(), config.clone()));
        workers.add(Finisher::new(store.clone(), config.clone()));
        workers.add(Retention::new(store.clone(), api, config.clone()));
        for receiver in config.alert_receivers() {
            workers.add(AlertNotifier::new(
                store.clone(),
                outbound.clone(),
                clock.clone(),
                config.clone(),
                receiver,
            ));
        }
        if config.images.check {
            workers.add(ImageChecker::new(
                store.clone(),
                self.start_probes()?,
                config.clone(),
            ));
        }
        if config.ops_actions {
            workers.add(OperatorTasks::new(
                store.clone(),
                outbound.clone(),
                clock.clone(),
                config.clone(),
            ));
        }
        if !config.alerts.heartbeat_url.is_empty() {
            workers.add(Heartbeat::new(health.clone(), outbound.clone(), config.clone()));
        }
        Ok(workers)
    }

    fn start_probes(&self) -> Result<ProbePool, DaemonError> {
        let wakeups = self.wakeups.clone();
        let notify = move || wakeups.notify(Topic::ImageProbed);
        ProbePool::start(
            &self.group,
            &self.outbound,
            self.config.images.concurrency,
            &self.config.openai.base_url,
            notify,
        )
        .map_err(|error| DaemonError::Thread {
            name: "of an image check".into(),
            error,
        })
    }

    fn start_workers(&self, workers: WorkerList) -> Result<(), DaemonError> {
        // All of them are registered before the first one starts: a worker that never ticks is late, too.
        for worker in &workers.0 {
            self.health.register(worker.name(), worker.longest_tick());
        }
        for worker in workers.0 {
            let woken = self.wakeups.subscribe(worker.subscriptions());
            self.start_worker(worker, woken)?;
        }
        Ok(())
    }

    /// Starts the workers of which several may wait for answers from the outside at the same time.
    fn start_callers(&self, client: &Arc<OpenAiClient>) -> Result<(), DaemonError> {
        let (store, clock, config) = (&self.store, &self.clock, &self.config);
        let of = (
            store.clone(),
            self.outbound.clone(),
            clock.clone(),
            config.clone(),
        );
        self.start_pool("webhook_sender", config.webhooks.concurrency, move |successor| {
            let (store, outbound, clock, config) = of.clone();
            Box::new(WebhookSender::new(store, outbound, clock, config).with_successor(successor))
        })?;
        let of = (store.clone(), client.clone(), clock.clone(), config.clone());
        self.start_pool("synchronous", synchronous_callers(config), move |successor| {
            let (store, client, clock, config) = of.clone();
            Box::new(SynchronousCaller::new(store, client, clock, config).with_successor(successor))
        })
    }

    /// Starts a pool of up to `most` workers. One of them waits for work.
    fn start_pool(
        &self,
        name: &str,
        most: u32,
        make: impl Fn(Successor) -> Box<dyn Worker> + Send + Sync + 'static,
    ) -> Result<(), DaemonError> {
        if most == 0 {
            return Ok(());
        }
        let size = PoolSize::one_waits(usize::try_from(most).unwrap_or(usize::MAX));
        let (stopped, wakeups) = (self.stopped.clone(), self.wakeups.clone());
        let (health, clock) = (self.health.clone(), self.clock.clone());
        let run = move |thread: &Arc<PoolThread>| {
            let begun = thread.clone();
            let worker = make(Successor::new(move || begun.begin_work()));
            health.register(&thread.name(), worker.longest_tick());
            let thread = WorkerThread {
                name: thread.name(),
                woken: wakeups.subscribe(worker.subscriptions()),
                worker,
                stopped: stopped.clone(),
                wakeups: wakeups.clone(),
                health: health.clone(),
                clock: clock.clone(),
                pool: Some(thread.clone()),
            };
            thread.run()
        };
        match ThreadPool::start(&self.group, name, size, run) {
            Ok(_) => Ok(()),
            Err(error) => Err(DaemonError::Thread {
                name: name.to_owned(),
                error,
            }),
        }
    }

    fn start_worker(&self, worker: Box<dyn Worker>, woken: Receiver<()>) -> Result<(), DaemonError> {
        let name = worker.name().to_owned();
        let thread = WorkerThread {
            name: name.clone(),
            worker,
            woken,
            stopped: self.stopped.clone(),
            wakeups: self.wakeups.clone(),
            health: self.health.clone(),
            clock: self.clock.clone(),
            pool: None,
        };
        self.group
            .spawn_temporary(&name, move || thread.run())
            .map_err(|error| DaemonError::Thread { name, error })
    }

    fn start_listeners(&self, client: Arc<OpenAiClient>) -> Result<Vec<Server>, DaemonError> {
        let (store, clock, config) = (&self.store, &self.clock, &self.config);
        let requests = Arc::new(RequestMetrics::default());
        let api = Arc::new(Api::new(
            store.clone(),
            clock.clone(),
            config.clone(),
            self.outbound.clone(),
            self.health.clone(),
            requests.clone(),
            self.wakeups.clone(),
        ));
        let pages = Ops::new(
            store.clone(),
            self.health.clone(),
            clock.clone(),
            config.clone(),
            requests.clone(),
            Box::new(move |now| client.newest_date().map(|newest| newest.skew(now))),
        );
        let pages = Arc::new(OperatorAuth::new(config, clock.clone(), requests, pages));
        // A synchronous job may have one repeat that waits with it.
        let waiting = 2 * synchronous_callers(config);
        let servers = [
            start_client_listener(&self.group, clock, config, waiting, api)?,
            start_operator_listener(&self.group, clock, config, pages)?,
        ];
        Ok(servers.into_iter().flatten().collect())
    }

    /// Starts the watchdog over every thread and over the client API's address, which is the first one.
    fn start_watchdog(&self, servers: &[Server]) -> Result<(), DaemonError> {
        let address = match self.config.listen.is_empty() {
            true => None,
            false => servers.first().map(Server::address),
        };
        let interval = sd_notify::watchdog_enabled();
        let watchdog = Watchdog::new(self.store.clone(), self.health.clone(), address, interval);
        self.start_worker(Box::new(watchdog), never())
    }
}

/// The workers of which there is one.
#[derive(Default)]
struct WorkerList(Vec<Box<dyn Worker>>);

impl WorkerList {
    fn add(&mut self, worker: impl Worker + 'static) {
        self.0.push(Box::new(worker));
    }
}

fn synchronous_callers(config: &Config) -> u32 {
    match config.synchronous.enabled {
        true => config.synchronous.concurrency,
        false => 0,
    }
}

fn open_store(config: &Config, clock: &dyn Clock) -> Result<Store, DaemonError> {
    Store::open(&config.database, clock.now().wall).map_err(|error| DaemonError::Database {
        path: config.database.clone(),
        error,
    })
}

/// Stores the prices, and releases what the previous process had claimed and did not finish.
fn prepare_store(store: &Store, config: &Config, clock: &dyn Clock) -> Result<(), DaemonError> {
    store.write(clock.now().wall, |tx| {
        money::set_prices(tx, &config.prices(), &config.openai.base_url)?;
        batches::clear_compared(tx)?;
        calls::forget_refusals(tx)?;
        alerts::probe_stages(tx)?;
        set_alert_receivers(tx, config)?;
        webhook_deliveries::release_unfinished(tx)?;
        synchronous_calls::release_unfinished(tx)?;
        if !config.images.check {
            // Without this, requests that wait for a check since the checks were on would wait for ever.
            requests::pass_unchecked(tx)?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Stores the receivers of alerts. Commands open alerts, too, and do not read the configuration of receivers.
fn set_alert_receivers(tx: &Tx<'_>, config: &Config) -> Stored<()> {
    let receivers = config.alert_receivers();
    let receivers: Vec<_> = receivers
        .iter()
        .map(|it| (it.name.as_str(), it.least_severity))
        .collect();
    notices::set_receivers(tx, &receivers)
}

/// Makes the spool's folder, and removes files that a killed process left in it. No worker uses it yet. A link,
/// or a folder of another user, is refused: its files are not the spool's.
fn prepare_spool(store: &Store, folder: &Path) -> Result<(), DaemonError> {
    let failed = |error: io::Error| DaemonError::Spool {
        path: folder.to_owned(),
        error,
    };
    make_private_folder(folder).map_err(failed)?;
    let live = store.read(batches::live_keys)?;
    Spool::new(folder.to_owned()).sweep(&live).map_err(failed)
}
