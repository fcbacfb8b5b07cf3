//! The watchdog: checks that every thread ticks and that the client API answers. Only then it notifies
//! systemd, which otherwise ends the process and starts it again.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::systemd::notify_systemd;
use crate::base::clock::Moment;
use crate::domain::alert::{AlertCause, AlertKind, AlertSubject};
use crate::ops::Health;
use crate::store::{Store, alerts};
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// The longest time between two checks.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long the client API may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Checks in a row without an answer before an alert is opened.
const MAX_SILENT_CHECKS: u32 = 3;

/// The worker that checks all others, and the client API.
pub(super) struct Watchdog {
    store: Arc<Store>,
    health: Arc<Health>,
    /// The address of the client API; `None` if it is off.
    client_api: Option<SocketAddr>,
    interval: Duration,
    /// Checks in a row without an answer of the client API.
    silent_checks: u32,
    /// The alerts that the last check opened; `None` before the first one.
    last_alerts: Option<WatchdogAlerts>,
}

/// Alerts of the watchdog.
struct WatchdogAlerts {
    threads: Vec<AlertCause>,
    client_api: Vec<AlertCause>,
}

impl WatchdogAlerts {
    fn subjects(&self) -> Vec<&AlertSubject> {
        let all = self.threads.iter().chain(&self.client_api);
        all.map(|cause| &cause.subject).collect()
    }
}

impl Watchdog {
    /// A watchdog over the threads that `health` knows. `systemd_interval` is the longest time that systemd
    /// waits for a notification; `None` if it expects none.
    pub(super) fn new(
        store: Arc<Store>,
        health: Arc<Health>,
        client_api: Option<SocketAddr>,
        systemd_interval: Option<Duration>,
    ) -> Self {
        let interval = systemd_interval.map_or(INTERVAL, |longest| (longest / 3).min(INTERVAL));
        Self {
            store,
            health,
            client_api,
            interval,
            silent_checks: 0,
            last_alerts: None,
        }
    }

    fn check(&mut self, now: Moment) -> Result<(), WorkerError> {
        let late = self.health.late_threads(now.steady);
        let silence = self.client_api.and_then(|address| probe(address).err());
        self.health.record_client_port(silence.clone());
        self.silent_checks = match &silence {
            None => 0,
            Some(_) => self.silent_checks.saturating_add(1),
        };
        if late.is_empty() && silence.is_none() {
            notify_systemd(&[sd_notify::NotifyState::Watchdog]);
        } else {
            log::error!(event = "unwell", late:?, client_port:? = silence; "");
        }
        let is_silent = self.silent_checks >= MAX_SILENT_CHECKS;
        let alerts = WatchdogAlerts {
            threads: late.into_iter().map(late_thread).collect(),
            client_api: silence
                .filter(|_| is_silent)
                .map(silent_client_api)
                .into_iter()
                .collect(),
        };
        self.store_alerts(alerts, now)
    }

    /// Opens and closes alerts when their subjects have changed since the last check.
    fn store_alerts(&mut self, alerts: WatchdogAlerts, now: Moment) -> Result<(), WorkerError> {
        let last = self.last_alerts.as_ref().map(WatchdogAlerts::subjects);
        if last != Some(alerts.subjects()) {
            self.store.write(now.wall, |tx| {
                alerts::set_open(tx, AlertKind::ThreadStuck, &alerts.threads)?;
                alerts::set_open(tx, AlertKind::PortSilent, &alerts.client_api)
            })?;
            self.last_alerts = Some(alerts);
        }
        Ok(())
    }
}

fn late_thread((name, problem): (String, String)) -> AlertCause {
    let message = format!(
        "thread {name} {problem}. If systemd runs the daemon, systemd starts it again; otherwise: systemctl \
         restart batchkeeper (nothing is lost by it)"
    );
    let subject = AlertSubject::Named(name);
    AlertCause { subject, message }
}

fn silent_client_api(problem: String) -> AlertCause {
    let message = format!(
        "the client API does not answer on its own port: {problem}. If this does not pass: systemctl restart \
         batchkeeper"
    );
    let subject = AlertSubject::ClientApi;
    AlertCause { subject, message }
}

impl Worker for Watchdog {
    fn name(&self) -> &'static str {
        "watchdog"
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        self.check(now)?;
        Ok(TickOutcome::idle(self.interval))
    }
}

/// Requests the health of the client API as a client would. Any HTTP answer counts: a daemon that cannot
/// store jobs gains nothing from a restart.
fn probe(address: SocketAddr) -> Result<(), String> {
    let here = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let ask = || -> std::io::Result<[u8; 9]> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(here, address.port()), ANSWER_TIMEOUT)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        stream.write_all(
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nUser-Agent: batchkeeper-watchdog\r\n\
              Connection: close\r\n\r\n",
        )?;
        let mut start = [0; 9];
        stream.read_exact(&mut start)?;
        // Reading to the end keeps the close from being a reset.
        std::io::copy(&mut stream.take(64 * 1024), &mut std::io::sink())?;
        Ok(start)
    };
    match ask() {
        Ok(start) if start == *b"HTTP/1.1 " => Ok(()),
        Ok(start) => Err(format!("it answers {:?}", String::from_utf8_lossy(&start))),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::base::clock::{Clock, SystemClock};
    use crate::base::thread_group;

    #[test]
    fn an_address_without_an_http_answer_is_silent() {
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = |listener: &TcpListener| listener.local_addr().expect("an address");
        let closed = at(&listen());
        assert!(probe(closed).is_err());
        for (answer, is_well) in [
            ("HTTP/1.1 200 OK\r\n\r\n", true),
            ("HTTP/1.1 503 Service Unavailable\r\n\r\n", true),
            ("SSH-2.0-OpenSSH\r\n", false),
            ("", false),
        ] {
            let listener = listen();
            let port = at(&listener);
            let serving = thread_group::spawn_ungrouped("serving", move || {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut head = [0; 512];
                let read = stream.read(&mut head).expect("a request");
                assert!(head[..read].starts_with(b"GET /health"));
                stream.write_all(answer.as_bytes()).expect("an answer");
            });
            assert_eq!(probe(port).is_ok(), is_well, "{answer:?}");
            serving.expect("a thread").join().expect("served");
        }
    }

    #[test]
    fn a_thread_that_does_not_tick_has_an_alert_until_it_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(SystemClock::new());
        let store = Store::open(&folder.path().join("a.db"), clock.now().wall).expect("a store");
        let store = Arc::new(store);
        let health = Arc::new(Health::new(store.clone(), clock.clone(), Arc::default()));
        health.register("worker", Duration::from_hours(1));
        health.record_tick_start("worker");
        let mut watchdog = Watchdog::new(store.clone(), health.clone(), None, None);
        let open = |store: &Store| {
            let list = store.read(|view| alerts::list(view, true, 9));
            list.expect("alerts").len()
        };
        let mut now = clock.now();
        for (hours, alerts) in [(0, 0), (2, 1), (0, 1)] {
            now.steady += Duration::from_hours(hours);
            watchdog.tick(now).expect("a tick");
            assert_eq!(open(&store), alerts);
        }
        health.record_tick_end("worker", Duration::from_hours(12), None);
        watchdog.tick(now).expect("a tick");
        assert_eq!(open(&store), 0);
        // A thread that sleeps longer than it asked for is late, too.
        now.steady += Duration::from_hours(20);
        watchdog.tick(now).expect("a tick");
        assert_eq!(open(&store), 1);
    }
}
