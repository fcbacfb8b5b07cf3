//! The pages that list jobs, batches, webhooks, alerts and events, and what a search has found.

use maud::{Markup, html};

use super::components::{Column, number, text};
use super::controls::{Filter, Query, filter_form, pager};
use super::tables::{BATCHES, CLOSED_ALERTS, DELIVERIES, EVENTS, FOUND_LOTS, JOBS};
use super::{Content, RequestError, StatusPage};
use crate::domain::alert::AlertKind;
use crate::domain::batch::{BatchState, Stage};
use crate::domain::job::JobStatus;
use crate::store::status::listing::{
    self, AlertsFilter, BatchesFilter, DeliveriesFilter, EventsFilter, JobsFilter, Page,
};
use crate::store::status::{self, MOST_FOUND};

/// The states of a webhook delivery.
const DELIVERY_STATES: [&str; 4] = ["scheduled", "due", "delivered", "failed"];

impl StatusPage<'_> {
    /// A list with the links to its other pages.
    pub(super) fn list<R>(
        &self,
        path: &str,
        (caption, columns): (&str, &[Column<R>]),
        filters: &[Filter],
        page: &Page<R>,
    ) -> Markup {
        html! {
            (self.table(caption, columns, &page.rows, "There is none."))
            @if let Some(links) = pager(path, filters, page) { (links) }
        }
    }

    pub(super) fn jobs(&self, query: &Query<'_>) -> Result<Content, RequestError> {
        let status = query.parsed("status", "a job's status", |text| text.parse::<JobStatus>().ok())?;
        let client = query.text("client");
        let metadata = query.text("metadata");
        let clients = self.config.clients.iter().map(|client| &client.name);
        let filters = [
            Filter::choice("status", "status", JobStatus::ALL, status.map(JobStatus::as_str)),
            Filter::choice("client", "client", clients, client.as_deref()),
            Filter::text("metadata", "value of its metadata", metadata.clone()),
            Filter::since(query),
        ];
        let filter = JobsFilter {
            status,
            client,
            metadata,
            since: query.day("since")?,
        };
        let cursor = query.cursor()?;
        let page = self
            .store
            .read(|view| listing::jobs_page(view, &filter, cursor))?;
        let list = self.list("/jobs", ("Jobs, newest first", JOBS), &filters, &page);
        Ok(Content::list("Jobs", vec![filter_form("/jobs", &filters), list]))
    }

    pub(super) fn batches(&self, query: &Query<'_>) -> Result<Content, RequestError> {
        let state = query.parsed("state", "a batch's state", |text| text.parse::<BatchState>().ok())?;
        let stage = query.parsed("stage", "a stage", |text| text.parse::<Stage>().ok())?;
        let filters = [
            Filter::choice("state", "state", BatchState::ALL, state.map(BatchState::as_str)),
            Filter::choice("stage", "stage", Stage::ALL, stage.map(Stage::as_str)),
            Filter::since(query),
        ];
        let since = query.day("since")?;
        let filter = BatchesFilter { state, stage, since };
        let cursor = query.cursor()?;
        let page = self
            .store
            .read(|view| listing::batches_page(view, &filter, cursor))?;
        let list = self.list("/batches", ("Batches, newest first", BATCHES), &filters, &page);
        Ok(Content::list(
            "Batches",
            vec![filter_form("/batches", &filters), list],
        ))
    }

    pub(super) fn webhooks(&self, query: &Query<'_>) -> Result<Content, RequestError> {
        let known = |text: &str| DELIVERY_STATES.contains(&text).then(|| text.to_owned());
        let state = query.parsed("state", "a delivery's state", known)?;
        let receiver = query.text("receiver");
        let filters = [
            Filter::choice("state", "state", DELIVERY_STATES, state.as_deref()),
            Filter::text("receiver", "receiver (host:port)", receiver.clone()),
            Filter::since(query),
        ];
        let since = query.day("since")?;
        let filter = DeliveriesFilter {
            state,
            receiver,
            since,
        };
        let cursor = query.cursor()?;
        let page = self
            .store
            .read(|view| listing::deliveries_page(view, &filter, cursor))?;
        let columns = self.with_delivery_action(DELIVERIES);
        let list = self.list("/webhooks", ("Webhooks, newest first", &columns), &filters, &page);
        Ok(Content::list(
            "Webhooks",
            vec![
                filter_form("/webhooks", &filters),
                self.receiver_actions(filter.receiver.as_deref(), since, page.rows.first()),
                list,
            ],
        ))
    }

    pub(super) fn alerts(&self, query: &Query<'_>) -> Result<Content, RequestError> {
        let kind = query.parsed("kind", "a kind of alert", |text| text.parse::<AlertKind>().ok())?;
        let filters = [
            Filter::choice("kind", "kind", AlertKind::ALL, kind.map(AlertKind::as_str)),
            Filter::since(query),
        ];
        let since = query.day("since")?;
        let cursor = query.cursor()?;
        let filter = AlertsFilter { kind, since };
        let page = self
            .store
            .read(|view| listing::closed_alerts_page(view, &filter, cursor))?;
        let none = html! { h2 { "Open alerts" } p class="empty" { "No alert is open." } };
        let open = self.open_alerts()?.unwrap_or(none);
        let closed = self.list(
            "/alerts",
            ("Closed alerts, newest first", CLOSED_ALERTS),
            &filters,
            &page,
        );
        Ok(Content::list(
            "Alerts",
            vec![
                open,
                self.pause_actions(),
                filter_form("/alerts", &filters),
                closed,
            ],
        ))
    }

    pub(super) fn events(&self, query: &Query<'_>) -> Result<Content, RequestError> {
        let kind = query.text("kind");
        let filters = [Filter::text("kind", "kind", kind.clone()), Filter::since(query)];
        let filter = EventsFilter {
            kind,
            since: query.day("since")?,
        };
        let cursor = query.cursor()?;
        let page = self
            .store
            .read(|view| listing::events_page(view, &filter, cursor))?;
        let list = self.list("/events", ("Events, newest first", EVENTS), &filters, &page);
        Ok(Content::list(
            "Events",
            vec![filter_form("/events", &filters), list],
        ))
    }

    /// What an id names. One finding is shown at once.
    pub(super) fn search(&self, query: &Query<'_>) -> Result<Content, RequestError> {
        let wanted = query.text("q").unwrap_or_default();
        let found = self.store.read(|view| status::search(view, &wanted))?;
        if found.count() == 1 {
            let job = found.jobs.first().map(|id| format!("/jobs/{id}"));
            let batch = found.batches.first().map(|id| format!("/batches/{id}"));
            let lot = found
                .lots
                .first()
                .map(|lot| format!("/jobs/{}/lots/{}", lot.job, lot.position));
            return Ok(Content::Elsewhere(job.or(batch).or(lot).unwrap_or_default()));
        }
        let links = |heading: &str, path: &str, ids: &[String]| {
            html! {
                h2 { (heading) }
                ul { @for id in ids { li { a class="id" href={ (path) (id) } { (text(id)) } } } }
            }
        };
        let batches: Vec<String> = found.batches.iter().map(ToString::to_string).collect();
        let most = MOST_FOUND as u64;
        let part = html! {
            @if found.count() == 0 {
                h2 { "Nothing is found" }
                p { "No job, lot, batch, file or reference has this id: " code { (text(&wanted)) } }
                p class="empty" { "A job is found by the first four characters of its id, everything else by the whole id, reference, or value of its metadata." }
            }
            @if !found.jobs.is_empty() { (links("Jobs", "/jobs/", &found.jobs)) }
            @if !batches.is_empty() { (links("Batches", "/batches/", &batches)) }
            @if !found.lots.is_empty() { (self.table("Lots, newest first", FOUND_LOTS, &found.lots, "")) }
            @if found.lots.len() == MOST_FOUND || found.jobs.len() == MOST_FOUND {
                p class="empty" { "The first " (number(most)) " are shown." }
            }
        };
        Ok(Content::list("Search", vec![part]))
    }
}
