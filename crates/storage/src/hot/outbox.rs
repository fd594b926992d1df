//! Empties the outbox: publishes what was noted as any message is, in the order of ids for each tenant.
//!
//! The id of what was noted is the event id of its message. So a process that dies after it has published and before it has
//! deleted the row does no harm, nor does another one that is at it at the same time: "taken" means that it was published.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::{
    id::{ApplicationId, EndpointId, Id, TaskId, TenantId},
    own_event::{About, Disabled, Kind, OwnEvent},
    task::{self, State, Task},
};
use futures::future::join_all;
use serde_json::Value;
use sqlx::types::Uuid;

use crate::{
    Db, Error, Result,
    applications::Reference,
    committer::{KeyScope, NewMessage, Publisher},
    directory::{self, Subscribers},
};

/// How many rows of one tenant are published at a time: all at once, and what comes of them stays in their order.
const CHUNK: i64 = 30;
/// For how long one process has the outbox to itself, in seconds; renewed with each round.
const TURN: f64 = 5.0;

/// An event in the words of a dialect.
#[derive(Clone, Debug)]
pub struct Worded {
    /// What endpoints filter by.
    pub event_type: String,
    /// What they get: JSON.
    pub payload: Bytes,
}

/// Puts an event into words.
pub type Words = fn(&OwnEvent) -> Worded;

/// What was noted and is still to be published.
#[derive(Debug)]
pub struct Outbox {
    db: Db,
    publisher: Publisher,
    words: Words,
    holder: Uuid,
}

/// What a round found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// All that was due is published, or another process is at it.
    Done,
    /// There is more.
    More,
}

impl Outbox {
    /// The outbox of this database.
    pub fn new(db: &Db, publisher: Publisher, words: Words) -> Self {
        Self { db: db.clone(), publisher, words, holder: Uuid::from_u128(rand::random()) }
    }

    /// Returns when this process has heard that something was noted, or that somebody else wants to hear.
    pub async fn is_told(&self) {
        self.db.own_events().notified().await;
    }

    /// Publishes some of what is due, of all tenants. An `Err` is trouble that all rows would meet; what is wrong with a single one
    /// keeps that one back alone.
    pub async fn run_once(&self) -> Result<Round> {
        self.learn_who_listens().await?;
        let due = self.due().await?;
        if due.is_empty() || !self.has_turn().await? {
            return Ok(Round::Done);
        }
        let is_more = due.iter().any(|(_, rows)| i64::try_from(rows.len()) == Ok(CHUNK));
        let published = join_all(due.into_iter().map(async |(tenant_id, rows)| self.publish(tenant_id, rows).await)).await;
        published.into_iter().collect::<Result<()>>()?;
        Ok(if is_more { Round::More } else { Round::Done })
    }

    /// Read again whenever this process is told that there is news, and every few seconds.
    async fn learn_who_listens(&self) -> Result<()> {
        let rows = sqlx::query!(
            "select a.tenant_id, a.id from application a
              where a.is_own and a.deleted_at is null
                and exists (select from endpoint e where e.application_id = a.id and e.deleted_at is null and not e.is_disabled)"
        )
        .fetch_all(self.db.pool())
        .await?;
        self.db.node.listeners.learn(rows.into_iter().map(|row| (row.tenant_id.into(), row.id.into())));
        Ok(())
    }

    /// Lets the next process have its turn at once.
    pub async fn stop(&self) -> Result<()> {
        sqlx::query!("update own_event_turn set ends_at = '-infinity' where holder = $1", self.holder).execute(self.db.pool()).await?;
        Ok(())
    }

    async fn has_turn(&self) -> Result<bool> {
        let taken = sqlx::query!(
            "update own_event_turn set holder = $1, ends_at = now() + make_interval(secs => $2) where holder = $1 or ends_at <= now()",
            self.holder,
            TURN,
        )
        .execute(self.db.pool())
        .await?;
        Ok(taken.rows_affected() > 0)
    }

    /// The oldest rows of each tenant that has any, found tenant by tenant: a long row of one keeps no other waiting.
    async fn due(&self) -> Result<Vec<(TenantId, Vec<Row>)>> {
        let rows = sqlx::query_as!(
            Row,
            r#"with recursive waiting as (
                 (select tenant_id from own_event order by tenant_id limit 1)
                 union all
                 select (select o.tenant_id from own_event o where o.tenant_id > w.tenant_id order by o.tenant_id limit 1)
                   from waiting w where w.tenant_id is not null
               )
               select o.tenant_id as "tenant_id!", o.id as "id!", o.kind as "kind!", o.facts as "facts!"
                 from waiting w cross join lateral (
                   select o.tenant_id, o.id, o.kind, o.facts from own_event o
                    where o.tenant_id = w.tenant_id and o.due_at <= now() order by o.id limit $1) o"#,
            CHUNK,
        )
        .fetch_all(self.db.pool())
        .await?;
        let mut due: Vec<(TenantId, Vec<Row>)> = Vec::new();
        for row in rows {
            let tenant_id = TenantId::from(row.tenant_id);
            match due.last_mut().filter(|(last, _)| *last == tenant_id) {
                Some((_, rows)) => rows.push(row),
                None => due.push((tenant_id, vec![row])),
            }
        }
        Ok(due)
    }

    async fn publish(&self, tenant_id: TenantId, rows: Vec<Row>) -> Result<()> {
        let Some(subscribers) = self.subscribers(tenant_id).await? else {
            return self.forget(tenant_id, &rows.iter().map(|row| row.id).collect::<Vec<_>>()).await;
        };
        let messages: Vec<_> = rows.iter().map(|row| row.event().map(|event| Arc::new(self.message(row, &event, &subscribers)))).collect();
        let publishing = messages.iter().map(async |message| match message {
            Some(message) => Some(self.publisher.publish(message).await),
            None => None,
        });
        let (mut gone, mut odd, mut trouble) = (Vec::new(), Vec::new(), None);
        for (row, outcome) in rows.iter().zip(join_all(publishing).await) {
            match outcome {
                // Accepted now, or by whoever was at it before.
                Some(Ok(_)) => gone.push(row.id),
                Some(Err(error @ (Error::Unavailable(_) | Error::Overloaded))) => trouble = Some(error),
                Some(Err(error)) => {
                    tracing::error!(error = &error as &dyn std::error::Error, id = %row.id, "an event of a tenant's own cannot be published");
                    odd.push(row.id);
                }
                None => {
                    tracing::error!(id = %row.id, kind = row.kind, "an event of a tenant's own is unknown to this release");
                    odd.push(row.id);
                }
            }
        }
        self.forget(tenant_id, &gone).await?;
        self.put_off(tenant_id, &odd).await?;
        trouble.map_or(Ok(()), Err)
    }

    /// Those who are to hear; nobody, if no endpoint is left. What this process remembers is no reason to drop anything.
    async fn subscribers(&self, tenant_id: TenantId) -> Result<Option<Arc<Subscribers>>> {
        let hears = |subscribers: &Arc<Subscribers>| subscribers.targets.iter().any(|target| !target.endpoint.is_disabled);
        let known = match directory::find(&self.db, tenant_id, &Reference::own()).await {
            Ok(known) if hears(&known) => return Ok(Some(known)),
            Ok(_) => directory::reload(&self.db, tenant_id, &Reference::own()).await,
            Err(error) => Err(error),
        };
        match known {
            Ok(known) => Ok(Some(known).filter(hears)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn message(&self, row: &Row, event: &OwnEvent, subscribers: &Arc<Subscribers>) -> NewMessage {
        let Worded { event_type, payload } = (self.words)(event);
        NewMessage {
            subscribers: Arc::clone(subscribers),
            application: Reference::own(),
            event_type,
            event_id: Some(row.id.to_string()),
            channels: Vec::new(),
            message_key: None,
            key_scope: KeyScope::Application,
            payload,
            content_type: "application/json".into(),
            particulars: None,
            broadcast: None,
            payload_retention: None,
            claim: None,
        }
    }

    async fn forget(&self, tenant_id: TenantId, ids: &[Uuid]) -> Result<()> {
        if !ids.is_empty() {
            sqlx::query!("delete from own_event where tenant_id = $1 and id = any ($2)", Uuid::from(tenant_id), ids)
                .execute(self.db.pool())
                .await?;
        }
        Ok(())
    }

    /// Keeps rows back for as long as they are old, and gives them up after a day: the others go on meanwhile.
    async fn put_off(&self, tenant_id: TenantId, ids: &[Uuid]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let given_up = sqlx::query!(
            "delete from own_event where tenant_id = $1 and id = any ($2) and created_at < now() - interval '1 day'",
            Uuid::from(tenant_id),
            ids,
        )
        .execute(self.db.pool())
        .await?;
        if given_up.rows_affected() > 0 {
            tracing::error!(
                count = given_up.rows_affected(),
                "events of a tenant's own were given up: they could not be published for a day"
            );
        }
        sqlx::query!(
            "update own_event set due_at = now() + greatest(interval '1 second', least(now() - created_at, interval '10 minutes'))
              where tenant_id = $1 and id = any ($2)",
            Uuid::from(tenant_id),
            ids,
        )
        .execute(self.db.pool())
        .await?;
        Ok(())
    }
}

/// What was noted.
struct Row {
    tenant_id: Uuid,
    id: Uuid,
    kind: i16,
    facts: Value,
}

impl Row {
    /// What it tells of; nothing, if this release does not know such events.
    fn event(&self) -> Option<OwnEvent> {
        let kind = Kind::from_code(self.kind)?;
        let about = match kind {
            Kind::AttemptFailing | Kind::AttemptExhausted | Kind::AttemptRecovered => About::Attempt {
                message_id: self.id_of("message")?.into(),
                event_id: self.text("event_id"),
                attempt_id: self.id_of("attempt")?.into(),
                status_code: self.facts["status_code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0),
            },
            Kind::TaskFinished => About::Task(Box::new(self.task()?)),
            Kind::EndpointCreated | Kind::EndpointUpdated | Kind::EndpointDeleted | Kind::EndpointEnabled | Kind::EndpointDisabled => {
                About::Endpoint { uid: self.text("endpoint_uid"), disabled: self.disabled().filter(|_| kind == Kind::EndpointDisabled) }
            }
        };
        let application_id = self.id_of("application").map(ApplicationId::from);
        if application_id.is_none() && kind != Kind::TaskFinished {
            return None;
        }
        Some(OwnEvent {
            kind,
            application_id,
            application_uid: self.text("application_uid"),
            endpoint_id: self.id_of("endpoint").map(EndpointId::from),
            about,
        })
    }

    fn disabled(&self) -> Option<Disabled> {
        let is_automatic = self.facts["is_automatic"].as_bool()?;
        let failing_since = self.facts["failing_since"].as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        Some(Disabled { is_automatic, failing_since: failing_since.map(|at| at.with_timezone(&Utc)) })
    }

    fn task(&self) -> Option<Task> {
        let number = |name: &str| self.facts[name].as_u64().unwrap_or(0);
        let code = |name: &str| self.facts[name].as_i64().and_then(|code| i16::try_from(code).ok());
        let id = TaskId::from(self.id_of("task")?);
        Some(Task {
            id,
            tenant_id: self.tenant_id.into(),
            application_id: self.id_of("application").map(ApplicationId::from),
            endpoint_id: self.id_of("endpoint").map(EndpointId::from),
            kind: task::Kind::from_code(code("kind")?)?,
            state: State::from_code(code("state")?),
            scanned: number("scanned"),
            made: number("made"),
            error: self.text("error"),
            created_at: id.created_at(),
            // It ended when this was noted.
            updated_at: TaskId::from(self.id).created_at(),
        })
    }

    fn text(&self, name: &str) -> Option<String> {
        self.facts[name].as_str().map(str::to_owned)
    }

    fn id_of(&self, name: &str) -> Option<Uuid> {
        self.facts[name].as_str()?.parse().ok()
    }
}
