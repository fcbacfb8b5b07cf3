//! Many images looked at side by side, by a fixed group; a slow host holds few of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::image::{ImageLimits, ImageProblem};
use super::outbound::Outbound;
use super::url;
use crate::base::thread_group::ThreadGroup;

/// Looks at one host at once, until it has shown that it is quick.
const PER_HOST: usize = 4;
/// A look that takes longer makes a host a slow one again; one that does not lets it have one more.
const SLOW: Duration = Duration::from_secs(1);
/// URLs of one host that may wait: those beyond are asked for later.
const WAITING: usize = 1000;

/// What was found of one image.
pub type Found = (String, Result<(), ImageProblem>);

/// One look, done.
struct Look {
    found: Found,
    took: Duration,
}

/// The group's other end. When it is dropped, the group ends.
pub struct Probes {
    group: usize,
    wanted: Sender<String>,
    looks: Receiver<Look>,
    hosts: HashMap<String, Host>,
    /// Hosts in the order in which they have their turn.
    turns: VecDeque<String>,
    /// What waits or is being looked at.
    pending: HashSet<String>,
    busy: usize,
}

/// One host's looks.
struct Host {
    waiting: VecDeque<String>,
    busy: usize,
    most: usize,
}

impl Probes {
    /// Starts `number` threads that look at images.
    ///
    /// # Errors
    /// When the machine gives no further thread.
    pub fn start(group: &ThreadGroup, outbound: &Arc<Outbound>, number: u32) -> io::Result<Self> {
        let (wanted, next) = bounded::<String>(0);
        let (tell, looks) = unbounded();
        for number in 1..=number {
            let (outbound, next, tell) = (outbound.clone(), next.clone(), tell.clone());
            group.spawn(&format!("image-{number}"), move || {
                look(&outbound, &next, &tell);
            })?;
        }
        Ok(Self {
            group: usize::try_from(number).unwrap_or(usize::MAX),
            wanted,
            looks,
            hosts: HashMap::new(),
            turns: VecDeque::new(),
            pending: HashSet::new(),
            busy: 0,
        })
    }

    /// Has an image looked at, unless it is being looked at already or too many wait for its host:
    /// ask again then.
    pub fn ask(&mut self, url: &str) {
        if self.pending.contains(url) {
            return;
        }
        let name = host_of(url);
        let turns = &mut self.turns;
        let host = self.hosts.entry(name.clone()).or_insert_with(|| {
            turns.push_back(name);
            Host {
                waiting: VecDeque::new(),
                busy: 0,
                most: PER_HOST,
            }
        });
        if host.waiting.len() < WAITING {
            host.waiting.push_back(url.to_owned());
            self.pending.insert(url.to_owned());
        }
    }

    /// What was found since the last call, after a wait of `within` at most where nothing was yet.
    pub fn found(&mut self, within: Duration) -> Vec<Found> {
        self.hand_out();
        if self.busy == 0 {
            return Vec::new();
        }
        let mut found = Vec::new();
        let mut next = self.looks.recv_timeout(within).ok();
        while let Some(look) = next {
            found.push(self.back(look));
            next = self.looks.try_recv().ok();
        }
        self.hand_out();
        found
    }

    /// Gives the group what it can take, the hosts in turns.
    fn hand_out(&mut self) {
        let mut passed = 0;
        while self.busy < self.group && passed < self.turns.len() {
            let Some(name) = self.turns.pop_front() else {
                return;
            };
            let Some(host) = self.hosts.get_mut(&name) else {
                continue;
            };
            let url = if host.busy < host.most {
                host.waiting.pop_front()
            } else {
                None
            };
            match url {
                // The group ends only after this end is dropped.
                Some(url) if self.wanted.send(url.clone()).is_ok() => {
                    host.busy += 1;
                    self.busy += 1;
                    passed = 0;
                }
                _ if host.busy == 0 && host.waiting.is_empty() => {
                    self.hosts.remove(&name);
                    continue;
                }
                _ => passed += 1,
            }
            self.turns.push_back(name);
        }
    }

    /// A look has come back.
    fn back(&mut self, look: Look) -> Found {
        self.busy -= 1;
        self.pending.remove(&look.found.0);
        if let Some(host) = self.hosts.get_mut(&host_of(&look.found.0)) {
            host.busy -= 1;
            host.most = if look.took > SLOW {
                PER_HOST
            } else {
                // However quick, a host leaves half of the group to others.
                (host.most + 1).min(self.group / 2).max(PER_HOST)
            };
        }
        look.found
    }
}

/// Host and port.
fn host_of(text: &str) -> String {
    url::parse(text).map_or_else(
        |_| String::new(),
        |url| format!("{}:{}", url.host, url.port),
    )
}

fn look(outbound: &Outbound, next: &Receiver<String>, tell: &Sender<Look>) {
    let limits = ImageLimits::default();
    for url in next {
        let started = outbound.clock.now().steady;
        let mut seen = outbound.probe_image(&url, &limits);
        if seen.as_ref().is_err_and(ImageProblem::retry) {
            // Two failures in a row make an image missing.
            seen = outbound.probe_image(&url, &limits);
        }
        let took = outbound.clock.now().steady.saturating_sub(started);
        let found = (url, seen);
        // Nobody listens any more only when the daemon stops.
        drop(tell.send(Look { found, took }));
    }
}
