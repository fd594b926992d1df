//! The schema: whether this program may run on it, and how it is brought up to date.

use std::{
    cmp::Ordering,
    time::{Duration, Instant},
};

use sqlx::{
    Connection, PgConnection,
    migrate::{Migrate, MigrateError, Migration, Migrator},
    types::Uuid,
};
use tokio::task::JoinHandle;

use crate::{Config, Error, Result, connect, functions, main_secret::SEAL_CHECK, partitions, sealed::Sealer};

/// The schema's migrations, forward only.
static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");
/// Where they are noted.
const APPLIED: &str = "_sqlx_migrations";
/// What a session that migrates calls itself.
const NAME: &str = "posthaste-migrate";
/// A migration waits only briefly for each lock, since whoever comes after it waits behind it; then it tries again.
const SETTINGS: &str =
    "set lock_timeout = '2s'; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set timezone = 'UTC'";
/// The rest between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a migration is tried again and again before somebody has to look after it.
const PATIENCE: Duration = Duration::from_mins(10);
/// How often somebody looks whom a migration waits for.
const GLANCE: Duration = Duration::from_millis(500);

/// How the schema compares with the one that this program was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaState {
    /// It is that one.
    Current,
    /// Migrations or functions are missing: `posthaste migrate` applies them.
    Behind,
    /// A newer release has migrated it.
    Ahead(Ahead),
}

/// A schema that is newer than the program. Each is named by the newest migration that it has or knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The schema.
    pub schema: i64,
    /// This program.
    pub program: i64,
    /// The oldest program that the schema lets run on it.
    pub oldest_program: i64,
}

impl Ahead {
    /// Whether this program may run on it.
    pub fn is_allowed(&self) -> bool {
        self.program >= self.oldest_program
    }
}

/// What `migrate` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Migrated {
    /// These migrations and functions were applied, one after the other.
    Applied(Vec<String>),
    /// The schema was current, at this version.
    Nothing(i64),
    /// A newer release has migrated it: nothing was changed.
    Newer(Ahead),
}

/// Compares the schema with the one that this program was built for.
pub(crate) async fn state(config: &Config) -> Result<SchemaState> {
    connect::refuse_shared_sessions(config).await?;
    let hosts = connect::hosts(config)?;
    let comparing = async { compare(&mut connect::open(&hosts, "posthaste").await?.0).await };
    connect::in_time(&hosts, comparing).await
}

/// Brings the schema up to date, makes the partitions of the next weeks, and binds the database to the main secret. Does
/// nothing at all to a schema that is newer than this program.
pub(crate) async fn migrate(config: &Config) -> Result<Migrated> {
    connect::refuse_shared_sessions(config).await?;
    let hosts = connect::hosts(config)?;
    let (mut connection, _) = connect::open(&hosts, NAME).await?;
    sqlx::raw_sql(SETTINGS).execute(&mut connection).await?;
    let pid = sqlx::query_scalar!(r#"select pg_backend_pid() as "pid!""#).fetch_one(&mut connection).await?;
    let _watcher = Watcher(tokio::spawn(tell_what_it_waits_for(connect::open(&hosts, NAME).await?.0, pid)));
    patiently(&mut connection, async |connection| connection.lock().await).await?;
    if let SchemaState::Ahead(ahead) = compare(&mut connection).await? {
        return Ok(Migrated::Newer(ahead));
    }
    let mut applied = apply_missing(&mut connection).await?;
    for function in functions::missing(&mut connection).await? {
        let name = patiently(&mut connection, async |connection| functions::install(connection, function).await).await?;
        applied.push(format!("function {name}"));
    }
    patiently(&mut connection, make_partitions).await?;
    let sealer = Sealer::new(&config.main_secret, None);
    sqlx::query!("insert into installation (seal_check) values ($1) on conflict do nothing", sealer.seal(Uuid::nil(), SEAL_CHECK))
        .execute(&mut connection)
        .await?;
    // The lock ends with the session.
    connection.close().await?;
    Ok(if applied.is_empty() { Migrated::Nothing(program()) } else { Migrated::Applied(applied) })
}

/// The newest migration that this program knows.
fn program() -> i64 {
    MIGRATOR.iter().map(|known| known.version).max().unwrap_or(0)
}

async fn compare(connection: &mut PgConnection) -> Result<SchemaState> {
    let exists =
        sqlx::query_scalar!(r#"select to_regclass('_sqlx_migrations') is not null as "exists!""#).fetch_one(&mut *connection).await?;
    if !exists {
        return Ok(SchemaState::Behind);
    }
    let applied = connection.list_applied_migrations(APPLIED).await.map_err(failed)?;
    let (schema, program) = (applied.iter().map(|applied| applied.version).max().unwrap_or(0), program());
    let is_missing = MIGRATOR.iter().any(|known| applied.iter().all(|applied| applied.version != known.version));
    Ok(match schema.cmp(&program) {
        Ordering::Greater => {
            let oldest_program = sqlx::query_scalar!("select min_program from installation").fetch_optional(connection).await?;
            SchemaState::Ahead(Ahead { schema, program, oldest_program: oldest_program.unwrap_or(schema) })
        }
        _ if is_missing || !functions::missing(connection).await?.is_empty() => SchemaState::Behind,
        _ => SchemaState::Current,
    })
}

/// Applies what is missing, one migration after the other, each in a transaction of its own; returns their names.
async fn apply_missing(connection: &mut PgConnection) -> Result<Vec<String>> {
    connection.ensure_migrations_table(APPLIED).await.map_err(failed)?;
    if let Some(version) = connection.dirty_version(APPLIED).await.map_err(failed)? {
        return Err(failed(MigrateError::Dirty(version)));
    }
    let applied = connection.list_applied_migrations(APPLIED).await.map_err(failed)?;
    if let Some(stranger) = applied.iter().find(|applied| MIGRATOR.iter().all(|known| known.version != applied.version)) {
        return Err(failed(MigrateError::VersionMissing(stranger.version)));
    }
    let mut names = Vec::new();
    for migration in MIGRATOR.iter() {
        let name = format!("{:04} {}", migration.version, migration.description);
        match applied.iter().find(|applied| applied.version == migration.version) {
            Some(known) if known.checksum != migration.checksum => {
                return Err(failed(MigrateError::VersionMismatch(migration.version)));
            }
            Some(_) => {}
            None => {
                let took = apply(connection, migration).await?;
                tracing::info!(migration = name, ?took, "applied a migration");
                names.push(name);
            }
        }
    }
    Ok(names)
}

async fn apply(connection: &mut PgConnection, migration: &Migration) -> Result<Duration> {
    patiently(connection, async |connection| connection.apply(APPLIED, migration).await).await
}

/// Takes a step, again and again while it cannot have a lock that it needs.
async fn patiently<T>(
    connection: &mut PgConnection,
    mut step: impl AsyncFnMut(&mut PgConnection) -> std::result::Result<T, MigrateError>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        match step(connection).await {
            Err(error) if waits_for_a_lock(&error) && begun.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            Err(error) if waits_for_a_lock(&error) => {
                return Err(Error::Unusable(format!(
                    "a lock that a migration needs has not been free for {} minutes: end what holds it (see the lines above), and run `posthaste migrate` again",
                    PATIENCE.as_secs() / 60
                )));
            }
            outcome => return outcome.map_err(failed),
        }
    }
}

/// `lock_not_available` or `deadlock_detected`.
fn waits_for_a_lock(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else { return false };
    let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
    matches!(code.as_deref(), Some("55P03" | "40P01"))
}

async fn make_partitions(connection: &mut PgConnection) -> std::result::Result<(), MigrateError> {
    let mut tx = connection.begin().await.map_err(MigrateError::Execute)?;
    partitions::make_in(&mut *tx).await.map_err(MigrateError::Execute)?;
    tx.commit().await.map_err(MigrateError::Execute)
}

fn failed(error: MigrateError) -> Error {
    match error {
        MigrateError::Execute(error) => error.into(),
        error => Error::Database(sqlx::Error::Migrate(Box::new(error))),
    }
}

/// Goes on until it is dropped.
struct Watcher(JoinHandle<()>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Names the sessions that a migration waits for, each once. Of what they run, values are left out: they may be secrets.
async fn tell_what_it_waits_for(mut connection: PgConnection, pid: i32) {
    let mut told = Vec::new();
    loop {
        tokio::time::sleep(GLANCE).await;
        let blocking = sqlx::query!(
            r#"select pid as "pid!", coalesce(application_name, '') as "application!", coalesce(state, '') as "state!",
                      coalesce(date_trunc('second', xact_start)::text, '') as "since!",
                      left(regexp_replace(regexp_replace(regexp_replace(coalesce(query, ''), '\s+', ' ', 'g'), '\$\w*\$.*$', '?'), '''([^'']|'''')*(''|$)', '?', 'g'), 120) as "query!"
                 from pg_stat_activity where pid = any (pg_blocking_pids($1)) order by pid"#,
            pid
        )
        .fetch_all(&mut connection)
        .await;
        let Ok(blocking) = blocking else { return };
        for row in blocking {
            if !told.contains(&row.pid) {
                told.push(row.pid);
                tracing::warn!(
                    pid = row.pid,
                    application = row.application,
                    state = row.state,
                    transaction_since = row.since,
                    query = row.query,
                    "the migration waits for a lock that this session holds; it tries again until it gets it"
                );
            }
        }
    }
}
