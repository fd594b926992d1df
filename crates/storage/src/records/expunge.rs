//! Content that is erased for good on request: of messages, and of what receivers answered. The rows stay.

use domain::{
    id::{ApplicationId, AttemptId, MessageId, TenantId},
    task::{Kind, Task},
};
use sqlx::types::Uuid;

use crate::{
    Database, Error, Result,
    applications::{self, Reference},
    connection::Connection,
    effect::Effect,
    messages::resolve,
    tasks::{self, Parameters},
};

/// Erases the payload of a message for good, with the headers and the query that it came with. The message stays, and so does what is recorded of its attempts.
#[derive(Clone, Debug)]
pub struct Expunge {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which customer's.
    pub application: Reference<ApplicationId>,
    /// Which.
    pub message: Reference<MessageId>,
}

impl Effect for Expunge {
    type Output = ();

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<()> {
        let many = ExpungeMany { tenant_id: self.tenant_id, application: self.application, messages: vec![self.message] };
        let erased = many.apply(db, tx).await?;
        if erased == [true] { Ok(()) } else { Err(Error::NotFound("message")) }
    }
}

/// The same of several messages. The outcome says of each whether there is such a message.
#[derive(Clone, Debug)]
pub struct ExpungeMany {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which customer's.
    pub application: Reference<ApplicationId>,
    /// Which.
    pub messages: Vec<Reference<MessageId>>,
}

impl Effect for ExpungeMany {
    type Output = Vec<bool>;

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<Vec<bool>> {
        let application_id = applications::lock(&mut *tx, self.tenant_id, &self.application).await?;
        let mut ids = Vec::with_capacity(self.messages.len());
        for message in &self.messages {
            ids.push(match resolve(&mut *tx, application_id, message).await {
                Ok(id) => Some(Uuid::from(id)),
                Err(Error::NotFound(_)) => None,
                Err(error) => return Err(error),
            });
        }
        let named: Vec<_> = ids.iter().copied().flatten().collect();
        let erased = sqlx::query_scalar!(
            "update message set payload = null, payload_expires_at = null, particulars = particulars - '{headers,query}'::text[]
              where id = any ($1) and application_id = $2 and tenant_id = $3 returning id",
            &named,
            Uuid::from(application_id),
            Uuid::from(self.tenant_id),
        );
        let erased = erased.fetch_all(tx).await?;
        Ok(ids.into_iter().map(|id| id.is_some_and(|id| erased.contains(&id))).collect())
    }
}

/// Asks for the payloads of all messages that an application has by now to be erased. The outcome is the task, which has not begun.
#[derive(Clone, Debug)]
pub struct ExpungeAll {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which customer's.
    pub application: Reference<ApplicationId>,
}

impl Effect for ExpungeAll {
    type Output = Task;

    const ASKS_FOR_A_TASK: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Task> {
        let application_id = applications::lock(&mut *tx, self.tenant_id, &self.application).await?;
        tasks::put_down(db, tx, Kind::Expunge, (self.tenant_id, Some(application_id), None), Parameters::default()).await
    }
}

/// Erases what the receiver answered to one attempt.
#[derive(Clone, Debug)]
pub struct ExpungeAnswer {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which customer's.
    pub application: Reference<ApplicationId>,
    /// Of which message.
    pub message: Reference<MessageId>,
    /// Which.
    pub attempt: AttemptId,
}

impl Effect for ExpungeAnswer {
    type Output = ();

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<()> {
        let application_id = applications::lock(&mut *tx, self.tenant_id, &self.application).await?;
        let message_id = resolve(&mut *tx, application_id, &self.message).await?;
        let erased = sqlx::query!(
            "update attempt set response = '' where id = $1 and message_id = $2 and application_id = $3 and tenant_id = $4",
            Uuid::from(self.attempt),
            Uuid::from(message_id),
            Uuid::from(application_id),
            Uuid::from(self.tenant_id),
        );
        if erased.execute(tx).await?.rows_affected() == 0 { Err(Error::NotFound("attempt")) } else { Ok(()) }
    }
}
