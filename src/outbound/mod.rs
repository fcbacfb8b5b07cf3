//! Requests to where a client says: its webhooks, its images. Nobody can make this machine talk to
//! itself or to its neighbours with them.
//!
//! A [`Guard`] judges addresses. It is asked twice: about the URL as it is written
//! ([`Guard::check_url`]), so that a submission can be refused, and about the addresses that the
//! name has at the moment of connecting, by the very resolver whose answer is connected to: a name
//! that changes its address in between changes nothing. Redirects are followed by hand, each hop
//! through both. Proxies of the environment are ignored: they would resolve names themselves.

mod call;
mod guard;
mod image;
mod outbound;
pub mod probes;
mod url;

pub use call::Caller;
pub use guard::Guard;
pub use image::{ImageLimits, ImageProblem};
pub use outbound::{NetError, Outbound, Post, PostReply};
pub use url::{ParsedUrl, UrlProblem};
