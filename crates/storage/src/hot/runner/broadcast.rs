//! Gives a message to everybody: each application with an endpoint that wants it gets a message of its own, with the same bytes and key.

use domain::{
    id::{EndpointId, MessageId},
    message::Message,
};
use sqlx::types::Uuid;

use super::{Done, Step};
use crate::{
    Database, Result,
    connection::Connection,
    effect::OwedAnew,
    messages,
    reference::Owner,
    resends::{self, Asking},
    tasks::{self, Row},
};

/// At how many applications one step looks,
const APPLICATIONS: i64 = 100;
/// and after how many deliveries it stops.
const DELIVERIES: usize = 1_000;

/// The next applications, of those that there were when the message was accepted, as were their endpoints. The one to which it was
/// published had its share then.
pub(super) async fn step(db: &Database, tx: &mut Connection, task: &Row) -> Result<Step> {
    let id = MessageId::from(task.parameters.message.unwrap_or_default());
    let original = messages::find(&mut *tx, id).await?.filter(|message| message.payload.is_some());
    let Some(original) = original else { return Ok(Step::NOTHING_LEFT) };
    let applications = sqlx::query_scalar!(
        "select id from application
          where tenant_id = $1 and id > $2 and id < $3 and id <> $4 and deleted_at is null and not is_own order by id limit $5",
        task.tenant_id,
        task.cursor.unwrap_or_default(),
        Uuid::from(id),
        Uuid::from(original.application_id),
        APPLICATIONS,
    )
    .fetch_all(&mut *tx)
    .await?;
    let asking = resends::asking(&mut *tx, task.tenant_id, &applications, id.into()).await?;
    let mut made = Made::default();
    let (mut cursor, mut scanned) = (task.cursor, 0);
    for application in &applications {
        if made.deliveries.len() >= DELIVERIES {
            break;
        }
        made.add(db, &original, *application, &asking);
        (cursor, scanned) = (Some(*application), scanned + 1);
    }
    let is_last = scanned == applications.len() && i64::try_from(scanned).unwrap_or(0) < APPLICATIONS;
    made.write(tx, &original).await?;
    let has_tasks = !made.large.is_empty();
    Ok(Step::Done(Done { cursor, scanned, new: made.told(&original), has_tasks, is_last, ..Done::default() }))
}

/// What a step makes.
#[derive(Default)]
struct Made {
    /// The messages, by id and application.
    messages: Vec<(Uuid, Uuid)>,
    /// What is owed, by message, application and endpoint.
    deliveries: Vec<(Uuid, Uuid, Uuid)>,
    /// Messages that are owed to so many that a task does it.
    large: Vec<Message>,
}

impl Made {
    /// What one application gets.
    fn add(&mut self, db: &Database, original: &Message, application: Uuid, asking: &[Asking]) {
        let of_it = asking.iter().filter(|asking| asking.application_id == application);
        let wanting: Vec<_> = of_it.filter(|asking| asking.wants(original, db.now())).map(|asking| asking.endpoint_id).collect();
        if wanting.is_empty() {
            return;
        }
        let id = db.new_id();
        self.messages.push((id, application));
        if wanting.len() > tasks::OWED_AT_ONCE {
            let copy = Message { id: id.into(), application_id: application.into(), payload: None, ..original.clone() };
            self.large.push(copy);
        } else {
            self.deliveries.extend(wanting.into_iter().map(|endpoint| (id, application, endpoint)));
        }
    }

    async fn write(&self, tx: &mut Connection, original: &Message) -> Result<()> {
        let (ids, applications): (Vec<_>, Vec<_>) = self.messages.iter().copied().unzip();
        sqlx::query!(
            "insert into message (id, tenant_id, application_id, event_type, channels, message_key, payload, content_type, payload_expires_at, particulars)
               select t.id, m.tenant_id, t.application_id, m.event_type, m.channels, m.message_key, m.payload, m.content_type, m.payload_expires_at, m.particulars
                 from unnest($1::uuid[], $2::uuid[]) t(id, application_id), message m where m.id = $3 and m.tenant_id = $4",
            &ids,
            &applications,
            Uuid::from(original.id),
            Uuid::from(original.tenant_id),
        )
        .execute(&mut *tx)
        .await?;
        let messages: Vec<_> = self.deliveries.iter().map(|(message, ..)| *message).collect();
        let applications: Vec<_> = self.deliveries.iter().map(|(_, application, _)| *application).collect();
        let endpoints: Vec<_> = self.deliveries.iter().map(|(.., endpoint)| *endpoint).collect();
        sqlx::query!(
            "insert into queue (message_id, endpoint_id, tenant_id, application_id)
               select t.message_id, t.endpoint_id, $4, t.application_id from unnest($1::uuid[], $2::uuid[], $3::uuid[]) t(message_id, application_id, endpoint_id)",
            &messages,
            &applications,
            &endpoints,
            Uuid::from(original.tenant_id),
        )
        .execute(&mut *tx)
        .await?;
        for message in &self.large {
            tasks::put_down_fan_out(&mut *tx, message).await?;
        }
        Ok(())
    }

    /// The messages, each with its deliveries.
    fn told(&self, original: &Message) -> Vec<(MessageId, OwedAnew)> {
        let told = self.messages.iter().map(|(id, application)| {
            let of_it = self.deliveries.iter().filter(|(message, ..)| message == id);
            let endpoints = of_it.map(|(.., endpoint)| EndpointId::from(*endpoint)).collect();
            let owner = Owner { tenant_id: original.tenant_id, application_id: (*application).into() };
            (MessageId::from(*id), OwedAnew { owner, event_type: original.event_type.clone(), endpoints })
        });
        told.collect()
    }
}
