//! Which certificates receivers are trusted by: Mozilla's roots, those of the system, and the operator's own.

use std::sync::OnceLock;

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, TrustAnchor, pem::PemObject},
};
use thiserror::Error;

/// Why a text holds no certificates to trust.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum InvalidAuthorities {
    /// It has no certificate in it.
    #[error("it has no certificate in it (`-----BEGIN CERTIFICATE-----`)")]
    Empty,
    /// What it holds is damaged or not a certificate.
    #[error("certificate {0} in it cannot be read")]
    Certificate(usize),
}

/// Certificates of private authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    /// Reads PEM text with one certificate or several; what else stands between them is skipped.
    pub fn from_pem(text: &[u8]) -> Result<Self, InvalidAuthorities> {
        let mut read = Vec::new();
        let mut scratch = RootCertStore::empty();
        for (index, found) in CertificateDer::pem_slice_iter(text).enumerate() {
            let damaged = InvalidAuthorities::Certificate(index + 1);
            let certificate = found.map_err(|_| damaged)?;
            scratch.add(certificate.clone()).map_err(|_| damaged)?;
            read.push(certificate);
        }
        if read.is_empty() { Err(InvalidAuthorities::Empty) } else { Ok(Self(read)) }
    }

    /// These beside the roots that everybody trusts.
    pub(super) fn roots(&self) -> RootCertStore {
        let mut roots = public().clone();
        // Each was accepted when it was read.
        roots.add_parsable_certificates(self.0.iter().cloned());
        roots
    }
}

/// Mozilla's roots, which are compiled in so that an image without certificates works, and the system's, which may have an
/// authority of the house among them. They are read once per process.
fn public() -> &'static RootCertStore {
    static PUBLIC: OnceLock<RootCertStore> = OnceLock::new();
    PUBLIC.get_or_init(|| {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let mozilla = roots.clone();
        let is_new = |root: &TrustAnchor<'_>| {
            !mozilla
                .roots
                .iter()
                .any(|known| (&known.subject, &known.subject_public_key_info) == (&root.subject, &root.subject_public_key_info))
        };
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::debug!(%error, "a certificate of the system cannot be read");
        }
        let mut system = RootCertStore::empty();
        system.add_parsable_certificates(found.certs);
        roots.roots.extend(system.roots.into_iter().filter(is_new));
        roots
    })
}
