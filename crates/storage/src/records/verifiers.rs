//! How a source's verifier is kept: as JSON, sealed, since it holds the secret by which requests are known to be genuine.

use std::time::Duration;

use domain::{
    convoy_signature::Version,
    mac::{Encoding, Hash, SharedSecret},
    source::verifier::{ApiKeyPlace, SignedBody, Verifier},
};
use serde::{Deserialize, Serialize};
use sqlx::types::Uuid;

use crate::{Database, Error, Result};

/// A verifier as it is written down.
#[derive(Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Kept {
    Hmac { header: String, prefix: String, hash: KeptHash, encoding: KeptEncoding, secret: KeptSecret },
    BasicAuth { user: String, password: KeptSecret },
    ApiKey { place: KeptPlace, key: KeptSecret },
    Stripe { secret: KeptSecret, tolerance_seconds: u64 },
    Convoy { hash: KeptHash, encoding: KeptEncoding, secret: KeptSecret, tolerance_seconds: u64 },
    Slack { secret: KeptSecret, tolerance_seconds: u64 },
    Standard { secret: KeptSecret, tolerance_seconds: u64 },
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum KeptPlace {
    Header(String),
    Bearer,
    Query(String),
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum KeptHash {
    Sha256,
    Sha512,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum KeptEncoding {
    Hex,
    Base64,
}

/// A secret's bytes, which need not be text.
#[derive(Deserialize, Serialize)]
struct KeptSecret(String);

impl KeptSecret {
    fn of(secret: &SharedSecret) -> Self {
        Self(Encoding::Base64.encode(secret.expose()))
    }

    fn open(self) -> Result<SharedSecret> {
        Encoding::Base64.decode(&self.0).map(SharedSecret::new).ok_or(Error::Sealed)
    }
}

impl From<Hash> for KeptHash {
    fn from(hash: Hash) -> Self {
        match hash {
            Hash::Sha256 => Self::Sha256,
            Hash::Sha512 => Self::Sha512,
        }
    }
}

impl From<KeptHash> for Hash {
    fn from(hash: KeptHash) -> Self {
        match hash {
            KeptHash::Sha256 => Self::Sha256,
            KeptHash::Sha512 => Self::Sha512,
        }
    }
}

impl From<Encoding> for KeptEncoding {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Hex => Self::Hex,
            Encoding::Base64 => Self::Base64,
        }
    }
}

impl From<KeptEncoding> for Encoding {
    fn from(encoding: KeptEncoding) -> Self {
        match encoding {
            KeptEncoding::Hex => Self::Hex,
            KeptEncoding::Base64 => Self::Base64,
        }
    }
}

/// The sealed verifier of the source with this id; nothing for the one that takes all requests, and for what could not be opened.
pub(crate) fn seal(db: &Database, id: Uuid, verifier: &Verifier) -> Option<Vec<u8>> {
    let kept = match verifier {
        Verifier::None | Verifier::Unreadable => return None,
        Verifier::Body(SignedBody { header, prefix, hash, encoding }, secret) => Kept::Hmac {
            header: header.clone(),
            prefix: prefix.clone(),
            hash: (*hash).into(),
            encoding: (*encoding).into(),
            secret: KeptSecret::of(secret),
        },
        Verifier::Basic { user, password } => Kept::BasicAuth { user: user.clone(), password: KeptSecret::of(password) },
        Verifier::ApiKey(place, key) => {
            let place = match place {
                ApiKeyPlace::Header(name) => KeptPlace::Header(name.clone()),
                ApiKeyPlace::Bearer => KeptPlace::Bearer,
                ApiKeyPlace::Query(name) => KeptPlace::Query(name.clone()),
            };
            Kept::ApiKey { place, key: KeptSecret::of(key) }
        }
        Verifier::Stripe(secret, tolerance) => Kept::Stripe { secret: KeptSecret::of(secret), tolerance_seconds: tolerance.as_secs() },
        Verifier::Convoy(Version { hash, encoding }, secret, tolerance) => Kept::Convoy {
            hash: (*hash).into(),
            encoding: (*encoding).into(),
            secret: KeptSecret::of(secret),
            tolerance_seconds: tolerance.as_secs(),
        },
        Verifier::Slack(secret, tolerance) => Kept::Slack { secret: KeptSecret::of(secret), tolerance_seconds: tolerance.as_secs() },
        Verifier::Standard(secret, tolerance) => Kept::Standard { secret: KeptSecret::of(secret), tolerance_seconds: tolerance.as_secs() },
    };
    let json = serde_json::to_vec(&kept).expect("texts and numbers are JSON");
    Some(db.sealer().seal(id, &json))
}

/// Opens it again. What cannot be opened, or read, is its source's trouble and nobody else's: that takes no request for genuine.
pub(crate) fn open(db: &Database, id: Uuid, sealed: Option<&[u8]>) -> Verifier {
    sealed.map_or(Verifier::None, |sealed| opened(db, id, sealed).unwrap_or(Verifier::Unreadable))
}

fn opened(db: &Database, id: Uuid, sealed: &[u8]) -> Result<Verifier> {
    let kept: Kept = serde_json::from_slice(&db.sealer().open(id, sealed)?).map_err(|_| Error::Sealed)?;
    Ok(match kept {
        Kept::Hmac { header, prefix, hash, encoding, secret } => {
            Verifier::Body(SignedBody { header, prefix, hash: hash.into(), encoding: encoding.into() }, secret.open()?)
        }
        Kept::BasicAuth { user, password } => Verifier::Basic { user, password: password.open()? },
        Kept::ApiKey { place, key } => {
            let place = match place {
                KeptPlace::Header(name) => ApiKeyPlace::Header(name),
                KeptPlace::Bearer => ApiKeyPlace::Bearer,
                KeptPlace::Query(name) => ApiKeyPlace::Query(name),
            };
            Verifier::ApiKey(place, key.open()?)
        }
        Kept::Stripe { secret, tolerance_seconds } => Verifier::Stripe(secret.open()?, Duration::from_secs(tolerance_seconds)),
        Kept::Convoy { hash, encoding, secret, tolerance_seconds } => {
            let version = Version { hash: hash.into(), encoding: encoding.into() };
            Verifier::Convoy(version, secret.open()?, Duration::from_secs(tolerance_seconds))
        }
        Kept::Slack { secret, tolerance_seconds } => Verifier::Slack(secret.open()?, Duration::from_secs(tolerance_seconds)),
        Kept::Standard { secret, tolerance_seconds } => Verifier::Standard(secret.open()?, Duration::from_secs(tolerance_seconds)),
    })
}
