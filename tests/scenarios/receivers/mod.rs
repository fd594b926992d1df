//! The receivers of `examples/receivers`, as a customer runs them: Posthaste sends, the wire and the receiver break, and what a
//! webhook asks for is done once all the same.
//!
//! Which receiver is tested, `RECEIVER_UNDER_TEST` says: a command such as `/usr/bin/python3 examples/receivers/receiver.py`. If it
//! is unset, the one in Rust is. `tests/receivers/run` goes through the others.

mod crash;
mod document;
mod keys;
mod once;
mod signed;
mod sql;

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use support::{
    App, Attempt, Customer, Database, Options,
    cluster::Place,
    eventually,
    processes::{Process, command, free_address},
    proxy::Proxy,
};

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The text of an example.
fn example(name: &str) -> String {
    let path = root().join("examples/receivers").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A customer of ours with an endpoint, the database in which its receiver notes payments, and the wire in between.
struct Scene {
    app: App,
    customer: Customer,
    endpoint: String,
    /// The receiver's own database.
    theirs: Database,
    /// Every webhook passes through here.
    wire: Proxy,
    /// Where the receiver listens, as soon as it runs.
    address: SocketAddr,
}

impl Scene {
    /// Nothing is tried again before the test says so.
    async fn set() -> Self {
        Self::with(Options { schedule: vec![Duration::from_hours(1)], ..Options::default() }).await
    }

    async fn with(options: Options) -> Self {
        let app = App::with(options).await;
        let theirs = Database::create().await;
        theirs.execute(&example("schema.sql")).await;
        let address = free_address();
        let wire = Proxy::to(Place::Port(address)).await;
        let customer = app.customer().await;
        let endpoint = customer.endpoint(&format!("http://{}/", wire.address)).await;
        Self { app, customer, endpoint, theirs, wire, address }
    }

    /// Starts the receiver, with the secret that the endpoint has at this moment.
    async fn receiver(&self) -> Process {
        let named = env::var("RECEIVER_UNDER_TEST").unwrap_or_else(|_| env!("CARGO_BIN_EXE_receiver-example").to_owned());
        let mut words = named.split_whitespace();
        let program = words.next().expect("RECEIVER_UNDER_TEST is a command");
        let arguments: Vec<_> = words.collect();
        let secret = self.customer.secret(&self.endpoint).await;
        let port = self.address.port().to_string();
        let environment = [("DATABASE_URL", self.theirs.url.as_str()), ("WEBHOOK_SECRET", &secret), ("PORT", &port)];
        let mut command = command(program, &arguments, &environment);
        command.current_dir(root());
        let mut process = Process::spawn(command);
        process.printed("listening").await;
        process
    }

    /// Publishes what is to be noted once: that order 17 was paid.
    async fn publish(&self) -> String {
        self.customer.publish(&json!({ "order": 17 })).await
    }

    /// Asks for one more copy.
    async fn resend(&self, message: &str) {
        let path = self.customer.path(&format!("/msg/{message}/endpoint/{}/resend", self.endpoint));
        self.app.client.request("POST", &path).send().await.expect(202);
    }

    /// Waits for `n` attempts, and says how the receiver answered them.
    async fn answers(&self, message: &str, n: usize) -> Vec<(i64, String)> {
        let answer = |attempt: Attempt| (attempt.code(), attempt.response().to_owned());
        let mut answers: Vec<_> = self.customer.attempts(message, n).await.into_iter().map(answer).collect();
        // Our own words on why no answer came are another test's.
        answers.iter_mut().filter(|(code, _)| *code == 0).for_each(|(_, words)| words.clear());
        answers
    }

    /// How often the payment has been noted.
    async fn payments(&self) -> i64 {
        self.theirs.number("select count(*) from payment where order_number = 17").await
    }

    /// How many webhooks are remembered.
    async fn remembered(&self) -> i64 {
        self.theirs.number("select count(*) from webhook_seen").await
    }

    /// Waits until so many copies wait for another one to commit or to be rolled back.
    async fn waiting(&self, copies: i64) {
        let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'transactionid'";
        eventually("copies wait for the first", async || (self.theirs.number(waiting).await == copies).then_some(())).await;
    }
}

fn answered(code: i64, text: &str) -> (i64, String) {
    (code, text.to_owned())
}
