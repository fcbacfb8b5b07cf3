//! The HTTP server for clients and operators. It knows nothing of jobs or of SQL.
//!
//! tiny_http limits neither time nor memory, and one hostile request can end its process. So it listens on a
//! private socket, and the code in front of it reads each request whole, within limits. The files in the
//! order in which a request passes them:
//!
//! 1. [`listener`]: the accept loop. [`connection_limiter`]: permits for connections.
//! 2. [`connection`]: the requests of one connection, read through [`client_stream`] with its deadlines.
//! 3. [`request_head`], [`forwarded`] and [`request_context`]: what the request is, and for which address it
//!    counts.
//! 4. [`request_body`], within the [`memory_budget`].
//! 5. [`inner_server`]: tiny_http on the private socket. [`inner_protocol`]: what passes over that socket.
//! 6. [`worker`]: calls the [`Handler`] and writes its response back through tiny_http.
//! 7. [`response_writer`]: writes the response to the client.
//!
//! [`server`] puts these together.

mod client_stream;
mod connection;
mod connection_limiter;
mod downloads;
mod forwarded;
mod handler;
mod http_error;
mod inner_protocol;
mod inner_server;
mod limits;
mod listener;
mod memory_budget;
mod message;
mod request_body;
mod request_context;
pub mod request_head;
mod response_writer;
mod server;
mod worker;

pub use connection_limiter::peer_network;
pub use handler::Handler;
pub use http_error::HttpError;
pub use limits::HttpLimits;
pub use message::{Request, Response, ResponseBody};
pub use server::Server;
