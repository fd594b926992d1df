//! A database whose time the test sets, to the microsecond: what expires is seen to expire without waiting for it.

use crate::Database;

/// Puts a `now()` of our own before that of Postgres, for every session that begins later. It stands still until it is moved.
const OWN_CLOCK: &str = "
    create schema clock;
    create table clock.hand (at timestamptz not null);
    insert into clock.hand select pg_catalog.now();
    create function public.now() returns timestamptz language sql stable as $$ select at from clock.hand $$;
    alter table idempotency alter created_at set default public.now();
    do $$ begin execute format('alter database %I set search_path = public, pg_catalog', current_database()); end $$";

/// The hand of a database's clock.
#[derive(Debug)]
pub struct Clock<'a>(&'a Database);

impl<'a> Clock<'a> {
    /// Takes hold of the clock. Only nodes that are started afterwards go by it.
    pub async fn of(database: &'a Database) -> Self {
        database.execute(OWN_CLOCK).await;
        Self(database)
    }

    /// Moves it on by an interval, such as `24 hours 1 minute`.
    pub async fn advance(&self, by: &str) {
        self.0.execute(&format!("update clock.hand set at = at + interval '{by}'")).await;
    }
}
