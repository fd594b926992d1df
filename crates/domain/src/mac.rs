//! Keyed hashes as other services write them: which hash, which spelling, and a comparison that tells nothing by how long it takes.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

/// A secret that is shared with another service: its bytes as the service takes them. `Debug` never shows it.
#[derive(Clone)]
pub struct SharedSecret(Vec<u8>);

impl SharedSecret {
    /// A secret of these bytes; most services take those of the text that they show.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Its bytes, to be sealed.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether a text is this secret. How long it takes depends on the text alone.
    pub fn is(&self, text: &[u8]) -> bool {
        Sha256::digest(text).ct_eq(&Sha256::digest(&self.0)).into()
    }
}

impl PartialEq for SharedSecret {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for SharedSecret {}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(redacted)")
    }
}

/// Which hash an HMAC is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How the bytes of an HMAC are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Two hexadecimal digits for each byte, small letters.
    Hex,
    /// The standard alphabet of base64, with padding.
    Base64,
}

impl Hash {
    /// The HMAC (RFC 2104) of these parts, one behind the other.
    pub fn mac(self, secret: &SharedSecret, parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::Sha256 => fed::<Hmac<Sha256>>(secret, parts).finalize().into_bytes().to_vec(),
            Self::Sha512 => fed::<Hmac<Sha512>>(secret, parts).finalize().into_bytes().to_vec(),
        }
    }

    /// Whether `mac` is the HMAC of these parts. How long it takes does not depend on where the two differ.
    pub fn verifies(self, secret: &SharedSecret, parts: &[&[u8]], mac: &[u8]) -> bool {
        match self {
            Self::Sha256 => fed::<Hmac<Sha256>>(secret, parts).verify_slice(mac).is_ok(),
            Self::Sha512 => fed::<Hmac<Sha512>>(secret, parts).verify_slice(mac).is_ok(),
        }
    }
}

fn fed<M: Mac + KeyInit>(secret: &SharedSecret, parts: &[&[u8]]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(&secret.0).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

impl Encoding {
    /// Writes bytes down.
    pub fn encode(self, bytes: &[u8]) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        match self {
            Self::Hex => bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect(),
            Self::Base64 => BASE64_STANDARD.encode(bytes),
        }
    }

    /// Reads bytes back; hexadecimal digits may be capital.
    pub fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => {
                let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
                let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
                digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok()).collect()
            }
            Self::Base64 => BASE64_STANDARD.decode(text).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231 §4.3, test case 2.
    #[test]
    fn the_published_vectors_are_reproduced() {
        let secret = SharedSecret::new("Jefe");
        let parts: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
        let sha256 = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let sha512 = "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737";
        for (hash, expected) in [(Hash::Sha256, sha256), (Hash::Sha512, sha512)] {
            assert_eq!(Encoding::Hex.encode(&hash.mac(&secret, &parts)), expected);
            let mut mac = Encoding::Hex.decode(&expected.to_uppercase()).expect("hexadecimal");
            assert!(hash.verifies(&secret, &parts, &mac));
            assert!(!hash.verifies(&secret, &parts, &mac[..mac.len() - 1]));
            mac[0] ^= 1;
            assert!(!hash.verifies(&secret, &parts, &mac));
        }
    }

    #[test]
    fn what_was_not_written_by_us_is_not_read() {
        for bad in ["0", "0g", "0x00", " 00", "00 ", "+1", "é0"] {
            assert_eq!(Encoding::Hex.decode(bad), None, "{bad}");
        }
        for bad in ["A", "AA", "AA=", "A-__", "AAAA\n"] {
            assert_eq!(Encoding::Base64.decode(bad), None, "{bad}");
        }
        for bytes in [&[][..], &[0], &[255, 0, 16]] {
            for encoding in [Encoding::Hex, Encoding::Base64] {
                assert_eq!(encoding.decode(&encoding.encode(bytes)).as_deref(), Some(bytes));
            }
        }
    }

    #[test]
    fn a_shared_secret_is_known_and_hidden() {
        let secret = SharedSecret::new("open sesame");
        assert!(secret.is(b"open sesame"));
        assert!(!secret.is(b"open sesam") && !secret.is(b"") && !secret.is(b"open sesame "));
        assert_eq!(format!("{secret:?}"), "SharedSecret(redacted)");
    }
}
