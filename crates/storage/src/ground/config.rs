//! How a database is reached, and what is sealed in it opened.

use std::fmt;

use domain::idempotency::Policy;

use crate::hosts::Hosts;

/// How to reach the database, and the keys to what is sealed in it.
#[derive(Clone)]
pub struct Config {
    /// A `postgres://` URL, of one host or several.
    pub url: String,
    /// Seals secrets at rest.
    pub main_secret: String,
    /// Opens secrets that an earlier main secret sealed.
    pub previous_main_secret: Option<String>,
    /// The most pooled connections.
    pub max_connections: u32,
    /// How idempotency keys are treated, unless a tenant wants it otherwise.
    pub policy: Policy,
}

impl Config {
    /// Says why a database URL cannot be used, if it cannot; the words hold no part of it.
    pub fn check_url(url: &str) -> Result<(), &'static str> {
        Hosts::parse(url).map(drop)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("max_connections", &self.max_connections).finish_non_exhaustive()
    }
}
