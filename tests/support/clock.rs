//! A database whose time the test sets: one that stands still, to the microsecond, so that what expires is seen to expire without
//! waiting for it; or one that goes on, and is set while everybody looks.

use crate::Database;

/// Puts a `now()` of our own before that of Postgres, for every session that begins later. It stands still until it is moved.
const OWN_CLOCK: &str = "
    create schema clock;
    create table clock.hand (at timestamptz not null);
    insert into clock.hand select pg_catalog.now();
    create function public.now() returns timestamptz language sql stable as $$ select at from clock.hand $$;
    alter table idempotency alter created_at set default public.now();
    do $$ begin execute format('alter database %I set search_path = public, pg_catalog', current_database()); end $$";

/// The same with all that tells the time, also where a column has it by default; and it goes on.
const OWN_RUNNING_CLOCK: &str = "
    create schema clock;
    create table clock.hand (at timestamptz not null);
    insert into clock.hand values ('epoch');
    create function public.now() returns timestamptz language sql stable as $$ select pg_catalog.now() + (at - 'epoch') from clock.hand $$;
    create function public.clock_timestamp() returns timestamptz language sql volatile as
      $$ select pg_catalog.clock_timestamp() + (at - 'epoch') from clock.hand $$;
    do $$ declare v_default record; begin
      for v_default in select d.adrelid::regclass as name, a.attname from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
          join pg_class c on c.oid = d.adrelid where not c.relispartition and pg_get_expr(d.adbin, d.adrelid) like '%now()' loop
        execute format('alter table %s alter %I set default public.now()', v_default.name, v_default.attname);
      end loop;
      execute format('alter database %I set search_path = public, pg_catalog', current_database());
    end $$";

/// The hand of a database's clock.
#[derive(Debug)]
pub struct Clock<'a>(&'a Database);

impl<'a> Clock<'a> {
    /// Takes hold of the clock. Only nodes that are started afterwards go by it.
    pub async fn of(database: &'a Database) -> Self {
        database.execute(OWN_CLOCK).await;
        Self(database)
    }

    /// Takes hold of one that goes on. Only nodes that are started afterwards go by it.
    pub async fn running(database: &'a Database) -> Self {
        database.execute(OWN_RUNNING_CLOCK).await;
        Self(database)
    }

    /// Moves it on by an interval, such as `24 hours 1 minute`, or back by `-30 days`.
    pub async fn advance(&self, by: &str) {
        self.0.execute(&format!("update clock.hand set at = at + interval '{by}'")).await;
    }
}
