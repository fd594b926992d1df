//! How a receiver knows that a webhook is ours: Standard Webhooks signatures, symmetric and asymmetric.
//!
//! The signed text is `{message id}.{unix seconds}.{body}` (Standard Webhooks specification, "Signature scheme"):
//! `v1,` and the base64 of HMAC-SHA256, or `v1a,` and the base64 of ed25519.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

use crate::mac::SharedSecret;

/// The fewest bytes of a symmetric secret (Standard Webhooks: 24).
const MIN_KEY: usize = 24;
/// The most bytes of a symmetric secret that the SDK contract's pattern admits.
const MAX_KEY: usize = 75;

/// Why a text is not a signing secret.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "must be `whsec_` followed by the base64 of {MIN_KEY} to {MAX_KEY} bytes, or `whsk_` followed by the base64 of an ed25519 key pair"
)]
pub struct InvalidSecret;

/// A signing secret. `Debug` never shows it.
#[derive(Clone)]
pub struct Secret {
    key: Key,
}

#[derive(Clone)]
enum Key {
    /// The raw bytes, and an HMAC that has already taken them in.
    Symmetric {
        bytes: Vec<u8>,
        keyed: Box<Hmac<Sha256>>,
    },
    Asymmetric(Box<SigningKey>),
}

impl Secret {
    /// Reads `whsec_…` (24 to 75 bytes) or `whsk_…` (seed and public key, 64 bytes).
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        if let Some(encoded) = text.strip_prefix("whsec_") {
            let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| InvalidSecret)?;
            return if (MIN_KEY..=MAX_KEY).contains(&bytes.len()) { Ok(Self::symmetric(bytes)) } else { Err(InvalidSecret) };
        }
        let encoded = text.strip_prefix("whsk_").ok_or(InvalidSecret)?;
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| InvalidSecret)?;
        let pair = <[u8; 64]>::try_from(bytes).map_err(|_| InvalidSecret)?;
        let key = SigningKey::from_keypair_bytes(&pair).map_err(|_| InvalidSecret)?;
        Ok(Self { key: Key::Asymmetric(Box::new(key)) })
    }

    /// Reads back what [`Secret::expose`] wrote. A symmetric secret may have any length then: others than we choose them by other rules.
    pub fn stored(text: &str) -> Result<Self, InvalidSecret> {
        match text.strip_prefix("whsec_") {
            Some(encoded) => BASE64_STANDARD.decode(encoded).map(Self::symmetric).map_err(|_| InvalidSecret),
            None => Self::parse(text),
        }
    }

    /// A symmetric secret of these bytes; 24 random ones make a good secret.
    pub fn symmetric(bytes: Vec<u8>) -> Self {
        let keyed = Box::new(Hmac::new_from_slice(&bytes).expect("HMAC takes a key of any length"));
        Self { key: Key::Symmetric { bytes, keyed } }
    }

    /// The bytes of a symmetric secret, to be used as others use theirs.
    pub fn shared(&self) -> Option<SharedSecret> {
        match &self.key {
            Key::Symmetric { bytes, .. } => Some(SharedSecret::new(bytes.clone())),
            Key::Asymmetric(_) => None,
        }
    }

    /// A symmetric secret that is some text, as that text.
    pub fn text(&self) -> Option<&str> {
        match &self.key {
            Key::Symmetric { bytes, .. } => std::str::from_utf8(bytes).ok(),
            Key::Asymmetric(_) => None,
        }
    }

    /// The text that [`Secret::parse`] reads: for storage, sealed.
    pub fn expose(&self) -> String {
        match &self.key {
            Key::Symmetric { bytes, .. } => format!("whsec_{}", BASE64_STANDARD.encode(bytes)),
            Key::Asymmetric(key) => format!("whsk_{}", BASE64_STANDARD.encode(key.to_keypair_bytes())),
        }
    }

    /// What a verifier needs: the secret itself, or of a key pair only the public half (`whpk_…`).
    pub fn verifier(&self) -> String {
        match &self.key {
            Key::Symmetric { .. } => self.expose(),
            Key::Asymmetric(key) => format!("whpk_{}", BASE64_STANDARD.encode(key.verifying_key().as_bytes())),
        }
    }

    fn sign(&self, message_id: &str, timestamp: &str, body: &[u8]) -> String {
        match &self.key {
            Key::Symmetric { keyed, .. } => {
                let mut mac = (**keyed).clone();
                for part in [message_id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                    mac.update(part);
                }
                format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
            }
            Key::Asymmetric(key) => {
                let signed = [message_id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
                format!("v1a,{}", BASE64_STANDARD.encode(key.sign(&signed).to_bytes()))
            }
        }
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// The value of `webhook-signature`: one signature per live secret, the current one first, separated by spaces; none stands twice.
pub fn signature_header(secrets: &[Secret], message_id: &str, unix_seconds: i64, body: &[u8]) -> String {
    let timestamp = unix_seconds.to_string();
    let mut signatures = Vec::with_capacity(secrets.len());
    for signature in secrets.iter().map(|secret| secret.sign(message_id, &timestamp, body)) {
        if !signatures.contains(&signature) {
            signatures.push(signature);
        }
    }
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks specification's reference libraries.
    #[test]
    fn the_published_vector_is_reproduced() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let header = signature_header(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(header, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn no_signature_stands_twice() {
        let [one, other] = [1, 2].map(|byte| Secret::symmetric(vec![byte; 24]));
        // HMAC fills a short key up with zeros, so this secret is another text and signs as the first does.
        let padded = Secret::symmetric([[1; 24].as_slice(), &[0; 8]].concat());
        let header = |secrets: &[Secret]| signature_header(secrets, "msg_1", 1, b"{}");
        let secrets = [one, other, padded];
        assert_eq!(header(&[secrets[0].clone(), secrets[1].clone(), secrets[0].clone(), secrets[2].clone()]), header(&secrets[..2]));
        assert_eq!(header(&secrets[..2]).split(' ').count(), 2);
    }

    #[test]
    fn secrets_read_back_and_hide_in_debug() {
        let symmetric = Secret::symmetric(vec![7; 24]);
        let pair = SigningKey::from_bytes(&[9; 32]).to_keypair_bytes();
        let asymmetric = Secret::parse(&format!("whsk_{}", BASE64_STANDARD.encode(pair))).expect("a key pair");
        for secret in [&symmetric, &asymmetric] {
            let text = secret.expose();
            assert_eq!(Secret::parse(&text).expect("its own text").expose(), text);
            assert_eq!(format!("{secret:?}"), "Secret(redacted)");
        }
        assert!(asymmetric.verifier().starts_with("whpk_"));
        for bad in ["", "secret", "whsec_", "whsec_AAAA", "whsec_?", "whsk_AAAA"] {
            assert!(Secret::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_text_of_any_length_is_a_secret_and_both_signatures_use_its_bytes() {
        use crate::convoy_signature::{Version, simple};

        for text in ["a", "s3cret", "ein Geheimnis mit Umlauten: äöü", &"long".repeat(100)] {
            let stored = Secret::stored(&Secret::symmetric(text.into()).expose()).expect("what was stored");
            assert_eq!(stored.text(), Some(text));
            let standard = signature_header(std::slice::from_ref(&stored), "msg_1", 1, b"{}");
            let mac = Hmac::<Sha256>::new_from_slice(text.as_bytes()).expect("any length").chain_update(b"msg_1.1.{}").finalize();
            assert_eq!(standard, format!("v1,{}", BASE64_STANDARD.encode(mac.into_bytes())));
            let shared = stored.shared().expect("a shared secret");
            assert_eq!(simple(&[Version::default()], &[shared], b"{}"), simple(&[Version::default()], &[SharedSecret::new(text)], b"{}"));
        }
        assert!(Secret::stored("whsec_?").is_err() && Secret::stored("text").is_err());
    }
}
