//! The page of one lot: its texts in every language, its images, and each attempt at them with its cost.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::action;
use super::components::{facts, text};
use super::rows::{Image, LotFacts};
use super::tables::{IMAGES, LOT_ATTEMPTS, LOT_FACTS};
use super::{Content, RequestError, StatusPage};
use crate::domain::batch::Stage;
use crate::domain::decide::waiting_requests::WaitCause;
use crate::domain::job::{JobStatus, RequestState, is_english};
use crate::domain::operator_action::ActionKind;
use crate::store::jobs::JobRow;
use crate::store::lots::{self, LotFilter, LotRow};
use crate::store::status::{self, LotDetails, LotRequest};
use crate::store::{View, jobs};

/// A language of a lot: its text, or why there is none.
struct LanguageText {
    language: String,
    state: &'static str,
    text: Option<String>,
    why: Option<String>,
}

impl StatusPage<'_> {
    pub(super) fn lot(&self, job: &str, position: u32) -> Result<Option<Content>, RequestError> {
        let parts = self.store.read(|view| {
            let Some((job, lot, details)) = read_lot(view, job, position)? else {
                return Ok(None);
            };
            let requests = status::requests_of_lot(view, details.row)?;
            let attempts = status::attempts_of_lot(view, details.row)?;
            let texts = texts(&job, &lot, &requests);
            let images = images(&lot);
            let title = format!("Lot {}", text(&lot.lot_id));
            let before = position.checked_sub(1);
            let after = (u64::from(position) + 1 < u64::from(job.total_lots)).then_some(position + 1);
            let link = |to: u32| format!("/jobs/{}/lots/{to}", job.id);
            let facts_of_lot = LotFacts {
                job: job.id.clone(),
                client: job.client.clone(),
                lot,
                details,
            };
            let parts = vec![
                html! {
                    h1 { (title) }
                    (facts(LOT_FACTS, &facts_of_lot, self.wall()))
                    @if self.operator.may_read_texts {
                        h2 { "The seller's text" }
                        p class="text" { (text_lines(&facts_of_lot.details.additional_info)) }
                    }
                    nav class="pager" aria-label="Lots of the job" {
                        @if let Some(to) = before { a rel="prev" href=(link(to)) { "Previous lot" } }
                        @if let Some(to) = after { a rel="next" href=(link(to)) { "Next lot" } }
                        (self.retry_links(&job))
                    }
                },
                match self.operator.may_read_texts {
                    true => show_texts(&texts),
                    false => html! { h2 { "Texts" } p class="empty" { "This token does not show texts (ops_read_texts)." } },
                },
                self.table("Images", IMAGES, &images, "It has no image."),
                self.table(
                    "Attempts, oldest first",
                    LOT_ATTEMPTS,
                    &attempts,
                    "Nothing was sent to OpenAI.",
                ),
            ];
            Ok(Some((title, parts)))
        })?;
        Ok(parts.map(|(title, parts)| Content::object(title, parts)))
    }
}

impl StatusPage<'_> {
    /// Links that send again what failed of a lot's job; nothing if the operator may not act.
    fn retry_links(&self, job: &JobRow) -> Markup {
        let is_retriable = matches!(job.status, JobStatus::Completed | JobStatus::Failed);
        html! {
            @if self.operator.may_act && is_retriable {
                a href=(action::address(ActionKind::RetryFailedLots, &job.id)) {
                    "Send failed lots of the job again …"
                }
                a href=(action::address(ActionKind::RetryFailedTranslations, &job.id)) {
                    "Send failed translations of the job again …"
                }
            }
        }
    }
}

fn read_lot(
    view: &View,
    job: &str,
    position: u32,
) -> crate::store::Stored<Option<(JobRow, LotRow, LotDetails)>> {
    let (Some(job), Some(details)) = (jobs::by_id(view, job)?, status::lot(view, job, position)?) else {
        return Ok(None);
    };
    let lot = lots::page(view, &job.id, LotFilter::All, position, 1)?
        .into_iter()
        .next();
    Ok(lot.map(|lot| (job, lot, details)))
}

fn images(lot: &LotRow) -> Vec<Image> {
    let reasons = lot.missing_reasons();
    let unusable = lot.missing_images.iter().filter(|url| !lot.images.contains(url));
    lot.images
        .iter()
        .chain(unusable)
        .map(|url| Image {
            url: url.clone(),
            problem: reasons.get(url.as_str()).map(|reason| (*reason).to_owned()),
        })
        .collect()
}

/// The description, then every language of the job.
fn texts(job: &JobRow, lot: &LotRow, requests: &[LotRequest]) -> Vec<LanguageText> {
    let by_language: BTreeMap<&str, &LotRequest> = requests
        .iter()
        .map(|request| (request.language.as_str(), request))
        .collect();
    let others = job.languages.iter().filter(|tag| !is_english(tag));
    let description = LanguageText {
        language: "description (English)".into(),
        state: by_language
            .get("")
            .map_or("none", |request| request.state.as_str()),
        text: lot.vision_result.clone(),
        why: match lot.vision_result {
            Some(_) => None,
            None => by_language
                .get("")
                .and_then(|request| why_missing(request))
                .or_else(|| lot.error_message.clone()),
        },
    };
    let translations = others.map(|language| {
        let request = by_language.get(language.as_str());
        let (text, error) = match lot.translations.get(language) {
            Some(Ok(text)) => (Some(text.clone()), None),
            Some(Err(error)) => (None, Some(error.clone())),
            None => (None, None),
        };
        let is_missing = text.is_none();
        let why = error.or_else(|| request.and_then(|request| why_missing(request)));
        let why = why.or_else(|| Some("there is no description to translate".to_owned()));
        LanguageText {
            language: language.clone(),
            state: request.map_or("none", |request| request.state.as_str()),
            text,
            why: why.filter(|_| is_missing),
        }
    });
    std::iter::once(description).chain(translations).collect()
}

/// Why a request has no answer yet, if its state says so.
fn why_missing(request: &LotRequest) -> Option<String> {
    let words = match request.state {
        RequestState::Waiting if request.images_due => WaitCause::ImageChecks.to_words(),
        RequestState::Waiting if request.retry_at.is_some() => WaitCause::TransientFailure.to_words(),
        RequestState::Waiting => "it waits for the next batch; the overview says for what".to_owned(),
        RequestState::Claimed => "it is in a batch or call that has not ended".to_owned(),
        RequestState::Held => WaitCause::Held.to_words(),
        RequestState::Cancelled if request.stage == Stage::Translation => {
            "it waits for a description, or its job was cancelled".to_owned()
        }
        RequestState::Cancelled => "its job was cancelled".to_owned(),
        RequestState::Done | RequestState::Failed => return None,
    };
    Some(words)
}

fn show_texts(texts: &[LanguageText]) -> Markup {
    html! {
        h2 { "Texts" }
        dl class="texts" {
            @for it in texts {
                dt { (text(&it.language)) " " (super::components::badge(it.state)) }
                @if let Some(words) = &it.text { dd class="text" { (text_lines(words)) } }
                @if let Some(why) = &it.why { dd class="why" { "No text: " (text(why)) } }
            }
        }
    }
}

/// Foreign text of several lines. Control characters other than line ends are escaped.
fn text_lines(foreign: &str) -> Markup {
    html! {
        @for (number, line) in foreign.lines().enumerate() {
            @if number > 0 { br; }
            (text(line))
        }
    }
}
