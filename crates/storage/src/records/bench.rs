//! What a benchmark asks of the database: one of its own, tables that are already large, and what Postgres says of itself.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use domain::id::{ApplicationId, EndpointId};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, types::Uuid};

use crate::{Result, connect, hosts::Hosts};

/// How long it may take to connect.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many rows one statement makes, so that a stop does not have to wait for millions.
const CHUNK: i64 = 50_000;
/// Endpoints of each application whose retries sleep.
const ENDPOINTS_PER_APPLICATION: i32 = 100;

/// What decides whether a commit survives a crash, and which server it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The server's version, as it names it.
    pub version: String,
    /// `on`, or commits can be lost with the machine.
    pub fsync: String,
    /// `on`, or commits can be lost with the server.
    pub synchronous_commit: String,
    /// `on`, or a torn page cannot be repaired.
    pub full_page_writes: String,
}

/// What only ever grows; the difference of two readings is what was spent between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes of write-ahead log, of the whole server.
    pub wal: i64,
    /// Transactions of this database. Sessions report theirs about once a second.
    pub commits: i64,
}

/// What is measured: rows are stocked in its name.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The application.
    pub application_id: ApplicationId,
    /// Its endpoint that the rows are for.
    pub endpoint_id: EndpointId,
    /// Of how many bytes the payloads are.
    pub payload: i32,
}

/// A database that a benchmark has for itself.
#[derive(Debug)]
pub struct Bench {
    connection: PgConnection,
}

impl Bench {
    /// Makes an empty database on the server of `beside`, whose user must be allowed to.
    pub async fn create_database(beside: &str, name: &str) -> Result<()> {
        let mut admin = connect(beside).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("create database \"{name}\""))).execute(&mut admin).await?;
        Ok(admin.close().await?)
    }

    /// Drops a database that [`Bench::create_database`] made, whoever is connected to it.
    pub async fn drop_database(beside: &str, name: &str) -> Result<()> {
        let mut admin = connect(beside).await?;
        sqlx::raw_sql(AssertSqlSafe(format!("drop database if exists \"{name}\" with (force)"))).execute(&mut admin).await?;
        Ok(admin.close().await?)
    }

    /// Connects to a database.
    pub async fn connect(url: &str) -> Result<Self> {
        Ok(Self { connection: connect(url).await? })
    }

    /// The settings that a figure depends on, as this database has them.
    pub async fn settings(&mut self) -> Result<Settings> {
        let row = sqlx::query_as!(
            Settings,
            r#"select current_setting('server_version') as "version!", current_setting('fsync') as "fsync!",
                      current_setting('synchronous_commit') as "synchronous_commit!", current_setting('full_page_writes') as "full_page_writes!""#
        );
        Ok(row.fetch_one(&mut self.connection).await?)
    }

    /// The process of this session, if the server runs on this machine or may do so: over a socket, or over loopback.
    pub async fn local_process(&mut self) -> Result<Option<u32>> {
        let pid = sqlx::query_scalar!(
            r#"select pg_backend_pid() as "pid!" where inet_server_addr() is null or inet_server_addr() <<= '127.0.0.0/8' or inet_server_addr() <<= '::1'"#
        );
        Ok(pid.fetch_optional(&mut self.connection).await?.and_then(|pid| u32::try_from(pid).ok()))
    }

    /// What has been spent so far.
    pub async fn counters(&mut self) -> Result<Counters> {
        let counters = sqlx::query_as!(
            Counters,
            r#"select (pg_current_wal_lsn() - '0/0')::bigint as "wal!",
                      (select xact_commit from pg_stat_database where datname = current_database()) as "commits!""#
        );
        Ok(counters.fetch_one(&mut self.connection).await?)
    }

    /// How many deliveries are owed to an endpoint, due or being sent.
    pub async fn owed(&mut self, endpoint_id: EndpointId) -> Result<i64> {
        let owed = sqlx::query_scalar!(r#"select count(*) as "count!" from queue where endpoint_id = $1"#, Uuid::from(endpoint_id));
        Ok(owed.fetch_one(&mut self.connection).await?)
    }

    /// Brings every table's statistics and visibility up to date, as they are in a database that has grown slowly.
    pub async fn vacuum(&mut self) -> Result<()> {
        sqlx::raw_sql("vacuum (analyze)").execute(&mut self.connection).await?;
        Ok(())
    }

    /// Writes out what earlier work left in memory, so that it is not paid for by what follows. Does nothing if the user may
    /// not ask for it.
    pub async fn checkpoint(&mut self) {
        if let Err(error) = sqlx::raw_sql("checkpoint").execute(&mut self.connection).await {
            tracing::debug!(?error, "no checkpoint before the run");
        }
    }

    /// Makes messages `from..to` of `of`, spread over the current week, each delivered at the first attempt.
    pub async fn stock_delivered(&mut self, measured: &Measured, from: i64, to: i64, of: i64) -> Result<()> {
        let now = self.now().await?;
        for from in (from..to).step_by(usize::try_from(CHUNK).unwrap_or(1)) {
            sqlx::query!(
                "with row as materialized (
                     select left(uuid_floor(at)::text, 14) as time, md5(i::text) as m, md5('attempt' || i) as a, i
                       from generate_series($1::bigint, $2) i,
                            lateral (select date_trunc('week', $7::timestamptz, 'UTC') + ($7 - date_trunc('week', $7::timestamptz, 'UTC')) * (i::float8 / $3::bigint) as at) t
                 ), message_row as (
                     insert into message (id, tenant_id, application_id, event_type, payload, content_type)
                     select (time || '7' || substr(m, 1, 3) || '-8' || substr(m, 4, 3) || '-' || substr(m, 7, 12))::uuid, a.tenant_id, a.id, 'bench.sent',
                         convert_to(rpad('{\"n\":\"', $6::integer - 2, m) || '\"}', 'UTF8'), 'application/json'
                       from row, application a where a.id = $4 order by i
                 )
                 insert into attempt (id, message_id, endpoint_id, run, number, tenant_id, application_id, trigger, outcome, status_code, duration_ms, url)
                 select (time || '7' || substr(a, 1, 3) || '-8' || substr(a, 4, 3) || '-' || substr(a, 7, 12))::uuid,
                     (time || '7' || substr(m, 1, 3) || '-8' || substr(m, 4, 3) || '-' || substr(m, 7, 12))::uuid,
                     e.id, 0, 1, e.tenant_id, e.application_id, 0, 0, 200, 3, e.url
                   from row, endpoint e where e.id = $5 order by i",
                from,
                (from + CHUNK).min(to) - 1,
                of,
                Uuid::from(measured.application_id),
                Uuid::from(measured.endpoint_id),
                measured.payload,
                now,
            )
            .execute(&mut self.connection)
            .await?;
        }
        Ok(())
    }

    /// Makes messages whose only delivery is due, and forgets everything else that is owed and every endpoint's failures. A second
    /// call makes the same ones due again.
    pub async fn stock_due(&mut self, measured: &Measured, rows: i64) -> Result<()> {
        let application_id = Uuid::from(measured.application_id);
        let is_there = sqlx::query_scalar!(
            r#"select exists (select from message where application_id = $1 and event_type = 'bench.owed') as "is_there!""#,
            application_id
        );
        let missing = if is_there.fetch_one(&mut self.connection).await? { 0 } else { rows };
        let now = self.now().await?;
        for from in (0..missing).step_by(usize::try_from(CHUNK).unwrap_or(1)) {
            sqlx::query!(
                "insert into message (id, tenant_id, application_id, event_type, payload, content_type)
                 select (left(uuid_floor(at)::text, 14) || '7' || substr(m, 1, 3) || '-8' || substr(m, 4, 3) || '-' || substr(m, 7, 12))::uuid, a.tenant_id, a.id,
                     'bench.owed', convert_to(rpad('{\"n\":\"', $5::integer - 2, m) || '\"}', 'UTF8'), 'application/json'
                   from generate_series($1::bigint, $2) i, application a,
                        lateral (select md5('owed' || i) as m, date_trunc('week', $6::timestamptz, 'UTC') + ($6 - date_trunc('week', $6::timestamptz, 'UTC')) * (i::float8 / $3::bigint) as at) t
                  where a.id = $4 order by i",
                from,
                (from + CHUNK).min(rows) - 1,
                rows,
                application_id,
                measured.payload,
                now,
            )
            .execute(&mut self.connection)
            .await?;
        }
        sqlx::raw_sql("truncate queue, queue_later, endpoint_health").execute(&mut self.connection).await?;
        sqlx::query!(
            "insert into queue (message_id, endpoint_id, tenant_id, application_id, due_at)
             select m.id, $2, m.tenant_id, m.application_id, now() - interval '1 hour' * random()
               from message m where m.application_id = $1 and m.event_type = 'bench.owed'",
            application_id,
            Uuid::from(measured.endpoint_id),
        )
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    /// Makes an endpoint one that has failed for an hour, whose circuit breaker is open, and whose next probe is due.
    pub async fn make_half_open(&mut self, endpoint_id: EndpointId) -> Result<()> {
        sqlx::query!(
            "insert into endpoint_health (endpoint_id, tenant_id, failures, failing_since, failed_at, state, cool_down_seconds, probe_at)
             select id, tenant_id, 100, now() - interval '1 hour', now() - interval '1 minute', 1, 60, now() from endpoint where id = $1",
            Uuid::from(endpoint_id),
        )
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    /// Makes failed deliveries that sleep until their retry, an hour from now or later, over endpoints of other applications
    /// of the same tenant.
    pub async fn stock_asleep(&mut self, measured: &Measured, rows: i64, endpoints: i32) -> Result<()> {
        let applications = (endpoints / ENDPOINTS_PER_APPLICATION).max(1);
        let application_id = Uuid::from(measured.application_id);
        sqlx::query!(
            "insert into application (id, tenant_id, name)
             select md5('application' || g)::uuid, a.tenant_id, 'asleep ' || g from generate_series(0, $2::integer - 1) g, application a where a.id = $1",
            application_id,
            applications,
        )
        .execute(&mut self.connection)
        .await?;
        sqlx::query!(
            "insert into endpoint (id, tenant_id, application_id, url)
             select md5('endpoint' || e)::uuid, a.tenant_id, md5('application' || e / $3::integer)::uuid, 'http://127.0.0.1:9/asleep/' || e
               from generate_series(0, $2::integer - 1) e, application a where a.id = $1",
            application_id,
            applications * ENDPOINTS_PER_APPLICATION,
            ENDPOINTS_PER_APPLICATION,
        )
        .execute(&mut self.connection)
        .await?;
        let messages = rows / i64::from(ENDPOINTS_PER_APPLICATION);
        sqlx::query!(
            "insert into message (id, tenant_id, application_id, event_type, payload, content_type)
             select (left(uuid_floor(now())::text, 14) || '7' || substr(h, 1, 3) || '-8' || substr(h, 4, 3) || '-' || substr(h, 7, 12))::uuid, a.tenant_id,
                 md5('application' || i % $3::integer)::uuid, 'bench.asleep', convert_to(rpad('{\"n\":\"', $4::integer - 2, h) || '\"}', 'UTF8'), 'application/json'
               from generate_series(0, $2::bigint - 1) i, lateral (select md5('asleep' || i) as h) t, application a where a.id = $1",
            application_id,
            messages,
            applications,
            measured.payload,
        )
        .execute(&mut self.connection)
        .await?;
        sqlx::query!(
            "insert into queue_later (message_id, endpoint_id, tenant_id, application_id, attempts, due_at)
             select m.id, e.id, m.tenant_id, m.application_id, 1, now() + interval '1 hour' + interval '10 hours' * random()
               from message m join endpoint e on e.application_id = m.application_id where m.event_type = 'bench.asleep'"
        )
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    async fn now(&mut self) -> Result<DateTime<Utc>> {
        Ok(sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(&mut self.connection).await?)
    }
}

async fn connect(url: &str) -> Result<PgConnection> {
    let hosts = Hosts::parse(url).map_err(|why| connect::refuse(format!("the database URL cannot be used: {why}")))?;
    Ok(Arc::new(hosts).open("posthaste-bench", PATIENCE).await?.0)
}
