//! `GET /docs`: the OpenAPI document as one HTML page. It has no script, and loads nothing from elsewhere.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::http::Response;

/// The OpenAPI document of the client API.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");
const STYLE: &str = include_str!("reference_page.css");

/// The page, made at the first request.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let document = serde_json::from_str(DOCUMENT).unwrap_or_default();
    Reference { document: &document }.page().into_string()
});
/// Only the page's own style applies. There are no scripts, frames, forms or files.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// The page as an answer.
pub(super) fn response() -> Response {
    Response::bytes(200, "text/html; charset=utf-8", PAGE.clone().into_bytes())
        .with_header("Content-Security-Policy", &POLICY)
        .with_header("Referrer-Policy", "no-referrer")
}

/// Renders an OpenAPI document.
struct Reference<'d> {
    document: &'d Value,
}

/// An operation of a path, or a webhook.
struct Operation<'d> {
    method: String,
    place: &'d str,
    content: &'d Value,
}

impl<'d> Reference<'d> {
    fn page(&self) -> Markup {
        let info = &self.document["info"];
        let (operations, webhooks) = (self.operations("paths"), self.operations("webhooks"));
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    title { (text(&info["title"])) }
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    h1 { (text(&info["title"])) }
                    p class="quiet" { "Version " (text(&info["version"])) " · " a href="/openapi.json" { "openapi.json" } }
                    p { (prose(&info["description"])) }
                    (self.contents("Requests", &operations))
                    (self.contents("Webhooks", &webhooks))
                    main {
                        @for operation in operations.iter().chain(&webhooks) { (self.operation(operation)) }
                        h2 { "Objects" }
                        @for (name, schema) in members(&self.document["components"]["schemas"]) {
                            (self.object(name, schema))
                        }
                    }
                }
            }
        }
    }

    fn operations(&self, section: &str) -> Vec<Operation<'d>> {
        let places = members(&self.document[section]);
        let operations = places.flat_map(|(place, item)| {
            members(item).map(|(method, content)| Operation {
                method: method.to_uppercase(),
                place,
                content,
            })
        });
        operations.collect()
    }

    fn contents(&self, heading: &str, operations: &[Operation<'d>]) -> Markup {
        html! {
            nav aria-label=(heading) {
                h3 { (heading) }
                ul {
                    @for it in operations {
                        li { a href={ "#" (text(&it.content["operationId"])) } { code { (it.method) " " (it.place) } } }
                    }
                }
            }
        }
    }

    fn operation(&self, operation: &Operation<'d>) -> Markup {
        let content = operation.content;
        let parameters: Vec<&Value> = elements(&content["parameters"])
            .map(|it| self.resolve(it))
            .collect();
        let body = &content["requestBody"];
        html! {
            section {
                h2 id=(text(&content["operationId"])) { code { (operation.method) " " (operation.place) } }
                p { strong { (prose(&content["summary"])) ". " } (prose(&content["description"])) }
                @if !parameters.is_empty() {
                    h3 { "Parameters" }
                    table {
                        tr { th { "Name" } th { "In" } th { "Type" } th { "Meaning" } }
                        @for it in parameters {
                            tr {
                                td {
                                    code { (text(&it["name"])) }
                                    @if it["required"] != true { " " span class="quiet" { "optional" } }
                                }
                                td { (text(&it["in"])) }
                                td { (self.kind(&it["schema"])) }
                                td { (prose(&it["description"])) }
                            }
                        }
                    }
                }
                @if body.is_object() {
                    h3 { "Body" }
                    p { (prose(&body["description"])) }
                    (self.media(&body["content"]))
                }
                h3 { "Answers" }
                dl {
                    @for (status, response) in members(&content["responses"]) {
                        (self.answer(status, self.resolve(response)))
                    }
                }
            }
        }
    }

    fn answer(&self, status: &str, response: &'d Value) -> Markup {
        let headers: Vec<_> = members(&response["headers"]).collect();
        html! {
            dt { (status) }
            dd {
                p { (prose(&response["description"])) }
                @if !headers.is_empty() {
                    p { "Header fields: " @for (name, header) in headers {
                        code { (name) } " (" (prose(&header["description"])) ") "
                    } }
                }
                (self.media(&response["content"]))
            }
        }
    }

    /// The type and the examples of each media type.
    fn media(&self, content: &'d Value) -> Markup {
        html! {
            @for (media_type, media) in members(content) {
                p { code { (media_type) } ": " (self.kind(&media["schema"])) }
                @if !media["example"].is_null() { (example("Example", &media["example"])) }
                @for (name, it) in members(&media["examples"]) {
                    (example(name, &self.resolve(it)["value"]))
                }
            }
        }
    }

    fn object(&self, name: &str, schema: &'d Value) -> Markup {
        let required: Vec<&str> = elements(&schema["required"]).filter_map(Value::as_str).collect();
        html! {
            section {
                h3 id={ "object-" (name) } { (name) }
                p { (prose(&schema["description"])) }
                table {
                    tr { th { "Member" } th { "Type" } th { "Meaning" } }
                    @for (member, it) in members(&schema["properties"]) {
                        tr {
                            td { code { (member) } @if !required.contains(&member) { " " span class="quiet" { "optional" } } }
                            td { (self.kind(it)) }
                            td { (prose(&it["description"])) }
                        }
                    }
                }
            }
        }
    }

    /// The type of a schema in words.
    fn kind(&self, schema: &'d Value) -> Markup {
        if let Some(name) = schema["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
            return html! { a href={ "#object-" (name) } { (name) } };
        }
        if schema["anyOf"].is_array() {
            return html! {
                @for (at, one) in elements(&schema["anyOf"]).enumerate() {
                    @if at > 0 { " or " }
                    (self.kind(one))
                }
            };
        }
        let names: Vec<&str> = match &schema["type"] {
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            name => name.as_str().into_iter().collect(),
        };
        let values: Vec<&Value> = elements(&schema["enum"])
            .chain((!schema["const"].is_null()).then_some(&schema["const"]))
            .collect();
        html! {
            (names.join(" or "))
            @if schema["items"].is_object() { " of " (self.kind(&schema["items"])) }
            @for (at, value) in values.iter().enumerate() {
                (if at == 0 { ": " } else { ", " }) code { (value) }
            }
            @for (member, it) in members(&schema["properties"]).filter(|_| schema["items"].is_null()) {
                br; code { (member) } ": " (self.kind(it))
            }
        }
    }

    /// The value that a reference leads to; the value itself if it is none.
    fn resolve(&self, value: &'d Value) -> &'d Value {
        let target = value["$ref"].as_str().and_then(|it| it.strip_prefix('#'));
        target
            .and_then(|target| self.document.pointer(target))
            .unwrap_or(value)
    }
}

fn example(name: &str, value: &Value) -> Markup {
    let shown = match value {
        Value::String(text) => text.clone(),
        value => serde_json::to_string_pretty(value).unwrap_or_default(),
    };
    html! {
        details {
            summary { (name) }
            pre { code { (shown) } }
        }
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let members = value.as_object().into_iter().flat_map(Map::iter);
    members.map(|(name, member)| (name.as_str(), member))
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A text whose parts between backticks are code.
fn prose(value: &Value) -> Markup {
    html! {
        @for (at, part) in text(value).split('`').enumerate() {
            @if at % 2 == 0 { (part) } @else { code { (part) } }
        }
    }
}
