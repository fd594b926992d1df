//! Adds what a process has summed to the database, each count once: a parcel of rows is written in one transaction together with its
//! number. Its rows are in the order of their keys, so that two processes never wait for each other.

use chrono::{DateTime, Utc};
use domain::statistics::COUNTS;
use sqlx::types::Uuid;

use crate::{Database, Result, connection::Connection};

/// What was published to one application in one minute, of one event type.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TypeCounts {
    pub(crate) messages: u32,
    pub(crate) duplicates: u32,
    pub(crate) deliveries: u32,
}

/// Rows that are written together.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    /// Which of its process.
    pub(crate) number: i64,
    pub(crate) endpoints: Vec<EndpointRow>,
    pub(crate) types: Vec<TypeRow>,
}

/// An endpoint and a minute.
#[derive(Debug)]
pub(crate) struct EndpointRow {
    pub(crate) endpoint_id: Uuid,
    pub(crate) at: DateTime<Utc>,
    pub(crate) tenant_id: Uuid,
    pub(crate) counts: [u32; COUNTS],
}

/// An application, a minute and an event type.
#[derive(Debug)]
pub(crate) struct TypeRow {
    pub(crate) application_id: Uuid,
    pub(crate) at: DateTime<Utc>,
    pub(crate) event_type: Box<str>,
    pub(crate) tenant_id: Uuid,
    pub(crate) counts: TypeCounts,
}

/// Writes a parcel, unless that was done by a session whose end was lost.
pub(crate) async fn write(db: &Database, writer: Uuid, parcel: &Parcel) -> Result<()> {
    let mut tx = db.pool().begin().await?;
    let is_new = sqlx::query!(
        "insert into rollup_writer as w (id, number) values ($1, $2)
           on conflict (id) do update set number = excluded.number, written_at = excluded.written_at where w.number < excluded.number",
        writer,
        parcel.number,
    )
    .execute(&mut *tx)
    .await?
    .rows_affected()
        > 0;
    if is_new {
        write_endpoints(&mut tx, &parcel.endpoints).await?;
        write_types(&mut tx, &parcel.types).await?;
    }
    Ok(tx.commit().await?)
}

async fn write_endpoints(tx: &mut Connection, rows: &[EndpointRow]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    // The counts of all rows, one row after the other.
    let counts: Vec<_> = rows.iter().flat_map(|row| row.counts).map(i64::from).collect();
    add_to_endpoints!(
        "",
        "select t.endpoint_id, t.at, t.tenant_id, 0::smallint,
               c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11], c[12], c[13], c[14], c[15], c[16], c[17],
               c[18], c[19], c[20], c[21], c[22], c[23], c[24]
             from (select unnest($1::uuid[]) as endpoint_id, unnest($2::timestamptz[]) as at, unnest($3::uuid[]) as tenant_id,
                      generate_subscripts($1::uuid[], 1) as n) t
             cross join lateral (select ($4::bigint[])[(t.n - 1) * $5::integer + 1 : t.n * $5] as c) counts
             order by t.n",
        &rows.iter().map(|row| row.endpoint_id).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.at).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.tenant_id).collect::<Vec<_>>(),
        &counts,
        i32::try_from(COUNTS).unwrap_or(i32::MAX),
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn write_types(tx: &mut Connection, rows: &[TypeRow]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let count = |of: fn(&TypeCounts) -> u32| rows.iter().map(|row| i64::from(of(&row.counts))).collect::<Vec<_>>();
    sqlx::query!(
        "insert into application_rollup as r (application_id, at, event_type, tenant_id, messages, duplicates, deliveries)
           select t.* from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[]) t
           on conflict (application_id, span, at, event_type) do update set messages = r.messages + excluded.messages,
             duplicates = r.duplicates + excluded.duplicates, deliveries = r.deliveries + excluded.deliveries",
        &rows.iter().map(|row| row.application_id).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.at).collect::<Vec<_>>(),
        &rows.iter().map(|row| &*row.event_type).collect::<Vec<_>>() as _,
        &rows.iter().map(|row| row.tenant_id).collect::<Vec<_>>(),
        &count(|counts| counts.messages),
        &count(|counts| counts.duplicates),
        &count(|counts| counts.deliveries),
    )
    .execute(tx)
    .await?;
    Ok(())
}
