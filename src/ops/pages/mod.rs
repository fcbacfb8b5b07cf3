//! The status page for a browser. It is complete without its script. The script fetches the same page again
//! and replaces the parts that have changed.

use std::time::Duration;

use maud::{DOCTYPE, Markup, html};

use super::answers::{RequestError, no_such_path};
use super::health::Health;
use crate::base::clock::{Moment, Timestamp};
use crate::config::Config;
use crate::domain::alert::{AlertSubject, PauseScope};
use crate::http::Response;
use crate::store::figures::Figures;
use crate::store::status::Costs;
use crate::store::{Store, alerts, status};
use chart::Span;
use components::{Column, facts, table, text, time};
use tables::{
    ACTIVE_JOBS, ATTEMPTS, BATCH, BATCHES, CLOSED_ALERTS, COSTS, DELIVERIES, ENDED_JOBS, EVENTS_OF_BATCH,
    EVENTS_OF_JOB, FAILED_LOTS, JOB, JOBS_OF_BATCH, LINES_BY_OUTCOME, WORKING_BATCHES,
};

mod chart;
mod components;
mod overview;
mod tables;

/// The pages load nothing from other hosts, and have no inline code, frames or forms.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The pages of the navigation.
const NAVIGATION: [(&str, &str); 5] = [
    ("/", "Overview"),
    ("/jobs", "Jobs"),
    ("/batches", "Batches"),
    ("/webhooks", "Webhooks"),
    ("/alerts", "Alerts"),
];

/// The style, script or icon at a path.
pub(super) fn file(path: &str) -> Option<Response> {
    let (media_type, content) = match path {
        "/status.css" => ("text/css; charset=utf-8", include_str!("status.css")),
        "/status.js" => ("text/javascript; charset=utf-8", include_str!("status.js")),
        "/status.svg" => ("image/svg+xml", include_str!("status.svg")),
        _ => return None,
    };
    Some(Response::bytes(200, media_type, content.as_bytes().to_vec()))
}

/// The status page at one moment.
pub(super) struct StatusPage<'a> {
    pub(super) store: &'a Store,
    pub(super) health: &'a Health,
    pub(super) config: &'a Config,
    /// The figures, which may be some seconds old.
    pub(super) figures: Figures,
    pub(super) now: Moment,
}

impl StatusPage<'_> {
    /// The page at `path`. `span` is how far back the chart goes.
    pub(super) fn answer(&self, path: &str, span: Option<&str>) -> Result<Response, RequestError> {
        let nothing = || no_such_path(path);
        let (title, parts) = match path.trim_start_matches('/').split_once('/') {
            None => match path {
                "/" => ("Overview".to_owned(), self.overview(Span::of(span))?),
                "/jobs" => ("Jobs".to_owned(), self.jobs()?),
                "/batches" => ("Batches".to_owned(), self.batches()?),
                "/webhooks" => ("Webhooks".to_owned(), self.webhooks()?),
                "/alerts" => ("Alerts".to_owned(), self.alerts()?),
                _ => return Err(nothing().into()),
            },
            Some(("jobs", id)) => (format!("Job {}", text(id)), self.job(id)?.ok_or_else(nothing)?),
            Some(("batches", id)) => {
                let id = id.parse().map_err(|_| nothing())?;
                (format!("Batch {id}"), self.batch(id)?.ok_or_else(nothing)?)
            }
            Some(_) => return Err(nothing().into()),
        };
        Ok(self.document(path, &title, &parts))
    }

    fn wall(&self) -> Timestamp {
        self.now.wall
    }

    fn table<R>(&self, caption: &str, columns: &[Column<R>], rows: &[R], empty: &str) -> Markup {
        table(caption, columns, rows, empty, self.wall())
    }

    fn jobs(&self) -> Result<Vec<Markup>, RequestError> {
        let (open, ended) = self
            .store
            .read(|view| Ok((status::active_jobs(view)?, status::ended_jobs(view, 200)?)))?;
        let (no_open, no_ended) = ("No job is active.", "No job has ended yet.");
        Ok(vec![
            self.table("Active", ACTIVE_JOBS, &open, no_open),
            self.table("Ended", ENDED_JOBS, &ended, no_ended),
        ])
    }

    fn batches(&self) -> Result<Vec<Markup>, RequestError> {
        let rows = self.store.read(status::batches)?;
        let (caption, empty) = ("The newest 200 batches", "There is no batch yet.");
        Ok(vec![self.table(caption, BATCHES, &rows, empty)])
    }

    fn webhooks(&self) -> Result<Vec<Markup>, RequestError> {
        let rows = self.store.read(|view| status::deliveries(view, 200))?;
        let (caption, empty) = ("The newest 200 webhooks", "There is no webhook yet.");
        Ok(vec![self.table(caption, DELIVERIES, &rows, empty)])
    }

    fn alerts(&self) -> Result<Vec<Markup>, RequestError> {
        let closed = self.store.read(status::closed_alerts)?;
        let open = self.open_alerts()?;
        let none = || html! { h2 { "Open" } p class="empty" { "No alert is open." } };
        let no_closed = "No alert was ever closed.";
        Ok(vec![
            open.unwrap_or_else(none),
            self.table("Closed", CLOSED_ALERTS, &closed, no_closed),
        ])
    }

    /// The open alerts, each with the command that fixes it; `None` if there is none.
    fn open_alerts(&self) -> Result<Option<Markup>, RequestError> {
        let open = self.store.read(|view| alerts::list(view, true, 50))?;
        if open.is_empty() {
            return Ok(None);
        }
        Ok(Some(html! {
            h2 { "Open alerts" }
            ul class="alerts" {
                @for alert in open {
                    li {
                        p class="what" {
                            strong { (alert.kind.as_str()) } " " (alert_subject(&alert.subject)) " "
                            span class="since" { (time(alert.opened_at, self.wall())) }
                        }
                        p { (text(&alert.message)) }
                    }
                }
            }
        }))
    }

    fn job(&self, id: &str) -> Result<Option<Vec<Markup>>, RequestError> {
        self.store
            .read(|view| {
                let Some(job) = status::job(view, id)? else {
                    return Ok(None);
                };
                let batches = status::batches_of_job(view, id)?;
                let costs = status::costs_of_job(view, id)?;
                let attempts = status::attempts_of_job(view, id)?;
                let lots = status::failed_lots(view, id)?;
                let events = status::events_of_job(view, id)?;
                Ok(Some(vec![
                    html! { h1 { "Job " span class="id" { (text(id)) } } (facts(JOB, &job, self.wall())) },
                    self.table(
                        "Batches that work for it",
                        WORKING_BATCHES,
                        &batches,
                        "No batch works for it yet.",
                    ),
                    self.costs(costs.as_ref()),
                    self.table(
                        "Webhooks and their attempts",
                        ATTEMPTS,
                        &attempts,
                        "It has no webhook.",
                    ),
                    self.table(
                        "Lots that failed (the first 50)",
                        FAILED_LOTS,
                        &lots,
                        "No lot has failed.",
                    ),
                    self.table(
                        "Events, newest first",
                        EVENTS_OF_JOB,
                        &events,
                        "Nothing has happened yet.",
                    ),
                ]))
            })
            .map_err(RequestError::from)
    }

    fn batch(&self, id: i64) -> Result<Option<Vec<Markup>>, RequestError> {
        self.store
            .read(|view| {
                let Some(batch) = status::batch(view, id)? else {
                    return Ok(None);
                };
                let jobs = status::jobs_of_batch(view, id)?;
                let lines = status::lines_by_outcome(view, id)?;
                let costs = status::costs_of_batch(view, id)?;
                let events = status::events_of_batch(view, id)?;
                Ok(Some(vec![
                    html! { h1 { "Batch " (id) } (facts(BATCH, &batch, self.wall())) },
                    self.table("Jobs it works for", JOBS_OF_BATCH, &jobs, "It works for no job."),
                    self.table("Lines by outcome", LINES_BY_OUTCOME, &lines, "It has no line."),
                    self.costs(costs.as_ref()),
                    self.table(
                        "Events, newest first",
                        EVENTS_OF_BATCH,
                        &events,
                        "Nothing has happened yet.",
                    ),
                ]))
            })
            .map_err(RequestError::from)
    }

    fn costs(&self, costs: Option<&Costs>) -> Markup {
        html! {
            h2 { "What it cost" }
            @if let Some(costs) = costs { (facts(COSTS, costs, self.wall())) }
        }
    }

    /// The class of the most urgent problem, and a sentence about it. Screen readers read it when it changes.
    fn verdict(&self) -> (&'static str, String) {
        let open: u64 = self.figures.alerts.iter().map(|(_, number)| number).sum();
        let late = self.health.late_threads(self.now.steady);
        match (open, late.first(), self.health.storage_error()) {
            (_, _, Some(error)) => ("bad", format!("Nothing can be stored: {}", text(&error))),
            (_, Some((thread, reason)), _) => ("bad", format!("Thread {} {}", text(thread), text(reason))),
            (1, ..) => ("bad", "One alert is open".to_owned()),
            (2.., ..) => ("bad", format!("{open} alerts are open")),
            _ if !self.figures.pauses.is_empty() => {
                ("paused", format!("Paused: {}", text(&self.paused_scopes())))
            }
            _ => ("good", "All is well".to_owned()),
        }
    }

    fn paused_scopes(&self) -> String {
        let scopes = self.figures.pauses.iter().map(PauseScope::to_string);
        scopes.collect::<Vec<_>>().join(", ")
    }

    /// The whole document around the parts of a page.
    fn document(&self, path: &str, title: &str, parts: &[Markup]) -> Response {
        let is_list = NAVIGATION.iter().any(|(place, _)| *place == path);
        let is_here = |place: &str| place == path || (place != "/" && path.starts_with(&format!("{place}/")));
        let (tone, verdict) = self.verdict();
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    title { (title) " · batchkeeper" }
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    link rel="icon" href="/status.svg";
                    link rel="stylesheet" href="/status.css";
                    script src="/status.js" defer {}
                }
                body {
                    a class="skip" href="#main" { "To the content" }
                    header {
                        a class="name" href="/" {
                            img src="/status.svg" alt="" width="24" height="24"; "batchkeeper"
                        }
                        nav aria-label="Pages" {
                            @for (place, name) in NAVIGATION {
                                a href=(place) aria-current=[is_here(place).then_some("page")] { (name) }
                            }
                        }
                        p id="verdict" class=(tone) role="status" { span class="dot" {} (verdict) }
                    }
                    main id="main" tabindex="-1" {
                        // The page of a job or batch begins with its own heading.
                        @if is_list { h1 class="unseen" { (title) } }
                        @for (number, part) in (0u32..).zip(parts) {
                            section id={ "part-" (number) } { (part) }
                        }
                    }
                    footer { p {
                        "batchkeeper " (env!("CARGO_PKG_VERSION")) " · " a href="/metrics" { "metrics" } " · "
                        a href="/health" { "health" } " · " a href="/openapi.json" { "API" } " · "
                        span id="live" { "as of " (self.wall().to_seconds_text()) }
                    } }
                }
            }
        };
        let body = page.into_string().into_bytes();
        Response::bytes(200, "text/html; charset=utf-8", body)
            .with_header("Content-Security-Policy", POLICY)
            .with_header("Referrer-Policy", "no-referrer")
    }

    /// How long ago a time was.
    fn age(&self, since: Option<Timestamp>) -> Option<Duration> {
        since.map(|since| self.wall().since(since))
    }
}

/// An alert's subject; that of a batch is a link to its page.
fn alert_subject(subject: &AlertSubject) -> Markup {
    html! {
        @match subject {
            AlertSubject::Batch(id) => { a href={ "/batches/" (id) } { "batch " (id) } }
            subject => { (text(&subject.to_string())) }
        }
    }
}
