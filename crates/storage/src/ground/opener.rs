//! How a session is opened, with the limits that every one has; and whether one that has rested may be used again.

use std::{sync::Arc, time::Duration};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use sqlx::{Connection as _, Error, PgConnection};

use crate::{
    deadline::{PING, in_time},
    hosts::{Hosts, Origin},
};

/// What every session has, whatever the role's or the database's defaults are: limits, because a frozen client, one that the network
/// lost, or a long wait must not hold locks that others need; and READ COMMITTED, because a look-up must see what the last holder of
/// its lock committed.
const SETTINGS: &str = "set statement_timeout = '10s'; set lock_timeout = '5s'; set idle_in_transaction_session_timeout = '2s';
    set default_transaction_isolation = 'read committed'; set timezone = 'UTC';
    set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3; set tcp_user_timeout = 15000";
/// How long it may take to connect to a server.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// How long a connection is used, so that what its server process has gathered does not grow for ever.
const LIFETIME: Duration = Duration::from_mins(30);

/// Opens a session, under a name that `pg_stat_activity` shows.
pub(crate) async fn open(hosts: &Arc<Hosts>, name: &str) -> Result<(PgConnection, Origin), Error> {
    let (mut raw, origin) = hosts.open(name, CONNECT_PATIENCE).await?;
    in_time(CONNECT_PATIENCE, sqlx::raw_sql(SETTINGS).execute(&mut raw)).await?;
    Ok((raw, origin))
}

/// Opens a connection, and vouches for it before it is used again.
pub(crate) struct Opener {
    hosts: Arc<Hosts>,
}

/// A session, and where it was opened.
pub(crate) struct Opened {
    pub(crate) raw: PgConnection,
    pub(crate) origin: Origin,
}

impl Opener {
    pub(crate) fn new(hosts: &Arc<Hosts>) -> Self {
        Self { hosts: Arc::clone(hosts) }
    }
}

impl managed::Manager for Opener {
    type Type = Opened;
    type Error = Error;

    async fn create(&self) -> Result<Opened, Error> {
        let (raw, origin) = open(&self.hosts, "posthaste").await?;
        Ok(Opened { raw, origin })
    }

    async fn recycle(&self, opened: &mut Opened, metrics: &Metrics) -> RecycleResult<Error> {
        if !opened.origin.is_current() || metrics.created.elapsed() > LIFETIME {
            return Err(RecycleError::message("it has had its day"));
        }
        in_time(PING, opened.raw.ping()).await.map_err(|error| {
            opened.origin.distrust();
            RecycleError::Backend(error)
        })
    }
}
