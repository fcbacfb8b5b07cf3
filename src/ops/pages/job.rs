//! The page of one job: what it is, its lots by pages, the batches that work for it, its webhooks and events.

use maud::html;

use super::components::{facts, text};
use super::controls::{Filter, Query, filter_form};
use super::tables::{ATTEMPTS, COSTS, EVENTS_OF_JOB, JOB, LOTS, METADATA, WORKING_BATCHES};
use super::{Content, RequestError, StatusPage};
use crate::domain::job::LotStatus;
use crate::store::status::{self, listing};

impl StatusPage<'_> {
    pub(super) fn job(&self, id: &str, query: &Query<'_>) -> Result<Option<Content>, RequestError> {
        let lot_status = query.parsed("status", "a lot's status", |text| text.parse::<LotStatus>().ok())?;
        let cursor = query.cursor()?;
        let path = format!("/jobs/{}", text(id));
        let filters = [Filter::choice(
            "status",
            "status of lots",
            LotStatus::ALL,
            lot_status.map(LotStatus::as_str),
        )];
        let parts = self.store.read(|view| {
            let Some(job) = status::job(view, id)? else {
                return Ok(None);
            };
            let metadata = status::metadata_of_job(view, id)?;
            let costs = status::costs_of_job(view, id)?;
            let lots = listing::lots_page(view, id, lot_status, cursor)?;
            let batches = status::batches_of_job(view, id)?;
            let attempts = status::attempts_of_job(view, id)?;
            let events = status::events_of_job(view, id)?;
            let caption = ("Batches that work for it", "No batch works for it yet.");
            Ok(Some(vec![
                html! { h1 { "Job " span class="id" { (text(id)) } } (facts(JOB, &job, self.wall())) (self.job_actions(&job)) },
                html! {
                    @if !metadata.is_empty() {
                        (self.table("The client's metadata", METADATA, &metadata, ""))
                    }
                },
                html! {
                    h2 { "What it cost" }
                    @if let Some(costs) = costs { (facts(COSTS, &costs, self.wall())) }
                },
                filter_form(&path, &filters),
                self.list(&path, ("Lots", LOTS), &filters, &lots),
                self.table(caption.0, WORKING_BATCHES, &batches, caption.1),
                self.table(
                    "Webhooks and their attempts",
                    ATTEMPTS,
                    &attempts,
                    "It has no webhook.",
                ),
                self.table(
                    "Events, newest first",
                    EVENTS_OF_JOB,
                    &events,
                    "Nothing has happened yet.",
                ),
            ]))
        })?;
        Ok(parts.map(|parts| Content::object(format!("Job {}", text(id)), parts)))
    }
}
