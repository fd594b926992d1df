//! The signature that receivers of Convoy's webhooks verify: `X-Convoy-Signature`.
//!
//! Simple: the HMAC of the body alone. Advanced: `t=` and seconds, then `v1=` and the HMAC of `{t},{body}` for each live secret, then the same as
//! `v2` for the second version (<https://docs.getconvoy.io/product-manual/signatures>). We sign the bytes that we send, and nothing else.

use crate::mac::{Encoding, Hash, SharedSecret};

/// One way to sign. A project has one, or several while its receivers move from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Which hash.
    pub hash: Hash,
    /// Which spelling.
    pub encoding: Encoding,
}

impl Default for Version {
    /// SHA-256 in hexadecimal digits.
    fn default() -> Self {
        Self { hash: Hash::Sha256, encoding: Encoding::Hex }
    }
}

impl Version {
    fn sign(self, secret: &SharedSecret, parts: &[&[u8]]) -> String {
        self.encoding.encode(&self.hash.mac(secret, parts))
    }
}

/// The simple signature: by the newest version and the newest secret, since the header has room for one. None, if there is no secret or
/// no version. Both lists have the oldest first.
pub fn simple(versions: &[Version], secrets: &[SharedSecret], body: &[u8]) -> Option<String> {
    Some(versions.last()?.sign(secrets.last()?, &[body]))
}

/// The advanced signature of an attempt at `unix_seconds`: by all versions and all live secrets, the oldest first. None, if there is no secret or
/// no version. Nothing stands twice in a version.
pub fn advanced(versions: &[Version], secrets: &[SharedSecret], unix_seconds: i64, body: &[u8]) -> Option<String> {
    if versions.is_empty() || secrets.is_empty() {
        return None;
    }
    let stamp = unix_seconds.to_string();
    let mut entries = vec![format!("t={stamp}")];
    for (number, version) in (1..).zip(versions) {
        for secret in secrets {
            let entry = format!("v{number}={}", version.sign(secret, &[stamp.as_bytes(), b",", body]));
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
    }
    Some(entries.join(","))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::DateTime;

    use super::*;
    use crate::source::{
        Incoming,
        verifier::{SignedBody, Verifier},
    };

    const SECRET: &str = "convoy-webhook-secret";
    const BODY: &str = r#"{"event":"charge.success","amount":1000,"currency":"NGN"}"#;
    const STAMP: i64 = 1_700_000_000;

    const SHA256_HEX: Version = Version { hash: Hash::Sha256, encoding: Encoding::Hex };
    const SHA256_BASE64: Version = Version { hash: Hash::Sha256, encoding: Encoding::Base64 };
    const SHA512_HEX: Version = Version { hash: Hash::Sha512, encoding: Encoding::Hex };
    const SHA512_BASE64: Version = Version { hash: Hash::Sha512, encoding: Encoding::Base64 };

    /// The cases of `testdata/signature-vectors.json` in <https://github.com/frain-dev/convoy-go> (MIT) that a sender has to produce.
    const SIMPLE: [(Version, &str); 4] = [
        (SHA256_HEX, "244449b7f48cbc2709060c9dcdc2b3aa47a78f540430579015c579fb12defbb4"),
        (SHA256_BASE64, "JERJt/SMvCcJBgydzcKzqkenj1QEMFeQFcV5+xLe+7Q="),
        (
            SHA512_HEX,
            "6cc772dc81942ae1b5ffa91c3a6a07b0d37edc8dc6bd83e3518a219f1f19ff71ae1b76d6b320940d414c236a1aad7f7930b63e0f1928951955d31219545e1b66",
        ),
        (SHA512_BASE64, "bMdy3IGUKuG1/6kcOmoHsNN+3I3GvYPjUYohnx8Z/3GuG3bWsyCUDUFMI2oarX95MLY+DxkolRlV0xIZVF4bZg=="),
    ];
    /// As [`SIMPLE`].
    const ADVANCED: [(Version, &str); 4] = [
        (SHA256_HEX, "t=1700000000,v1=77b8b9269f25a199846a55a2bd25b3fba151c70fdae60bb1dcd87fbbc943c55c"),
        (SHA256_BASE64, "t=1700000000,v1=d7i5Jp8loZmEalWivSWz+6FRxw/a5gux3Nh/u8lDxVw="),
        (
            SHA512_HEX,
            "t=1700000000,v1=b2122e252cd2582cf225cb2b8d4ceede9e34329e2fe95c02619c3ed5d4a3d9a73e6beaf2dff8e76d71a693ae198cee40685eed12ad4ee2e033dc2d0399ede057",
        ),
        (SHA512_BASE64, "t=1700000000,v1=shIuJSzSWCzyJcsrjUzu3p40Mp4v6VwCYZw+1dSj2ac+a+ry3/jnbXGmk64ZjO5AaF7tEq1O4uAz3C0Dme3gVw=="),
    ];
    /// Its cases of advanced headers by SHA-256 in hexadecimal digits that a receiver has to judge: the tolerance in seconds, and whether it is valid.
    const JUDGED: [(&str, u64, bool, &str); 8] = [
        ("advanced_tamper", 3_153_600_000, false, "t=1700000000,v1=77b8b9269f25a199846a55a2bd25b3fba151c70fdae60bb1dcd87fbbc943c550"),
        ("advanced_expired", 300, false, "t=1700000000,v1=77b8b9269f25a199846a55a2bd25b3fba151c70fdae60bb1dcd87fbbc943c55c"),
        ("advanced_t_not_first", 3_153_600_000, true, "v1=77b8b9269f25a199846a55a2bd25b3fba151c70fdae60bb1dcd87fbbc943c55c,t=1700000000"),
        (
            "advanced_multi_v1_one_valid",
            3_153_600_000,
            true,
            "t=1700000000,v1=449623e4897bbde05e35358293f97b8c2f697367ffa3e7466e98178dfba44d19,v1=77b8b9269f25a199846a55a2bd25b3fba151c70fdae60bb1dcd87fbbc943c55c",
        ),
        (
            "advanced_multi_v1_none_valid",
            3_153_600_000,
            false,
            "t=1700000000,v1=449623e4897bbde05e35358293f97b8c2f697367ffa3e7466e98178dfba44d19,v1=c7eff1833c41a2ce2e195599451b240cd282b1bc9fa387e428a9fd5a5dc74933",
        ),
        ("advanced_t_infinity", 3_153_600_000, false, "t=Infinity,v1=77b8b9269f25a199846a55a2bd25b3fba151c70fdae60bb1dcd87fbbc943c55c"),
        ("advanced_numeric_signature", 3_153_600_000, false, "t=1700000000,v1=1234567890"),
        (
            "advanced_missing_timestamp",
            3_153_600_000,
            false,
            "v1=77b8b9269f25a199846a55a2bd25b3fba151c70fdae60bb1dcd87fbbc943c55c,v2=77b8b9269f25a199846a55a2bd25b3fba151c70fdae60bb1dcd87fbbc943c55c",
        ),
    ];

    fn secret(text: &str) -> SharedSecret {
        SharedSecret::new(text)
    }

    fn is_verified(verifier: &Verifier, header: &str) -> bool {
        let headers: [(&str, &[u8]); 1] = [("X-Convoy-Signature", header.as_bytes())];
        let request = Incoming { headers: &headers, body: BODY.as_bytes(), ..Incoming::default() };
        verifier.verify(&request, DateTime::from_timestamp(1_800_000_000, 0).expect("a time")).is_ok()
    }

    fn verifier(version: Version, tolerance: u64) -> Verifier {
        Verifier::Convoy(version, secret(SECRET), Duration::from_secs(tolerance))
    }

    #[test]
    fn the_published_signatures_are_made_and_verified() {
        for (version, header) in SIMPLE {
            assert_eq!(simple(&[version], &[secret(SECRET)], BODY.as_bytes()).as_deref(), Some(header));
            let signed = SignedBody {
                header: "x-convoy-signature".to_owned(),
                prefix: String::new(),
                hash: version.hash,
                encoding: version.encoding,
            };
            let verifier = Verifier::Body(signed, secret(SECRET));
            assert!(is_verified(&verifier, header));
            let tampered = "244449b7f48cbc2709060c9dcdc2b3aa47a78f540430579015c579fb12defbb0";
            assert!(!is_verified(&verifier, tampered), "simple_tamper");
        }
        for (version, header) in ADVANCED {
            assert_eq!(advanced(&[version], &[secret(SECRET)], STAMP, BODY.as_bytes()).as_deref(), Some(header));
            assert!(is_verified(&verifier(version, 3_153_600_000), header));
        }
    }

    #[test]
    fn the_published_judgements_are_ours() {
        for (name, tolerance, is_valid, header) in JUDGED {
            assert_eq!(is_verified(&verifier(SHA256_HEX, tolerance), header), is_valid, "{name}");
        }
    }

    #[test]
    fn all_versions_and_live_secrets_sign_and_none_twice() {
        let (versions, secrets) = ([SHA256_HEX, SHA512_BASE64], [secret("old"), secret(SECRET), secret("old")]);
        let header = advanced(&versions, &secrets, STAMP, BODY.as_bytes()).expect("a header");
        let names: Vec<_> = header.split(',').map(|entry| entry.split_once('=').expect("an entry").0).collect();
        assert_eq!(names, ["t", "v1", "v1", "v2", "v2"]);
        for version in versions {
            assert!(is_verified(&verifier(version, 3_153_600_000), &header), "whichever version a receiver knows");
        }
        assert_eq!(simple(&versions[..1], &secrets[..2], BODY.as_bytes()).as_deref(), Some(SIMPLE[0].1), "the newest secret");
        assert_eq!(simple(&versions, &secrets[..2], BODY.as_bytes()).as_deref(), Some(SIMPLE[3].1), "the newest version");
        assert_eq!(advanced(&[], &secrets, STAMP, b""), None);
        assert_eq!(advanced(&versions, &[], STAMP, b""), None);
        assert_eq!((simple(&[], &secrets, b""), simple(&versions, &[], b"")), (None, None));
    }
}
