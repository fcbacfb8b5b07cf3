//! Status polls of an idle daemon.

use std::sync::atomic::AtomicBool;

use crate::bare;
use crate::client::{Client, load, status_request};
use crate::openai::BareOpenAi;
use crate::rig::{self, Figure, job, percentiles, rate, submit, wait};

const CLIENTS: usize = 16;
const EACH: usize = 3000;

pub fn status() -> Vec<Figure> {
    let openai = BareOpenAi::start(3000);
    openai.complete();
    let appliance = rig::daemon(&openai, "openai = { poll_interval = \"1s\" }");
    let (id, _) = submit(&appliance, &job(1000, &["en", "de"], None));
    wait("the job's end", || {
        (!appliance.status(&id)["completed_at"].is_null()).then_some(())
    });
    let request = status_request(&id);
    let (_, body) = Client::connect(&appliance.api).send(&request);
    let go_on = AtomicBool::new(true);
    let clients = vec![vec![request.clone()]; CLIENTS];
    let (mut times, took) = load(&appliance.api, clients, EACH, 200, &go_on);
    let [median, p99] = percentiles(&mut times);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = [answer.as_bytes(), &body].concat();
    let reference = bare::echo(CLIENTS, EACH, &request, &answer);
    vec![Figure::against(
        &format!("status polls, {CLIENTS} clients, nothing else to do"),
        format!(
            "{:.0}/s, median {median:.1?}, p99 {p99:.1?}",
            rate(times.len(), took)
        ),
        took,
        reference,
    )]
}
