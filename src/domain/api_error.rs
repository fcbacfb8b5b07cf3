//! The errors that clients get, and their HTTP statuses.

use serde_json::{Value, json};

use crate::base::text_enum::text_enum;

text_enum! {
    /// The contract's error codes.
    ErrorCode {
        /// The body is not JSON.
        InvalidJson = "INVALID_JSON",
        /// A required field is absent.
        MissingField = "MISSING_FIELD",
        /// The version is not 1.0.0.
        UnsupportedVersion = "UNSUPPORTED_VERSION",
        /// A field or query parameter has the wrong type or range.
        InvalidParameter = "INVALID_PARAMETER",
        /// The request has no signature.
        MissingSignature = "MISSING_SIGNATURE",
        /// The signature is wrong, the client unknown, or the timestamp stale.
        InvalidSignature = "INVALID_SIGNATURE",
        /// The operator's token is missing or wrong. Only the operators' listener answers with it.
        InvalidOperatorToken = "INVALID_OPERATOR_TOKEN",
        /// The client has no such job.
        JobNotFound = "JOB_NOT_FOUND",
        /// The path does not exist.
        NotFound = "NOT_FOUND",
        /// The path does not have this method.
        MethodNotAllowed = "METHOD_NOT_ALLOWED",
        /// Two lots have the same id.
        DuplicateLotId = "DUPLICATE_LOT_ID",
        /// The Idempotency-Key was used for another body.
        IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED",
        /// The job is final already.
        JobNotCancellable = "JOB_NOT_CANCELLABLE",
        /// The delivery has not ended, or another one to its URL has not.
        DeliveryNotResendable = "DELIVERY_NOT_RESENDABLE",
        /// The job failed. Its results are incomplete.
        JobFailed = "JOB_FAILED",
        /// The job was cancelled. Its results are incomplete.
        JobCancelled = "JOB_CANCELLED",
        /// The job's results were removed, because their retention time has passed.
        ResultsRemoved = "RESULTS_REMOVED",
        /// The body is too long.
        RequestTooLarge = "REQUEST_TOO_LARGE",
        /// The job has too many lots.
        BatchSizeExceeded = "BATCH_SIZE_EXCEEDED",
        /// The media type is not JSON.
        UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE",
        /// No lot has a usable image URL.
        InvalidImageUrls = "INVALID_IMAGE_URLS",
        /// A webhook URL is not usable.
        InvalidWebhookUrl = "INVALID_WEBHOOK_URL",
        /// A language is not a BCP 47 tag.
        InvalidLanguage = "INVALID_LANGUAGE",
        /// A lot is not usable.
        InvalidLot = "INVALID_LOT",
        /// Too many images of a lot cannot be fetched.
        ImageUnreachable = "IMAGE_UNREACHABLE",
        /// OpenAI gave no text, or is not available now.
        OpenaiApiError = "OPENAI_API_ERROR",
        /// OpenAI did not answer in time.
        OpenaiTimeout = "OPENAI_TIMEOUT",
        /// The estimated cost would exceed a budget.
        BudgetExceeded = "BUDGET_EXCEEDED",
        /// The client sends too many requests.
        RateLimited = "RATE_LIMITED",
        /// The server failed. The log has the reason.
        InternalError = "INTERNAL_ERROR",
        /// The server has no capacity at present.
        Overloaded = "OVERLOADED",
        /// The database cannot be written at present.
        StorageUnavailable = "STORAGE_UNAVAILABLE",
    }
}

impl ErrorCode {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidJson | Self::MissingField | Self::UnsupportedVersion | Self::InvalidParameter => 400,
            Self::MissingSignature | Self::InvalidOperatorToken => 401,
            Self::BudgetExceeded => 402,
            Self::InvalidSignature => 403,
            Self::JobNotFound | Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::DuplicateLotId
            | Self::IdempotencyKeyReused
            | Self::JobNotCancellable
            | Self::DeliveryNotResendable => 409,
            Self::JobFailed | Self::JobCancelled | Self::ResultsRemoved => 410,
            Self::RequestTooLarge | Self::BatchSizeExceeded => 413,
            Self::UnsupportedMediaType => 415,
            Self::InvalidImageUrls
            | Self::InvalidWebhookUrl
            | Self::InvalidLanguage
            | Self::InvalidLot
            | Self::ImageUnreachable => 422,
            Self::RateLimited => 429,
            Self::InternalError => 500,
            Self::OpenaiApiError => 502,
            Self::Overloaded | Self::StorageUnavailable => 503,
            Self::OpenaiTimeout => 504,
        }
    }

    /// The value of the `error` member: the code in words.
    fn words(self) -> String {
        let mut words = self.as_str().replace('_', " ").to_lowercase();
        for (name, spelled) in [("json", "JSON"), ("openai api", "OpenAI API"), ("url", "URL")] {
            words = words.replace(name, spelled);
        }
        if let Some(first) = words.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        words
    }
}

/// The error of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The code.
    pub code: ErrorCode,
    /// The problem, and how the client can solve it.
    pub message: String,
    /// Details for programs: an object, or null.
    pub details: Value,
}

impl ApiError {
    /// An error without details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Value::Null,
        }
    }

    /// Adds details.
    #[must_use]
    pub fn with(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// The contract's error body.
    pub fn body(&self) -> Value {
        let details = if self.details.is_null() {
            json!({})
        } else {
            self.details.clone()
        };
        json!({"error": self.code.words(), "message": self.message, "code": self.code.as_str(), "details": details})
    }
}
