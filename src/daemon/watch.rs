//! The watch: whether every thread ticks and the client port answers. Only then systemd's watchdog is
//! fed; otherwise it ends the process, and starts it anew.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Moment;
use crate::domain::alert::{AlertCause, AlertKind, AlertSubject};
use crate::ops::Health;
use crate::store::{Store, alerts};
use crate::workers::worker::{TickOutcome, Worker, WorkerError};

/// How often it looks, where systemd does not want it oftener.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long the client port may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// So many looks in a row the client port must be silent before a person is told.
const SILENT: u32 = 3;

/// See the module.
pub struct Watch {
    store: Arc<Store>,
    health: Arc<Health>,
    /// Where the client API listens; none: nowhere.
    port: Option<SocketAddr>,
    interval: Duration,
    /// Looks in a row at which the client port was silent.
    silent: u32,
    /// What a person was told last; none: nothing since the start.
    told: Option<Told>,
}

/// Alerts of threads, and of the client port.
type Told = [Vec<AlertCause>; 2];

impl Watch {
    /// A watch over the threads that `health` knows and the client API that listens on `port`;
    /// `watchdog`: how often systemd wants a sign of life at least.
    pub fn new(
        store: Arc<Store>,
        health: Arc<Health>,
        port: Option<SocketAddr>,
        watchdog: Option<Duration>,
    ) -> Self {
        let interval = watchdog.map_or(INTERVAL, |every| (every / 3).min(INTERVAL));
        Self {
            store,
            health,
            port,
            interval,
            silent: 0,
            told: None,
        }
    }

    fn look(&mut self, now: Moment) -> Result<(), WorkerError> {
        let late = self.health.late(now.steady);
        let silence = self.port.and_then(|port| probe(port).err());
        self.health.note_port(silence.clone());
        match &silence {
            None => self.silent = 0,
            Some(_) => self.silent = self.silent.saturating_add(1),
        }
        if late.is_empty() && silence.is_none() {
            super::tell_systemd(&[sd_notify::NotifyState::Watchdog]);
        } else {
            log::error!(event = "unwell", late:?, client_port:? = silence; "");
        }
        let threads = late.into_iter().map(|(name, what)| {
            let message = format!(
                "thread {name} {what}. Where systemd watches, it starts the daemon anew; otherwise: systemctl restart \
                 batchkeeper (nothing is lost by it)"
            );
            let subject = AlertSubject::Named(name);
            AlertCause { subject, message }
        });
        let silence = silence.filter(|_| self.silent >= SILENT).map(|what| {
            let message = format!(
                "the client API does not answer on its own port: {what}. If it stays so: systemctl restart batchkeeper"
            );
            let subject = AlertSubject::ClientApi;
            AlertCause { subject, message }
        });
        self.tell([threads.collect(), silence.into_iter().collect()], now)
    }

    fn tell(&mut self, told: Told, now: Moment) -> Result<(), WorkerError> {
        let subjects = |told: &Told| -> Vec<AlertSubject> {
            let all = told.iter().flatten();
            all.map(|cause| cause.subject.clone()).collect()
        };
        if self.told.as_ref().map(subjects) != Some(subjects(&told)) {
            self.store.write(now.wall, |tx| {
                alerts::set_open(tx, AlertKind::ThreadStuck, &told[0])?;
                alerts::set_open(tx, AlertKind::PortSilent, &told[1])
            })?;
            self.told = Some(told);
        }
        Ok(())
    }
}

impl Worker for Watch {
    fn name(&self) -> &'static str {
        "watch"
    }

    fn tick(&mut self, now: Moment) -> Result<TickOutcome, WorkerError> {
        self.look(now)?;
        Ok(TickOutcome::idle(self.interval))
    }
}

/// Asks the client port for its health as a client would. Any HTTP answer is one: that nothing can
/// be stored is no reason to start anew.
fn probe(port: SocketAddr) -> Result<(), String> {
    let here = match port.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let ask = || -> std::io::Result<[u8; 9]> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(here, port.port()), ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        stream.write_all(
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nUser-Agent: batchkeeper-watch\r\nConnection: close\r\n\r\n",
        )?;
        let mut start = [0; 9];
        stream.read_exact(&mut start)?;
        // Read to the end, so that the close is no reset.
        std::io::copy(&mut stream.take(64 * 1024), &mut std::io::sink())?;
        Ok(start)
    };
    match ask() {
        Ok(start) if start == *b"HTTP/1.1 " => Ok(()),
        Ok(start) => Err(format!("it says {:?}", String::from_utf8_lossy(&start))),
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
    fn a_port_that_says_nothing_or_something_else_is_silent() {
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
    fn a_thread_that_does_not_tick_is_told_of_until_it_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(SystemClock::new());
        let store = Store::open(&folder.path().join("a.db"), clock.now().wall).expect("a store");
        let store = Arc::new(store);
        let health = Arc::new(Health::new(store.clone(), clock.clone(), Arc::default()));
        health.expect("worker", Duration::from_hours(1));
        health.begins("worker");
        let mut watch = Watch::new(store.clone(), health.clone(), None, None);
        let open = |store: &Store| {
            let list = store.read(|view| alerts::list(view, true, 9));
            list.expect("alerts").len()
        };
        let mut now = clock.now();
        for (hours, alerts) in [(0, 0), (2, 1), (0, 1)] {
            now.steady += Duration::from_hours(hours);
            watch.tick(now).expect("a tick");
            assert_eq!(open(&store), alerts);
        }
        health.ends("worker", Duration::from_hours(12), None);
        watch.tick(now).expect("a tick");
        assert_eq!(open(&store), 0);
        // Nor when it was to wake up and did not.
        now.steady += Duration::from_hours(20);
        watch.tick(now).expect("a tick");
        assert_eq!(open(&store), 1);
    }
}
