//! Carries out the faults of connections.

use std::io::{self, Read};
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::http::{Response, ResponseBody};
use crate::sandbox::model::ConnectionFault;

/// The page of a proxy that cannot reach OpenAI.
fn html_page(status: u16) -> Response {
    let page = format!(
        "<html>\r\n<head><title>{status} Error</title></head>\r\n<body><center><h1>{status} Error</h1></center>\
         <hr><center>cloudflare</center></body>\r\n</html>\r\n"
    );
    Response::bytes(status, "text/html", page.into_bytes())
}

/// A body whose reading fails, so that the server breaks the connection.
struct BrokenBody;

impl Read for BrokenBody {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "a fault of the sandbox breaks this connection",
        ))
    }
}

/// The response that the client gets with a fault. `response` is the one of the call, if it took effect.
pub(super) fn apply(fault: ConnectionFault, response: Option<Response>) -> Response {
    match (fault, response) {
        (ConnectionFault::HtmlPage(status), _) => html_page(status),
        (ConnectionFault::Cut { bytes }, Some(response)) => cut(response, bytes, BrokenBody),
        (ConnectionFault::QuietCut { bytes }, Some(response)) => cut(response, bytes, io::empty()),
        (ConnectionFault::Late(delay), Some(response)) => {
            wait(delay);
            response
        }
        (ConnectionFault::Reset | ConnectionFault::LateEffect(_), _) | (_, None) => {
            Response::stream(200, "application/json", BrokenBody)
        }
    }
}

fn cut(response: Response, bytes: u64, end: impl Read + Send + 'static) -> Response {
    let (status, headers) = (response.status, response.headers.clone());
    let start = response.into_reader().take(bytes);
    Response {
        status,
        headers,
        body: ResponseBody::Stream(Box::new(start.chain(end))),
        owner: None,
    }
}

/// Waits in real time, whatever clock the sandbox has.
pub(super) fn wait(delay: Duration) {
    let (_sender, receiver) = bounded::<()>(0);
    // Nothing is ever sent, so the wait always ends by its timeout.
    receiver.recv_timeout(delay).unwrap_or_default();
}
