//! What the lines of a batch say together: of its model, and of the settings that they were made with.
//!
//! | the lines | the model | verdict | the pause of the model |
//! |---|---|---|---|
//! | every line that ran blames a setting | any | misconfigured | stays; the stage pauses |
//! | with the other newest lines, too many fail transiently | works | outage | begins |
//! | too many of the probe fail transiently | paused | outage | is prolonged |
//! | few of at least ten lines of the probe fail transiently | paused | recovered | ends |
//! | of a batch that is older than the pause | paused | outage | stays |
//! | else | works | sound | ends, if it was for a refused batch |
//!
//! Only lines count whose request was not sent before: a lot that always fails makes batches of itself
//! alone, and proves nothing against the model.

use std::time::Duration;

use crate::base::text_enum::text_enum;
use crate::domain::parameters::Setting;

/// More transient failures than this, in percent, are an outage. Usually less than one line in a hundred
/// fails so.
const MOST_FAILURES: u64 = 20;
/// An outage is seen in at least this many lines.
const LEAST_LINES: u64 = 50;
/// The lines of the first probe.
pub const PROBE_LINES: u32 = 10;
/// A pause ends after at least this many lines: in an outage of a part of the lines, a few may all be
/// answered.
const LEAST_PROBE: u64 = PROBE_LINES as u64;

text_enum! {
    /// What the lines of a batch say together.
    BatchVerdict {
        /// Nothing but what each line says of itself.
        Sound = "sound",
        /// The model fails.
        Outage = "outage",
        /// The model works again.
        Recovered = "recovered",
        /// A setting is wrong.
        Misconfigured = "misconfigured",
    }
}

/// Lines, and how many of them failed transiently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// All that OpenAI ran or should have run.
    pub lines: u64,
    /// Those that failed transiently.
    pub failed: u64,
}

impl LineCounts {
    fn is_failing(self) -> bool {
        self.failed * 100 > self.lines * MOST_FAILURES
    }

    /// The failed lines, in percent.
    pub fn percent(self) -> u64 {
        self.failed * 100 / self.lines.max(1)
    }
}

/// The recent lines of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobLines {
    /// The job's row.
    pub job: i64,
    /// Its client.
    pub client: String,
    /// Its lines.
    pub counts: LineCounts,
}

/// The newest lines of a model, by job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentLines {
    /// The jobs.
    pub jobs: Vec<JobLines>,
}

impl RecentLines {
    /// Adds the lines of an older batch.
    pub fn add(&mut self, older: Vec<JobLines>) {
        for lines in older {
            match self.jobs.iter_mut().find(|it| it.job == lines.job) {
                Some(known) => {
                    known.counts.lines += lines.counts.lines;
                    known.counts.failed += lines.counts.failed;
                }
                None => self.jobs.push(lines),
            }
        }
    }

    /// All lines together.
    pub fn counts(&self) -> LineCounts {
        self.jobs
            .iter()
            .fold(LineCounts::default(), |sum, job| LineCounts {
                lines: sum.lines + job.counts.lines,
                failed: sum.failed + job.counts.failed,
            })
    }

    /// The number of jobs that `is_counted`, and of their clients.
    fn sources(&self, is_counted: impl Fn(&JobLines) -> bool) -> (usize, usize) {
        let jobs: Vec<&JobLines> = self.jobs.iter().filter(|job| is_counted(job)).collect();
        let mut clients: Vec<&str> = jobs.iter().map(|job| job.client.as_str()).collect();
        clients.sort_unstable();
        clients.dedup();
        (jobs.len(), clients.len())
    }

    /// Whether these lines are enough to tell a failing model from a failing job. `clients` is how many
    /// clients have work.
    pub fn is_enough(&self, clients: usize) -> bool {
        let (jobs, of_clients) = self.sources(|_| true);
        self.counts().lines >= LEAST_LINES && jobs >= 2 && of_clients >= clients.min(2)
    }

    /// Whether the model fails: too many lines fail, in two jobs, and with two clients where two have work.
    pub fn is_outage(&self, clients: usize) -> bool {
        let (jobs, of_clients) = self.sources(|job| job.counts.is_failing());
        self.is_enough(clients) && self.counts().is_failing() && jobs >= 2 && of_clients >= clients.min(2)
    }
}

/// The lines of a batch whose files are read. Those that OpenAI was never asked to run do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchLines {
    /// Those whose request was not sent before, by job.
    pub first: Vec<JobLines>,
    /// All.
    pub all: LineCounts,
    /// Those that the model has answered, one way or another.
    pub ran: u64,
    /// The setting that some of them blame.
    pub setting: Option<Setting>,
    /// What OpenAI said of it.
    pub setting_error: Option<String>,
}

impl BatchLines {
    /// The setting that is to blame because no line ran; `None` if there is no such.
    pub fn wrong_setting(&self) -> Option<Setting> {
        self.setting.filter(|_| self.ran == 0)
    }

    /// The lines by which a probe is judged.
    fn judged(&self) -> LineCounts {
        let first = RecentLines {
            jobs: self.first.clone(),
        };
        Some(first.counts())
            .filter(|counts| counts.lines >= LEAST_PROBE)
            .unwrap_or(self.all)
    }
}

/// The pause of a model or of a stage, as a batch of it finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundPause {
    /// There is none, or it is for a refused batch.
    None,
    /// It began after the batch was planned.
    Later,
    /// The batch is a probe of it.
    Probed {
        /// The most lines of the probe.
        size: u32,
        /// How long the pause has lasted.
        paused: Duration,
    },
}

/// A batch whose lines are about to be settled.
#[derive(Clone, Copy, Debug)]
pub struct EndedBatch<'a> {
    /// Its lines.
    pub lines: &'a BatchLines,
    /// The newest lines of its model, its own among them.
    pub recent: &'a RecentLines,
    /// How many clients have work.
    pub clients: usize,
    /// The pause of its model.
    pub model: FoundPause,
    /// The first wait.
    pub first_wait: Duration,
}

/// What follows for a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelDecision {
    /// Its pause, if there is one, stays.
    Keep,
    /// Its pause, if there is one, ends.
    Resume,
    /// It is paused, or paused again, until this probe.
    Pause(NextProbe),
}

impl EndedBatch<'_> {
    /// Decides what the lines say together, and what follows for the model.
    pub fn decide(&self) -> (BatchVerdict, ModelDecision) {
        if self.lines.all.lines == 0 {
            return (BatchVerdict::Sound, ModelDecision::Keep);
        }
        if self.lines.wrong_setting().is_some() {
            return (BatchVerdict::Misconfigured, ModelDecision::Keep);
        }
        match self.model {
            FoundPause::Later => (BatchVerdict::Outage, ModelDecision::Keep),
            FoundPause::Probed { size, paused } => {
                let probe = EndedProbe {
                    counts: self.lines.judged(),
                    size,
                    paused,
                    first_wait: self.first_wait,
                };
                match probe.decide() {
                    ProbeDecision::End => (BatchVerdict::Recovered, ModelDecision::Resume),
                    ProbeDecision::Continue(next) => (BatchVerdict::Outage, ModelDecision::Pause(next)),
                }
            }
            FoundPause::None if self.recent.is_outage(self.clients) => {
                let next = NextProbe::first(self.first_wait);
                (BatchVerdict::Outage, ModelDecision::Pause(next))
            }
            FoundPause::None => (BatchVerdict::Sound, ModelDecision::Resume),
        }
    }

    /// How long a stage waits for its next probe because of a wrong setting; `None` if its pause stays as it
    /// is.
    pub fn stage_wait(&self, stage: FoundPause) -> Option<Duration> {
        match stage {
            FoundPause::None => Some(self.first_wait),
            FoundPause::Later => None,
            FoundPause::Probed { paused, .. } => Some(paused.clamp(self.first_wait, self.first_wait * 12)),
        }
    }
}

/// A probe of a paused model or stage that has come back.
#[derive(Clone, Copy, Debug)]
pub struct EndedProbe {
    /// Its lines; those whose request was not sent before, if there are any.
    pub counts: LineCounts,
    /// The most lines that it might have.
    pub size: u32,
    /// How long the pause has lasted.
    pub paused: Duration,
    /// The first wait.
    pub first_wait: Duration,
}

/// What follows from a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeDecision {
    /// The pause ends.
    End,
    /// The pause goes on.
    Continue(NextProbe),
}

/// The next probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextProbe {
    /// How long until then.
    pub wait: Duration,
    /// The most lines that it may have.
    pub lines: u32,
}

impl NextProbe {
    /// The first probe of a pause.
    pub fn first(first_wait: Duration) -> Self {
        Self {
            wait: first_wait,
            lines: PROBE_LINES,
        }
    }
}

impl EndedProbe {
    /// Decides what follows. A probe that was answered in part, or that was too small, is followed soon by one
    /// of twice its size, so that work goes on while a part of it fails. Else each wait is as long as all before
    /// it, at most twelve times the first.
    pub fn decide(&self) -> ProbeDecision {
        let LineCounts { lines, failed } = self.counts;
        if !self.counts.is_failing() && lines >= LEAST_PROBE {
            return ProbeDecision::End;
        }
        ProbeDecision::Continue(if failed < lines || lines == 0 {
            NextProbe {
                wait: self.first_wait,
                lines: self.size.saturating_mul(2),
            }
        } else {
            NextProbe {
                wait: self.paused.clamp(self.first_wait, self.first_wait * 12),
                lines: PROBE_LINES,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent(jobs: &[(i64, &str, u64, u64)]) -> RecentLines {
        let lines = |(job, client, lines, failed): &(i64, &str, u64, u64)| JobLines {
            job: *job,
            client: (*client).to_owned(),
            counts: LineCounts {
                lines: *lines,
                failed: *failed,
            },
        };
        RecentLines {
            jobs: jobs.iter().map(lines).collect(),
        }
    }

    #[test]
    fn an_outage_is_seen_in_fifty_lines_of_two_jobs_and_of_two_clients_if_two_have_work() {
        for (jobs, clients, expected) in [
            (&[(1, "a", 40, 40), (2, "a", 10, 10)][..], 1, true),
            (&[(1, "a", 40, 40), (2, "b", 10, 10)], 2, true),
            (&[(1, "a", 40, 24), (2, "b", 10, 6)], 2, true),
            (&[(1, "a", 40, 40), (2, "a", 10, 10)], 2, false),
            (&[(1, "a", 40, 40), (2, "a", 9, 9)], 1, false),
            (&[(1, "a", 10_000, 10_000)], 1, false),
            // One job fails, and the other one shows that the model works.
            (&[(1, "a", 10_000, 10_000), (2, "b", 50, 1)], 2, false),
            (&[(1, "a", 50, 10), (2, "b", 50, 10)], 2, false),
            (&[(1, "a", 50, 11), (2, "b", 50, 11)], 2, true),
        ] {
            assert_eq!(recent(jobs).is_outage(clients), expected, "{jobs:?} {clients}");
        }
    }

    #[test]
    fn older_lines_are_added_to_their_job() {
        let mut lines = recent(&[(1, "a", 10, 5)]);
        lines.add(recent(&[(1, "a", 2, 1), (2, "b", 38, 0)]).jobs);
        assert_eq!(lines, recent(&[(1, "a", 12, 6), (2, "b", 38, 0)]));
        assert!(lines.is_enough(2));
        assert_eq!(lines.counts().percent(), 12);
    }

    #[test]
    fn a_probe_ends_or_prolongs_the_pause() {
        let minutes = Duration::from_mins;
        for (lines, failed, paused, expected) in [
            (10, 0, 5, None),
            (10, 2, 5, None),
            (10, 3, 90, Some((5, 20))),
            (10, 9, 90, Some((5, 20))),
            (10, 10, 1, Some((5, 10))),
            (10, 10, 25, Some((25, 10))),
            (10, 10, 900, Some((60, 10))),
            (9, 0, 5, Some((5, 20))),
            (0, 0, 900, Some((5, 20))),
        ] {
            let probe = EndedProbe {
                counts: LineCounts { lines, failed },
                size: 10,
                paused: minutes(paused),
                first_wait: minutes(5),
            };
            let expected = match expected {
                None => ProbeDecision::End,
                Some((wait, lines)) => ProbeDecision::Continue(NextProbe {
                    wait: minutes(wait),
                    lines,
                }),
            };
            assert_eq!(probe.decide(), expected, "{failed} of {lines} after {paused}");
        }
    }

    #[test]
    fn each_batch_has_its_verdict() {
        let first_wait = Duration::from_mins(5);
        let failing = recent(&[(1, "a", 40, 40), (2, "b", 10, 10)]);
        let working = recent(&[(1, "a", 40, 0), (2, "b", 10, 0)]);
        let lines = |all: &RecentLines, ran, setting| BatchLines {
            first: all.jobs.clone(),
            all: all.counts(),
            ran,
            setting,
            setting_error: None,
        };
        let next = |lines| NextProbe {
            wait: first_wait,
            lines,
        };
        let probed = FoundPause::Probed {
            size: 10,
            paused: Duration::ZERO,
        };
        for (lines, recent, model, expected) in [
            (
                lines(&failing, 0, None),
                &failing,
                FoundPause::None,
                (BatchVerdict::Outage, ModelDecision::Pause(next(10))),
            ),
            (
                lines(&working, 50, None),
                &working,
                FoundPause::None,
                (BatchVerdict::Sound, ModelDecision::Resume),
            ),
            (
                lines(&working, 50, None),
                &working,
                FoundPause::Later,
                (BatchVerdict::Outage, ModelDecision::Keep),
            ),
            (
                lines(&working, 50, None),
                &working,
                probed,
                (BatchVerdict::Recovered, ModelDecision::Resume),
            ),
            (
                lines(&failing, 0, None),
                &failing,
                probed,
                (BatchVerdict::Outage, ModelDecision::Pause(next(10))),
            ),
            (
                lines(&working, 0, Some(Setting::Model)),
                &working,
                probed,
                (BatchVerdict::Misconfigured, ModelDecision::Keep),
            ),
            // Some lines ran, so the setting is right.
            (
                lines(&working, 1, Some(Setting::Model)),
                &working,
                FoundPause::None,
                (BatchVerdict::Sound, ModelDecision::Resume),
            ),
            (
                BatchLines::default(),
                &failing,
                FoundPause::None,
                (BatchVerdict::Sound, ModelDecision::Keep),
            ),
        ] {
            let batch = EndedBatch {
                lines: &lines,
                recent,
                clients: 2,
                model,
                first_wait,
            };
            assert_eq!(batch.decide(), expected, "{lines:?} {model:?}");
        }
    }

    #[test]
    fn a_probe_of_lines_that_have_all_failed_before_is_judged_by_them() {
        let lines = BatchLines {
            all: LineCounts {
                lines: 10,
                failed: 10,
            },
            ..BatchLines::default()
        };
        assert_eq!(lines.judged().failed, 10);
    }
}
