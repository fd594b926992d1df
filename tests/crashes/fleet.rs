//! Replicas of the server on one database, and what befalls them.

use std::{net::SocketAddr, time::Duration};

use rustix::process::Signal;
use support::{
    Client, Customer, Database, Receiver, cluster, new_tenant,
    processes::{self, ServerProcess},
    proxy::Proxy,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
/// As in [`VARIABLES`].
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
const VARIABLES: [(&str, &str); 3] =
    [("POSTHASTE_REQUEST_TIMEOUT", "2s"), ("POSTHASTE_RETRY_SCHEDULE", "100ms,200ms,400ms,1s,2s,4s"), ("POSTHASTE_LOG", "error")];

/// One server process that is started again on the same address whenever it dies.
#[derive(Debug)]
pub(crate) struct Replica {
    database_url: String,
    tenant: String,
    server: ServerProcess,
}

impl Replica {
    /// Starts it on a free port.
    pub(crate) async fn start(database_url: &str, tenant: &str) -> Self {
        let server = spawn(database_url, tenant, processes::free_address());
        let mut replica = Self { database_url: database_url.to_owned(), tenant: tenant.to_owned(), server };
        replica.server.ready().await;
        replica
    }

    /// Asks it, as the tenant.
    pub(crate) fn client(&self) -> &Client {
        &self.server.client
    }

    /// Ends it as `kill -9` does.
    pub(crate) async fn kill(&mut self) {
        self.assert_calm();
        self.server.process.kill().await;
    }

    /// Starts it again.
    pub(crate) async fn restart(&mut self) {
        self.server = spawn(&self.database_url, &self.tenant, self.server.address);
        self.server.ready().await;
    }

    /// Stops the clock for it: it neither runs nor ends.
    pub(crate) fn freeze(&self) {
        self.server.process.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.server.process.signal(Signal::CONT);
    }

    /// It has met nothing that it took for impossible.
    pub(crate) fn assert_calm(&self) {
        let log = self.server.process.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

fn spawn(database_url: &str, tenant: &str, address: SocketAddr) -> ServerProcess {
    ServerProcess::spawn(PROGRAM, "serve", database_url, tenant, address, &VARIABLES)
}

/// Two replicas on one database: one that is going to suffer, behind a proxy, and another that is not.
pub(crate) struct Pair {
    pub(crate) database: Database,
    pub(crate) proxy: Proxy,
    pub(crate) unlucky: Replica,
    pub(crate) other: Replica,
    pub(crate) receiver: Receiver,
    /// Asks the other replica.
    pub(crate) customer: Customer,
}

impl Pair {
    /// With an application that has an endpoint.
    pub(crate) async fn start() -> Self {
        let database = Database::create().await;
        let proxy = Proxy::to(cluster::place_of(&database.url)).await;
        let tenant = new_tenant();
        let unlucky = Replica::start(&cluster::url_through(&database.url, proxy.address), &tenant).await;
        let other = Replica::start(&database.url, &tenant).await;
        let receiver = Receiver::start().await;
        let customer = Customer::create(other.client()).await;
        customer.endpoint(&receiver.url("/")).await;
        Self { database, proxy, unlucky, other, receiver, customer }
    }

    /// The application, asked for through the replica that is going to suffer.
    pub(crate) fn at_the_unlucky(&self) -> Customer {
        self.customer.through(self.unlucky.client())
    }

    /// Ends the statement that one of the committers is running, as an administrator would.
    pub(crate) async fn end_the_running_batch(&self) {
        let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity
            where datname = current_database() and application_name like 'posthaste-committer-%' and state = 'active'";
        assert_eq!(self.database.number(sql).await, 1, "one batch is running");
    }

    /// Lets the leases of a dead or frozen replica run out: those of the other are over by themselves.
    pub(crate) async fn let_leases_run_out(&self) {
        self.database.execute("update queue set due_at = now() where lease is not null").await;
    }
}

/// How many replicas a fleet has.
pub(crate) const REPLICAS: usize = 3;
/// The one that reaches Postgres by way of a proxy.
pub(crate) const PROXIED: usize = 0;

/// Three replicas on a cluster of their own.
pub(crate) struct Fleet {
    own: cluster::Own,
    pub(crate) database: Database,
    pub(crate) proxy: Proxy,
    pub(crate) replicas: Vec<Replica>,
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let own = cluster::Own::start().await;
        let url = own.database("crash").await;
        let proxy = Proxy::to(cluster::place_of(&url)).await;
        let tenant = new_tenant();
        let mut replicas = Vec::new();
        for number in 0..REPLICAS {
            let url = if number == PROXIED { cluster::url_through(&url, proxy.address) } else { url.clone() };
            replicas.push(Replica::start(&url, &tenant).await);
        }
        let fleet = Self { own, database: Database::existing(&url), proxy, replicas };
        for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
            let value = fleet.database.texts(&format!("select current_setting('{setting}')")).await;
            assert_eq!(value, ["on"], "{setting}");
        }
        fleet
    }

    /// Asks each of them.
    pub(crate) fn clients(&self) -> Vec<Client> {
        self.replicas.iter().map(|replica| replica.client().clone()).collect()
    }

    /// Postgres loses its memory and recovers.
    pub(crate) async fn crash_postgres(&mut self) {
        self.own.crash().await;
        self.own.restart().await;
    }

    /// The time of the database, as a literal.
    pub(crate) async fn time(&self) -> String {
        let now = self.database.texts("select now()::text").await.remove(0);
        format!("'{now}'::timestamptz")
    }

    /// Lets the leases run out that were taken before `moment` and are not over yet: a replica that could end its sends has
    /// ended them, if that was a request timeout ago. Waits until others have taken over what was being sent under them;
    /// returns how many deliveries that were.
    pub(crate) async fn let_leases_run_out(&self, moment: &str) -> i64 {
        let lease = worker::lease(REQUEST_TIMEOUT).as_secs();
        let left = format!("lease is not null and due_at > now() and due_at < {moment} + interval '{lease} seconds'");
        let sql = format!("with ended as (update queue set due_at = now() where {left} returning 1) select count(*)::text from ended");
        let ended = self.database.texts(&sql).await.remove(0).parse().expect("a count");
        let left = "select count(*) from queue where lease is not null and due_at <= now()";
        support::eventually("others have taken over", async || (self.database.number(left).await == 0).then_some(())).await;
        ended
    }

    /// Waits until every send that a living replica had begun is over.
    pub(crate) async fn outlast_sends(&self) {
        tokio::time::sleep(REQUEST_TIMEOUT + Duration::from_millis(1500)).await;
    }
}
