//! The operators' pages for a browser. They are complete without their script. The script fetches the same page
//! again and replaces the parts that have changed.

use std::time::Duration;

use maud::{DOCTYPE, Markup, html};

use super::answers::{RequestError, no_such_path};
use super::auth::Operator;
use super::health::Health;
use crate::base::clock::{Moment, Timestamp};
use crate::config::Config;
use crate::domain::alert::AlertSubject;
use crate::domain::alert_words::{MessagePart, message_parts};
use crate::domain::decide::health_line::{self, HealthFacts};
use crate::domain::operator_action::ActionKind;
use crate::http::{Request, Response};
use crate::store::figures::Figures;
use crate::store::{Store, alerts, status};
use chart::Span;
use components::{Column, table, text, time};
use controls::Query;

mod action;
mod batch;
mod chart;
mod components;
mod controls;
mod cost_chart;
mod costs;
mod job;
mod lists;
mod lot;
mod overview;
mod rows;
mod settings;
mod tables;

/// The pages load nothing from other hosts, have no inline code and no frames, and send forms to themselves alone.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
    img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The pages of the navigation.
const NAVIGATION: [(&str, &str); 9] = [
    ("/", "Overview"),
    ("/jobs", "Jobs"),
    ("/batches", "Batches"),
    ("/webhooks", "Webhooks"),
    ("/alerts", "Alerts"),
    ("/events", "Events"),
    ("/costs", "Costs"),
    ("/audit", "Audit"),
    ("/settings", "Settings"),
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

/// What a path shows.
enum Content {
    /// A page of these parts. A page without a heading of its own gets its title as one, for screen readers.
    Page {
        title: String,
        has_heading: bool,
        parts: Vec<Markup>,
    },
    /// A redirection to another path.
    Elsewhere(String),
    /// A file of comma-separated values.
    Csv(String),
}

impl Content {
    fn list(title: &str, parts: Vec<Markup>) -> Self {
        Self::Page {
            title: title.to_owned(),
            has_heading: false,
            parts,
        }
    }

    fn object(title: String, parts: Vec<Markup>) -> Self {
        Self::Page {
            title,
            has_heading: true,
            parts,
        }
    }
}

/// The operators' pages at one moment.
pub(super) struct StatusPage<'a> {
    pub(super) store: &'a Store,
    pub(super) health: &'a Health,
    pub(super) config: &'a Config,
    /// The figures, which may be some seconds old.
    pub(super) figures: Figures,
    pub(super) now: Moment,
    pub(super) operator: &'a Operator,
}

impl StatusPage<'_> {
    /// The page that a request asks for.
    pub(super) fn answer(&self, request: &Request) -> Result<Response, RequestError> {
        let (path, query) = (request.path.as_str(), Query::new(request));
        let content = self.content(path, &query)?;
        let content = content.ok_or_else(|| no_such_path(path))?;
        match content {
            Content::Page {
                title,
                has_heading,
                parts,
            } => self.document(200, path, (&title, has_heading), &parts),
            Content::Elsewhere(place) => {
                let response = Response::bytes(303, "text/plain; charset=utf-8", Vec::new());
                Ok(response.with_header("Location", &place))
            }
            Content::Csv(text) => Ok(Response::bytes(200, "text/csv; charset=utf-8", text.into_bytes())
                .with_header("Content-Disposition", "attachment; filename=\"costs.csv\"")),
        }
    }

    fn content(&self, path: &str, query: &Query<'_>) -> Result<Option<Content>, RequestError> {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        Ok(match *segments.as_slice() {
            [""] => Some(Content::list(
                "Overview",
                self.overview(Span::of(query.text("span").as_deref()))?,
            )),
            ["jobs"] => Some(self.jobs(query)?),
            ["batches"] => Some(self.batches(query)?),
            ["webhooks"] => Some(self.webhooks(query)?),
            ["alerts"] => Some(self.alerts(query)?),
            ["events"] => Some(self.events(query)?),
            ["audit"] => Some(self.audit(query)?),
            ["costs"] => Some(self.costs(query)?),
            ["costs.csv"] => Some(self.costs_csv(query)?),
            ["settings"] => Some(self.settings()?),
            ["search"] => Some(self.search(query)?),
            ["jobs", id] => self.job(id, query)?,
            ["jobs", id, "lots", position] => match position.parse() {
                Ok(position) => self.lot(id, position)?,
                Err(_) => None,
            },
            ["batches", id] => match id.parse() {
                Ok(id) => self.batch(id, query)?,
                Err(_) => None,
            },
            _ => None,
        })
    }

    /// The page about a request that is refused.
    pub(super) fn refusal(&self, status: u16, message: &str) -> Result<Response, RequestError> {
        let title = match status {
            404 => "Not found",
            _ => "This does not work",
        };
        let part = html! { h1 { (title) } p { (text(message)) } p { a href="/" { "To the overview" } } };
        self.document(status, "", (title, true), &[part])
    }

    fn wall(&self) -> Timestamp {
        self.now.wall
    }

    fn table<R>(&self, caption: &str, columns: &[Column<R>], rows: &[R], empty: &str) -> Markup {
        table(caption, columns, rows, empty, self.wall())
    }

    /// The open alerts, the most severe first, each with the commands that fix it; `None` if there is none.
    fn open_alerts(&self) -> Result<Option<Markup>, RequestError> {
        let mut open = self.store.read(|view| alerts::list(view, true, 50))?;
        if open.is_empty() {
            return Ok(None);
        }
        open.sort_by_key(|alert| std::cmp::Reverse(alert.kind.severity()));
        Ok(Some(html! {
            h2 { "Open alerts" }
            ul class="alerts" {
                @for alert in open {
                    @let severity = alert.kind.severity().as_str();
                    li class=(severity) {
                        p class="what" {
                            span class={ "badge " (severity) } { (severity) } " "
                            strong { (alert.kind.title()) } " "
                            (alert_subject(&alert.subject)) " "
                            span class="since" { (time(alert.opened_at, self.wall())) }
                            @if let Some(at) = alert.acknowledged_at {
                                " · acknowledged " (time(at, self.wall()))
                            } @else if self.operator.may_act {
                                " · " a href=(action::address(ActionKind::AcknowledgeAlert, &alert.id.to_string())) {
                                    "Acknowledge …"
                                }
                            }
                        }
                        p { (message(&alert.message)) }
                    }
                }
            }
        }))
    }

    /// How well it goes, in a class and a sentence. Screen readers read it when it changes.
    fn verdict(&self) -> Result<(&'static str, String), RequestError> {
        let mut facts = self.store.read(|view| {
            let day = status::intervals(view, self.wall(), 30, 48)?;
            let day = day
                .iter()
                .fold(status::Interval::default(), status::Interval::plus);
            let alerts = alerts::count_open(view)?.into_iter();
            let paused = status::paused_scopes(view)?;
            Ok(HealthFacts {
                alerts: alerts.map(|(kind, number)| (kind.severity(), number)).collect(),
                pauses: paused
                    .iter()
                    .map(|pause| text(&pause.scope.to_string()))
                    .collect(),
                failing_receivers: status::count_failing_receivers(view)?,
                failed_lots: day.failed,
                ended_lots: day.lots(),
                ..HealthFacts::default()
            })
        })?;
        facts.storage_error = self.health.storage_error().map(|error| text(&error));
        let late = self.health.late_threads(self.now.steady).into_iter().next();
        facts.thread = late.map(|(thread, reason)| (text(&thread), text(&reason)));
        let (health, sentence) = health_line::decide(&facts);
        let class = match health {
            health_line::Health::Good => "good",
            health_line::Health::Attention => "paused",
            health_line::Health::Bad => "bad",
        };
        Ok((class, sentence))
    }

    /// The whole document around the parts of a page.
    fn document(
        &self,
        status: u16,
        path: &str,
        (title, has_heading): (&str, bool),
        parts: &[Markup],
    ) -> Result<Response, RequestError> {
        let is_here = |place: &str| place == path || (place != "/" && path.starts_with(&format!("{place}/")));
        let (tone, verdict) = self.verdict()?;
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
                        form class="find" method="get" action="/search" role="search" aria-label="Find" {
                            input type="search" name="q" aria-label="Id of a job, lot, batch or file, or a client's reference"
                                placeholder="Find an id" required;
                            button { "Find" }
                        }
                        p id="verdict" class=(tone) role="status" { span class="dot" {} (verdict) }
                    }
                    main id="main" tabindex="-1" {
                        // The page of one thing begins with its own heading.
                        @if !has_heading { h1 class="unseen" { (title) } }
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
        Ok(Response::bytes(status, "text/html; charset=utf-8", body)
            .with_header("Content-Security-Policy", POLICY)
            .with_header("Referrer-Policy", "no-referrer"))
    }

    /// How long ago a time was.
    fn age(&self, since: Option<Timestamp>) -> Option<Duration> {
        since.map(|since| self.wall().since(since))
    }
}

/// An alert's message, with its commands set apart.
fn message(message: &str) -> Markup {
    html! {
        @for part in message_parts(message) {
            @match part {
                MessagePart::Text(words) => { (text(words)) }
                MessagePart::Command(command) => { code class="command" { (text(command)) } }
            }
        }
    }
}

/// An alert's subject; that of a batch is a link to its page.
fn alert_subject(subject: &AlertSubject) -> Markup {
    html! {
        @match subject {
            AlertSubject::Batch(id) | AlertSubject::Usage(id) => {
                a href={ "/batches/" (id) } { "batch " (id) }
            }
            subject => { (text(&subject.to_string())) }
        }
    }
}
