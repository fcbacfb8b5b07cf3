//! OpenAI answered a request with an error: whether its image, the moment, a setting or the request itself is to blame.

use crate::domain::parameters::Setting;

/// Codes of `ResponseErrorCode` for an image that OpenAI could not fetch, or cannot use.
const IMAGE_CODES: [&str; 12] = [
    "invalid_image_url",
    "failed_to_download_image",
    "image_file_not_found",
    "invalid_image",
    "invalid_image_format",
    "image_parse_error",
    "unsupported_image_media_type",
    "image_too_large",
    "image_file_too_large",
    "image_too_small",
    "empty_image_file",
    "sanitizer_server_error",
];

/// Codes that blame no request, whatever status they come with. The last three are insufficient quota.
const PASSING_CODES: [&str; 9] = [
    "server_error",
    "rate_limit_exceeded",
    "vector_store_timeout",
    "request_timeout",
    "batch_expired",
    "batch_cancelled",
    "insufficient_quota",
    "billing_hard_limit_reached",
    "credit_balance_exhausted",
];

/// Codes of a parameter that the model does not take, or not with that value.
const PARAMETER_CODES: [&str; 3] = ["unsupported_parameter", "unsupported_value", "unknown_parameter"];

/// Where an error was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorPlace {
    /// In the line itself: the request had no HTTP answer.
    Line,
    /// In an HTTP answer with that status, which is not 2xx.
    Status(u16),
    /// In the body of a 2xx answer: the call was accepted, and the model's run failed.
    Success,
}

/// What an error says; a text is empty if the error does not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestError {
    /// `code`.
    pub code: String,
    /// `type`.
    pub kind: String,
    /// `param`.
    pub param: String,
    /// `message`, or `detail`.
    pub message: String,
}

/// The thing to blame for an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// An image: OpenAI could not fetch it, or cannot use it.
    Image,
    /// The moment: the same request may succeed later.
    Moment,
    /// A setting, which every request of its stage has: it fails until an operator has changed it.
    Setting(Setting),
    /// The request: it will fail again.
    Request,
}

impl RequestError {
    /// Decides what is to blame.
    pub fn blame(&self, place: ErrorPlace) -> Blame {
        match place {
            ErrorPlace::Status(408 | 409 | 429) => Blame::Moment,
            ErrorPlace::Status(400..500) | ErrorPlace::Line | ErrorPlace::Success
                if self.is_about_an_image() =>
            {
                Blame::Image
            }
            ErrorPlace::Status(400..500) if self.is_passing() => Blame::Moment,
            ErrorPlace::Status(status @ 400..500) => self
                .setting()
                .or_else(|| setting_of(status))
                .map_or(Blame::Request, Blame::Setting),
            ErrorPlace::Success if self.is_passing() || self.code.is_empty() => Blame::Moment,
            ErrorPlace::Success => self.setting().map_or(Blame::Request, Blame::Setting),
            // A code that is not known proves nothing against the request.
            ErrorPlace::Line => self.setting().map_or(Blame::Moment, Blame::Setting),
            ErrorPlace::Status(_) => Blame::Moment,
        }
    }

    /// The setting that is to blame by code and parameter; `None` if they blame none.
    fn setting(&self) -> Option<Setting> {
        match (self.code.as_str(), self.param.as_str()) {
            ("invalid_api_key", _) => Some(Setting::ApiKey),
            ("model_not_found", _) | (_, "model") => Some(Setting::Model),
            (_, param) if param.starts_with("reasoning") => Some(Setting::ReasoningEffort),
            (_, "max_output_tokens" | "max_tokens" | "max_completion_tokens") => {
                Some(Setting::MaxOutputTokens)
            }
            (_, param) if param.ends_with(".detail") => Some(Setting::Detail),
            // Other members of a body that are the same in every line.
            (code, param) if PARAMETER_CODES.contains(&code) => {
                let is_of_every_line =
                    param.is_empty() || param.starts_with("text") || param == "instructions";
                is_of_every_line.then_some(Setting::Other)
            }
            _ => None,
        }
    }

    fn is_passing(&self) -> bool {
        PASSING_CODES
            .iter()
            .any(|code| self.code == *code || (self.code.is_empty() && self.kind == *code))
    }

    /// The code differs by endpoint and changed with time, so the message counts too.
    fn is_about_an_image(&self) -> bool {
        if IMAGE_CODES.contains(&self.code.as_str()) {
            return true;
        }
        if self.code == "invalid_value" && self.param == "url" {
            return true;
        }
        if self.param.ends_with(".image_url") || self.param.ends_with(".image_url.url") {
            return true;
        }
        let message = self.message.to_ascii_lowercase();
        let has_any = |words: &[&str]| words.iter().any(|word| message.contains(word));
        has_any(&["downloading", "to download", "not download"]) && has_any(&["image", "http"])
            || has_any(&[
                "unsupported image",
                "invalid image",
                "not represent a valid image",
            ])
    }
}

/// The setting that a status blames, whatever its code.
fn setting_of(status: u16) -> Option<Setting> {
    match status {
        401 | 403 => Some(Setting::ApiKey),
        404 => Some(Setting::Model),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_something_to_blame() {
        let (line, success) = (ErrorPlace::Line, ErrorPlace::Success);
        let status = ErrorPlace::Status;
        for (place, code, kind, message, expected) in [
            (line, "a_new_code", "", "", Blame::Moment),
            (line, "invalid_image_url", "", "", Blame::Image),
            (line, "", "", "timeout while downloading the image", Blame::Image),
            (
                line,
                "",
                "",
                "the image was downloaded, and is broken",
                Blame::Moment,
            ),
            (status(400), "invalid_image_format", "", "", Blame::Image),
            (
                status(400),
                "",
                "",
                "You uploaded an unsupported image. Please make sure your image is valid.",
                Blame::Image,
            ),
            (status(429), "invalid_image_url", "", "", Blame::Moment),
            (status(400), "invalid_image_url", "", "", Blame::Image),
            (status(400), "server_error", "", "", Blame::Moment),
            (status(400), "", "server_error", "", Blame::Moment),
            (status(400), "a_new_code", "server_error", "", Blame::Request),
            (status(400), "", "", "", Blame::Request),
            (status(500), "invalid_image_url", "", "", Blame::Moment),
            (status(302), "", "", "", Blame::Moment),
            (status(404), "", "", "", Blame::Setting(Setting::Model)),
            (
                status(400),
                "model_not_found",
                "",
                "",
                Blame::Setting(Setting::Model),
            ),
            (
                status(401),
                "invalid_api_key",
                "",
                "",
                Blame::Setting(Setting::ApiKey),
            ),
            (status(403), "", "", "", Blame::Setting(Setting::ApiKey)),
            (status(403), "insufficient_quota", "", "", Blame::Moment),
            (line, "model_not_found", "", "", Blame::Setting(Setting::Model)),
            (success, "invalid_prompt", "", "", Blame::Request),
            (success, "", "", "", Blame::Moment),
            (success, "rate_limit_exceeded", "", "", Blame::Moment),
            (success, "failed_to_download_image", "", "", Blame::Image),
        ] {
            let error = RequestError {
                code: code.into(),
                kind: kind.into(),
                param: String::new(),
                message: message.into(),
            };
            assert_eq!(error.blame(place), expected, "{place:?} {error:?}");
        }
    }

    #[test]
    fn a_parameter_may_name_an_image() {
        for (param, expected) in [
            ("input[0].content[1].image_url", Blame::Image),
            ("messages[0].content[1].image_url.url", Blame::Image),
            ("input[0].content[1].text", Blame::Request),
            ("input[0].content[1].detail", Blame::Setting(Setting::Detail)),
        ] {
            let error = RequestError {
                code: "invalid_value".into(),
                param: param.into(),
                ..RequestError::default()
            };
            assert_eq!(error.blame(ErrorPlace::Status(400)), expected, "{param}");
        }
    }

    #[test]
    fn a_parameter_of_the_configuration_is_to_blame_and_not_the_request() {
        for (code, param, expected) in [
            (
                "unsupported_parameter",
                "reasoning.effort",
                Some(Setting::ReasoningEffort),
            ),
            ("unsupported_value", "reasoning", Some(Setting::ReasoningEffort)),
            (
                "integer_below_min_value",
                "max_output_tokens",
                Some(Setting::MaxOutputTokens),
            ),
            (
                "invalid_value",
                "input[0].content[1].detail",
                Some(Setting::Detail),
            ),
            ("unsupported_value", "text.format", Some(Setting::Other)),
            ("unsupported_parameter", "", Some(Setting::Other)),
            ("unsupported_parameter", "temperature", None),
            ("invalid_prompt", "", None),
        ] {
            let error = RequestError {
                code: code.into(),
                param: param.into(),
                ..RequestError::default()
            };
            let expected = expected.map_or(Blame::Request, Blame::Setting);
            assert_eq!(error.blame(ErrorPlace::Status(400)), expected, "{error:?}");
        }
    }
}
