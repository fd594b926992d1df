//! What is asked of storage itself, by another process than the server: so its next message has to find out.

use std::sync::Arc;

use domain::{
    endpoint::{EndpointUrl, Headers, Settings},
    id::{ApplicationId, EndpointId, Id, MessageId, TenantId},
    message::Particulars,
    signing::Secret,
};
use parking_lot::Mutex;
use serde_json::Value;
use storage::{
    Db, Error,
    applications::Reference,
    committer::{self, Committer, KeyScope, NewMessage, Published},
    directory, endpoints,
    idempotency::{self, Answer, Effect},
};
use support::{App, Customer, database};

/// Another process, with storage and nothing else.
pub(super) struct Behind {
    pub(super) db: Db,
    pub(super) tenant_id: TenantId,
    committer: Committer,
}

/// What may be special about a message.
#[derive(Clone, Default)]
pub(super) struct Special {
    pub(super) particulars: Option<Particulars>,
    pub(super) key: Option<(KeyScope, &'static str)>,
}

impl Behind {
    /// One on the database of a server.
    pub(super) async fn of(app: &App) -> Self {
        let db = Db::connect(&database::config(&app.database.url)).await.expect("a database");
        let options = committer::Options { lease: std::time::Duration::from_mins(1), hand_off: None };
        let tenant_id = app.database.texts("select id::text from tenant").await[0].parse().map(TenantId).expect("a uuid");
        Self { committer: committer::start(&db, options), tenant_id, db }
    }

    /// Carries a write out.
    pub(super) async fn write<E: Effect + 'static>(&self, effect: E) -> Result<E::Output, Error>
    where
        E::Output: Clone + 'static,
    {
        let (output, refusal) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(None)));
        let (brought, refused) = (Arc::clone(&output), Arc::clone(&refusal));
        let render = move |result: Result<&E::Output, &Error>| {
            match result {
                Ok(output) => *brought.lock() = Some(output.clone()),
                Err(Error::Conflict(conflict)) => *refused.lock() = Some((*conflict).into()),
                Err(Error::LimitReached(why)) => *refused.lock() = Some(Error::LimitReached(why)),
                Err(error) => panic!("{error}"),
            }
            Answer { status: 200, body: bytes::Bytes::new(), content_type: None, location: None }
        };
        idempotency::execute(&self.db, None, effect, render).await?;
        let refused: Option<Error> = refusal.lock().take();
        refused.map_or_else(|| Ok(output.lock().take().expect("an output")), Err)
    }

    /// An endpoint of a customer that gets what its subscriptions let through.
    pub(super) async fn subscribed_endpoint(&self, customer: &Customer, url: &str, settings: Settings, secret: Option<&str>) -> EndpointId {
        let url = EndpointUrl::parse(url).expect("a URL");
        let change =
            endpoints::Change { url: Some(url), settings: Some(settings), is_subscribed: Some(true), ..endpoints::Change::default() };
        let secret = secret.map(|text| Secret::symmetric(text.into()));
        let headers = Headers::from([("X-Team".to_owned(), "billing".to_owned())]);
        let create = endpoints::Create { tenant_id: self.tenant_id, application: application(customer), change, secret, headers };
        self.write(create).await.expect("an endpoint").id
    }

    /// Publishes a message of the type `invoice.paid`; returns its id, and that of the first with its key.
    pub(super) async fn publish(&self, customer: &Customer, payload: &Value, special: Special) -> (String, Option<MessageId>) {
        let application = application(customer);
        let new = NewMessage {
            subscribers: directory::find(&self.db, self.tenant_id, &application).await.expect("an application"),
            application,
            event_type: "invoice.paid".into(),
            event_id: None,
            channels: Vec::new(),
            message_key: special.key.map(|(_, key)| key.to_owned()),
            key_scope: special.key.map_or(KeyScope::Application, |(scope, _)| scope),
            payload: payload.to_string().into(),
            content_type: "application/json".into(),
            particulars: special.particulars.map(Arc::new),
            broadcast: None,
            payload_retention: None,
            claim: None,
        };
        match self.committer.publisher.publish(&Arc::new(new)).await.expect("it is accepted") {
            Published::Accepted { message, .. } => (message.id.public(), message.duplicate_of),
            other => panic!("{other:?}"),
        }
    }
}

/// How storage calls a customer.
pub(super) fn application(customer: &Customer) -> Reference<ApplicationId> {
    Reference::Id(ApplicationId::parse(&customer.id).expect("an id"))
}

/// Why a customer's endpoints do not get a message, by their ids.
pub(super) async fn left_out(customer: &Customer, message: &str) -> Vec<(String, Value)> {
    let standings = customer.pages(&customer.path(&format!("/msg/{message}/endpoint?with_left_out=true"))).await;
    standings.into_iter().map(|one| (one["id"].as_str().unwrap_or_default().to_owned(), one["leftOut"].clone())).collect()
}
