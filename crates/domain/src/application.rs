//! One customer of a tenant, and the names and notes that a tenant may attach to its things.

use std::{collections::BTreeMap, fmt};

use chrono::{DateTime, Utc};
use thiserror::Error;

use crate::id::{ApplicationId, Id, TenantId};

/// The longest uid, event type name or channel, in bytes.
pub const MAX_NAME: usize = 256;
/// The largest metadata, in bytes of compact JSON.
pub const MAX_METADATA: usize = 4096;
/// The uid of the application whose endpoints hear of the tenant's own events. No name of a tenant's has such a character, so nobody
/// can call it, and nobody can take the name.
pub const OWN: &str = "!own";

/// One customer of a tenant; the owner of endpoints and messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// Its id.
    pub id: ApplicationId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// The tenant's own name for it, unique in the tenant.
    pub uid: Option<Uid>,
    /// For people.
    pub name: String,
    /// Messages a second, shared by its endpoints; stored and shown.
    pub throttle_rate: Option<u16>,
    /// The tenant's notes.
    pub metadata: Metadata,
    /// Grows with every write to the application or one of its endpoints.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last written.
    pub updated_at: DateTime<Utc>,
}

impl Application {
    /// Whether it is the hidden one, whose endpoints hear of the tenant's own events.
    pub fn is_own(&self) -> bool {
        self.uid.as_ref().is_some_and(|uid| uid.as_str() == OWN)
    }
}

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidName {
    /// Outside 1 to 256 characters.
    #[error("must be 1 to 256 characters long")]
    Length,
    /// Outside the alphabet.
    #[error("may contain only letters, digits, `-`, `_` and `.`")]
    Character,
    /// A segment that a URL resolves away (RFC 3986 §5.2.4): a request for it would reach something else.
    #[error("must not be `.` or `..`: in a URL these stand for other paths")]
    Dots,
    /// Looks like one of our ids.
    #[error("must not look like an id: choose one that does not start with the id prefix")]
    LooksLikeAnId,
}

/// Checks a name that stands in paths: uids, event ids and event type names.
pub fn check_name(text: &str) -> Result<(), InvalidName> {
    check_text(text)?;
    if matches!(text, "." | "..") { Err(InvalidName::Dots) } else { Ok(()) }
}

/// Checks the alphabet and length that all names share, also those that never stand in a path, such as channels.
pub fn check_text(text: &str) -> Result<(), InvalidName> {
    if text.is_empty() || text.len() > MAX_NAME {
        return Err(InvalidName::Length);
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.bytes().all(is_allowed) { Ok(()) } else { Err(InvalidName::Character) }
}

/// A name that the tenant chose for one of its things.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(String);

impl Uid {
    /// Accepts 1 to 256 characters of `[A-Za-z0-9-_.]` that a path can name and that do not start with the prefix of `I`'s ids.
    pub fn parse<I: Id>(text: &str) -> Result<Self, InvalidName> {
        check_name(text)?;
        if I::has_prefix(text) { Err(InvalidName::LooksLikeAnId) } else { Ok(Self(text.to_owned())) }
    }

    /// Takes a uid that was checked when it was stored.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Notes of a tenant on one of its things: text to text.
pub type Metadata = BTreeMap<String, String>;

/// The metadata is too large.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("must be at most {MAX_METADATA} bytes of JSON")]
pub struct MetadataTooLarge;

/// Checks that metadata is at most [`MAX_METADATA`] bytes as compact JSON.
pub fn check_metadata(metadata: &Metadata) -> Result<(), MetadataTooLarge> {
    let size = serde_json::to_string(metadata).map_or(usize::MAX, |json| json.len());
    if size <= MAX_METADATA { Ok(()) } else { Err(MetadataTooLarge) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_a_short_plain_name_that_is_not_an_id() {
        assert!(Uid::parse::<ApplicationId>("customer-42_a.b").is_ok());
        assert_eq!(Uid::parse::<ApplicationId>(""), Err(InvalidName::Length));
        assert_eq!(Uid::parse::<ApplicationId>(&"x".repeat(257)), Err(InvalidName::Length));
        assert_eq!(Uid::parse::<ApplicationId>("a b"), Err(InvalidName::Character));
        assert_eq!(Uid::parse::<ApplicationId>("app_1"), Err(InvalidName::LooksLikeAnId));
        assert_eq!(Uid::parse::<ApplicationId>(OWN), Err(InvalidName::Character), "nobody can call the hidden one");
    }

    #[test]
    fn no_name_in_a_path_is_one_that_a_url_resolves_away() {
        for resolved in [".", ".."] {
            assert_eq!(check_name(resolved), Err(InvalidName::Dots), "{resolved}");
            assert_eq!(check_text(resolved), Ok(()), "a channel never stands in a path");
        }
        for kept in ["...", "..a", "a..", ".well-known", "-.", "_"] {
            assert_eq!(check_name(kept), Ok(()), "{kept}");
        }
    }
}
