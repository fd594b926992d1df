//! How a tenant wants the webhooks of all its endpoints made, as a project says it.

use crate::{
    convoy_signature::Version,
    endpoint::{is_header_name, is_reserved_header},
    retry_strategy::RetryStrategy,
};

/// Where the signature is, if nobody says otherwise.
pub const SIGNATURE_HEADER: &str = "x-convoy-signature";

/// What holds for all endpoints of a tenant, unless one of them has it otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The header that the signature is sent in, in small letters.
    pub signature_header: String,
    /// How is signed, the oldest version first; never empty.
    pub signature_versions: Vec<Version>,
    /// When failed deliveries are tried again; absent: as the installation does.
    pub retry: Option<RetryStrategy>,
    /// An endpoint may have several subscriptions.
    pub has_many_subscriptions: bool,
}

impl Default for Rules {
    /// What a tenant has that never said anything.
    fn default() -> Self {
        Self {
            signature_header: SIGNATURE_HEADER.to_owned(),
            signature_versions: vec![Version::default()],
            retry: None,
            has_many_subscriptions: false,
        }
    }
}

/// The name of a header in small letters, if a signature may be sent in it: it is none of HTTP's, and no other one of ours.
pub fn signature_header(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    (is_header_name(&lower) && (lower == SIGNATURE_HEADER || !is_reserved_header(&lower))).then_some(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_takes_no_header_from_anybody() {
        assert_eq!(signature_header("X-Convoy-Signature").as_deref(), Some(SIGNATURE_HEADER));
        assert_eq!(signature_header("X-Acme-Signature").as_deref(), Some("x-acme-signature"));
        for taken in ["", "a b", "Host", "Content-Type", "webhook-signature", "X-Convoy-Idempotency-Key", "x:y"] {
            assert_eq!(signature_header(taken), None, "{taken}");
        }
    }
}
