//! Which headers of a request from another service are kept and go on to the endpoints: those that the source names, and never what
//! would let a reader of them speak in somebody's name.

use thiserror::Error;

use super::location::header_name;

/// The most headers that a source may name.
pub const MAX_HEADERS: usize = 50;

/// Headers that carry credentials whatever the source's verifier is.
const CREDENTIALS: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"];

/// Headers that belong to one connection, or that each request of ours has of its own (RFC 9110 §7.6.1, RFC 9112).
const OF_THE_CONNECTION: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "content-type",
];

/// What the names of our own headers begin with: one from outside would be taken for ours.
const OURS: [&str; 3] = ["webhook-", "svix-", "x-convoy-"];

/// What of a request proves who sent it. It is never stored, shown or sent on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Names of headers, in small letters.
    pub headers: Vec<String>,
    /// Names of parameters.
    pub parameters: Vec<String>,
}

/// The headers that go on, in small letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardedHeaders(Vec<String>);

/// A list of headers that is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("entry {index}, {name:?}: {problem}")]
pub struct InvalidForward {
    /// Which entry, counted from 0.
    pub index: usize,
    /// What it says.
    pub name: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with the name of a header that is to go on.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Problem {
    /// No header can be called so.
    #[error("is not the name of a header: a name has letters, digits and any of !#$%&'*+-.^_`|~")]
    Name,
    /// It carries what the sender proves itself with.
    #[error("carries a credential, which is never kept or sent on: leave it out")]
    Credential,
    /// It is about the connection.
    #[error("is set anew for each request: leave it out")]
    Connection,
    /// It would be taken for one of ours.
    #[error("is a name that our own headers have: leave it out")]
    Ours,
    /// Too many.
    #[error("is one too many: a source may name {MAX_HEADERS}")]
    Many,
}

impl ForwardedHeaders {
    /// Reads the names that a source lists, given what its verifier takes as a credential.
    pub fn parse<T: AsRef<str>>(names: &[T], credentials: &Credentials) -> Result<Self, InvalidForward> {
        let mut headers = Vec::new();
        for (index, name) in names.iter().map(AsRef::as_ref).enumerate() {
            let refuse = |problem| Err(InvalidForward { index, name: name.to_owned(), problem });
            let Some(lower) = header_name(name) else { return refuse(Problem::Name) };
            if index >= MAX_HEADERS {
                return refuse(Problem::Many);
            }
            if CREDENTIALS.contains(&lower.as_str()) || credentials.headers.contains(&lower) {
                return refuse(Problem::Credential);
            }
            if OF_THE_CONNECTION.contains(&lower.as_str()) {
                return refuse(Problem::Connection);
            }
            if OURS.iter().any(|start| lower.starts_with(start)) {
                return refuse(Problem::Ours);
            }
            headers.push(lower);
        }
        Ok(Self(headers))
    }

    /// Takes names that [`ForwardedHeaders::parse`] has let pass.
    pub fn stored(names: Vec<String>) -> Self {
        Self(names)
    }

    /// The names, in small letters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Of the headers that came, those that are kept and go on. What is a credential now is left out even if it was none when the
    /// source was written.
    pub fn select<'a>(&self, headers: &[(&'a str, &'a [u8])], credentials: &Credentials) -> Vec<(&'a str, &'a [u8])> {
        let goes_on = |name: &str| {
            let is = |other: &String| other.eq_ignore_ascii_case(name);
            self.0.iter().any(is) && !credentials.headers.iter().any(is)
        };
        headers.iter().copied().filter(|(name, _)| goes_on(name)).collect()
    }
}

impl Credentials {
    /// The parameters that may be kept.
    pub fn without<'a>(&self, query: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        query.iter().copied().filter(|(name, _)| !self.parameters.iter().any(|secret| secret == name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_goes_on() {
        let none = Credentials::default();
        let forwarded = ForwardedHeaders::parse(&["X-Event", "x-hub-signature-256"], &none).expect("names");
        let headers: [(&str, &[u8]); 4] = [("X-EVENT", b"a"), ("Authorization", b"b"), ("x-event", b"\xff"), ("X-Other", b"d")];
        assert_eq!(forwarded.select(&headers, &none), [headers[0], headers[2]]);
        assert!(ForwardedHeaders::default().select(&headers, &none).is_empty());
        let later = Credentials { headers: vec!["x-event".to_owned()], parameters: vec!["key".to_owned()] };
        assert!(forwarded.select(&headers, &later).is_empty(), "a verifier that came later counts");
        assert_eq!(later.without(&[("key", "s3cret"), ("Key", "b"), ("q", "c")]), [("Key", "b"), ("q", "c")]);
    }

    #[test]
    fn what_must_not_go_on_is_refused() {
        let credentials = Credentials { headers: vec!["x-token".to_owned()], parameters: vec![] };
        for (name, problem) in [
            ("", Problem::Name),
            ("a b", Problem::Name),
            ("AUTHORIZATION", Problem::Credential),
            ("Cookie", Problem::Credential),
            ("X-Token", Problem::Credential),
            ("Host", Problem::Connection),
            ("Transfer-Encoding", Problem::Connection),
            ("Webhook-Id", Problem::Ours),
            ("X-Convoy-Signature", Problem::Ours),
        ] {
            let refused = ForwardedHeaders::parse(&["x-fine", name], &credentials).expect_err(name);
            assert_eq!(refused, InvalidForward { index: 1, name: name.to_owned(), problem });
        }
        assert_eq!(ForwardedHeaders::parse(&["x"; MAX_HEADERS + 1], &credentials).expect_err("many").problem, Problem::Many);
    }
}
