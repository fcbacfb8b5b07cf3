//! The routes under `/v1/`.

use super::{Sandbox, connection_faults, multipart, replies, unknown_url};
use crate::domain::endpoint::Endpoint;
use crate::http::{Request, Response};
use crate::sandbox::model::{
    ApiCall, BatchListQuery, CallingProject, ConnectionFault, ErrorReply, FileListQuery, FileUpload,
};

/// The fields of an upload that OpenAI knows.
const UPLOAD_FIELDS: [&str; 4] = [
    "file",
    "purpose",
    "expires_after[anchor]",
    "expires_after[seconds]",
];

impl Sandbox {
    /// Answers a call, with the faults before and after it.
    pub(super) fn answer_api(
        &self,
        request: &Request,
        path: &[&str],
        call: &ApiCall<'_>,
    ) -> Result<Response, ErrorReply> {
        let fault = self.openai.trigger_fault_before(call)?;
        if let Some(ConnectionFault::LateEffect(delay)) = fault {
            let caller = self.authenticate(request)?;
            self.openai.create_later(&caller, &request.body, delay);
        }
        if let Some(fault) = fault {
            return Ok(connection_faults::apply(fault, None));
        }
        let caller = self.authenticate(request)?;
        self.flag_oddities(request, path)?;
        let response = self.route(&caller, request, path, call)?;
        if response.status != 200 {
            return Ok(response);
        }
        Ok(match self.openai.trigger_fault_after(call)? {
            Some(fault) => connection_faults::apply(fault, Some(response)),
            None => response,
        })
    }

    fn route(
        &self,
        caller: &CallingProject,
        request: &Request,
        path: &[&str],
        call: &ApiCall<'_>,
    ) -> Result<Response, ErrorReply> {
        let openai = &self.openai;
        match (request.method.as_str(), path) {
            ("POST", ["files"]) => self.upload_file(caller, request),
            ("GET", ["files"]) => {
                let page = openai.list_files(caller, &file_list_query(request))?;
                replies::file_page(page)
            }
            ("GET", ["files", id]) => replies::json(&openai.file(caller, id)?),
            ("DELETE", ["files", id]) => {
                openai.delete_file(caller, id)?;
                replies::deleted_file(id)
            }
            ("GET", ["files", id, "content"]) => Ok(replies::file_content(openai.file_content(caller, id)?)),
            ("POST", ["batches"]) => replies::batch(&openai.create_batch(caller, &request.body)?),
            ("GET", ["batches"]) => {
                let page = openai.list_batches(caller, &batch_list_query(request), call)?;
                replies::batch_page(page)
            }
            ("GET", ["batches", id]) => replies::batch(&openai.poll_batch(caller, id)?),
            ("POST", ["batches", id, "cancel"]) => replies::batch(&openai.cancel_batch(caller, id)?),
            ("POST", ["responses"]) => {
                let result = openai.respond(Endpoint::Responses, &request.body)?;
                Ok(replies::response(&result))
            }
            ("POST", ["chat", "completions"]) => {
                let result = openai.respond(Endpoint::ChatCompletions, &request.body)?;
                Ok(replies::response(&result))
            }
            ("GET", ["models"]) => replies::models(openai.model_names()),
            ("GET", ["models", name]) => {
                openai.check_model(name)?;
                replies::model(name)
            }
            _ => Err(unknown_url(request)),
        }
    }

    fn authenticate(&self, request: &Request) -> Result<CallingProject, ErrorReply> {
        let key = request
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
            .map(str::trim)
            .unwrap_or("");
        let project = request.header("openai-project").filter(|id| !id.is_empty());
        let organization = request.header("openai-organization").unwrap_or("");
        self.openai.authenticate(key, project, organization)
    }

    /// Flags what OpenAI's reference does not provide for. The answer stays the same.
    fn flag_oddities(&self, request: &Request, path: &[&str]) -> Result<(), ErrorReply> {
        let known: &[&str] = match (request.method.as_str(), path) {
            ("GET", ["files"]) => &["after", "limit", "order", "purpose"],
            ("GET", ["batches"]) => &["after", "limit"],
            _ => &[],
        };
        let resource = path.first().copied().unwrap_or("");
        let line = format!("{} /v1/{resource}", request.method);
        if let Some(key) = request.header("idempotency-key") {
            self.openai.record_flag("idempotency_key", &line, key)?;
        }
        for pair in request.query.iter().flat_map(|query| query.split('&')) {
            let name = pair.split('=').next().unwrap_or(pair);
            if !name.is_empty() && !known.contains(&name) {
                self.openai.record_flag("unknown_query_parameter", &line, name)?;
            }
        }
        Ok(())
    }

    fn upload_file(&self, caller: &CallingProject, request: &Request) -> Result<Response, ErrorReply> {
        let content_type = request.header("content-type").unwrap_or("");
        let parts = multipart::parse(content_type, &request.body)
            .ok_or_else(|| ErrorReply::new(400, "Could not parse multipart form.").with_detail())?;
        let unknown = parts
            .iter()
            .map(|part| &part.name)
            .find(|name| !UPLOAD_FIELDS.contains(&name.as_str()));
        if let Some(name) = unknown {
            return Err(ErrorReply::new(400, format!("Unknown parameter: '{name}'."))
                .param(name)
                .with_detail());
        }
        let field = |name: &str| parts.iter().find(|part| part.name == name);
        let text = |name: &str| field(name).and_then(|part| std::str::from_utf8(part.content).ok());
        let file = field("file");
        let upload = FileUpload {
            purpose: text("purpose"),
            filename: file.and_then(|part| part.filename.as_deref()),
            content: file.map(|part| part.content),
            expires_anchor: text("expires_after[anchor]"),
            expires_seconds: text("expires_after[seconds]"),
        };
        replies::json(&self.openai.upload_file(caller, &upload)?)
    }
}

fn file_list_query(request: &Request) -> FileListQuery {
    FileListQuery {
        after: request.parameter("after"),
        limit: request.parameter("limit"),
        order: request.parameter("order"),
        purpose: request.parameter("purpose"),
    }
}

fn batch_list_query(request: &Request) -> BatchListQuery {
    BatchListQuery {
        after: request.parameter("after"),
        limit: request.parameter("limit"),
    }
}
