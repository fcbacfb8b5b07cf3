//! HTTP requests and their answers as text.

use crate::appliance::{Answer, call};
use crate::names::Names;

/// The body of a request is shown up to this length.
const SHOWN: usize = 4_000;
/// Headers of a request whose values differ from run to run.
const SIGNED: [(&str, &str); 2] = [("X-Signature", "<signature>"), ("X-Timestamp", "<timestamp>")];

/// A request.
pub struct Ask {
    pub method: String,
    pub target: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Ask {
    /// A request without headers or a body.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Adds headers.
    pub fn with(mut self, headers: Vec<(&'static str, String)>) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }
}

/// A conversation with one listener. It records every request and its answer.
pub struct Talk<'n> {
    listener: String,
    names: &'n Names,
    text: String,
}

impl<'n> Talk<'n> {
    /// A conversation with the listener at this URL.
    pub fn with(listener: &str, names: &'n Names) -> Self {
        Self {
            listener: listener.to_owned(),
            names,
            text: String::new(),
        }
    }

    /// The recorded text.
    pub fn text(self) -> String {
        self.text
    }

    /// Sends the request, and records it with its answer under a title.
    pub fn ask(&mut self, title: &str, ask: &Ask) -> Answer {
        let answer = self.send(ask);
        self.write(title, ask, &answer);
        answer
    }

    /// The same with a submission. Names the job and returns its id.
    pub fn submit(&mut self, title: &str, ask: &Ask, name: &str) -> String {
        let answer = self.send(ask);
        let id = answer.json()["job_id"].as_str().unwrap().to_owned();
        self.names.job(&id, name);
        self.write(title, ask, &answer);
        id
    }

    fn send(&self, ask: &Ask) -> Answer {
        let url = format!("{}{}", self.listener, ask.target);
        let headers = ask.headers.iter();
        let headers: Vec<_> = headers.map(|(name, value)| (*name, value.as_str())).collect();
        call(&ask.method, &url, &headers, &ask.body)
    }

    /// Records a request and its answer.
    fn write(&mut self, title: &str, ask: &Ask, answer: &Answer) {
        let mut asked = format!("{} {}\n", ask.method, ask.target);
        for (name, value) in &ask.headers {
            let signed = SIGNED.iter().find(|(signed, _)| signed == name);
            let value = signed.map_or(value.as_str(), |(_, placeholder)| placeholder);
            asked.push_str(&format!("{name}: {value}\n"));
        }
        asked.push_str(&if ask.body.len() > SHOWN {
            format!("<{} bytes>\n", ask.body.len())
        } else {
            shown(&ask.body)
        });
        let mut answered = format!("{}\n", answer.status);
        let mut headers: Vec<_> = answer.headers.iter().filter(|(name, _)| name != "date").collect();
        headers.sort();
        for (name, value) in headers {
            let value = header(answer, name, value, ask.method == "HEAD");
            answered.push_str(&format!("{name}: {value}\n"));
        }
        answered.push_str(&shown(&answer.body));
        let mut said = self.names.plain(&format!("{asked}\n{answered}"));
        if answer.status == 429 {
            said = without_wait(&said);
        }
        self.text.push_str(&format!("=== {title}\n{said}\n"));
    }
}

/// A body with a line feed at its end; an empty body stays empty.
fn shown(body: &[u8]) -> String {
    match std::str::from_utf8(body).unwrap() {
        "" => String::new(),
        text => format!("{text}\n"),
    }
}

/// A header of an answer, as it is recorded.
fn header(answer: &Answer, name: &str, value: &str, head_only: bool) -> String {
    match name {
        "x-request-id" => {
            assert!(!value.is_empty(), "an answer without an id");
            "<request id>".to_owned()
        }
        // Ids and times have a constant length; durations do not.
        "content-length" => {
            let right = head_only || value == answer.body.len().to_string();
            assert!(right, "a length of {value} and {} bytes", answer.body.len());
            "<length>".to_owned()
        }
        "retry-after" if answer.status == 429 => "<seconds>".to_owned(),
        _ => value.to_owned(),
    }
}

/// The text of an error whose number of remaining seconds is replaced.
fn without_wait(text: &str) -> String {
    const BEGINS: &str = "Send it again in ";
    let (before, rest) = text.split_once(BEGINS).unwrap();
    let after = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
    format!("{before}{BEGINS}<seconds>{after}")
}
