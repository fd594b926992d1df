//! Long work: what is to be done and how far it is. [`crate::runner`] does it, a bounded step at a time.
//!
//! Whatever may touch more than some hundreds of rows is a task, asked for in the transaction of the request that wants it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    id::{ApplicationId, EndpointId, TaskId, TenantId},
    own_event,
    task::{Kind, State, Task},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::types::{Json, Uuid};

use crate::{
    Conflict, Database, Error, Result, applications,
    connection::Connection,
    effect::Effect,
    endpoints::{self, Address},
    own_events,
    page::{Page, PageRequest},
};

/// What a look-up that finds nothing says.
const WHAT: &str = "task";

/// To how many endpoints a message is owed at once, in its own transaction. It is some 10 ms of Postgres' time.
pub(crate) const OWED_AT_ONCE: usize = 500;

/// What a task goes by, as its row keeps it. A field that a kind does not use is absent.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Parameters {
    /// Which message is broadcast.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<Uuid>,
    /// Which messages or deliveries of the tenant it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) about: Option<About>,
    /// The version of the application under which a message was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<i64>,
    /// Only messages that were made at this moment or later,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<DateTime<Utc>>,
    /// and before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<DateTime<Utc>>,
}

/// Which messages, or deliveries of them, a task goes through. What is absent is not asked for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct About {
    /// Only those of these applications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) applications: Option<Vec<Uuid>>,
    /// Only to these endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoints: Option<Vec<Uuid>>,
    /// Only those that came by these sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sources: Option<Vec<Uuid>>,
    /// Only those of these types.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_types: Option<Vec<String>>,
    /// Only those with this message key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message_key: Option<String>,
    /// Only those in this channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<String>,
    /// Only those with this tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tag: Option<String>,
    /// Only this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<Uuid>,
    /// Only deliveries that this subscription lets through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subscription: Option<Uuid>,
    /// Only deliveries that ended in one of these ways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<Vec<Ended>>,
    /// Only deliveries whose deciding attempt had a status code of this hundred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status_class: Option<u16>,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The receiver took it.
    Delivered,
    /// Its attempts are used up.
    Failed,
    /// Without a request.
    Discarded,
}

/// A task as its table holds it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) tenant_id: Uuid,
    pub(crate) application_id: Option<Uuid>,
    pub(crate) endpoint_id: Option<Uuid>,
    pub(crate) cursor: Option<Uuid>,
    pub(crate) cursor_within: Option<Uuid>,
    pub(crate) kind: i16,
    pub(crate) state: i16,
    pub(crate) scanned: i64,
    pub(crate) done: i64,
    pub(crate) parameters: Json<Parameters>,
    pub(crate) error: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
}

impl Row {
    /// The application that it is about; none that there is, if it is about all.
    pub(crate) fn application_id(&self) -> Uuid {
        self.application_id.unwrap_or_default()
    }

    /// Between which ids the messages lie that it is about, the second one excluded.
    pub(crate) fn messages(&self) -> (Uuid, Uuid) {
        let since = self.parameters.since.map_or(Uuid::nil(), domain::id::from);
        // What is published after it was asked for is no business of it.
        let until = self.parameters.until.map_or(self.id, domain::id::from);
        (since, until.min(self.id))
    }
}

impl From<Row> for Task {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.into(),
            tenant_id: row.tenant_id.into(),
            application_id: row.application_id.map(ApplicationId::from),
            endpoint_id: row.endpoint_id.map(EndpointId::from),
            // Lists and look-ups leave out what a newer release has added.
            kind: Kind::from_code(row.kind).unwrap_or(Kind::FanOut),
            state: State::from_code(row.state),
            scanned: u64::try_from(row.scanned).unwrap_or(0),
            made: u64::try_from(row.done).unwrap_or(0),
            error: row.error,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Puts the fan-out of a message that is stored already into the caller's transaction, which has locked the application.
pub(crate) async fn put_down_fan_out(tx: &mut Connection, message: &domain::message::Message) -> Result<()> {
    sqlx::query!(
        "insert into task (id, tenant_id, application_id, kind, parameters)
           select $1, tenant_id, id, 1, jsonb_build_object('version', version) from application where id = $2 and tenant_id = $3",
        Uuid::from(message.id),
        Uuid::from(message.application_id),
        Uuid::from(message.tenant_id),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Asks for what an endpoint failed to get, or never got, to be sent to it. The outcome is the task, which has not begun.
#[derive(Clone, Debug)]
pub struct SendAgain {
    /// To which endpoint.
    pub address: Address,
    /// [`Kind::Recover`] or [`Kind::ReplayMissing`].
    pub kind: Kind,
    /// Only messages that were made at this moment or later,
    pub since: DateTime<Utc>,
    /// and before this one.
    pub until: Option<DateTime<Utc>>,
}

impl Effect for SendAgain {
    type Output = Task;

    const ASKS_FOR_A_TASK: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Task> {
        let whose = of_endpoint(&mut *tx, &self.address).await?;
        let parameters = Parameters { since: Some(self.since), until: self.until, ..Parameters::default() };
        put_down(db, tx, self.kind, whose, parameters).await
    }
}

/// An id for a task that is still to be put down.
pub fn new_id(db: &Database) -> TaskId {
    db.new_id().into()
}

/// Whose a task is, and what it is about.
pub(crate) type Whose = (TenantId, Option<ApplicationId>, Option<EndpointId>);

/// A task about an endpoint, whose application is locked. One that is off gets nothing.
pub(crate) async fn of_endpoint(tx: &mut Connection, address: &Address) -> Result<Whose> {
    let Address { tenant_id, application, endpoint } = address;
    let application_id = applications::lock(&mut *tx, *tenant_id, application).await?;
    let endpoint = endpoints::find(tx, application_id, endpoint).await?.ok_or(Error::NotFound("endpoint"))?;
    if endpoint.is_disabled {
        return Err(Conflict::Disabled.into());
    }
    Ok((*tenant_id, Some(application_id), Some(endpoint.id.into())))
}

/// Puts a task into the caller's transaction.
pub(crate) async fn put_down(
    db: &Database,
    tx: &mut Connection,
    kind: Kind,
    (tenant_id, application_id, endpoint_id): Whose,
    parameters: Parameters,
) -> Result<Task> {
    let row = sqlx::query_as!(
        Row,
        r#"insert into task (id, tenant_id, application_id, endpoint_id, kind, parameters) values ($1, $2, $3, $4, $5, $6)
           returning id, tenant_id, application_id, endpoint_id, cursor, cursor_within, kind, state, scanned, done,
                     parameters as "parameters: Json<Parameters>", error, created_at, updated_at"#,
        db.new_id(),
        Uuid::from(tenant_id),
        application_id.map(Uuid::from),
        endpoint_id.map(Uuid::from),
        kind.code(),
        Json(parameters) as _,
    )
    .fetch_one(tx)
    .await?;
    Ok(row.into())
}

/// Stops a task: what it has done stays. One that is over already stays as it is.
#[derive(Clone, Copy, Debug)]
pub struct Cancel {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub id: TaskId,
}

impl Effect for Cancel {
    type Output = Task;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Task> {
        let stopped = sqlx::query!(
            "update task set state = 3, error = null, updated_at = now() where id = $1 and tenant_id = $2 and state = 0 and kind <> 1",
            Uuid::from(self.id),
            Uuid::from(self.tenant_id),
        )
        .execute(&mut *tx)
        .await?;
        let task = find(&mut *tx, self.tenant_id, self.id).await?;
        if stopped.rows_affected() > 0 {
            tell(db, tx, &task).await?;
        }
        Ok(task)
    }
}

/// Tells whoever of the tenant wants to hear of it that a task which somebody asked for is over, in the transaction that ends it.
pub(crate) async fn tell_of_end(db: &Database, tx: &mut Connection, tenant_id: TenantId, id: TaskId) -> Result<()> {
    let task = find(&mut *tx, tenant_id, id).await?;
    tell(db, tx, &task).await
}

async fn tell(db: &Database, tx: &mut Connection, task: &Task) -> Result<()> {
    let facts = json!({
        "task": Uuid::from(task.id).to_string(),
        "endpoint": task.endpoint_id.map(|id| Uuid::from(id).to_string()),
        "kind": task.kind.code(),
        "state": task.state.code(),
        "scanned": task.scanned,
        "made": task.made,
        "error": task.error,
    });
    own_events::note(db, tx, task.tenant_id, task.application_id, &[own_event::Kind::TaskFinished], &facts).await
}

/// One task that somebody asked for.
pub async fn get(db: &Database, tenant_id: TenantId, id: TaskId) -> Result<Task> {
    find(&mut db.pool().acquire().await?, tenant_id, id).await
}

async fn find(connection: &mut Connection, tenant_id: TenantId, id: TaskId) -> Result<Task> {
    let row = sqlx::query_as!(
        Row,
        r#"select id, tenant_id, application_id, endpoint_id, cursor, cursor_within, kind, state, scanned, done,
                  parameters as "parameters: Json<Parameters>", error, created_at, updated_at
             from task where id = $1 and tenant_id = $2 and kind <> 1"#,
        Uuid::from(id),
        Uuid::from(tenant_id),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.ok_or(Error::NotFound(WHAT))?.into())
}

/// Which tasks a list shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Only those in one of these states.
    pub states: Option<&'a [State]>,
    /// Only those of one of these kinds.
    pub kinds: Option<&'a [Kind]>,
}

/// The tasks that a tenant asked for, by id; fan-outs, for which nobody asks, are left out.
pub async fn list(db: &Database, tenant_id: TenantId, filter: Filter<'_>, page: &PageRequest<TaskId>) -> Result<Page<Task>> {
    let (first, end) = page.bounds(None, None);
    let kinds: Option<Vec<i16>> = filter.kinds.map(|kinds| kinds.iter().map(|kind| kind.code()).collect());
    let states: Option<Vec<i16>> = filter.states.map(|states| states.iter().map(|state| state.code()).collect());
    macro_rules! scan {
        ($order:tt) => {
            sqlx::query_as!(
                Row,
                r#"select id, tenant_id, application_id, endpoint_id, cursor, cursor_within, kind, state, scanned, done,
                          parameters as "parameters: Json<Parameters>", error, created_at, updated_at
                     from task where tenant_id = $1 and kind <> 1 and id >= $2 and id < $3
                      and ($5::smallint[] is null or state = any ($5)) and ($6::smallint[] is null or kind = any ($6))
                    order by id "#
                    + $order
                    + " limit $4",
                Uuid::from(tenant_id),
                first,
                end,
                page.rows(),
                states.as_deref() as _,
                kinds.as_deref() as _,
            )
            .fetch_all(db.lists())
            .await
            .map_err(Error::of_list)?
        };
    }
    let rows = if page.scans_up() { scan!("asc") } else { scan!("desc") };
    Ok(page.page(rows.into_iter().map(Task::from).collect()))
}

/// Forgets tasks that have been over for as long as anything is kept.
pub async fn forget(db: &Database, retention: Duration) -> Result<()> {
    sqlx::query!("delete from task where id < uuid_floor(now() - make_interval(secs => $1)) and state <> 0", retention.as_secs_f64())
        .execute(db.pool())
        .await?;
    Ok(())
}
