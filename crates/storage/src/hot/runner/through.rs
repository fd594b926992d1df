//! Goes through the messages of one application after the other, and sends them, or deliveries of them that ended, once more.

use std::collections::HashMap;

use domain::{id::EndpointId, message::Message, offer::Offer, standing::Standing, task::Kind};
use sqlx::types::Uuid;

use super::{Done, Step};
use crate::{
    Database, Error, Result,
    applications::{self, Reference},
    connection::Connection,
    effect::OwedAnew,
    messages,
    project_deliveries::{self, Found, Part},
    project_messages::Filter,
    project_resends::hindrance,
    reference::Owner,
    resends::{self, Asking},
    tasks::{About, Ended, Row},
};

/// At how many messages one step looks,
const MESSAGES: i64 = 500;
/// how many of them are in memory at one time,
const IN_MEMORY: usize = 20;
/// after how many deliveries it stops,
const DELIVERIES: usize = 1_000;
/// and how many applications without a message it passes by.
const APPLICATIONS: usize = 100;

/// The next messages of the application that the task is in, or of the next one that has any.
pub(super) async fn step(db: &Database, tx: &mut Connection, task: &Row) -> Result<Step> {
    let about = task.parameters.about.clone().unwrap_or_default();
    let (mut cursor, mut within) = (task.cursor, task.cursor_within);
    for _ in 0..APPLICATIONS {
        let application = match (cursor, within) {
            (Some(application), Some(_)) => application,
            _ => match next_application(&mut *tx, task, &about, cursor).await? {
                Some(application) => application,
                None => return Ok(Step::Done(Done { cursor, is_last: true, ..Done::default() })),
            },
        };
        cursor = Some(application);
        let found = next_messages(&mut *tx, task, &about, application, within.take()).await?;
        if found.is_empty() {
            continue;
        }
        // Nobody else takes the runs that this step is about to take.
        match applications::lock(&mut *tx, task.tenant_id.into(), &Reference::Id(application.into())).await {
            Ok(_) => {}
            Err(Error::NotFound(_)) => continue,
            Err(error) => return Err(error),
        }
        let mut sent = Sent { scanned: 0, pairs: Vec::new(), types: HashMap::new() };
        look(db, &mut *tx, task, &about, application, &found, &mut sent).await?;
        resends::insert_runs(&mut *tx, task.tenant_id, application, &sent.pairs, false).await?;
        let is_through = sent.scanned == found.len() && i64::try_from(found.len()).unwrap_or(0) < MESSAGES;
        let within = if is_through { None } else { sent.scanned.checked_sub(1).map(|last| found[last].0) };
        let owner = Owner { tenant_id: task.tenant_id.into(), application_id: application.into() };
        return Ok(Step::Done(Done { cursor, within, scanned: sent.scanned, owed: sent.owed(owner), ..Done::default() }));
    }
    Ok(Step::Done(Done { cursor, ..Done::default() }))
}

/// What a step sends.
struct Sent {
    /// At how many messages it has looked.
    scanned: usize,
    /// Messages and endpoints.
    pairs: Vec<(Uuid, Uuid)>,
    /// The endpoints by the type of what they are sent.
    types: HashMap<String, Vec<EndpointId>>,
}

impl Sent {
    fn push(&mut self, message: &Message, endpoint: Uuid) {
        self.pairs.push((message.id.into(), endpoint));
        self.types.entry(message.event_type.clone()).or_default().push(endpoint.into());
    }

    fn owed(self, owner: Owner) -> Vec<OwedAnew> {
        self.types.into_iter().map(|(event_type, endpoints)| OwedAnew { owner, event_type, endpoints }).collect()
    }
}

/// Looks at the messages, some at a time, until enough is sent.
async fn look(
    db: &Database,
    tx: &mut Connection,
    task: &Row,
    about: &About,
    application: Uuid,
    found: &[(Uuid, bool)],
    sent: &mut Sent,
) -> Result<()> {
    let is_replay = Kind::from_code(task.kind) == Some(Kind::Replay);
    let mut asking = Vec::new();
    if is_replay {
        asking = resends::asking(&mut *tx, task.tenant_id, &[application], Uuid::max()).await?;
        let is_wanted = |asking: &Asking| about.endpoints.as_ref().is_none_or(|ids| ids.contains(&asking.endpoint_id));
        asking.retain(is_wanted);
    }
    for some in found.chunks(IN_MEMORY) {
        if sent.pairs.len() >= DELIVERIES {
            break;
        }
        let ids: Vec<_> = some.iter().filter(|(_, is_wanted)| *is_wanted).map(|(id, _)| *id).collect();
        sent.scanned += some.len();
        if ids.is_empty() {
            continue;
        }
        if is_replay {
            for message in messages::of_ids(&mut *tx, task.tenant_id.into(), &ids).await? {
                let wanting = asking.iter().filter(|asking| asking.wants(&message, db.now()));
                wanting.for_each(|asking| sent.push(&message, asking.endpoint_id));
            }
        } else {
            let endpoints = about.endpoints.as_ref().map(|ids| ids.iter().copied().map(EndpointId::from).collect());
            let filter = Filter { endpoints, ..Filter::default() };
            let deliveries = project_deliveries::of_messages(db, &mut *tx, task.tenant_id.into(), &ids, &filter, Part::ALL, None).await?;
            deliveries
                .iter()
                .filter(|found| is_sent_again(found, about))
                .for_each(|found| sent.push(&found.message, found.endpoint.id.into()));
        }
    }
    Ok(())
}

/// Whether a delivery is one of those that are asked for, and can be made once more.
fn is_sent_again(found: &Found, about: &About) -> bool {
    let (facts, endpoint) = (&found.delivery.facts, &found.endpoint);
    let ended = match found.delivery.standing {
        Standing::Delivered if facts.owed.is_none() => Ended::Delivered,
        Standing::Failed => Ended::Failed,
        Standing::Canceled | Standing::Discarded => Ended::Discarded,
        _ => return false,
    };
    let code = facts.attempt.as_ref().map_or(0, |attempt| attempt.status_code);
    let subscription = || endpoint.filter.let_through_by(&Offer::of_message(&found.message)).map(Uuid::from);
    hindrance(facts, &found.message, endpoint).is_none()
        && about.ended.as_ref().is_none_or(|wanted| wanted.contains(&ended))
        && about.status_class.is_none_or(|class| code / 100 == class)
        && about.subscription.is_none_or(|wanted| subscription() == Some(wanted))
}

/// The application after this one, of those that it is about.
async fn next_application(tx: &mut Connection, task: &Row, about: &About, after: Option<Uuid>) -> Result<Option<Uuid>> {
    Ok(sqlx::query_scalar!(
        "select id from application
          where tenant_id = $1 and id > $2 and deleted_at is null and not is_own and ($3::uuid[] is null or id = any ($3)) order by id limit 1",
        task.tenant_id,
        after.unwrap_or_default(),
        about.applications.as_deref() as _,
    )
    .fetch_optional(tx)
    .await?)
}

/// The next messages of an application, and whether each is asked for. A duplicate that was not released is no message of its own.
async fn next_messages(
    tx: &mut Connection,
    task: &Row,
    about: &About,
    application: Uuid,
    after: Option<Uuid>,
) -> Result<Vec<(Uuid, bool)>> {
    let (since, until) = task.messages();
    let first = after.map_or(since, |after| Uuid::from_u128(after.as_u128().saturating_add(1)));
    let rows = sqlx::query!(
        r#"with next as materialized (
             select id, event_type, channels, message_key, particulars, duplicate_of, released_at,
                    payload is null or coalesce(payload_expires_at <= now(), false) as is_expunged
               from message where application_id = $1 and id >= $2 and id < $3 order by id limit $4
           )
           select n.id as "id!", (
               not n.is_expunged and (n.duplicate_of is null or n.released_at is not null)
               and ($5::text[] is null or n.event_type = any ($5))
               and ($6::text is null or n.message_key = $6)
               and ($7::uuid[] is null or coalesce((n.particulars ->> 'source')::uuid = any ($7), false))
               and ($8::uuid[] is null or coalesce((n.particulars ->> 'only')::uuid = any ($8), true))
               and ($9::text is null or coalesce($9 = any (n.channels), false))
               and ($10::uuid is null or n.id = $10)
               and ($11::text is null or coalesce(n.particulars -> 'tags' ? $11, false))) as "is_wanted!"
             from next n order by n.id"#,
        application,
        first,
        until,
        MESSAGES,
        about.event_types.as_deref() as _,
        about.message_key,
        about.sources.as_deref() as _,
        about.endpoints.as_deref() as _,
        about.channel,
        about.message,
        about.tag,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.is_wanted)).collect())
}
