//! Who may be called, through whom, and whose certificates are trusted.

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use worker::{Authorities, Proxy};

use super::{
    Settings,
    value::{Variable, network},
};

impl Settings {
    /// Networks that may be called although they are private.
    pub(super) fn egress_allow(&self) -> Result<Vec<IpNet>> {
        let allowed = Variable::new("POSTHASTE_EGRESS_ALLOW", self.egress_allow.as_deref());
        Ok(allowed.list("networks such as 10.0.0.0/8,fd00::/8", network)?.unwrap_or_default())
    }

    /// The certificates in the file, which is read once.
    pub(super) fn egress_ca(&self) -> Result<Authorities> {
        let Some(path) = self.egress_ca.as_deref().filter(|path| !path.as_os_str().is_empty()) else { return Ok(Authorities::default()) };
        let refused =
            || format!("POSTHASTE_EGRESS_CA is `{}`, which cannot be used: set it to a PEM file with certificates", path.display());
        Authorities::from_pem(&std::fs::read(path).with_context(refused)?).with_context(refused)
    }

    /// The proxy, if there is one; its URL may hold a password, and is not repeated in an error.
    pub(super) fn egress_proxy(&self) -> Result<Option<Proxy>> {
        let Some(text) = self.egress_proxy.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        match Proxy::parse(text) {
            Ok(proxy) => Ok(Some(proxy)),
            Err(error) => bail!(
                "POSTHASTE_EGRESS_PROXY cannot be used as it is ({error}): set it to a URL such as http://user:password@proxy.example.com:3128, https://proxy.example.com or socks5://proxy.example.com:1080"
            ),
        }
    }
}
