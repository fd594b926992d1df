//! A fresh, migrated database for each test, and a side connection that looks at its rows and moves its time.

use std::{sync::LazyLock, thread};

use domain::idempotency::Policy;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::sync::{mpsc, oneshot};

use crate::{MAIN_SECRET, cluster, receiver::PATIENCE};

/// The database that every test's own is copied from.
const TEMPLATE: &str = "posthaste_tests_template";

enum Order {
    Create(oneshot::Sender<String>),
    Drop(String),
}

/// Creates and drops databases, one at a time, on a thread that lives as long as the test run: the runtimes of the tests
/// come and go, and the cluster must not go with one of them.
static CLERK: LazyLock<mpsc::UnboundedSender<Order>> = LazyLock::new(|| {
    let (sender, orders) = mpsc::unbounded_channel();
    let work = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        runtime.block_on(clerk(orders));
    };
    thread::Builder::new().name("databases".into()).spawn(work).expect("a thread");
    sender
});

async fn clerk(mut orders: mpsc::UnboundedReceiver<Order>) {
    let cluster = cluster::Shared::start().await;
    let mut admin = PgConnection::connect(&cluster.url("postgres")).await.expect("the cluster takes connections");
    drop_leftovers(&mut admin).await;
    run(&mut admin, &format!("drop database if exists {TEMPLATE} with (force)")).await;
    run(&mut admin, &format!("create database {TEMPLATE}")).await;
    storage::Db::migrate(&config(&cluster.url(TEMPLATE))).await.expect("a new database can be migrated");
    while let Some(order) = orders.recv().await {
        match order {
            Order::Create(answer) => {
                let name = format!("posthaste_test_{}", uuid::Uuid::new_v4().simple());
                run(&mut admin, &format!("create database {name} template {TEMPLATE}")).await;
                let _ = answer.send(cluster.url(&name));
            }
            Order::Drop(name) => run(&mut admin, &format!("drop database if exists {name} with (force)")).await,
        }
    }
}

/// Drops what an earlier run that was killed has left behind.
async fn drop_leftovers(admin: &mut PgConnection) {
    let sql = "select datname from pg_database where datname like 'posthaste\\_test\\_%'";
    let names: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *admin).await.expect("the list of databases");
    for name in names {
        run(admin, &format!("drop database {name} with (force)")).await;
    }
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// The storage configuration of a test's node.
pub fn config(url: &str) -> storage::Config {
    storage::Config {
        url: url.to_owned(),
        main_secret: MAIN_SECRET.into(),
        previous_main_secret: None,
        max_connections: 6,
        policy: Policy::default(),
    }
}

/// One test's database; dropped with it.
#[derive(Debug)]
pub struct Database {
    /// Where it is.
    pub url: String,
    name: Option<String>,
    pool: PgPool,
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            let _ = CLERK.send(Order::Drop(name));
        }
    }
}

impl Database {
    /// A copy of the migrated template.
    pub async fn create() -> Self {
        let (sender, url) = oneshot::channel();
        CLERK.send(Order::Create(sender)).expect("the clerk lives");
        let url = url.await.expect("the clerk could make a database; its panic is above");
        let mut database = Self::existing(&url);
        database.name = Some(cluster::database_of(&url));
        database
    }

    /// A database that somebody else looks after.
    pub fn existing(url: &str) -> Self {
        let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(PATIENCE).connect_lazy(url).expect("a database URL");
        Self { url: url.to_owned(), name: None, pool }
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The one number that a query returns.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = format!("select ({sql})::bigint");
        sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_one(&self.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// All texts that a query returns.
    pub async fn texts(&self, sql: &str) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_all(&self.pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// How many deliveries are still owed, due or asleep.
    pub async fn owed(&self) -> i64 {
        self.number("(select count(*) from queue) + (select count(*) from queue_later)").await
    }

    /// Waits until nothing is owed any more: all that will ever be sent has been sent and recorded.
    pub async fn nothing_owed(&self) {
        crate::eventually("nothing is owed", async || (self.owed().await == 0).then_some(())).await;
    }

    /// Lets the waits of all sleeping deliveries pass.
    pub async fn let_retries_fall_due(&self) {
        self.execute("update queue_later set due_at = now()").await;
    }

    /// Copies the only endpoint of an application until it has so many; the application is called by its public id. The copies are older, and
    /// have no secrets.
    pub async fn copy_endpoint(&self, application: &str, of: usize) {
        let copies = format!(
            "insert into endpoint (id, tenant_id, application_id, url)
               select overlay(uuid_floor(now() - n * interval '1 s')::text placing '7' from 15)::uuid, tenant_id, application_id, url
                 from endpoint, generate_series(2, {of}) n where application_id = posthaste_id('{application}');
             update application set version = version + 1 where id = posthaste_id('{application}')"
        );
        self.execute(&copies).await;
    }

    /// Stops every insert into `table` half-way, inside its transaction, until the hold is released.
    pub async fn hold_inserts(&self, table: &str) -> Hold {
        self.hold_inserts_where(table, "true").await
    }

    /// The same for those rows alone for which `condition` holds; it calls them `new`.
    pub async fn hold_inserts_where(&self, table: &str, condition: &str) -> Hold {
        let sql = format!(
            "create function hold_insert() returns trigger language plpgsql set lock_timeout = '5s' as
               $$ begin perform pg_advisory_xact_lock_shared({HOLD}); return new; end $$;
             create trigger hold_insert before insert on {table} for each row when ({condition}) execute function hold_insert();"
        );
        self.execute(&sql).await;
        self.hold_again().await
    }

    /// Holds the inserts of [`Database::hold_inserts`] once more.
    pub async fn hold_again(&self) -> Hold {
        let mut keeper = PgConnection::connect(&self.url).await.expect("a side connection");
        run(&mut keeper, &format!("select pg_advisory_lock({HOLD})")).await;
        Hold { keeper, pool: self.pool.clone() }
    }
}

/// Makes a partition of messages of ten weeks ago.
pub const OLD_PARTITION: &str = "select ensure_partition('message', to_char(week at time zone 'UTC', 'YYYYMMDD'), 'id', uuid_floor(week)::text, uuid_floor(week + interval '168 hours')::text)
    from date_trunc('week', now() - interval '70 days', 'UTC') week";
/// Counts the partitions of messages that are older than a month.
pub const OLD_PARTITIONS: &str = "select count(*) from pg_class where relkind = 'r' and relname ~ '^message_[0-9]{8}$'
    and relname < 'message_' || to_char(now() - interval '31 days', 'YYYYMMDD')";

/// The advisory lock behind [`Hold`]: beyond the 32-bit range, where no hashed key of ours is likely to be.
const HOLD: i64 = 7_234_567_890_123;

/// Inserts that wait inside their transactions; see [`Database::hold_inserts`].
#[derive(Debug)]
pub struct Hold {
    keeper: PgConnection,
    pool: PgPool,
}

impl Hold {
    /// Waits until `n` transactions are held.
    pub async fn holds(&self, n: i64) {
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())";
        let count = async || {
            let count: i64 = sqlx::query_scalar(waiting).fetch_one(&self.pool).await.expect("pg_locks can be read");
            (count >= n).then_some(())
        };
        crate::eventually("an insert is held", count).await;
    }

    /// Lets them go on.
    pub async fn release(mut self) {
        run(&mut self.keeper, &format!("select pg_advisory_unlock({HOLD})")).await;
    }
}
