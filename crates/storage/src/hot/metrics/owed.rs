//! What is owed at one moment, asked of the database in a bounded time, however much it is.

use crate::{
    Database, Result,
    connection::Connection,
    workers::{self, Census},
};

/// Up to how many rows of each kind are counted; the statement has the same number, and one more.
const COUNTED: i64 = 10_000;
/// Bounds the statements of one look, and keeps them to their indexes whatever the statistics say of a queue that was
/// empty a moment ago.
const SETTINGS: &str =
    "set local statement_timeout = '1s'; set local jit = off; set local enable_seqscan = off; set local enable_sort = off;
    set local enable_bitmapscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off";

/// What is owed at one moment, and who sees to it. Every row of the queue is of one kind: due, held, throttled or leased.
#[derive(Debug)]
pub(super) struct Owed {
    /// Due, and anybody may claim it.
    pub(super) due: f64,
    /// Due to an endpoint that the circuit breaker holds or lets go on gradually, or that is off.
    pub(super) held: f64,
    /// Due to an endpoint that uses all of its throttle.
    pub(super) throttled: f64,
    /// Being sent.
    pub(super) leased: f64,
    /// Not due yet.
    pub(super) sleeping: f64,
    /// How many seconds the oldest that is due, and neither held nor throttled, has been waiting.
    pub(super) oldest_due_age: f64,
    pub(super) endpoints_held: f64,
    pub(super) tasks: Tasks,
    pub(super) census: Census,
}

/// Long work that is not over, and what tenants have not been told yet.
#[derive(Debug)]
pub(super) struct Tasks {
    pub(super) running: f64,
    /// How many seconds ago the oldest message was accepted whose fan-out is not over.
    pub(super) oldest_fan_out_age: f64,
    pub(super) own_events: f64,
}

/// What the statement counted, and what the table's statistics say of all of it.
struct Counted {
    due: i64,
    held: i64,
    throttled: i64,
    leased: i64,
    sleeping: i64,
    in_queue: f64,
    in_queue_later: f64,
    oldest_due_age: Option<f64>,
    endpoints_held: f64,
}

/// Looks.
pub(super) async fn look(db: &Database) -> Result<Owed> {
    let mut tx = db.pool().begin().await?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
    let census = workers::census(&mut tx).await?;
    let counted = count(&mut tx).await?;
    let tasks = tasks(&mut tx).await?;
    tx.rollback().await?;
    let ([due, held, throttled, leased], sleeping) = counted.shown();
    Ok(Owed {
        due,
        held,
        throttled,
        leased,
        sleeping,
        oldest_due_age: counted.oldest_due_age.unwrap_or(0.0),
        endpoints_held: counted.endpoints_held,
        tasks,
        census,
    })
}

/// From endpoint to endpoint, as the claim goes: their number, and at most so many rows of each kind, is what it costs.
/// A throttled endpoint of which nobody takes a token, though one is there, is due like any other: that is no doing of its throttle.
async fn count(tx: &mut Connection) -> Result<Counted> {
    Ok(sqlx::query_as!(
        Counted,
        r#"with recursive oldest(n, endpoint_id, due_at) as (
             (select 1, endpoint_id, due_at from queue order by endpoint_id, due_at limit 1)
             union all
             select o.n + 1, next.endpoint_id, next.due_at from oldest o cross join lateral (
                 select q.endpoint_id, q.due_at from queue q where q.endpoint_id > o.endpoint_id order by q.endpoint_id, q.due_at limit 1) next
               where o.n <= 10000
           ), owing as materialized (
             select o.endpoint_id, o.due_at, case
                 when h.state in (1, 2) or e.is_off then 'held'
                 when r.tat > now() - make_interval(secs => 5 + 1.0 / r.rate) then 'throttled'
                 else 'due' end as kind
               from oldest o
               left join lateral (select h.state from endpoint_health h where h.endpoint_id = o.endpoint_id offset 0) h on true
               left join lateral (select r.rate, r.tat from endpoint_rate r where r.endpoint_id = o.endpoint_id offset 0) r on true
               left join lateral (select e.is_disabled or e.deleted_at is not null or exists (
                   select from application a where a.id = e.application_id and a.deleted_at is not null) as is_off
                 from endpoint e where e.id = o.endpoint_id offset 0) e on true
           ), due as materialized (
             select o.endpoint_id, o.due_at, o.kind from owing o where o.due_at <= now()
           )
           select
             (select count(*) from (select from due d cross join lateral (
                 select from queue q where q.endpoint_id = d.endpoint_id and q.due_at <= now() order by q.endpoint_id, q.due_at) q
               where d.kind = 'due' limit 10001) counted) as "due!",
             (select count(*) from (select from due d cross join lateral (
                 select from queue q where q.endpoint_id = d.endpoint_id and q.due_at <= now() order by q.endpoint_id, q.due_at) q
               where d.kind = 'held' limit 10001) counted) as "held!",
             (select count(*) from (select from due d cross join lateral (
                 select from queue q where q.endpoint_id = d.endpoint_id and q.due_at <= now() order by q.endpoint_id, q.due_at) q
               where d.kind = 'throttled' limit 10001) counted) as "throttled!",
             (select count(*) from (select from owing o cross join lateral (
                 select from queue q where q.endpoint_id = o.endpoint_id and q.due_at > now() and q.lease is not null order by q.endpoint_id, q.due_at) q
               limit 10001) counted) as "leased!",
             (select count(*) from (select from queue_later limit 10001) counted) as "sleeping!",
             (select reltuples from pg_class where oid = 'queue'::regclass)::float8 as "in_queue!",
             (select reltuples from pg_class where oid = 'queue_later'::regclass)::float8 as "in_queue_later!",
             (select greatest(extract(epoch from now() - min(d.due_at)), 0)::float8 from due d where d.kind = 'due') as oldest_due_age,
             (select count(*) from (select from endpoint_health where state = 1 limit 10000) held)::float8 as "endpoints_held!""#
    )
    .fetch_one(tx)
    .await?)
}

async fn tasks(tx: &mut Connection) -> Result<Tasks> {
    Ok(sqlx::query_as!(
        Tasks,
        r#"select count(*)::float8 as "running!",
                  coalesce(greatest(extract(epoch from now() - min(created_at) filter (where kind = 1)), 0), 0)::float8 as "oldest_fan_out_age!",
                  (select count(*) from (select from own_event limit 10001) waiting)::float8 as "own_events!"
             from (select kind, created_at from task where state = 0 order by tenant_id, due_at limit 10001) running"#
    )
    .fetch_one(tx)
    .await?)
}

impl Counted {
    /// What was counted; a kind that is larger than what is counted is put at what the other kinds leave of the table. If several
    /// are, each is shown as more than was counted, and no more is known.
    #[expect(clippy::cast_precision_loss, reason = "ten thousand at most")]
    fn shown(&self) -> ([f64; 4], f64) {
        let kinds = [self.due, self.held, self.throttled, self.leased];
        let rest: i64 = kinds.iter().filter(|rows| **rows <= COUNTED).sum();
        let is_one = kinds.iter().filter(|rows| **rows > COUNTED).count() == 1;
        let kinds = kinds.map(|rows| {
            let left = self.in_queue - rest as f64;
            if rows > COUNTED && is_one { left.max(rows as f64) } else { rows as f64 }
        });
        let sleeping = self.sleeping as f64;
        (kinds, if self.sleeping > COUNTED { self.in_queue_later.max(sleeping) } else { sleeping })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_than_was_counted_is_estimated_if_it_is_one_kind() {
        let none = Counted {
            due: 0,
            held: 0,
            throttled: 0,
            leased: 0,
            sleeping: 0,
            in_queue: -1.0,
            in_queue_later: -1.0,
            oldest_due_age: None,
            endpoints_held: 0.0,
        };
        let shown = |counted: Counted| counted.shown();
        assert_eq!(shown(Counted { due: 3, held: 10_000, ..none }), ([3.0, 10_000.0, 0.0, 0.0], 0.0));
        assert_eq!(shown(Counted { due: 3, held: 10_001, leased: 2, in_queue: 50_005.0, ..none }), ([3.0, 50_000.0, 0.0, 2.0], 0.0));
        assert_eq!(shown(Counted { due: 10_001, held: 10_001, in_queue: 1e6, ..none }), ([10_001.0, 10_001.0, 0.0, 0.0], 0.0));
        assert_eq!(shown(Counted { due: 10_001, in_queue: 7.0, ..none }), ([10_001.0, 0.0, 0.0, 0.0], 0.0), "statistics that are old");
        assert_eq!(shown(Counted { sleeping: 10_001, in_queue_later: 77_000.0, ..none }), ([0.0; 4], 77_000.0));
    }
}
