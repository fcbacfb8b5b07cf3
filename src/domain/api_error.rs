//! What a client is told when its request is not taken: one table from code to HTTP status.

use serde_json::{Value, json};

use crate::base::text_enum::text_enum;

text_enum! {
    /// The contract's error codes.
    ErrorCode {
        /// The body is no JSON.
        InvalidJson = "INVALID_JSON",
        /// A required field is absent.
        MissingField = "MISSING_FIELD",
        /// Another version than 1.0.0.
        UnsupportedVersion = "UNSUPPORTED_VERSION",
        /// A field or query parameter of the wrong type or range.
        InvalidParameter = "INVALID_PARAMETER",
        /// No signature.
        MissingSignature = "MISSING_SIGNATURE",
        /// A wrong signature, an unknown client, a stale timestamp.
        InvalidSignature = "INVALID_SIGNATURE",
        /// No such job of this client.
        JobNotFound = "JOB_NOT_FOUND",
        /// No such path.
        NotFound = "NOT_FOUND",
        /// The path is there, the method is not.
        MethodNotAllowed = "METHOD_NOT_ALLOWED",
        /// Two lots of one id.
        DuplicateLotId = "DUPLICATE_LOT_ID",
        /// An Idempotency-Key that was used for another body.
        IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED",
        /// The job is final already.
        JobNotCancellable = "JOB_NOT_CANCELLABLE",
        /// The job failed; its results are what there is.
        JobFailed = "JOB_FAILED",
        /// The job was cancelled; its results are what there is.
        JobCancelled = "JOB_CANCELLED",
        /// The job completed so long ago that its results were removed.
        ResultsRemoved = "RESULTS_REMOVED",
        /// The body is too long.
        RequestTooLarge = "REQUEST_TOO_LARGE",
        /// Too many lots.
        BatchSizeExceeded = "BATCH_SIZE_EXCEEDED",
        /// Another media type than JSON.
        UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE",
        /// No lot has an image URL that can be used.
        InvalidImageUrls = "INVALID_IMAGE_URLS",
        /// A webhook URL that cannot be used.
        InvalidWebhookUrl = "INVALID_WEBHOOK_URL",
        /// A language that is no BCP 47 tag.
        InvalidLanguage = "INVALID_LANGUAGE",
        /// A lot that cannot be used.
        InvalidLot = "INVALID_LOT",
        /// Too few of a lot's images can be fetched.
        ImageUnreachable = "IMAGE_UNREACHABLE",
        /// OpenAI gave no text, or cannot be asked now.
        OpenaiApiError = "OPENAI_API_ERROR",
        /// OpenAI did not answer in time.
        OpenaiTimeout = "OPENAI_TIMEOUT",
        /// What it is estimated to cost would break a budget.
        BudgetExceeded = "BUDGET_EXCEEDED",
        /// Too many requests.
        RateLimited = "RATE_LIMITED",
        /// Something here went wrong; the log says what.
        InternalError = "INTERNAL_ERROR",
        /// Too much at once.
        Overloaded = "OVERLOADED",
        /// The database takes nothing now.
        StorageUnavailable = "STORAGE_UNAVAILABLE",
    }
}

impl ErrorCode {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidJson
            | Self::MissingField
            | Self::UnsupportedVersion
            | Self::InvalidParameter => 400,
            Self::MissingSignature => 401,
            Self::BudgetExceeded => 402,
            Self::InvalidSignature => 403,
            Self::JobNotFound | Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::DuplicateLotId | Self::IdempotencyKeyReused | Self::JobNotCancellable => 409,
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

    /// The short text of the `error` member: the code in words.
    fn words(self) -> String {
        let mut words = self.as_str().replace('_', " ").to_lowercase();
        if let Some(first) = words.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        words
    }
}

/// A refused request.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// Which of the table.
    pub code: ErrorCode,
    /// What is wrong and what to do.
    pub message: String,
    /// For programs; an object, or null.
    pub details: Value,
}

impl ApiError {
    /// A refusal without details.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Value::Null,
        }
    }

    /// The same with details.
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
