//! A customer's URL, with what it asks for and what we add to each request.

mod settings;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use chrono::{DateTime, Utc};
use thiserror::Error;
use url::Url;

use crate::{
    application::{Metadata, Uid},
    filter::Filter,
    id::{ApplicationId, EndpointId, TenantId},
    offer::Offer,
};

pub use settings::{Settings, SignatureStyle};

/// The longest URL, in bytes.
const MAX_URL: usize = 2048;
/// The longest header value, in bytes.
const MAX_HEADER_VALUE: usize = 4096;
/// The longest header name, in bytes.
const MAX_HEADER_NAME: usize = 256;
/// The most custom headers of one endpoint.
pub const MAX_HEADERS: usize = 50;

/// A customer's URL with filters and limits. Its secrets and headers are looked up apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Which customer's.
    pub application_id: ApplicationId,
    /// The tenant's own name for it, unique in the application.
    pub uid: Option<Uid>,
    /// Where its webhooks go.
    pub url: EndpointUrl,
    /// For people.
    pub description: String,
    /// A number of the tenant's choosing.
    pub version: i32,
    /// The most sends a second.
    pub throttle_rate: Option<u16>,
    /// Gets nothing: switched off by its owner, by a 410, or by days of failure.
    pub is_disabled: bool,
    /// What it wants.
    pub filter: Filter,
    /// What only some have.
    pub settings: Settings,
    /// The tenant's notes.
    pub metadata: Metadata,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last written.
    pub updated_at: DateTime<Utc>,
}

impl Endpoint {
    /// Whether it is owed a message like this one.
    pub fn wants(&self, offer: &Offer<'_>) -> bool {
        !self.is_disabled && !offer.is_for_another_than(self.id) && (offer.is_example() || self.filter.wants(offer))
    }
}

/// Why a text is not a URL that we send to.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidUrl {
    /// Not a URL.
    #[error("is not a valid URL: {0}")]
    Syntax(String),
    /// Not http or https.
    #[error("must be an http or https URL")]
    Scheme,
    /// Carries credentials.
    #[error("must not contain a user name or password: set an Authorization header on the endpoint instead")]
    Credentials,
    /// Too long.
    #[error("must be at most {MAX_URL} characters long")]
    Length,
}

/// An http or https URL without credentials. Whether its address may be called is decided at each send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUrl(String);

impl EndpointUrl {
    /// Accepts an absolute http or https URL with a host and without credentials; keeps the text as it was given.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        if text.len() > MAX_URL {
            return Err(InvalidUrl::Length);
        }
        // RFC 3986 §2: anything else has to be percent-encoded, and international names written in punycode.
        let is_written_out = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
        if !text.bytes().all(is_written_out) {
            return Err(InvalidUrl::Syntax("percent-encode special characters, and write international names in punycode".into()));
        }
        let url = Url::parse(text).map_err(|error| InvalidUrl::Syntax(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidUrl::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidUrl::Credentials);
        }
        Ok(Self(text.to_owned()))
    }

    /// Takes a URL that was checked when it was stored.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Custom headers of an endpoint: name to value, added to each request.
pub type Headers = BTreeMap<String, String>;

/// Why custom headers are refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidHeader {
    /// Not an HTTP token (RFC 9110 §5.6.2).
    #[error("`{0}` is not a valid header name")]
    Name(String),
    /// Set by us or by the connection.
    #[error("`{0}` is reserved and cannot be set")]
    Reserved(String),
    /// Not visible text, or too long.
    #[error("the value of `{0}` must be at most {MAX_HEADER_VALUE} visible ASCII characters")]
    Value(String),
    /// HTTP does not tell names apart that differ in case alone (RFC 9110 §5.1).
    #[error("`{0}` is given twice: names that differ in case alone are one header")]
    Twice(String),
    /// Too many.
    #[error("at most {MAX_HEADERS} headers can be set")]
    TooMany,
}

/// Names that custom headers may not have: they belong to the connection, to HTTP's own machinery, or to us.
pub const RESERVED: [&str; 19] = [
    "age",
    "cache-control",
    "clear-site-data",
    "connection",
    "expect",
    "expires",
    "host",
    "keep-alive",
    "pragma",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "warning",
    "x-convoy-idempotency-key",
    "x-convoy-signature",
    "date",
];
/// Prefixes that custom header names may not have: ours, and those that cloud load balancers trust.
pub const RESERVED_PREFIXES: [&str; 12] =
    ["content-", "posthaste-", "proxy-auth", "svix-", "webhook-", "x-amz-", "x-amzn-", "x-azure-", "x-fd-", "x-gfe", "x-goog", "x-svix-"];
/// Headers whose values are not shown again once set.
const SENSITIVE: [&str; 6] =
    ["authorization", "proxy-authenticate", "proxy-authorization", "www-authenticate", "x-api-key", "x-auth-token"];

/// Checks names and values of custom headers; `proxy-authorization` is refused with its prefix.
pub fn check_headers(headers: &Headers) -> Result<(), InvalidHeader> {
    check_header_count(headers.len())?;
    check_header_changes(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// Checks that so many custom headers are not too many for one endpoint.
pub fn check_header_count(count: usize) -> Result<(), InvalidHeader> {
    if count > MAX_HEADERS { Err(InvalidHeader::TooMany) } else { Ok(()) }
}

/// Checks names and values of custom headers that are to change, however many: what comes of them is what counts.
pub fn check_header_changes<'a>(changes: impl Iterator<Item = (&'a str, &'a str)>) -> Result<(), InvalidHeader> {
    let mut names = BTreeSet::new();
    for (name, value) in changes {
        check_header(name, value)?;
        if !names.insert(name.to_ascii_lowercase()) {
            return Err(InvalidHeader::Twice(name.to_owned()));
        }
    }
    Ok(())
}

/// Whether it is the name of a header: a token (RFC 9110 §5.6.2) that is not too long.
pub fn is_header_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.len() <= MAX_HEADER_NAME && name.bytes().all(is_token)
}

/// Whether a header, its name in small letters, belongs to the connection, to HTTP's own machinery, or to us.
pub fn is_reserved_header(lower: &str) -> bool {
    RESERVED.contains(&lower) || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
}

fn check_header(name: &str, value: &str) -> Result<(), InvalidHeader> {
    if !is_header_name(name) {
        return Err(InvalidHeader::Name(name.chars().take(64).collect()));
    }
    let lower = name.to_ascii_lowercase();
    if is_reserved_header(&lower) {
        return Err(InvalidHeader::Reserved(lower));
    }
    let is_visible = value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    if value.len() > MAX_HEADER_VALUE || !is_visible {
        return Err(InvalidHeader::Value(lower));
    }
    Ok(())
}

/// Whether a header's value is hidden once set.
pub fn is_sensitive_header(name: &str) -> bool {
    SENSITIVE.contains(&name.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_urls_are_accepted() {
        assert!(EndpointUrl::parse("https://example.com/hooks?a=1").is_ok());
        assert!(EndpointUrl::parse("http://[::1]:80/").is_ok());
        for container in ["http://my_service:8080/hook", "http://api_v2.team_x.svc.cluster.local/", "http://_a_/", "https://web-1_a"] {
            assert!(EndpointUrl::parse(container).is_ok(), "{container}");
        }
        for hostile in [
            "",
            "example.com",
            "ftp://example.com",
            "file:///etc/passwd",
            "http://",
            "javascript:alert(1)",
            "https://exa mple.com",
            "https://bücher.example/",
            "https://example.com/a|b",
        ] {
            assert!(EndpointUrl::parse(hostile).is_err(), "{hostile}");
        }
        assert_eq!(EndpointUrl::parse("https://user:pw@example.com"), Err(InvalidUrl::Credentials));
        assert_eq!(EndpointUrl::parse(&format!("https://example.com/{}", "x".repeat(2048))), Err(InvalidUrl::Length));
    }

    #[test]
    fn names_that_differ_in_case_alone_are_one_header() {
        let headers = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "v".to_owned())).collect();
        assert_eq!(check_headers(&headers(&["X-a", "x-A"])), Err(InvalidHeader::Twice("x-A".into())));
        assert_eq!(check_headers(&headers(&["X-a", "X-b"])), Ok(()));
        assert_eq!(check_header_count(50), Ok(()));
        assert_eq!(check_header_count(51), Err(InvalidHeader::TooMany));
    }

    #[test]
    fn hostile_headers_are_refused() {
        let one = |name: &str, value: &str| check_headers(&Headers::from([(name.into(), value.into())]));
        assert!(one("X-Team", "billing").is_ok());
        assert!(one("Authorization", "Bearer x").is_ok());
        assert!(matches!(one("X Team", "a"), Err(InvalidHeader::Name(_))));
        assert!(matches!(one("X-Team\r\nHost", "a"), Err(InvalidHeader::Name(_))));
        assert!(matches!(one("X-Team", "a\r\nHost: b"), Err(InvalidHeader::Value(_))));
        for reserved in ["Host", "Content-Length", "svix-id", "Webhook-Signature", "Transfer-Encoding", "X-Convoy-Idempotency-Key"] {
            assert!(matches!(one(reserved, "a"), Err(InvalidHeader::Reserved(_))), "{reserved}");
        }
    }
}
