//! Alerts are posted to the configured receiver: at least once when they open and when they close, in that order,
//! under one id each, signed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::world::World;
use crate::world::openai::Crash;
use batchkeeper::base::clock::Clock;
use batchkeeper::domain::alert::{AlertKind, AlertSubject};
use batchkeeper::domain::signature::{Key, Message, ReceivedWebhook, sign, webhook_secret};
use batchkeeper::outbound::{HttpPost, OutboundError, PostResponse};
use batchkeeper::store::{Store, alerts, notices};
use batchkeeper::workers::alert_notifier::AlertNotifier;
use batchkeeper::workers::worker::Worker;
use serde_json::Value;

const MINUTE: Duration = Duration::from_mins(1);
const KEY: &str = "0123456789abcdef0123";

/// A post: its headers and its body.
type Heard = (Vec<(String, String)>, Vec<u8>);

/// Posted alerts, and how each is answered: `Some` a status, `None` the end of the process.
#[derive(Default)]
struct Listener {
    heard: Mutex<Vec<Heard>>,
    answers: Mutex<Vec<Option<u16>>>,
}

impl Listener {
    fn answers(&self, next: &[Option<u16>]) {
        *self.answers.lock().unwrap() = next.iter().rev().copied().collect();
    }

    /// The events heard since the last look, with the ids.
    fn events(&self) -> Vec<(String, String)> {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        let event = |(headers, body): &Heard| {
            let body: Value = serde_json::from_slice(body).unwrap();
            let event = format!("{} {}", body["event"].as_str().unwrap(), body["subject"]);
            (event, header(headers, "webhook-id").to_owned())
        };
        heard.iter().map(event).collect()
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    let found = headers.iter().find(|(known, _)| known == name);
    &found.unwrap_or_else(|| panic!("no {name}")).1
}

impl HttpPost for Listener {
    fn post(
        &self,
        url: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
        _timeout: Duration,
    ) -> Result<PostResponse, OutboundError> {
        assert_eq!(url, "https://alerts.test/hook");
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        self.heard.lock().unwrap().push((headers.collect(), body));
        let answer = self.answers.lock().unwrap().pop();
        match answer {
            Some(None) => resume_unwind(Box::new(Crash)),
            answer => Ok(PostResponse {
                status: answer.flatten().unwrap_or(204),
                retry_after: None,
                body_start: "busy".into(),
            }),
        }
    }
}

/// A world with an alert notifier beside it.
struct Scene {
    world: World,
    listener: Arc<Listener>,
    store: Arc<Store>,
    /// `None` if there is no receiver.
    herald: Option<AlertNotifier>,
}

impl Scene {
    fn new(url: &str) -> Self {
        let world = World::with(|config| config.alerts.webhook_url = url.into());
        Self::in_world(world, Arc::default())
    }

    fn in_world(world: World, listener: Arc<Listener>) -> Self {
        let now = world.clock.now().wall;
        let store = Arc::new(Store::open(&world.config.database, now).unwrap());
        let receivers = world.config.alert_receivers();
        let stored: Vec<_> = receivers
            .iter()
            .map(|it| (it.name.as_str(), it.least_severity))
            .collect();
        store
            .write(now, |tx| notices::set_receivers(tx, &stored))
            .unwrap();
        let herald = receivers.into_iter().next().map(|receiver| {
            AlertNotifier::new(
                store.clone(),
                listener.clone(),
                world.clock.clone(),
                world.config.clone(),
                receiver,
            )
        });
        Self {
            world,
            listener,
            store,
            herald,
        }
    }

    fn open(&self, subject: &str) {
        let now = self.world.clock.now().wall;
        self.store
            .write(now, |tx| {
                let subject = AlertSubject::Named(subject.into());
                let message = "it broke; see: batchkeeper alerts";
                alerts::open(tx, AlertKind::ThreadStuck, &subject, message)
            })
            .unwrap();
    }

    fn close(&self, subject: &str) {
        let now = self.world.clock.now().wall;
        self.store
            .write(now, |tx| {
                let subject = AlertSubject::Named(subject.into());
                alerts::close(tx, AlertKind::ThreadStuck, &subject)
            })
            .unwrap();
    }

    /// Ticks until there is nothing to do now; false when the process ended.
    fn work(&mut self) -> bool {
        let Some(herald) = &mut self.herald else {
            return true;
        };
        loop {
            let now = self.world.clock.now();
            let ticked = catch_unwind(AssertUnwindSafe(|| herald.tick(now)));
            match ticked {
                Ok(next) if next.as_ref().unwrap().worked => {}
                Ok(_) => return true,
                Err(thrown) if thrown.is::<Crash>() => return false,
                Err(thrown) => resume_unwind(thrown),
            }
        }
    }

    /// The same from minute to minute.
    fn run_for(&mut self, minutes: u32) {
        for _ in 0..minutes {
            self.work();
            self.world.advance(MINUTE);
        }
    }
}

const URL: &str = "https://alerts.test/hook";

#[test]
fn an_alert_is_told_when_it_opens_and_when_it_closes() {
    let mut scene = Scene::new(URL);
    scene.open("a");
    scene.work();
    scene.open("a");
    scene.work();
    {
        let heard = scene.listener.heard.lock().unwrap();
        let (headers, body) = &heard[0];
        let received = ReceivedWebhook {
            id: header(headers, "webhook-id"),
            timestamp: header(headers, "webhook-timestamp"),
            signature: header(headers, "webhook-signature"),
            body,
        };
        let key = Key::new(KEY).unwrap();
        let now = scene.world.clock.now().wall;
        assert_eq!(received.verify(&webhook_secret(&key), now), Ok(()));
        let signature = sign(&key, Message::Bytes(body));
        assert_eq!(header(headers, "X-Signature"), signature);
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(body["message"], "it broke; see: batchkeeper alerts");
        assert_eq!(body["closed_at"], Value::Null);
    }
    scene.close("a");
    scene.run_for(60);
    let events = scene.listener.events();
    let told: Vec<&str> = events.iter().map(|(event, _)| event.as_str()).collect();
    assert_eq!(told, ["alert_opened \"a\"", "alert_closed \"a\""]);
    assert_ne!(events[0].1, events[1].1);
}

#[test]
fn what_is_not_taken_is_told_again_and_the_end_after_the_beginning() {
    let mut scene = Scene::new(URL);
    scene.listener.answers(&[Some(500), Some(503)]);
    scene.open("a");
    scene.work();
    scene.close("a");
    scene.run_for(10);
    let events = scene.listener.events();
    let told: Vec<&str> = events.iter().map(|(event, _)| event.as_str()).collect();
    assert_eq!(
        told,
        [
            "alert_opened \"a\"",
            "alert_opened \"a\"",
            "alert_opened \"a\"",
            "alert_closed \"a\""
        ]
    );
    assert!(events[..3].iter().all(|(_, id)| *id == events[0].1));
}

#[test]
fn a_process_that_ends_while_it_tells_tells_again_under_the_same_id() {
    let mut scene = Scene::new(URL);
    scene.listener.answers(&[None]);
    scene.open("a");
    assert!(!scene.work());
    let mut scene = Scene::in_world(scene.world, scene.listener);
    scene.run_for(5);
    let events = scene.listener.events();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0], events[1]);
}

#[test]
fn who_never_takes_it_is_abandoned_after_the_waits_of_webhooks() {
    let mut scene = Scene::new(URL);
    let waits = scene.world.config.webhooks.retry_delays.clone();
    scene.listener.answers(&vec![Some(500); 100]);
    scene.open("a");
    scene.run_for(60 * 30);
    assert_eq!(scene.listener.events().len(), waits.len() + 1);
    let states = scene.world.texts("SELECT state FROM alert_notices");
    assert_eq!(states, ["failed"]);
}

#[test]
fn who_is_configured_later_is_told_what_is_open() {
    let mut scene = Scene::new("");
    scene.open("over by then");
    scene.work();
    scene.close("over by then");
    scene.open("open still");
    scene.run_for(2);
    let Scene {
        mut world, listener, ..
    } = scene;
    assert!(listener.events().is_empty());
    let openai = world.openai.clone();
    world.restart_with(openai, |config| config.alerts.webhook_url = URL.into());
    let mut scene = Scene::in_world(world, listener);
    scene.run_for(5);
    let events = scene.listener.events();
    let told: Vec<&str> = events.iter().map(|(event, _)| event.as_str()).collect();
    assert_eq!(told, ["alert_opened \"open still\""]);
}

#[test]
fn a_clock_set_back_a_day_delays_nothing() {
    let mut scene = Scene::new(URL);
    scene.listener.answers(&[Some(500)]);
    scene.open("a");
    scene.work();
    scene.world.shift_clock(-24 * 3_600_000);
    scene.run_for(5);
    assert_eq!(scene.listener.events().len(), 2);
}
