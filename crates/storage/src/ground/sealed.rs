//! Secrets at rest: XChaCha20-Poly1305 under a key derived from the main secret.
//!
//! A sealed value is one version byte, a random 24-byte nonce and the ciphertext; it is bound to the row that it belongs
//! to, so that moving it to another row makes it unreadable.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Generate, Payload},
};
use hkdf::Hkdf;
use sha2::Sha256;
use sqlx::types::Uuid;

use crate::{Error, Result};

const VERSION: u8 = 1;
const NONCE: usize = 24;

/// Seals and opens values.
pub(crate) struct Sealer {
    current: XChaCha20Poly1305,
    previous: Option<XChaCha20Poly1305>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(redacted)")
    }
}

impl Sealer {
    /// Seals with `current`; opens what `previous` has sealed too.
    pub(crate) fn new(current: &str, previous: Option<&str>) -> Self {
        Self { current: derive(current), previous: previous.map(derive) }
    }

    /// Seals a value that belongs to the row `owner`.
    pub(crate) fn seal(&self, owner: Uuid, plain: &[u8]) -> Vec<u8> {
        let nonce = XNonce::generate();
        let sealed = self.current.encrypt(&nonce, Payload { msg: plain, aad: owner.as_bytes() }).expect("a value fits in memory");
        [&[VERSION], nonce.as_slice(), &sealed].concat()
    }

    /// Opens a value that belongs to the row `owner`.
    pub(crate) fn open(&self, owner: Uuid, sealed: &[u8]) -> Result<Vec<u8>> {
        let keys = [Some(&self.current), self.previous.as_ref()];
        keys.into_iter().flatten().find_map(|key| unseal(key, owner, sealed)).ok_or(Error::Sealed)
    }

    /// Whether the current secret has sealed this value of the row `owner`.
    pub(crate) fn has_sealed(&self, owner: Uuid, sealed: &[u8]) -> bool {
        unseal(&self.current, owner, sealed).is_some()
    }
}

fn unseal(key: &XChaCha20Poly1305, owner: Uuid, sealed: &[u8]) -> Option<Vec<u8>> {
    let (version, rest) = sealed.split_first()?;
    let (nonce, text) = rest.split_at_checked(NONCE)?;
    let nonce = XNonce::try_from(nonce).ok()?;
    if *version != VERSION {
        return None;
    }
    key.decrypt(&nonce, Payload { msg: text, aad: owner.as_bytes() }).ok()
}

/// HKDF-SHA256 (RFC 5869) of the main secret, whatever its length.
fn derive(main_secret: &str) -> XChaCha20Poly1305 {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(None, main_secret.as_bytes()).expand(b"posthaste sealed values 1", &mut key).expect("32 bytes can be derived");
    XChaCha20Poly1305::new(&key.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_opens_only_with_its_secret_and_in_its_row() {
        let (row, other_row) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let sealer = Sealer::new("first", None);
        let sealed = sealer.seal(row, b"value");
        assert!(!sealed.windows(5).any(|window| window == b"value"));
        assert_eq!(sealer.open(row, &sealed).expect("its own"), b"value");
        assert!(sealer.open(other_row, &sealed).is_err());
        assert!(Sealer::new("second", None).open(row, &sealed).is_err());
        let rotated = Sealer::new("second", Some("first"));
        assert_eq!(rotated.open(row, &sealed).expect("the previous one"), b"value");
        assert_eq!((sealer.has_sealed(row, &sealed), rotated.has_sealed(row, &sealed)), (true, false));
        assert!(sealer.open(row, &sealed[..10]).is_err());
    }
}
