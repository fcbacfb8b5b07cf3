//! The first page: the state of everything at a glance.

use std::time::Duration;

use maud::{Markup, html};

use super::chart::{Span, chart};
use super::components::{brief, dollars, duration, number, text};
use super::tables::{ACTIVE_JOBS, DELIVERIES, JOBS, OBSTACLES, WORKING_BATCHES};
use super::{RequestError, StatusPage};
use crate::domain::job::RequestState;
use crate::domain::money::Money;
use crate::ops::waits::waiting_work;
use crate::store::money;
use crate::store::status::{self, BatchSummary, Delivery, Interval, JobSummary};

/// The rows of the overview.
struct Rows {
    chart: Vec<Interval>,
    day: Interval,
    jobs: Vec<JobSummary>,
    ended: Vec<JobSummary>,
    batches: Vec<BatchSummary>,
    webhooks: Vec<Delivery>,
    lines: u64,
    today: Money,
    month: Money,
}

impl StatusPage<'_> {
    /// The parts of the overview.
    pub(super) fn overview(&self, span: Span) -> Result<Vec<Markup>, RequestError> {
        let now = self.wall();
        let today = now.to_day_text();
        // 2026-11-24 becomes 2026-11.
        let month = today.rsplit_once('-').map_or("", |(month, _)| month);
        let rows = self.store.read(|view| {
            let day = status::intervals(view, now, 30, 48)?;
            Ok(Rows {
                chart: status::intervals(view, now, span.minutes, span.bars)?,
                day: day.iter().fold(Interval::default(), Interval::plus),
                jobs: status::active_jobs(view)?,
                ended: status::ended_jobs(view, 8)?,
                batches: status::active_batches(view)?,
                webhooks: status::deliveries(view, 8)?,
                lines: status::active_lines(view)?,
                today: money::spent(view, None, &today)?,
                month: money::spent(view, None, month)?,
            })
        })?;
        let nothing_yet = self.figures.jobs.is_empty();
        let mut parts = vec![self.cards(&rows)];
        parts.extend(self.open_alerts()?);
        if nothing_yet {
            parts.push(welcome(&self.config.listen));
            return Ok(parts);
        }
        parts.push(chart(&rows.chart, span));
        let waiting = waiting_work(self.store, self.config, &self.figures, self.now)?;
        parts.push(self.table("Waiting work", OBSTACLES, &waiting, "No work waits."));
        let empty = "No job is active.";
        parts.push(self.table("Active jobs", ACTIVE_JOBS, &rows.jobs, empty));
        let empty = "No batch is at OpenAI or on its way there.";
        parts.push(self.table("Active batches", WORKING_BATCHES, &rows.batches, empty));
        let empty = "No job has ended yet.";
        parts.push(self.table("Last ended jobs", JOBS, &rows.ended, empty));
        let empty = "There is no webhook yet.";
        parts.push(self.table("The newest webhooks", DELIVERIES, &rows.webhooks, empty));
        parts.push(self.threads());
        Ok(parts)
    }

    fn requests(&self, state: RequestState) -> u64 {
        let found = self.figures.requests.iter().find(|(known, _)| *known == state);
        found.map_or(0, |(_, number)| *number)
    }

    fn deliveries(&self, state: &str) -> u64 {
        let found = self.figures.deliveries.iter().find(|(known, _)| known == state);
        found.map_or(0, |(_, number)| *number)
    }

    fn cards(&self, rows: &Rows) -> Markup {
        let jobs: u64 = self
            .figures
            .jobs
            .iter()
            .filter(|(status, _)| !status.is_final())
            .map(|(_, number)| number)
            .sum();
        let waiting = self.requests(RequestState::Waiting);
        let Interval {
            uncached_tokens: uncached,
            cached_tokens: cached,
            output_tokens: output,
            ..
        } = rows.day;
        let mean = rows.day.mean().map(Duration::from_millis);
        let oldest = self.age(self.figures.waiting_since);
        let card = |name: &str, value: String, more: Markup| {
            html! { div class="card" { dt { (name) } dd { (value) } dd class="more" { (more) } } }
        };
        html! {
            dl class="cards" {
                (card("Active jobs", number(jobs), html! { (brief(rows.day.lots())) " lots in 24 hours" }))
                (card("Requests waiting", brief(waiting), html! {
                    @if let Some(age) = oldest { "oldest " (duration(age)) "; " }
                    (brief(rows.lines)) " in batches"
                }))
                (card("Webhooks due", number(self.deliveries("due")), html! {
                    (number(self.deliveries("failed"))) " abandoned"
                }))
                (card("Time to a result", mean.map_or_else(|| "–".to_owned(), duration), html! {
                    "mean of 24 hours"
                }))
                (card("Tokens, 24 hours", brief(uncached + cached + output), html! {
                    (brief(uncached)) " in, " (brief(cached)) " cached, " (brief(output)) " out"
                }))
                (card("Spent today", dollars(rows.today), html! { (dollars(rows.month)) " this month" }))
            }
        }
    }

    pub(super) fn threads(&self) -> Markup {
        let late_threads = self.health.late_threads(self.now.steady);
        let mut threads = self.health.threads();
        threads.sort_by_cached_key(|thread| natural_order(&thread.thread));
        html! {
            h2 { "Threads" }
            ul class="threads" {
                @for thread in threads {
                    @let late = late_threads.iter().find(|(name, _)| *name == thread.thread);
                    @let problem = thread.error.as_deref().or(late.map(|(_, reason)| reason.as_str()));
                    li class=(if problem.is_some() { "bad" } else { "good" }) {
                        span class="dot" {}
                        (text(&thread.thread))
                        span class="unseen" { ": " (problem.map_or_else(|| "ticks".to_owned(), text)) }
                    }
                }
            }
        }
    }
}

/// A name and the number at its end, so that 2 comes before 10.
fn natural_order(name: &str) -> (String, u64) {
    let word = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (word.to_owned(), name[word.len()..].parse().unwrap_or(0))
}

/// The overview before the first job. `listen` is the address of the client API.
fn welcome(listen: &str) -> Markup {
    let address = match listen.rsplit_once(':') {
        Some(("0.0.0.0" | "[::]", port)) => format!("127.0.0.1:{port}"),
        _ => listen.to_owned(),
    };
    html! {
        div class="welcome" {
            h2 { "Ready for the first job" }
            p { "Everything runs; nothing has been sent yet. Sign a request with a client's key and post it:" }
            pre tabindex="0" {
                code { (FIRST_REQUEST) " http://" (address) "/api/v1/generate-descriptions" }
            }
            p { "It appears here by itself." }
        }
    }
}

const FIRST_REQUEST: &str = "\
curl -H \"$(batchkeeper sign job.json | head -n 1)\" -H 'Content-Type: application/json' \\\n     \
--data-binary @job.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_in_the_order_of_their_numbers() {
        let mut names = [
            "webhook_sender 10",
            "webhook_sender 2",
            "poller",
            "webhook_sender 1",
        ];
        names.sort_by_cached_key(|name| natural_order(name));
        assert_eq!(
            names,
            [
                "poller",
                "webhook_sender 1",
                "webhook_sender 2",
                "webhook_sender 10"
            ]
        );
    }

    #[test]
    fn the_first_request_names_the_configured_address() {
        for (listen, shown) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("0.0.0.0:9000", "http://127.0.0.1:9000/"),
            ("10.0.0.5:80", "http://10.0.0.5:80/"),
        ] {
            assert!(welcome(listen).0.contains(shown), "{listen}");
        }
    }
}
