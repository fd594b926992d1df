//! Keys that programs call with: `CO.`, 16 letters and digits by which a key is found, `.`, and 64 that nobody else knows.

use std::fmt;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::id::{ApiKeyId, TenantId};

/// What every key begins with, so that it is told from tokens; as Convoy has it.
const PREFIX: &str = "CO.";
/// How many letters and digits the part has by which a key is found.
pub const MASK: usize = 16;
/// How many the part has that makes it a key: more than 380 random bits.
pub const SECRET: usize = 64;

/// The whole text of a key. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// The key of these two parts, which are letters and digits.
    pub fn new(mask: &str, secret: &str) -> Self {
        Self(format!("{PREFIX}{mask}.{secret}"))
    }

    /// Whether a text claims to be a key.
    pub fn is_claimed_by(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Reads a key; nothing, if no key looks so.
    pub fn parse(text: &str) -> Option<Self> {
        let is_part = |part: &str, length: usize| part.len() == length && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let (mask, secret) = text.strip_prefix(PREFIX)?.split_once('.')?;
        (is_part(mask, MASK) && is_part(secret, SECRET)).then(|| Self(text.to_owned()))
    }

    /// The part by which it is found.
    pub fn mask(&self) -> &str {
        &self.0[PREFIX.len()..PREFIX.len() + MASK]
    }

    /// What is kept of it. A slow hash protects what people choose, and nobody chose this.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// Whether this is the hash of the key. How long it takes does not depend on where the two differ.
    pub fn has_hash(&self, hash: &[u8]) -> bool {
        self.hash().as_slice().ct_eq(hash).into()
    }

    /// The text, for whoever is given the key.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(redacted)")
    }
}

/// What a key lets its bearer do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// See everything but secrets.
    Viewer,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose things it opens.
    pub tenant_id: TenantId,
    /// What people call it.
    pub name: String,
    /// What it is good for.
    pub role: Role,
    /// The part by which it is found.
    pub mask: String,
    /// From when on it opens nothing; absent: it does not end by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was taken back.
    pub revoked_at: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ApiKey {
        ApiKey::new("aB3dE6gH9jK2mN5p", &"x".repeat(SECRET))
    }

    #[test]
    fn a_key_reads_back_and_is_hidden() {
        let text = key().expose().to_owned();
        assert_eq!(ApiKey::parse(&text), Some(key()));
        assert_eq!(key().mask(), "aB3dE6gH9jK2mN5p");
        assert_eq!(format!("{:?}", key()), "ApiKey(redacted)");
        let hostile = ["", "CO.", "CO..", "co", &text[1..], &text[..text.len() - 1], &format!("{text}x"), &text.replace("aB3", "é3")];
        for text in hostile.into_iter().chain([text.replace("CO.", "PRT.").as_str(), &text.replace('x', " "), &text.replacen('a', ".", 1)])
        {
            assert_eq!(ApiKey::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_its_own_hash_is_that_of_a_key() {
        let hash = key().hash();
        assert!(key().has_hash(&hash));
        assert!(!ApiKey::new("aB3dE6gH9jK2mN5p", &"y".repeat(SECRET)).has_hash(&hash));
        assert!(!key().has_hash(&hash[..31]) && !key().has_hash(&[]));
    }
}
