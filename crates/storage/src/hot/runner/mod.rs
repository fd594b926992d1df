//! Does what is to be done: one bounded step of one task at a time, of each tenant in turn.
//!
//! A step, how far the task is after it and what it has made are one transaction, under the lock of the task's row. That lock is the
//! lease: whoever dies lets go of it, and whoever finds the row unlocked goes on where the last commit was.

mod broadcast;
mod expunge;
mod fan_out;
mod recover;
mod replay;
mod through;

use domain::{
    id::MessageId,
    task::{Kind, State},
};
use sqlx::types::{Json, Uuid};

use crate::{
    Database, Db, Error, Result,
    connection::Connection,
    effect::OwedAnew,
    session::Session,
    tasks::{self, Parameters, Row},
};

/// After how many failures in a row a task that somebody asked for is given up. A fan-out or a broadcast never is: its message was accepted.
const PATIENCE: i16 = 10;
/// The longest rest after a failure, in seconds.
const LONGEST_REST: f64 = 60.0;

/// One step of a task.
#[derive(Debug)]
pub(super) enum Step {
    /// It was done.
    Done(Done),
    /// There is no sense in going on.
    Pointless(&'static str),
}

/// What a step did.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// How far it has looked.
    cursor: Option<Uuid>,
    /// How far in the application that the cursor names; nothing, if all of it was looked at.
    within: Option<Uuid>,
    /// At how much it has looked in this step.
    scanned: usize,
    /// The deliveries that it has made in this step of messages that there were.
    owed: Vec<OwedAnew>,
    /// The messages that it has made, each with its deliveries.
    new: Vec<(MessageId, OwedAnew)>,
    /// How many messages it has erased.
    erased: usize,
    /// Whether it has asked for further tasks.
    has_tasks: bool,
    /// Whether nothing is left.
    is_last: bool,
}

impl Step {
    /// What it was about is gone.
    const NOTHING_LEFT: Self = Self::Done(Done {
        cursor: None,
        within: None,
        scanned: 0,
        owed: Vec::new(),
        new: Vec::new(),
        erased: 0,
        has_tasks: false,
        is_last: true,
    });

    /// How many deliveries it has made, or messages erased.
    fn made(&self) -> usize {
        let Self::Done(done) = self else { return 0 };
        let owed = done.owed.iter().chain(done.new.iter().map(|(_, owed)| owed));
        done.erased + owed.map(|owed| owed.endpoints.len()).sum::<usize>()
    }

    /// Tells the rest of the process of it, once it is committed.
    fn tell(&self, db: &Db) {
        let Self::Done(done) = self else { return };
        for owed in &done.owed {
            db.node.rollups.owed(owed, db.now());
        }
        for (id, owed) in &done.new {
            db.node.rollups.accepted(owed.owner, *id, &owed.event_type, false, owed.endpoints.iter().copied());
        }
        if !(done.owed.is_empty() && done.new.is_empty()) {
            db.wake();
        }
        if done.has_tasks {
            db.wake_runner();
        }
    }
}

/// Runs tasks on a connection of its own.
#[derive(Debug)]
pub struct Runner {
    db: Db,
    session: Option<Session>,
    /// Whose task was done last.
    after: Uuid,
}

impl Runner {
    /// A runner with a connection of its own, opened when it is first needed.
    pub fn connect(db: &Db) -> Self {
        Self { db: db.clone(), session: None, after: Uuid::nil() }
    }

    /// Returns when a task may be to be done. A caller that stops waiting misses nothing that its next look does not find.
    pub async fn wait(&self) {
        self.db.task_due().notified().await;
    }

    /// Does one step of the task whose turn it is. Returns whether there was one.
    pub async fn run_once(&mut self) -> Result<bool> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::connect(&self.db, "posthaste-tasks").await?,
        };
        let done = self.step(session.rested().await?).await?;
        // Only a session without an error is used again.
        self.session = Some(session);
        Ok(done)
    }

    async fn step(&mut self, connection: &mut Connection) -> Result<bool> {
        let mut tx = connection.begin().await?;
        let Some(task) = self.next(&mut tx).await? else {
            tx.rollback().await?;
            return Ok(false);
        };
        self.after = task.tenant_id;
        let stepped = match Kind::from_code(task.kind) {
            Some(Kind::FanOut) => fan_out::step(&self.db, &mut tx, &task).await,
            Some(Kind::Recover) => recover::step(&mut tx, &task).await,
            Some(Kind::ReplayMissing) => replay::step(&self.db, &mut tx, &task).await,
            Some(Kind::Broadcast) => broadcast::step(&self.db, &mut tx, &task).await,
            Some(Kind::Expunge) => expunge::step(&mut tx, &task).await,
            Some(Kind::Resend | Kind::Replay) => through::step(&self.db, &mut tx, &task).await,
            // None of a kind that is not known here is taken: it is left to the newer release whose it is.
            None => Ok(Step::Pointless("this kind of task is not known")),
        };
        match stepped {
            Ok(step) => {
                save(&self.db, &mut tx, &task, &step).await?;
                tx.commit().await?;
                step.tell(&self.db);
            }
            Err(error) => {
                tx.rollback().await?;
                if matches!(error, Error::Unavailable(_)) {
                    return Err(error);
                }
                put_off(&self.db, connection, &task, &error).await?;
            }
        }
        Ok(true)
    }

    /// Locks the task whose turn it is: the first of the tenant that comes after the last one.
    async fn next(&self, tx: &mut Connection) -> Result<Option<Row>> {
        let found = first_after(&mut *tx, self.after).await?;
        if found.is_some() || self.after.is_nil() { Ok(found) } else { first_after(tx, Uuid::nil()).await }
    }
}

async fn first_after(tx: &mut Connection, tenant_id: Uuid) -> Result<Option<Row>> {
    Ok(sqlx::query_as!(
        Row,
        r#"select id, tenant_id, application_id, endpoint_id, cursor, cursor_within, kind, state, scanned, done,
                  parameters as "parameters: Json<Parameters>", error, created_at, updated_at
             from task where state = 0 and due_at <= now() and tenant_id > $1 and kind between 1 and 7
            order by tenant_id, due_at limit 1 for update skip locked"#,
        tenant_id,
    )
    .fetch_optional(tx)
    .await?)
}

/// Writes how far the task is, into the transaction of the step.
async fn save(db: &Database, tx: &mut Connection, task: &Row, step: &Step) -> Result<()> {
    let (cursor, within, scanned, state, error) = match *step {
        Step::Done(Done { is_last: true, .. }) if task.kind == Kind::FanOut.code() => {
            sqlx::query!("delete from task where id = $1 and tenant_id = $2", task.id, task.tenant_id).execute(tx).await?;
            return Ok(());
        }
        Step::Done(Done { cursor, within, scanned, is_last, .. }) => {
            (cursor, within, scanned, if is_last { State::Finished } else { State::Running }, None)
        }
        Step::Pointless(why) => (None, None, 0, State::Failed, Some(why)),
    };
    // Its turn comes again after the tenant's other tasks, but a fan-out keeps its place: the message that came first goes out first.
    sqlx::query!(
        "update task set cursor = coalesce($3, cursor), cursor_within = $8, scanned = scanned + $4, done = done + $5, state = $6, error = $7, failures = 0,
                updated_at = now(), due_at = case when kind = 1 then due_at else now() end
          where id = $1 and tenant_id = $2",
        task.id,
        task.tenant_id,
        cursor,
        i64::try_from(scanned).unwrap_or(i64::MAX),
        i64::try_from(step.made()).unwrap_or(i64::MAX),
        state.code(),
        error,
        within,
    )
    .execute(&mut *tx)
    .await?;
    if state != State::Running && task.kind != Kind::FanOut.code() {
        tasks::tell_of_end(db, tx, task.tenant_id.into(), task.id.into()).await?;
    }
    Ok(())
}

/// A step could not be done: it is tried again, ever more rarely, and in the end given up if that loses nothing that was accepted.
async fn put_off(db: &Database, connection: &mut Connection, task: &Row, error: &Error) -> Result<()> {
    tracing::error!(task_id = %domain::id::TaskId::from(task.id), error = error as &dyn std::error::Error, "a step of a task could not be done");
    let mut tx = connection.begin().await?;
    let is_over = sqlx::query_scalar!(
        r#"update task set failures = least(failures + 1, 1000), error = $3, updated_at = now(),
                due_at = now() + make_interval(secs => least(0.1::float8 * power(2::float8, least(failures, 20)::float8), $4::float8)),
                state = case when failures + 1 >= $5 and kind not in (1, 4) then 2 else state end
          where id = $1 and tenant_id = $2 and state = 0
          returning state <> 0 as "is_over!""#,
        task.id,
        task.tenant_id,
        error.to_string(),
        LONGEST_REST,
        i32::from(PATIENCE),
    )
    .fetch_optional(&mut *tx)
    .await?;
    if is_over == Some(true) {
        tasks::tell_of_end(db, &mut tx, task.tenant_id.into(), task.id.into()).await?;
    }
    Ok(tx.commit().await?)
}
