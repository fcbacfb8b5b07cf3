//! What the program is about, as data and rules: no SQL, no HTTP, no threads.

pub mod alert;
pub mod alert_text;
pub mod alert_words;
pub mod api_error;
pub mod batch;
pub mod budgets;
pub mod decide;
pub mod due;
pub mod endpoint;
pub mod html;
pub mod image_format;
pub mod image_reader;
pub mod job;
pub mod legacy;
pub mod money;
pub mod openai;
pub mod operator_action;
pub mod parameters;
pub mod prices;
pub mod request_body;
pub mod result_line;
pub mod signature;
pub mod translation;
pub mod url_expiry;
pub mod usage;
pub mod vision;
