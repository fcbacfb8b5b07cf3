//! The form of an action: only a page of this listener makes it, for one action, for a quarter of an hour.
//!
//! A browser sends its Basic credentials by itself, also for a form of another site. So the form carries a signature
//! under a key of this installation, and the browser must say that its own page sent it.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::percent;
use crate::domain::signature::{Key, Message, sign, verify};
use crate::http::Request;

/// How long a form can be sent.
const LIFETIME: Duration = Duration::from_mins(15);

/// The key that signs forms.
pub struct FormKey(Key);

impl FormKey {
    /// The key of an installation, from its token and the id of its database.
    pub fn new(token: &str, database_id: &str) -> Option<Self> {
        let token = Key::new(token).ok()?;
        let derived = sign(&token, Message::Parts(&[b"forms of ", database_id.as_bytes()]));
        Key::new(derived).ok().map(Self)
    }
}

/// The fields of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// The kind of action.
    pub kind: String,
    /// What it acts on.
    pub subject: String,
    /// The state that the page showed.
    pub seen: String,
    /// Makes a second sending of the same form recognizable.
    pub nonce: String,
    /// When the page was made, in milliseconds.
    pub at: i64,
}

impl Form {
    fn sign(&self, key: &FormKey) -> String {
        sign(&key.0, Message::Bytes(self.text().as_bytes()))
    }

    /// The fields in a form that can be read in one way alone.
    fn text(&self) -> String {
        format!(
            "{:?}",
            (&self.kind, &self.subject, &self.seen, &self.nonce, self.at)
        )
    }

    /// The names and values of the form's hidden fields.
    pub fn fields(&self, key: &FormKey) -> [(&'static str, String); 5] {
        [
            ("subject", self.subject.clone()),
            ("seen", self.seen.clone()),
            ("nonce", self.nonce.clone()),
            ("at", self.at.to_string()),
            ("token", self.sign(key)),
        ]
    }

    /// Reads a form that was sent, and the text that was typed. `None` if a field is missing, the signature is
    /// not that of this installation, or the page is too old.
    pub fn read(key: &FormKey, kind: &str, body: &[u8], now: Timestamp) -> Option<(Self, String)> {
        let body = std::str::from_utf8(body).ok()?;
        let field = |name: &str| {
            let mut pairs = body.split('&').filter_map(|pair| pair.split_once('='));
            let (_, value) = pairs.find(|(key, _)| *key == name)?;
            Some(percent::decode(&value.replace('+', " ")))
        };
        let form = Self {
            kind: kind.to_owned(),
            subject: field("subject")?,
            seen: field("seen")?,
            nonce: field("nonce")?,
            at: field("at")?.parse().ok()?,
        };
        let text = form.text();
        let message = Message::Bytes(text.as_bytes());
        let is_own = verify(&field("token")?, std::slice::from_ref(&key.0), &[message]);
        let made = Timestamp::from_millis(form.at);
        let is_fresh = made <= now && now.since(made) <= LIFETIME;
        (is_own && is_fresh).then(|| (form, field("typed").unwrap_or_default()))
    }
}

/// Whether the browser says that a page of this listener sent the request (Fetch Metadata, or `Origin`).
pub fn is_from_own_page(request: &Request) -> bool {
    if let Some(site) = request.header("sec-fetch-site") {
        return site == "same-origin";
    }
    let host = request.header("host").unwrap_or("");
    let origin = request
        .header("origin")
        .and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(_, from)| !host.is_empty() && from.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(fields: &[(&str, String)]) -> String {
        let encode = |value: &str| percent::encode(value, |byte| byte.is_ascii_alphanumeric());
        let pairs = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)));
        pairs.collect::<Vec<_>>().join("&")
    }

    #[test]
    fn only_a_fresh_form_of_this_installation_is_read() {
        let key = FormKey::new("0123456789abcdef", "one").expect("a key");
        let other = FormKey::new("0123456789abcdef", "two").expect("a key");
        let now = Timestamp::from_seconds(1_795_400_000);
        let form = Form {
            kind: "pause".into(),
            subject: "intake & <b>".into(),
            seen: "not paused".into(),
            nonce: "n".into(),
            at: now.millis(),
        };
        let body = encode(&form.fields(&key)) + "&typed=in+take";
        let read = |key, kind, body: &str, at| Form::read(key, kind, body.as_bytes(), at);
        assert_eq!(
            read(&key, "pause", &body, now),
            Some((form.clone(), "in take".into()))
        );
        let late = now + LIFETIME + Duration::from_secs(1);
        for (key, kind, body, at) in [
            (&other, "pause", body.clone(), now),
            (&key, "resume", body.clone(), now),
            (&key, "pause", body.replace("nonce=n", "nonce=m"), now),
            (&key, "pause", body.replace("not%20paused", "paused"), now),
            (&key, "pause", body.replace("token=", "taken="), now),
            (&key, "pause", body.clone(), late),
            (&key, "pause", body.clone(), now.before(Duration::from_secs(1))),
            (&key, "pause", String::new(), now),
        ] {
            assert_eq!(read(key, kind, &body, at), None, "{kind} {body}");
        }
    }
}
