//! What the server is set to, and what its handlers share.

use std::{fmt, sync::Arc};

use domain::url_policy::UrlPolicy;
use storage::{Db, committer::Publisher};
use tokio_util::task::TaskTracker;

use crate::{bodies::Bodies, caller::Verifier};

/// How the API behaves.
#[derive(Clone)]
pub struct Config {
    /// Secrets of bearer tokens: all are accepted, the first signs.
    pub jwt_secrets: Vec<String>,
    /// The largest request body, in bytes.
    pub max_payload: usize,
    /// How much of all request bodies is held in memory at a time, in bytes.
    pub max_body_memory: usize,
    /// The base of the URLs that we hand out, such as `http://127.0.0.1:8071`.
    pub public_url: String,
    /// Whether there is a receiver at `/_play/{id}`.
    pub has_playground: bool,
    /// Which URLs endpoints may be given.
    pub urls: UrlPolicy,
    /// What the listener takes and shows.
    pub listener: ListenerConfig,
}

/// What a listener takes and shows besides its operations.
#[derive(Clone, Copy, Debug)]
pub struct ListenerConfig {
    /// The most connections at a time; a few more are open for health, metrics and refusals.
    pub max_connections: usize,
    /// Whether `/metrics` is there.
    pub has_metrics: bool,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("max_payload", &self.max_payload)
            .field("public_url", &self.public_url)
            .field("has_playground", &self.has_playground)
            .finish_non_exhaustive()
    }
}

/// What handlers share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) db: Db,
    pub(crate) publisher: Publisher,
    /// Knows the tokens that we signed.
    pub(crate) verifier: Verifier,
    /// What is held of requests.
    pub(crate) bodies: Arc<Bodies>,
    /// The handlers that are running, also those whose client has gone.
    pub(crate) tasks: TaskTracker,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The same, as handlers hold it.
pub(crate) type Context = Arc<Shared>;
