//! The model's results as HTTP responses. JSON members keep OpenAI's order.

use std::io;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json as json_value};

use crate::http::Response;
use crate::sandbox::model::{BatchView, ErrorReply, FileContent, FileView, ListPage, RequestResult};

/// A page of a listing.
#[derive(Serialize)]
struct ListObject<T> {
    object: &'static str,
    data: Vec<T>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

#[derive(Serialize)]
struct DeletedFile<'a> {
    id: &'a str,
    object: &'static str,
    deleted: bool,
}

/// 200 with a JSON document.
pub(super) fn json(document: &impl Serialize) -> Result<Response, ErrorReply> {
    let text = serde_json::to_vec(document).map_err(io::Error::from)?;
    Ok(Response::bytes(200, "application/json", text))
}

/// The error's status and envelope.
pub(super) fn error(error: &ErrorReply) -> Response {
    let text = format!("{}\n", error.envelope());
    let response = Response::bytes(error.status, "application/json", text.into_bytes());
    match &error.retry_after {
        Some(seconds) => response.with_header("Retry-After", seconds),
        None => response,
    }
}

/// 200 with a batch.
pub(super) fn batch(view: &BatchView) -> Result<Response, ErrorReply> {
    json(&batch_json(view)?)
}

/// 200 with a page of batches.
pub(super) fn batch_page(page: ListPage<BatchView>) -> Result<Response, ErrorReply> {
    let ids = page.items.iter().map(|view| view.id.clone()).collect();
    let items = page.items.iter().map(batch_json).collect::<Result<Vec<_>, _>>()?;
    list(ids, items, page.has_more)
}

/// 200 with a page of files.
pub(super) fn file_page(page: ListPage<FileView>) -> Result<Response, ErrorReply> {
    let ids = page.items.iter().map(|view| view.id.clone()).collect();
    list(ids, page.items, page.has_more)
}

/// 200 for a file that was deleted.
pub(super) fn deleted_file(id: &str) -> Result<Response, ErrorReply> {
    json(&DeletedFile {
        id,
        object: "file",
        deleted: true,
    })
}

/// 200 with a file's content.
pub(super) fn file_content(file: FileContent) -> Response {
    Response::stream(200, "application/octet-stream", file.content).with_header(
        "Content-Disposition",
        &format!("attachment; filename=\"{}\"", file.filename),
    )
}

/// The result of a synchronous request.
pub(super) fn response(result: &RequestResult) -> Response {
    let text = result.body.get().as_bytes().to_vec();
    Response::bytes(result.status, "application/json", text)
        .with_header("x-ratelimit-limit-requests", "500")
        .with_header("x-ratelimit-remaining-requests", "499")
        .with_header("x-ratelimit-reset-requests", "120ms")
}

/// 200 with all models.
pub(super) fn models<'a>(names: impl Iterator<Item = &'a str>) -> Result<Response, ErrorReply> {
    let models = names.map(model_object).collect::<Vec<_>>();
    json(&json_value!({"object": "list", "data": models}))
}

/// 200 with a model.
pub(super) fn model(name: &str) -> Result<Response, ErrorReply> {
    json(&model_object(name))
}

fn model_object(name: &str) -> Value {
    json_value!({"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "system", "shutdown_date": null})
}

fn list<T: Serialize>(ids: Vec<String>, items: Vec<T>, has_more: bool) -> Result<Response, ErrorReply> {
    json(&ListObject {
        object: "list",
        first_id: ids.first().cloned(),
        last_id: ids.last().cloned(),
        data: items,
        has_more,
    })
}

fn batch_json(view: &BatchView) -> Result<Box<RawValue>, ErrorReply> {
    let raw = if view.omits_nulls {
        let mut value = serde_json::to_value(view).map_err(io::Error::from)?;
        if let Some(members) = value.as_object_mut() {
            members.retain(|_, member| !member.is_null());
        }
        to_raw_value(&value)
    } else {
        to_raw_value(view)
    };
    Ok(raw.map_err(io::Error::from)?)
}
