//! Everything Postgres: the only crate that writes SQL.
//!
//! Three floors, of which each stands on those below it alone; a test reads their `use` lines:
//!
//! - `hot`: accepting, handing over, claiming, executing once; and what a process remembers for them. Start at [`committer`], the one
//!   writer of the hot path.
//! - `records`: what the tables hold, one short transaction each. A function of it takes a [`Database`].
//! - `ground`: connections, time, seals, the schema.
//!
//! `ARCHITECTURE.md` has a line for each of their modules. All are named here by short paths: `storage::applications`.

mod ground;
mod hot;
mod records;

pub use ground::{
    config::Config,
    database::Database,
    error::{Conflict, Error, Result},
    main_secret, page, partitions,
    schema::{Ahead, Migrated, SchemaState},
    wakeups,
};
pub use hot::{committer, db::Db, directory, hand_off, health, idempotency, metrics, outbox, queue, runner, tenants};
pub use records::{
    ahead, api_keys, applications, attempts, bench, deliveries, endpoints, event_types, expunge, messages, meta_events, own_endpoints,
    policies, portal_access, project_deliveries, project_endpoints, project_messages, project_resends, project_rules, project_tasks,
    projects, reseal, sources, statistics, subscriptions, tasks, workers,
};

use ground::{clock, connect, connection, deadline, error, functions, hosts, locks, opener, pool, schema, sealed, session, trim};
use hot::{
    cancel, flights, gates, keys, known_sources, known_tenants, listeners, progress, put_off, replays, report, rollups, subscribers,
    switched_off,
};
use records::{
    answer, claim, effect, endpoint_health, outcomes, own_events, particulars, published, reference, resends, sealed_parts, verifiers,
    wanted,
};
