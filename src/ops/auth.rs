//! Authentication of operators. A request must name this machine as its host, so that no page on the
//! Internet can make an operator's browser read the status page (DNS rebinding). If the configuration has a
//! token, the request must carry it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::answers::server_refusal;
use super::request_metrics::RequestMetrics;
use crate::base::clock::Clock;
use crate::config::{Config, Secret};
use crate::domain::operator_action::Actor;
use crate::domain::signature::{Key, Message, sign, verify};
use crate::http::{Handler, Request, Response};

/// Makes a browser ask its user for the token.
const CHALLENGE: &str = "Basic realm=\"batchkeeper\", charset=\"UTF-8\"";

/// A person or program that may read the operators' pages.
#[derive(Clone, Debug)]
pub struct Operator {
    /// The name that a browser sent, and its address.
    pub actor: Actor,
    /// Whether it may change something.
    pub may_act: bool,
    /// Whether it may read the texts of lots.
    pub may_read_texts: bool,
}

/// Answers requests of operators.
pub trait OperatorHandler: Send + Sync + 'static {
    /// The answer to an operator's request.
    fn handle(&self, request: &Request, operator: &Operator) -> Response;

    /// The answer to a request that the HTTP server refuses.
    fn refuse(&self, status: u16, code: &str, message: &str) -> Response;
}

/// Passes the operators' requests on to another handler, and refuses all others.
pub struct OperatorAuth<H> {
    inner: H,
    clock: Arc<dyn Clock>,
    metrics: Arc<RequestMetrics>,
    address: Option<IpAddr>,
    hosts: Vec<String>,
    token: Option<Token>,
    read_token: Option<Token>,
    may_read_texts: bool,
    has_actions: bool,
}

/// The token, as a key and as the signature of itself. Comparing signatures takes the same time for every
/// guess.
struct Token {
    key: Key,
    signature: String,
}

impl Token {
    /// `None` if there is no token: the configuration refuses one that is too short for a key.
    fn new(secret: &Secret) -> Option<Self> {
        let secret = secret.reveal();
        let key = Key::new(secret).ok()?;
        Some(Self {
            signature: sign(&key, Message::Bytes(secret.as_bytes())),
            key,
        })
    }

    fn is(&self, sent: &str) -> bool {
        let message = Message::Bytes(sent.as_bytes());
        verify(&self.signature, std::slice::from_ref(&self.key), &[message])
    }
}

impl<H: OperatorHandler> OperatorAuth<H> {
    /// Authentication in front of `inner`, with the host names and the token of the configuration.
    /// `metrics` counts wrong tokens.
    pub fn new(config: &Config, clock: Arc<dyn Clock>, metrics: Arc<RequestMetrics>, inner: H) -> Self {
        let address: Option<SocketAddr> = config.ops_listen.parse().ok();
        Self {
            inner,
            clock,
            metrics,
            address: address.map(|address| address.ip()),
            hosts: config.ops_hosts.iter().map(|host| normalize(host)).collect(),
            token: Token::new(config.ops_token()),
            read_token: Token::new(config.ops_read_token()),
            may_read_texts: config.ops_read_texts,
            has_actions: config.ops_actions,
        }
    }

    /// Whether a host name is one of this machine.
    fn is_own_host(&self, host: &str) -> bool {
        let host = normalize(host);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse::<IpAddr>() {
            // DNS cannot make an IP address lead elsewhere.
            Ok(address) => {
                address.is_loopback()
                    || self.hosts.contains(&host)
                    || self
                        .address
                        .is_some_and(|own| own == address || own.is_unspecified())
            }
            Err(_) => host == "localhost" || self.hosts.contains(&host),
        }
    }

    /// The operator that sends a request. A request without a token is refused, if there is one.
    fn operator(&self, request: &Request) -> Result<Operator, Response> {
        let operator = |name: Option<String>, may_act, may_read_texts| Operator {
            actor: Actor {
                name: name
                    .filter(|name| !name.is_empty())
                    .unwrap_or_else(|| "operator".to_owned()),
                origin: request.peer.to_string(),
            },
            may_act: may_act && self.has_actions,
            may_read_texts,
        };
        let Some(token) = &self.token else {
            return Ok(operator(None, false, true));
        };
        let now = self.clock.now().steady;
        let wrong = &self.metrics.wrong_tokens;
        if let Some(wait) = wrong.must_wait(request.peer, now) {
            let message = "Too many wrong tokens came from this address: try again in a minute.";
            let seconds = wait.as_secs() + 1;
            return Err(
                server_refusal(429, "RATE_LIMITED", message).with_header("Retry-After", &seconds.to_string())
            );
        }
        let Some((name, sent)) = request.header("authorization").and_then(credentials) else {
            return Err(no_token("The operator's pages need their token"));
        };
        if token.is(&sent) {
            return Ok(operator(name, true, true));
        }
        if self.read_token.as_ref().is_some_and(|token| token.is(&sent)) {
            return Ok(operator(name, false, self.may_read_texts));
        }
        wrong.record(request.peer, now);
        Err(no_token("This is not the token of the operator's pages"))
    }
}

/// The answer to a request without the token, or with another one.
fn no_token(problem: &str) -> Response {
    let message = format!("{problem}: send it as Authorization: Bearer, or as the password of Basic.");
    server_refusal(401, "INVALID_OPERATOR_TOKEN", &message).with_header("WWW-Authenticate", CHALLENGE)
}

/// A host name for comparison: in lower case, without port and final dot.
fn normalize(host: &str) -> String {
    let port = host
        .rfind(':')
        .filter(|at| !host.contains(']') || host[..*at].ends_with(']'))
        // An IPv6 address without brackets has no port.
        .filter(|at| host.contains(']') || !host[..*at].contains(':'));
    let host = port.map_or(host, |at| &host[..at]);
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase()
}

/// The user name and the token of the header `Authorization`: that of `Bearer`, or the password of `Basic` from
/// browsers.
fn credentials(header: &str) -> Option<(Option<String>, String)> {
    let (scheme, value) = header.split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((None, value.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
    let (name, password) = pair.split_once(':')?;
    Some((Some(name.to_owned()), password.to_owned()))
}

impl<H: OperatorHandler> Handler for OperatorAuth<H> {
    fn handle(&self, request: Request) -> Response {
        if !self.is_own_host(request.header("host").unwrap_or("")) {
            let message = "This host name is not one of the operator's pages': ask for localhost, or add it to ops_hosts.";
            return server_refusal(421, "INVALID_PARAMETER", message);
        }
        if request.repeated_field(&["Authorization"]).is_some() {
            let message = "The request has more than one header field `Authorization`: send it once.";
            return server_refusal(400, "INVALID_PARAMETER", message);
        }
        let operator = match self.operator(&request) {
            Ok(operator) => operator,
            Err(refused) => return refused,
        };
        self.inner
            .handle(&request, &operator)
            .with_header("Cache-Control", "no-store")
            .with_header("X-Content-Type-Options", "nosniff")
    }

    fn refuse(&self, status: u16, code: &str, message: &str) -> Response {
        self.inner.refuse(status, code, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;

    struct Inner;

    impl OperatorHandler for Inner {
        fn handle(&self, _: &Request, operator: &Operator) -> Response {
            let may = if operator.may_act { 201 } else { 200 };
            Response::bytes(may, "text/plain", Vec::new())
        }

        fn refuse(&self, status: u16, code: &str, message: &str) -> Response {
            server_refusal(status, code, message)
        }
    }

    fn auth(config: &str) -> OperatorAuth<Inner> {
        let clients = "[[clients]]\nname = \"default\"\nkeys = [\"0123456789abcdef0123\"]\n";
        let config = Config::parse(&format!("{config}{clients}")).unwrap();
        let clock = Arc::new(SystemClock::new());
        OperatorAuth::new(&config, clock, Arc::default(), Inner)
    }

    fn status(auth: &OperatorAuth<Inner>, host: &str, authorization: &str) -> u16 {
        status_from(IpAddr::from([127, 0, 0, 1]), auth, host, authorization)
    }

    fn status_from(peer: IpAddr, auth: &OperatorAuth<Inner>, host: &str, authorization: &str) -> u16 {
        let request = Request {
            method: "GET".into(),
            path: "/".into(),
            query: None,
            headers: [("host", host), ("authorization", authorization)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            body: Vec::new(),
            peer,
            id: String::new(),
        };
        auth.handle(request).status
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let near = auth("ops_hosts = [\"Monitor.example\"]\n");
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "0123456789abcdef\n").unwrap();
        let anywhere = auth(&format!(
            "ops_listen = \"0.0.0.0:1\"\nops_token_file = {token:?}\n"
        ));
        for (host, known_near, known_anywhere) in [
            ("localhost", true, true),
            ("LOCALHOST.:8081", true, true),
            ("127.0.0.1:8081", true, true),
            ("[::1]:8081", true, true),
            ("[::1]", true, true),
            ("::1", true, true),
            ("monitor.example:8081", true, false),
            ("192.0.2.1:8081", false, true),
            ("evil.example", false, false),
            ("localhost.evil.example", false, false),
            ("127.0.0.1.evil.example:8081", false, false),
            ("2130706433", false, false),
            ("", false, false),
            (":8081", false, false),
            ("[", false, false),
            ("]:", false, false),
        ] {
            let expected = |known| if known { 200 } else { 421 };
            assert_eq!(status(&near, host, ""), expected(known_near), "{host}");
            let bearer = "Bearer 0123456789abcdef";
            assert_eq!(
                status(&anywhere, host, bearer),
                expected(known_anywhere),
                "{host}"
            );
        }
    }

    #[test]
    fn a_token_is_asked_for_where_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "0123456789abcdef\n").unwrap();
        let auth = auth(&format!("ops_token_file = {token:?}\n"));
        let basic = |pair: &str| format!("basic {}", STANDARD.encode(pair));
        for (authorization, expected) in [
            ("", 401),
            ("Bearer", 401),
            ("Bearer ", 401),
            ("Bearer 0123456789abcde", 401),
            ("Bearer 0123456789abcdeF", 401),
            ("0123456789abcdef", 401),
            ("Basic ???", 401),
            (&basic("0123456789abcdef"), 401),
            (&basic("0123456789abcdef:x"), 401),
            ("Bearer 0123456789abcdef", 200),
            ("bearer  0123456789abcdef", 200),
            (&basic(":0123456789abcdef"), 200),
            (&basic("operator:0123456789abcdef"), 200),
        ] {
            assert_eq!(
                status(&auth, "localhost", authorization),
                expected,
                "{authorization}"
            );
        }
    }

    #[test]
    fn a_peer_that_guesses_is_closed_out_even_with_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "0123456789abcdef\n").unwrap();
        let auth = auth(&format!("ops_token_file = {token:?}\n"));
        let from = |last, authorization| {
            let peer = IpAddr::from([192, 0, 2, last]);
            status_from(peer, &auth, "localhost", authorization)
        };
        let (wrong, right) = ("Bearer 0123456789abcdeF", "Bearer 0123456789abcdef");
        // A request without a token is no guess: browsers ask without one first.
        for _ in 0..20 {
            assert_eq!(from(1, ""), 401);
        }
        for _ in 0..10 {
            assert_eq!(from(1, wrong), 401);
        }
        assert_eq!((from(1, wrong), from(1, right)), (429, 429));
        assert_eq!((from(2, wrong), from(2, right)), (401, 200));
    }

    #[test]
    fn beyond_this_machine_there_must_be_a_token() {
        let clients = "[[clients]]\nname = \"default\"\nkeys = [\"0123456789abcdef0123\"]\n";
        for address in ["0.0.0.0:8081", "[::]:8081", "192.0.2.1:8081"] {
            let config = format!("ops_listen = {address:?}\n{clients}");
            let complaint = Config::parse(&config).unwrap_err().to_string();
            assert!(complaint.contains("ops_token_file"), "{complaint}");
        }
        for address in ["127.0.0.2:8081", "[::1]:8081", ""] {
            assert!(Config::parse(&format!("ops_listen = {address:?}\n{clients}")).is_ok());
        }
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "short").unwrap();
        let config = format!("ops_token_file = {token:?}\n{clients}");
        assert!(
            Config::parse(&config)
                .unwrap_err()
                .to_string()
                .contains("characters")
        );
    }
}
