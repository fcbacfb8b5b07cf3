//! The page of one batch: its ids, how long it was in each state, its jobs, its lines by pages, what it cost.

use maud::{Markup, html};

use super::components::{duration, facts, time};
use super::controls::{Query, pager};
use super::tables::{BATCH, COSTS, EVENTS_OF_BATCH, JOBS_OF_BATCH, LINES, LINES_BY_OUTCOME};
use super::{Content, RequestError, StatusPage};
use crate::domain::batch::BatchState;
use crate::store::status::{self, BatchDetails, listing};

impl StatusPage<'_> {
    pub(super) fn batch(&self, id: i64, query: &Query<'_>) -> Result<Option<Content>, RequestError> {
        let cursor = query.cursor()?;
        let parts = self.store.read(|view| {
            let Some(batch) = status::batch(view, id)? else {
                return Ok(None);
            };
            let jobs = status::jobs_of_batch(view, id)?;
            let outcomes = status::lines_by_outcome(view, id)?;
            let lines = listing::lines_page(view, id, cursor)?;
            let costs = status::costs_of_batch(view, id)?;
            let events = status::events_of_batch(view, id)?;
            Ok(Some(vec![
                html! { h1 { "Batch " (id) } (facts(BATCH, &batch, self.wall())) },
                self.phases(&batch),
                html! {
                    h2 { "What it cost" }
                    @if let Some(costs) = costs { (facts(COSTS, &costs, self.wall())) }
                },
                self.table("Jobs it works for", JOBS_OF_BATCH, &jobs, "It works for no job."),
                self.table("Lines by outcome", LINES_BY_OUTCOME, &outcomes, "It has no line."),
                html! {
                    (self.table("Lines", LINES, &lines.rows, "It has no line."))
                    @if let Some(links) = pager(&format!("/batches/{id}"), &[], &lines) { (links) }
                },
                self.table(
                    "Events, newest first",
                    EVENTS_OF_BATCH,
                    &events,
                    "Nothing has happened yet.",
                ),
            ]))
        })?;
        Ok(parts.map(|parts| Content::object(format!("Batch {id}"), parts)))
    }

    /// How long the batch was on its way, at OpenAI and being ingested, and how much of its window is left.
    fn phases(&self, batch: &BatchDetails) -> Markup {
        let summary = &batch.summary;
        let now = self.wall();
        let is_over = matches!(summary.state, BatchState::Ingested | BatchState::Failed);
        let phases = [
            (
                "packing, upload and create",
                Some(summary.created_at),
                summary.submitted_at,
            ),
            ("at OpenAI", summary.submitted_at, batch.ended_at),
            ("download and ingestion", batch.ended_at, summary.ingested_at),
        ];
        html! {
            h2 { "Time in each state" }
            dl class="facts" {
                @for (name, from, to) in phases {
                    @if let Some(from) = from {
                        @let goes_on = to.is_none() && !is_over;
                        @if to.is_some() || goes_on {
                            div {
                                dt { (name) }
                                dd { (duration(to.unwrap_or(now).since(from))) @if goes_on { " so far" } }
                            }
                        }
                    }
                }
                @if let Some(expires) = batch.expires_at {
                    @if batch.ended_at.is_none() && !is_over {
                        div { dt { "OpenAI's window ends" } dd { (time(expires, now)) } }
                    }
                }
            }
        }
    }
}
