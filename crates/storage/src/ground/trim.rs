//! Event ids and message keys stay unique for as long as their message exists, and are trimmed when it is gone.
//!
//! Ids of messages are times, so what is gone is a range. An index on it would cost each message with a key an entry, for rows
//! that are looked for once in their life; so each table is read from end to end, a few pages at a time, once for each week
//! of messages that was dropped. How far that went is a row of `trimming`, so that any node goes on where another one stopped.

use sqlx::types::Uuid;

use crate::{Result, connection::Connection};

/// How many pages one statement reads: 8 MB.
const SLICE: i64 = 1_024;
/// How many slices of a table one round reads at most: half a gigabyte.
const SLICES: usize = 64;

/// The tables, by their names in `trimming`.
const TABLES: [&str; 2] = ["event_uid", "message_key"];

/// Trims what refers to messages before the oldest that may be there.
pub(crate) async fn run(connection: &mut Connection) -> Result<()> {
    let Some(oldest) = oldest_message(connection).await? else { return Ok(()) };
    for table in TABLES {
        let mut trimmed = 0;
        for _ in 0..SLICES {
            let Some(deleted) = slice(connection, table, oldest).await? else { break };
            trimmed += deleted;
        }
        if trimmed > 0 {
            tracing::info!(trimmed, table, "trimmed what referred to messages that are gone");
        }
    }
    Ok(())
}

/// The smallest id that a message can have: that of the first partition's beginning, whether it is being detached or not.
async fn oldest_message(connection: &mut Connection) -> Result<Option<Uuid>> {
    let oldest = sqlx::query_scalar!(
        "select min(uuid_floor(to_date(right(c.relname::text, 8), 'YYYYMMDD')::timestamp at time zone 'UTC')::text)::uuid
           from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'message'::regclass and c.relname ~ '_[0-9]{8}$'"
    )
    .fetch_one(connection)
    .await?;
    Ok(oldest)
}

/// Reads the next pages; `None` if there is nothing to do until more messages are gone.
async fn slice(connection: &mut Connection, table: &str, oldest: Uuid) -> Result<Option<u64>> {
    let mut tx = connection.begin().await?;
    let place = sqlx::query!(
        r#"select below, passing, page, pg_relation_size(name::regclass) / current_setting('block_size')::bigint as "pages!"
             from trimming where name = $1 for update"#,
        table
    )
    .fetch_one(&mut *tx)
    .await?;
    let (bound, page) = match place.passing {
        Some(passing) => (passing, place.page),
        None if place.below < oldest => (oldest, 0),
        None => {
            tx.rollback().await?;
            return Ok(None);
        }
    };
    let (first, end) = (page, page + SLICE);
    let deleted = if table == "event_uid" {
        sqlx::query!(
            "delete from event_uid where ctid >= format('(%s,0)', $1::bigint)::tid and ctid < format('(%s,0)', $2::bigint)::tid and message_id < $3",
            first,
            end,
            bound
        )
        .execute(&mut *tx)
        .await?
    } else {
        sqlx::query!(
            "delete from message_key where ctid >= format('(%s,0)', $1::bigint)::tid and ctid < format('(%s,0)', $2::bigint)::tid and message_id < $3",
            first,
            end,
            bound
        )
        .execute(&mut *tx)
        .await?
    };
    let is_over = end >= place.pages;
    sqlx::query!(
        "update trimming set passing = case when $2::boolean then null else $3::uuid end, below = case when $2 then $3 else below end,
             page = case when $2 then 0 else $4::bigint end where name = $1",
        table,
        is_over,
        bound,
        end
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Some(deleted.rows_affected()))
}
