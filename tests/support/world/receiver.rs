//! Who takes the webhooks: notes what comes, and fails by chance.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::time::Duration;

use batchkeeper::outbound::{HttpPost, OutboundError, PostResponse};

use super::openai::Crash;
use super::random::Random;

/// A delivery that fails oftener than this would be given up.
const MOST_FAILURES: u32 = 6;

/// A receiver of webhooks, and how often each job was reported to it.
#[derive(Default)]
pub struct Receiver(Mutex<State>);

#[derive(Default)]
struct State {
    /// By job: the ids under which it was reported, and how often that failed.
    jobs: BTreeMap<String, (BTreeSet<String>, u32)>,
    chaos: Option<(Random, u64)>,
}

impl Receiver {
    /// From now on `permille` of a thousand deliveries fail.
    pub fn fails(&self, random: Random, permille: u64) {
        self.0.lock().unwrap().chaos = Some((random, permille));
    }

    /// The ids under which a job was reported.
    pub fn ids(&self, job: &str) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let told = state.jobs.get(job);
        told.map(|(ids, _)| ids.iter().cloned().collect())
            .unwrap_or_default()
    }
}

impl HttpPost for Receiver {
    fn post(
        &self,
        _url: &str,
        headers: &[(&str, String)],
        _body: Vec<u8>,
        _timeout: Duration,
    ) -> Result<PostResponse, OutboundError> {
        let header = |wanted: &str| {
            let found = headers.iter().find(|(name, _)| *name == wanted);
            found.expect("the header is there").1.clone()
        };
        let mut state = self.0.lock().unwrap();
        let State { jobs, chaos } = &mut *state;
        let (ids, failures) = jobs.entry(header("X-Job-ID")).or_default();
        let goes_wrong = *failures < MOST_FAILURES
            && chaos
                .as_mut()
                .is_some_and(|(random, permille)| random.chance(*permille));
        let how = match chaos {
            Some((random, _)) if goes_wrong => 1 + random.below(6),
            _ => 0,
        };
        *failures += u32::from(how > 0);
        // 1 to 3 come before it has it.
        if how == 0 || how > 3 {
            ids.insert(header("webhook-id"));
        }
        drop(state);
        let reply = |status, wait: Option<u64>| {
            Ok(PostResponse {
                status,
                retry_after: wait.map(Duration::from_secs),
                body_start: String::new(),
            })
        };
        match how {
            1 => Err(OutboundError::Connection("refused".into())),
            2 => reply(503, Some(600)),
            3 | 4 => resume_unwind(Box::new(Crash)),
            5 => Err(OutboundError::Timeout),
            6 => reply(500, None),
            _ => reply(200, None),
        }
    }
}
