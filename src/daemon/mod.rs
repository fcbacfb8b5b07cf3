//! The whole: every step on a thread of its own, the two listeners, signals, shutdown.
//!
//! Threads share nothing but the store. After a tick that did something, the bells of those ring whom
//! it may concern (`bounded(1)`: "there may be work"); losing a ring costs a delay, never work. A thread that
//! ends unasked ends the daemon with an error, so that systemd starts it again; so does a database that
//! cannot be relied on, whoever met it.

use std::convert::Infallible;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, never, select};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::api::Api;
use crate::base::clock::Clock;
use crate::base::thread_group::{self, ThreadEnd, ThreadGroup};
use crate::config::{Config, PrivateNetworks};
use crate::http::Handler;
use crate::http::server::{Limits, Server};
use crate::openai::client::{ApiKey, Client, Settings, Timeouts, Unusable};
use crate::openai::{BatchApi, Identity};
use crate::ops::{Health, OperatorAuth, Ops, RequestMetrics};
use crate::outbound::probe_pool::ProbePool;
use crate::outbound::{GuardedClient, SsrfGuard};
use crate::store::{
    DaemonLock, Store, batches, money, requests, synchronous_calls, webhook_deliveries,
};
use crate::workers::alert_notifier::AlertNotifier;
use crate::workers::auditor::Auditor;
use crate::workers::finisher::Finisher;
use crate::workers::image_checker::ImageChecker;
use crate::workers::ingester::Ingester;
use crate::workers::poller::Poller;
use crate::workers::remote_cleanup::RemoteCleanup;
use crate::workers::retention::Retention;
use crate::workers::spool::Spool;
use crate::workers::submitter::Submitter;
use crate::workers::synchronous::SynchronousCaller;
use crate::workers::wakeups::Wakeups;
use crate::workers::webhook_sender::WebhookSender;
use crate::workers::worker::Worker;

mod heartbeat;
mod watch;
mod worker_thread;

use heartbeat::Heartbeat;
use watch::Watch;
use worker_thread::WorkerThread;

/// How long threads may take to finish what they are at when the daemon stops.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);
/// How long a webhook's or an image's host may take to be connected to.
const CONNECT: Duration = Duration::from_secs(5);

/// A daemon at work.
pub struct Daemon {
    group: ThreadGroup,
    endings: Receiver<ThreadEnd>,
    stop: Sender<Infallible>,
    servers: Vec<Server>,
    store: Arc<Store>,
    _lock: DaemonLock,
}

impl Daemon {
    /// Opens the database, starts the steps and the listeners.
    ///
    /// # Errors
    /// A message for the operator: what cannot be opened, bound or relied on.
    pub fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let config = Arc::new(config);
        let lock = DaemonLock::take(&config.database).map_err(|error| error.to_string())?;
        let store = Store::open(&config.database, clock.now().wall)
            .map_err(|error| format!("{}: {error}", config.database.display()))?;
        let store = Arc::new(store);
        make_private_folder(&config.spool())?;
        sweep_spool(&store, &config.spool())?;
        let released = store.write(clock.now().wall, |tx| {
            money::set_prices(tx, &config.prices())?;
            batches::clear_compared(tx)?;
            webhook_deliveries::release_unfinished(tx)?;
            synchronous_calls::release_unfinished(tx)
        });
        released.map_err(|error| error.to_string())?;
        let client = Arc::new(openai_client(&config)?);
        let api: Arc<dyn BatchApi> = client.clone();
        let guard = guard(&config)?;
        check_alert_urls(&config, &guard)?;
        let outbound = Arc::new(GuardedClient::new(guard.clone(), clock.clone(), CONNECT));

        let (group, endings) = ThreadGroup::new();
        let mut workers: Vec<(String, Box<dyn Worker>)> = vec![
            (
                "submitter".into(),
                Box::new(Submitter::new(store.clone(), api.clone(), config.clone())),
            ),
            (
                "poller".into(),
                Box::new(Poller::new(store.clone(), api.clone(), config.clone())),
            ),
            (
                "ingester".into(),
                Box::new(Ingester::new(store.clone(), api.clone(), config.clone())),
            ),
            (
                "auditor".into(),
                Box::new(Auditor::new(store.clone(), api.clone(), config.clone())),
            ),
            (
                "remote_cleanup".into(),
                Box::new(RemoteCleanup::new(store.clone(), api, config.clone())),
            ),
            (
                "finisher".into(),
                Box::new(Finisher::new(store.clone(), config.clone())),
            ),
            (
                "retention".into(),
                Box::new(Retention::new(store.clone(), config.clone())),
            ),
        ];
        let herald = AlertNotifier::new(
            store.clone(),
            outbound.clone(),
            clock.clone(),
            config.clone(),
        );
        workers.push(("alert_notifier".into(), Box::new(herald)));
        if config.images.check {
            let probes = ProbePool::start(&group, &outbound, config.images.concurrency)
                .map_err(|error| format!("threads of the image checks: {error}"))?;
            workers.push((
                "image_checker".into(),
                Box::new(ImageChecker::new(store.clone(), probes, config.clone())),
            ));
        } else {
            // What waits for a check since it was on would wait for ever.
            store
                .write(clock.now().wall, requests::pass_unchecked)
                .map_err(|error| error.to_string())?;
        }
        let direct_calls = if config.synchronous.enabled {
            config.synchronous.concurrency
        } else {
            0
        };
        for number in 1..=direct_calls {
            let direct = SynchronousCaller::new(
                store.clone(),
                client.clone(),
                clock.clone(),
                config.clone(),
            );
            workers.push((format!("synchronous-{number}"), Box::new(direct)));
        }
        for number in 1..=config.webhooks.concurrency {
            let courier = WebhookSender::new(
                store.clone(),
                outbound.clone(),
                clock.clone(),
                config.clone(),
            );
            workers.push((format!("webhook_sender-{number}"), Box::new(courier)));
        }

        let (stop, stopped) = bounded::<Infallible>(0);
        let health = Arc::new(Health::new(store.clone(), clock.clone(), config.clone()));
        if !config.alerts.heartbeat_url.is_empty() {
            let heartbeat = Heartbeat::new(health.clone(), outbound, config.clone());
            workers.push(("heartbeat".into(), Box::new(heartbeat)));
        }
        // Whoever does not even begin is missed, too.
        for (name, worker) in &workers {
            health.expect(name, worker.longest_tick());
        }
        let wakeups = Wakeups::default();
        for (name, worker) in workers {
            let thread = WorkerThread {
                name: name.clone(),
                woken: wakeups.subscribe(worker.subscriptions()),
                worker,
                stopped: stopped.clone(),
                wakeups: wakeups.clone(),
                health: health.clone(),
                clock: clock.clone(),
            };
            group
                .spawn(&name, move || thread.run())
                .map_err(|error| format!("thread {name}: {error}"))?;
        }

        let requests = Arc::new(RequestMetrics::default());
        let client_api = Arc::new(Api::new(
            store.clone(),
            clock.clone(),
            config.clone(),
            guard,
            health.clone(),
            requests.clone(),
            wakeups.clone(),
        ));
        let ops = Ops::new(
            store.clone(),
            health.clone(),
            clock.clone(),
            config.clone(),
            requests,
        );
        let usual = limits(&config);
        let for_clients = Limits {
            // Whoever waits for a synchronous job, or for one that it repeats, keeps no other request waiting.
            workers: usual.workers + 2 * usize::try_from(direct_calls).unwrap_or(0),
            ..usual.clone()
        };
        let handlers: [(&str, &str, Limits, Arc<dyn Handler>); 2] = [
            ("api", &config.listen, for_clients, client_api),
            (
                "ops",
                &config.ops_listen,
                Limits {
                    body_bytes: 0,
                    workers: 2,
                    downloads: 1,
                    connections: 128,
                    trusted_proxies: Vec::new(),
                    ..usual
                },
                Arc::new(OperatorAuth::new(&config, ops)),
            ),
        ];
        let mut servers = Vec::new();
        for (name, address, limits, handler) in handlers {
            if !address.is_empty() {
                let listener = TcpListener::bind(address)
                    .map_err(|error| format!("cannot listen on {address}: {error}"))?;
                let server = Server::start(&group, clock.clone(), name, listener, limits, handler)
                    .map_err(|error| format!("cannot serve {address}: {error}"))?;
                log::info!(event = "listening", what:% = name, address:% = server.address(); "");
                servers.push(server);
            }
        }
        let port = (!config.listen.is_empty()).then(|| servers.first().map(Server::address));
        let watchdog = sd_notify::watchdog_enabled();
        let watch = Watch::new(store.clone(), health.clone(), port.flatten(), watchdog);
        let thread = WorkerThread {
            name: "watch".into(),
            worker: Box::new(watch),
            woken: never(),
            stopped,
            wakeups,
            health,
            clock,
        };
        group
            .spawn("watch", move || thread.run())
            .map_err(|error| format!("thread watch: {error}"))?;
        log::info!(
            event = "started", version:% = env!("CARGO_PKG_VERSION"),
            database:% = config.database.display(); ""
        );
        Ok(Self {
            group,
            endings,
            stop,
            servers,
            store,
            _lock: lock,
        })
    }

    /// Where it listens: the client API first, then the operator's pages, as far as they are on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(Server::address).collect()
    }

    /// Serves until a signal or until `until` says so, then stops.
    ///
    /// # Errors
    /// When a thread ended unasked or the database failed: which, for the last word in the log.
    pub fn run(self, until: &Receiver<()>) -> Result<(), String> {
        let signals = signals()?;
        tell_systemd(&[sd_notify::NotifyState::Ready]);
        let outcome = select! {
            recv(signals) -> signal => signal.map_err(|_| "thread signals ended".to_owned()),
            recv(until) -> _ => Ok("its own end"),
            recv(self.endings) -> ended => Err(describe(ended.ok())),
            recv(self.store.broken()) -> what => Err(format!(
                "the database cannot be relied on: {}; the daemon ends, to be started anew",
                what.unwrap_or_default(),
            )),
        };
        tell_systemd(&[sd_notify::NotifyState::Stopping]);
        match &outcome {
            Ok(cause) => log::info!(event = "stopping", cause; ""),
            Err(reason) => log::error!(event = "stopping", cause = reason; ""),
        }
        self.stop();
        outcome.map(drop)
    }

    /// Lets every thread finish its transaction and end.
    fn stop(self) {
        drop(self.stop);
        for server in &self.servers {
            server.stop(SHUTDOWN_GRACE / 4);
        }
        if !self.group.join(SHUTDOWN_GRACE) {
            // What they were at is in the database, as after a crash.
            log::warn!(event = "stopped"; "with threads still in a call");
        }
        log::info!(event = "stopped"; "");
    }
}

fn describe(ended: Option<ThreadEnd>) -> String {
    match ended {
        Some(ThreadEnd {
            name,
            panicked: true,
        }) => format!("thread {name} panicked; the daemon ends, to be started anew"),
        Some(ThreadEnd { name, .. }) => {
            format!("thread {name} ended; the daemon ends, to be started anew")
        }
        None => "all threads ended".to_owned(),
    }
}

/// Waits for a signal, or for a thread that ends unasked.
///
/// # Errors
/// The thread's name.
pub fn wait_for_the_end<T>(
    signals: &Receiver<T>,
    endings: &Receiver<ThreadEnd>,
) -> Result<(), String> {
    select! {
        recv(signals) -> _ => Ok(()),
        recv(endings) -> ended => Err(describe(ended.ok())),
    }
}

/// The first SIGTERM or SIGINT asks to stop, by its name; the second ends the process at once.
///
/// # Errors
/// When signals cannot be watched.
pub fn signals() -> Result<Receiver<&'static str>, String> {
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| format!("cannot watch signals: {error}"))?;
    let (tell, told) = bounded(1);
    thread_group::spawn_ungrouped("signals", move || {
        let mut asked = false;
        for signal in signals.forever() {
            let name = match signal {
                SIGTERM => "SIGTERM",
                _ => "SIGINT",
            };
            if asked || tell.try_send(name).is_err() {
                std::process::exit(130);
            }
            asked = true;
        }
    })
    .map_err(|error| format!("thread signals: {error}"))?;
    Ok(told)
}

fn tell_systemd(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::debug!(event = "systemd_not_told", error:%; "");
    }
}

/// A channel that never speaks, for a daemon that only signals end.
pub fn until_a_signal() -> Receiver<()> {
    never()
}

/// The client of OpenAI's API that the configuration describes.
///
/// # Errors
/// A message for the operator.
pub fn openai_client(config: &Config) -> Result<Client, String> {
    let key = config.openai.api_key().reveal();
    if key.is_empty() {
        return Err(
            "no OpenAI API key: set openai.api_key_file, or OPENAI_API_KEY in the environment"
                .into(),
        );
    }
    client(config, key)
}

/// What a start checks beyond the configuration's form, the key of OpenAI apart: it may be in the
/// environment of the service alone.
///
/// # Errors
/// What is wrong, for a person.
pub fn check(config: &Config) -> Result<(), String> {
    check_alert_urls(config, &guard(config)?)?;
    let key = config.openai.api_key().reveal();
    client(config, if key.is_empty() { "none" } else { key }).map(drop)
}

fn client(config: &Config, key: &str) -> Result<Client, String> {
    let openai = &config.openai;
    let identity = Identity {
        base_url: openai.base_url.clone(),
        organization: openai.organization.clone(),
        project: openai.project.clone(),
    };
    let mut settings = Settings::new(identity, ApiKey::new(key));
    settings.allow_plain_http = openai.allow_plain_http;
    settings.timeouts = Timeouts {
        create: openai.create_timeout,
        respond: config.synchronous.timeout,
        ..Timeouts::default()
    };
    Client::new(settings).map_err(|error| match (&error, &openai.api_key_file) {
        (Unusable::ApiKey, Some(path)) => {
            format!("openai.api_key_file: {}: {error}", path.display())
        }
        (Unusable::ApiKey, None) => format!("OPENAI_API_KEY: {error}"),
        _ => error.to_string(),
    })
}

/// What the configuration holds those who connect to.
fn limits(config: &Config) -> Limits {
    let http = &config.http;
    let number = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    Limits {
        head_bytes: usize::try_from(http.head_bytes).unwrap_or(usize::MAX),
        headers: number(http.headers),
        head_deadline: http.header_timeout,
        idle: http.idle_timeout,
        body_bytes: config.limits.max_body,
        body_budget: http.body_memory,
        body_stall: http.body_stall,
        write_stall: http.write_stall,
        connections: number(http.connections),
        connections_per_peer: number(http.connections_per_peer),
        trusted_proxies: http.trusted_proxies.clone(),
        requests_per_connection: http.requests_per_connection,
        workers: number(http.workers),
        downloads: number(http.downloads),
    }
}

fn guard(config: &Config) -> Result<SsrfGuard, String> {
    match &config.network.allow_private {
        PrivateNetworks::All(true) => Ok(SsrfGuard::AllowAll),
        PrivateNetworks::All(false) => Ok(SsrfGuard::DenyPrivate),
        PrivateNetworks::Networks(networks) => {
            let parse = |network: &String| {
                network
                    .parse()
                    .map_err(|error| format!("network.allow_private: {network:?} is {error}"))
            };
            networks
                .iter()
                .map(parse)
                .collect::<Result<_, _>>()
                .map(SsrfGuard::Allow)
        }
    }
}

fn check_alert_urls(config: &Config, guard: &SsrfGuard) -> Result<(), String> {
    for (key, url) in config.alerts.urls() {
        guard
            .check_url(url)
            .map_err(|error| format!("{key}: {error}"))?;
    }
    Ok(())
}

/// Removes what a killed process left in the spool. No worker uses it yet.
fn sweep_spool(store: &Store, spool: &Path) -> Result<(), String> {
    let live = store
        .read(batches::live_keys)
        .map_err(|error| error.to_string())?;
    Spool::new(spool.to_owned())
        .sweep(&live)
        .map_err(|error| format!("cannot tidy {}: {error}", spool.display()))
}

fn make_private_folder(folder: &Path) -> Result<(), String> {
    let made = fs::create_dir_all(folder)
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o700)));
    made.map_err(|error| format!("cannot make {}: {error}", folder.display()))
}
