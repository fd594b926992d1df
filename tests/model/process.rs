//! One process: a session of its own that runs the claim of one request after the other, and stops where it is told to.

use std::{
    sync::atomic::{AtomicI32, Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    task::JoinHandle,
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{history::Crash, notices, shipped::Claim, statements};

/// A place in a claim where it can stop: before the step of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Point {
    /// Inside the statement that tries the lock, its snapshot taken.
    Lock = 1,
    LookUp,
    Effect,
    Record,
    /// All is written and nothing is committed.
    Commit,
}

impl Point {
    pub(crate) const ALL: [Self; 5] = [Self::Lock, Self::LookUp, Self::Effect, Self::Record, Self::Commit];

    pub(crate) fn number(self) -> i32 {
        self as i32
    }

    pub(crate) fn from_number(number: i32) -> Self {
        Self::ALL.into_iter().find(|point| point.number() == number).expect("the number of a point")
    }
}

/// What a process is asked to do.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The id that its effect will have.
    pub(crate) id: Uuid,
    pub(crate) key: Uuid,
    pub(crate) fingerprint: Uuid,
    pub(crate) ttl: Duration,
    /// It was sent before, with the same id, on a connection that broke.
    pub(crate) is_rerun: bool,
    /// When its transaction begins.
    pub(crate) now: DateTime<Utc>,
}

/// What a request is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This effect is its own.
    Executed(Uuid),
    /// This effect is an earlier one's.
    Replay(Uuid),
    /// The key belongs to another body.
    Mismatch,
    Busy,
}

/// How a step of a process ended.
#[derive(Debug)]
pub(crate) enum Reached {
    Stop(Point),
    Answer(Answer),
    /// It waits, and not at a stop: for a lock of this description.
    Waits(String),
}

type Ended = (PgConnection, Result<Answer, sqlx::Error>);

/// The advisory locks of the stops have the number of their process as the first half of their names, and this one its life.
const ALIVE: i32 = 0;
/// The numbers of processes, beyond what anybody else uses in these databases.
static NUMBERS: AtomicI32 = AtomicI32::new(1000);
/// How long a step may take before somebody looks whether it waits.
const GLANCE: Duration = Duration::from_millis(10);
/// How long a step may take at all, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(30);

/// The session that holds the locks at which the processes stop.
#[derive(Debug)]
pub(crate) struct Keeper(pub(crate) PgConnection);

impl Keeper {
    async fn hold(&mut self, process: i32, stops: &[Point]) -> Result<(), sqlx::Error> {
        let stops: Vec<_> = stops.iter().map(|stop| stop.number()).collect();
        let held = sqlx::query("select pg_advisory_lock($1, stop) from unnest($2::integer[]) stop").bind(process).bind(stops);
        held.execute(&mut self.0).await.map(drop)
    }

    async fn let_pass(&mut self, process: i32, stop: Point) {
        let passed: bool = sqlx::query_scalar("select pg_advisory_unlock($1, $2)")
            .bind(process)
            .bind(stop.number())
            .fetch_one(&mut self.0)
            .await
            .expect("the keeper's session lives");
        assert!(passed, "the keeper held the stop");
    }

    /// Lets everything pass that is or will be stopped.
    pub(crate) async fn let_all_pass(&mut self) {
        sqlx::query("select pg_advisory_unlock_all()").execute(&mut self.0).await.expect("the keeper's session lives");
    }

    /// What a session waits for, if it waits for anything but a stop.
    async fn waits_for(&mut self, pid: i32, process: i32) -> Option<String> {
        let sql = "select concat_ws(' ', mode, 'on a', locktype) from pg_locks
             where pid = $1 and not granted and (locktype <> 'advisory' or objsubid <> 2 or classid::integer <> $2)";
        sqlx::query_scalar(sql).bind(pid).bind(process).fetch_optional(&mut self.0).await.expect("the keeper's session lives")
    }

    async fn end(&mut self, pid: i32, what: Crash) {
        let sql = match what {
            Crash::Session => "select pg_terminate_backend($1)",
            Crash::Transaction => "select pg_cancel_backend($1)",
        };
        sqlx::query(sql).bind(pid).execute(&mut self.0).await.expect("the keeper's session lives");
    }
}

/// A process. Its session is replaced when it crashes.
#[derive(Debug)]
pub(crate) struct Process {
    number: i32,
    options: PgConnectOptions,
    claim: Claim,
    pid: i32,
    idle: Option<PgConnection>,
    running: Option<JoinHandle<Ended>>,
    stops: UnboundedReceiver<Point>,
    /// Where the keeper would stop it.
    held: Vec<Point>,
}

impl Process {
    pub(crate) async fn start(url: &str, claim: &Claim) -> Self {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let options: PgConnectOptions = url.parse().expect("a database URL");
        let options = options.options([
            ("search_path", "model,pg_catalog,public"),
            ("default_transaction_isolation", claim.isolation),
            ("model.process", &number.to_string()),
        ]);
        let stops = notices::of(number);
        let mut process = Self { number, options, claim: claim.clone(), pid: 0, idle: None, running: None, stops, held: Vec::new() };
        process.connect().await;
        process
    }

    /// Connects, as soon as the session that this process had before is gone for good.
    async fn connect(&mut self) {
        let mut connection = PgConnection::connect_with(&self.options).await.expect("a session");
        let sql = "select pg_backend_pid() from pg_advisory_lock($1, $2)";
        self.pid = sqlx::query_scalar(sql).bind(ALIVE).bind(self.number).fetch_one(&mut connection).await.expect("its life's lock");
        self.idle = Some(connection);
    }

    /// Begins a request; it goes on until its first stop.
    pub(crate) async fn begin(&mut self, keeper: &mut Keeper, request: Request, stops: &[Point]) -> Reached {
        let mut connection = self.idle.take().expect("one request at a time");
        let texts: Vec<_> = stops.iter().map(|stop| stop.number().to_string()).collect();
        let sql = "select set_config('model.now', $1::text, false), set_config('model.stops', $2, false)";
        let set = sqlx::query(sql).bind(request.now.to_rfc3339()).bind(format!("{{{}}}", texts.join(",")));
        if stops.is_empty() {
            set.execute(&mut connection).await.expect("settings");
        } else {
            // What an earlier request did not come to is still held.
            let missing: Vec<_> = stops.iter().copied().filter(|stop| !self.held.contains(stop)).collect();
            self.held.extend(&missing);
            tokio::try_join!(keeper.hold(self.number, &missing), async { set.execute(&mut connection).await }).expect("settings");
        }
        let claim = self.claim.clone();
        self.running = Some(tokio::spawn(async move {
            let told = statements::run(&claim, &request, &mut connection).await;
            (connection, told)
        }));
        self.reach(keeper).await
    }

    /// Goes on from a stop until the next one, or the end.
    pub(crate) async fn go(&mut self, keeper: &mut Keeper, from: Point) -> Reached {
        self.held.retain(|stop| *stop != from);
        keeper.let_pass(self.number, from).await;
        self.reach(keeper).await
    }

    async fn reach(&mut self, keeper: &mut Keeper) -> Reached {
        let reach = async {
            let mut waited_for = None;
            loop {
                let running = self.running.as_mut().expect("it was begun");
                tokio::select! {
                    biased;
                    Some(stop) = self.stops.recv() => return Reached::Stop(stop),
                    ended = running => return Reached::Answer(self.ended(ended.expect("no panic")).expect("a shipped statement is no error")),
                    () = sleep(GLANCE) => {}
                }
                let waits_for = keeper.waits_for(self.pid, self.number).await;
                match waits_for {
                    // Nobody else moves, so a wait for another process does not end; others do.
                    Some(lock) if waited_for.as_ref() == Some(&lock) => return Reached::Waits(lock),
                    _ => waited_for = waits_for,
                }
            }
        };
        timeout(PATIENCE, reach).await.expect("a session that neither stops nor ends nor waits")
    }

    fn ended(&mut self, (connection, told): Ended) -> Result<Answer, sqlx::Error> {
        self.running = None;
        self.idle = Some(connection);
        told
    }

    /// Ends what it was doing. It can go on when the server has forgotten all of it.
    pub(crate) async fn crash(&mut self, keeper: &mut Keeper, what: Crash) {
        keeper.end(self.pid, what).await;
        self.settle().await;
        match what {
            Crash::Session => self.connect().await,
            Crash::Transaction => {
                let connection = self.idle.as_mut().expect("it is settled");
                sqlx::raw_sql("rollback").execute(connection).await.map(drop).expect("the session lives on");
            }
        }
    }

    /// Waits for its end, after everything may pass.
    pub(crate) async fn finish(&mut self) {
        self.held.clear();
        self.settle().await;
    }

    /// Waits until nothing runs any more, however that ends.
    async fn settle(&mut self) {
        if let Some(running) = self.running.take() {
            let (connection, _) = timeout(PATIENCE, running).await.expect("a session that ends").expect("no panic");
            self.idle = Some(connection);
        }
        while self.stops.try_recv().is_ok() {}
    }
}
