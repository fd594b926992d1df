//! What opens one application for its customer: tokens that a tenant hands out, and what they are good for.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::caller::{Permission, Permissions};

/// What every such token begins with, so that it is told from others.
const PREFIX: &str = "appsk_";
/// How many letters and digits follow: more than 250 random bits.
pub const SECRET: usize = 43;

/// The whole text of a token. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct PortalToken(String);

impl PortalToken {
    /// The token of these letters and digits.
    pub fn new(secret: &str) -> Self {
        Self(format!("{PREFIX}{secret}"))
    }

    /// Whether a text claims to be one.
    pub fn is_claimed_by(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Reads one; nothing, if none looks so.
    pub fn parse(text: &str) -> Option<Self> {
        let secret = text.strip_prefix(PREFIX)?;
        let is_one = secret.len() == SECRET && secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_one.then(|| Self(text.to_owned()))
    }

    /// What is kept of it, and what it is found by. A slow hash protects what people choose, and nobody chose this.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// The text, for whoever is given the token.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PortalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PortalToken(redacted)")
    }
}

/// One thing that the bearer of a token may do with the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// See all of it but secrets.
    View,
    /// See the secrets of endpoints.
    ViewSecrets,
    /// See and replace them.
    ManageSecrets,
    /// Change what is done to payloads. There is no such thing yet.
    ManageTransformations,
    /// Have messages sent again.
    CreateAttempts,
    /// Make, change and remove endpoints, secrets included.
    ManageEndpoints,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::View, Self::ViewSecrets, Self::ManageSecrets, Self::ManageTransformations, Self::CreateAttempts, Self::ManageEndpoints];

    const fn bit(self) -> i16 {
        1 << self as i16
    }

    const fn permissions(self) -> &'static [Permission] {
        match self {
            Self::View => &[
                Permission::ReadApplication,
                Permission::ReadEndpoint,
                Permission::ReadEventType,
                Permission::ReadMessage,
                Permission::ReadAttempt,
                Permission::EndSession,
            ],
            Self::ViewSecrets => &[Permission::ReadEndpointSecret],
            Self::ManageSecrets => &[Permission::ReadEndpointSecret, Permission::WriteEndpointSecret],
            Self::ManageTransformations => &[],
            Self::CreateAttempts => &[Permission::Resend],
            Self::ManageEndpoints => &[Permission::WriteEndpoint, Permission::ReadEndpointSecret, Permission::WriteEndpointSecret],
        }
    }
}

/// A set of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(i16);

impl Capabilities {
    /// The set of these, and to look around, without which nothing else is of use.
    pub fn of(capabilities: &[Capability]) -> Self {
        Self(capabilities.iter().fold(Capability::View.bit(), |bits, capability| bits | capability.bit()))
    }

    /// Reads what [`Self::code`] wrote.
    pub const fn stored(code: i16) -> Self {
        Self(code)
    }

    /// As a number, for the tables.
    pub const fn code(self) -> i16 {
        self.0
    }

    /// Whether this one is among them.
    pub const fn contain(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    /// What they let their bearer do.
    pub fn permissions(self) -> Permissions {
        let mine = Capability::ALL.into_iter().filter(|capability| self.contain(*capability));
        Permissions::of(&mine.flat_map(Capability::permissions).copied().collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_never_shown() {
        let token = PortalToken::new(&"a".repeat(SECRET));
        assert_eq!(PortalToken::parse(token.expose()), Some(token.clone()));
        assert_eq!(format!("{token:?}"), "PortalToken(redacted)");
        for wrong in ["appsk_", "appsk_a", &format!("appsk_{}", "-".repeat(SECRET)), &"a".repeat(SECRET)] {
            assert_eq!(PortalToken::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn all_capabilities_are_what_an_application_may_and_looking_writes_nothing() {
        let all = Capabilities::of(&Capability::ALL).permissions();
        assert_eq!(all, Permissions::APPLICATION);
        let looks = Capabilities::of(&[]).permissions();
        for permission in Permission::ALL {
            let reads = permission.name().ends_with(":read") && !permission.name().contains("secret");
            assert!(!looks.contain(*permission) || reads || *permission == Permission::EndSession, "{permission:?}");
        }
    }

    #[test]
    fn a_set_is_read_as_it_was_written() {
        let set = Capabilities::of(&[Capability::ManageSecrets]);
        assert_eq!(Capabilities::stored(set.code()), set);
        assert!(set.contain(Capability::View) && set.contain(Capability::ManageSecrets) && !set.contain(Capability::ManageEndpoints));
    }
}
