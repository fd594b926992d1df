//! Long work that goes through the messages of a tenant, or of one of its endpoints: what asks for it.

use chrono::{DateTime, Utc};
use domain::{
    id::{Id, MessageId, SubscriptionId, TenantId},
    task::{Kind, Task},
};
use sqlx::types::Uuid;

use crate::{
    Database, Result,
    connection::Connection,
    effect::Effect,
    endpoints::Address,
    project_messages::Filter,
    tasks::{self, About, Parameters},
};

pub use crate::tasks::Ended;

/// Asks for messages to be sent once more to whoever wants them now, or for deliveries that ended to be made once more, whatever their application. The
/// outcome is the task, which has not begun.
#[derive(Clone, Debug)]
pub struct Through {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which messages.
    pub messages: Filter,
    /// Only this one of them.
    pub only: Option<MessageId>,
    /// Deliveries that ended in these ways; absent: the messages themselves.
    pub ended: Option<Vec<Ended>>,
    /// Only deliveries that this subscription lets through.
    pub subscription: Option<SubscriptionId>,
}

impl Effect for Through {
    type Output = Task;

    const ASKS_FOR_A_TASK: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Task> {
        let kind = if self.ended.is_some() { Kind::Resend } else { Kind::Replay };
        let about = About {
            applications: uuids(self.messages.applications),
            endpoints: uuids(self.messages.endpoints),
            sources: uuids(self.messages.sources),
            event_types: self.messages.event_type.map(|name| vec![name]),
            message_key: self.messages.message_key,
            message: self.only.map(Uuid::from),
            subscription: self.subscription.map(Uuid::from),
            ended: self.ended,
            ..About::default()
        };
        let (since, until) = (self.messages.after, self.messages.before);
        let parameters = Parameters { since, until, about: Some(about), ..Parameters::default() };
        tasks::put_down(db, tx, kind, (self.tenant_id, None, None), parameters).await
    }
}

/// Asks for deliveries to an endpoint that ended to be made once more.
#[derive(Clone, Debug)]
pub struct ResendTo {
    /// To which endpoint.
    pub address: Address,
    /// Only messages that were made at this moment or later,
    pub since: DateTime<Utc>,
    /// and before this one.
    pub until: Option<DateTime<Utc>>,
    /// Only messages of these types.
    pub event_types: Option<Vec<String>>,
    /// Only messages in this channel.
    pub channel: Option<String>,
    /// Only messages with this tag.
    pub tag: Option<String>,
    /// Only deliveries that ended in these ways.
    pub ended: Option<Vec<Ended>>,
    /// Only those whose deciding attempt had a status code of this hundred.
    pub status_class: Option<u16>,
}

impl Effect for ResendTo {
    type Output = Task;

    const ASKS_FOR_A_TASK: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Task> {
        let whose = tasks::of_endpoint(&mut *tx, &self.address).await?;
        let (_, application_id, endpoint_id) = whose;
        let about = About {
            applications: application_id.map(|id| vec![id.into()]),
            endpoints: endpoint_id.map(|id| vec![id.into()]),
            event_types: self.event_types,
            channel: self.channel,
            tag: self.tag,
            ended: self.ended,
            status_class: self.status_class,
            ..About::default()
        };
        let parameters = Parameters { since: Some(self.since), until: self.until, about: Some(about), ..Parameters::default() };
        tasks::put_down(db, tx, Kind::Resend, whose, parameters).await
    }
}

fn uuids<I: Id>(ids: Option<Vec<I>>) -> Option<Vec<Uuid>>
where
    Uuid: From<I>,
{
    ids.map(|ids| ids.into_iter().map(Uuid::from).collect())
}
