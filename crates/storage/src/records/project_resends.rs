//! What is owed because somebody asked for it by deliveries, whatever their application: several at once, each that may be sent again.

use domain::{
    endpoint::Endpoint,
    health::State,
    id::{ApplicationId, EndpointId, MessageId, TenantId},
    message::Message,
    standing::{Facts, Standing},
};
use sqlx::types::Uuid;

use crate::{
    Conflict, Database, Error, Result,
    applications::{self, Reference},
    connection::Connection,
    deliveries,
    effect::{Effect, OwedAnew},
    endpoints, messages,
    project_deliveries::Key,
    resends::{self, owe_again},
    tasks,
};

/// The most deliveries that are sent again at one time.
pub const MOST: usize = 1000;

/// How a delivery has to stand to be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum If {
    /// It ended without success.
    Failed,
    /// It was delivered.
    Delivered,
}

/// Sends deliveries again: of each that stands so, a further run of one attempt. The others are passed over.
#[derive(Clone, Debug)]
pub struct ResendAll {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub deliveries: Vec<Key>,
    /// How they have to stand.
    pub condition: If,
}

/// Sends one delivery again that ended without success; if it cannot be, that is the error.
#[derive(Clone, Copy, Debug)]
pub struct ResendFailed {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub delivery: Key,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Resent {
    owed: Vec<OwedAnew>,
    /// How many are sent again.
    pub resent: usize,
    /// Why the others are not.
    pub refused: Vec<&'static str>,
}

impl Effect for ResendAll {
    type Output = Resent;

    const WAKES: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Resent> {
        let mut resent = Resent::default();
        let mut applications = applications_of(&mut *tx, self.tenant_id, &self.deliveries).await?;
        // In the order of their applications' ids, as everybody who locks several of them does.
        applications.sort_unstable();
        for (application_id, key) in applications {
            match resend(db, &mut *tx, self.tenant_id, application_id, key, self.condition).await? {
                Ok(owed) => {
                    resent.owed.extend(owed);
                    resent.resent += 1;
                }
                Err(why) => resent.refused.push(why),
            }
        }
        Ok(resent)
    }

    fn owed(resent: &Resent) -> &[OwedAnew] {
        &resent.owed
    }
}

impl Effect for ResendFailed {
    type Output = Resent;

    const WAKES: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Resent> {
        let all = ResendAll { tenant_id: self.tenant_id, deliveries: vec![self.delivery], condition: If::Failed };
        let resent = all.apply(db, tx).await?;
        match resent.refused.first() {
            Some(why) => Err(Conflict::NotSentAgain(why).into()),
            None => Ok(resent),
        }
    }

    fn owed(resent: &Resent) -> &[OwedAnew] {
        &resent.owed
    }
}

/// Sends an event once more to every endpoint that would get such an event now: a further run of one attempt each.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub message_id: MessageId,
}

/// What is sent once more.
#[derive(Debug)]
pub struct Replayed {
    /// What.
    pub message: Message,
    /// To whom.
    pub endpoints: Vec<EndpointId>,
    owed: Vec<OwedAnew>,
}

impl Effect for Replay {
    type Output = Replayed;

    const WAKES: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Replayed> {
        let found = messages::find(&mut *tx, self.message_id).await?.filter(|found| found.tenant_id == self.tenant_id);
        let message = found.ok_or(Error::NotFound("event"))?;
        let application = Reference::Id(message.application_id);
        replay(db, tx, message, &application).await
    }

    fn owed(replayed: &Replayed) -> &[OwedAnew] {
        &replayed.owed
    }
}

/// The same of a message of an application that is called so.
pub(crate) async fn replay(
    db: &Database,
    tx: &mut Connection,
    message: Message,
    application: &Reference<ApplicationId>,
) -> Result<Replayed> {
    let (tenant_id, message_id) = (message.tenant_id, message.id);
    applications::lock(&mut *tx, tenant_id, application).await?;
    if let Some(original) = message.duplicate_of.filter(|_| message.released_at.is_none()) {
        return Err(Conflict::Duplicate(original).into());
    }
    if message.payload.is_none() {
        return Err(Conflict::Expunged.into());
    }
    let wanting = resends::wanting(db, &mut *tx, &message).await?;
    if wanting.len() > tasks::OWED_AT_ONCE {
        return Err(Error::LimitReached(TOO_MANY));
    }
    let mut owed = Vec::new();
    for endpoint in &wanting {
        let (tenant, application) = (tenant_id.into(), message.application_id.into());
        owed.extend(owe_again(&mut *tx, tenant, application, *endpoint, &[message_id.into()]).await?);
    }
    Ok(Replayed { message, endpoints: wanting.into_iter().map(EndpointId::from).collect(), owed })
}

const TOO_MANY: &str =
    "an event that more than 500 endpoints want is not replayed at once: force a retry of its deliveries instead, 1000 at a time";
const UNKNOWN: &str = "there is no such event delivery";

/// What is owed by it; or why it is not sent again.
async fn resend(
    db: &Database,
    tx: &mut Connection,
    tenant_id: TenantId,
    application_id: Option<Uuid>,
    (message_id, endpoint_id): Key,
    condition: If,
) -> Result<std::result::Result<Vec<OwedAnew>, &'static str>> {
    let Some(application_id) = application_id else { return Ok(Err(UNKNOWN)) };
    match applications::lock(&mut *tx, tenant_id, &Reference::Id(application_id.into())).await {
        Ok(_) => {}
        Err(Error::NotFound(_)) => return Ok(Err(UNKNOWN)),
        Err(error) => return Err(error),
    }
    let message = messages::find(&mut *tx, message_id).await?.filter(|message| message.tenant_id == tenant_id);
    let endpoint = endpoints::of_ids(&mut *tx, application_id.into(), &[endpoint_id.into()]).await?.pop();
    let Some((message, endpoint)) = message.zip(endpoint) else { return Ok(Err(UNKNOWN)) };
    let pair = (Uuid::from(message_id), Uuid::from(endpoint_id));
    let Some(facts) = deliveries::facts(&mut *tx, tenant_id, &[pair]).await?.pop() else { return Ok(Err(UNKNOWN)) };
    let refusal = match (Standing::of(&facts, &message, &endpoint, db.now()), condition) {
        (Standing::LeftOut(_), _) => Some(UNKNOWN),
        (Standing::Failed | Standing::Canceled | Standing::Discarded, If::Failed) => None,
        (Standing::Delivered, If::Delivered) if facts.owed.is_none() => None,
        (Standing::Delivered, If::Failed) => Some("event already sent"),
        (_, If::Failed) => Some("cannot resend event that did not fail previously: it is still owed"),
        (_, If::Delivered) => Some("cannot resend event that was not delivered before"),
    };
    if let Some(why) = refusal.or_else(|| hindrance(&facts, &message, &endpoint)) {
        return Ok(Err(why));
    }
    Ok(Ok(owe_again(tx, tenant_id.into(), application_id, endpoint_id.into(), &[message_id.into()]).await?))
}

/// What keeps a message from being sent to an endpoint, however its delivery stands.
pub(crate) fn hindrance(facts: &Facts, message: &Message, endpoint: &Endpoint) -> Option<&'static str> {
    let is_paused = facts.gate.is_some_and(|gate| gate.state == State::Paused);
    if facts.is_deleted || endpoint.is_disabled || is_paused {
        Some("the endpoint is inactive or paused: activate it first")
    } else {
        message.payload.is_none().then_some("the content of the event is gone")
    }
}

/// The application of each delivery's endpoint, if there is such an endpoint.
async fn applications_of(tx: &mut Connection, tenant_id: TenantId, deliveries: &[Key]) -> Result<Vec<(Option<Uuid>, Key)>> {
    let endpoints: Vec<_> = deliveries.iter().map(|(_, endpoint)| Uuid::from(*endpoint)).collect();
    let rows =
        sqlx::query!("select id, application_id from endpoint where id = any ($1) and tenant_id = $2", &endpoints, Uuid::from(tenant_id));
    let rows = rows.fetch_all(tx).await?;
    let application = |endpoint: EndpointId| rows.iter().find(|row| row.id == Uuid::from(endpoint)).map(|row| row.application_id);
    Ok(deliveries.iter().map(|key| (application(key.1), *key)).collect())
}
