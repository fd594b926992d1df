//! The hosts file: which names the machine itself knows.

use std::{collections::HashMap, fs, net::IpAddr};

/// Where it is.
const PATH: &str = "/etc/hosts";

/// Every name of the file, in lower case, with its addresses.
#[derive(Debug, Default)]
pub(in crate::egress) struct HostsFile(HashMap<String, Vec<IpAddr>>);

impl HostsFile {
    /// That of this machine; without one, no name is known.
    pub(super) fn of_system() -> Self {
        Self::parse(&fs::read(PATH).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
    }

    /// One address and its names per line. A name is any word: which characters a name may have is not ours to judge.
    pub(in crate::egress) fn parse(text: &str) -> Self {
        let mut known = HashMap::<_, Vec<_>>::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
            for name in words {
                known.entry(name.to_lowercase()).or_default().push(address);
            }
        }
        Self(known)
    }

    /// Every address of `host`; none, if the file does not have it.
    pub(super) fn addresses(&self, host: &str) -> &[IpAddr] {
        self.0.get(host.trim_end_matches('.').to_lowercase().as_str()).map_or(&[], Vec::as_slice)
    }
}
