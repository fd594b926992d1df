//! Many endpoints at once, on the wire.

use axum::response::{IntoResponse, Response};
use domain::{
    endpoint::{Headers, SignatureStyle, check_headers},
    project::{Project, ProjectKind},
    subscription::ALL_TYPES,
};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IntoDeserializer, value::Error},
};
use storage::{
    idempotency::{Answer, Answered},
    project_endpoints::{Change, Create, Item, Onboard, check_url},
    projects,
};
use utoipa::{IntoParams, ToSchema, openapi::path::Operation};

use super::{
    answer::Told,
    endpoint_auth::basic_header,
    fields::{EventTypeName, Text, Title, Url},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        query::{Asked, Parameters},
        reply::{Replies, Schemas},
    },
};

/// The most endpoints that are made at once: all are in one transaction.
const MAX_ITEMS: usize = 500;

/// Endpoints to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyOnboard)]
pub(crate) struct OnboardIn {
    #[schema(min_items = 1, max_items = 500)]
    items: Vec<ItemIn>,
}

/// An endpoint with its subscription.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = ConvoyOnboardItem)]
#[derive(Default)]
struct ItemIn {
    /// What people call it
    #[schema(min_length = 1)]
    name: String,
    /// Where its webhooks go
    #[schema(format = "uri", example = "https://example.com/webhook/")]
    url: String,
    /// What it gets; everything if this is empty or `*`
    event_type: String,
    /// With the password: what its requests carry so that it lets them in
    auth_username: String,
    auth_password: String,
}

/// Whether it is only tried.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Trial {
    /// Say what is wrong with each item, and make nothing
    #[serde(default)]
    #[param(required = false, default = false)]
    dry_run: bool,
}

impl Parameters for Trial {}

/// What was asked for and is there now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyOnboarded)]
pub(crate) struct AcceptedOut {
    /// Always 1: all are made at once
    batch_count: usize,
    total_items: usize,
    message: String,
}

/// What would come of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyOnboardTrial)]
pub(crate) struct TrialOut {
    total_rows: usize,
    valid_count: usize,
    errors: Vec<Wrong>,
}

/// What is wrong with an item.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyOnboardError)]
struct Wrong {
    /// Which item, counted from 1
    row: usize,
    field: &'static str,
    message: String,
}

/// The answer: 202 with what was made, or 200 with what would be.
#[derive(Debug)]
pub(crate) struct Onboarded(Told<202, AcceptedOut>);

impl From<Answered> for Onboarded {
    fn from(answered: Answered) -> Self {
        Self(answered.into())
    }
}

impl IntoResponse for Onboarded {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl Replies for Onboarded {
    fn into_answer(self) -> Answer {
        self.0.into_answer()
    }

    fn document(operation: &mut Operation, schemas: &mut Schemas) {
        <Told<200, TrialOut> as Replies>::document(operation, schemas);
        <Told<202, AcceptedOut> as Replies>::document(operation, schemas);
    }
}

/// Bulk onboard endpoints
///
/// Makes endpoints without an owner, each with a subscription to its event type: all of them or, if anything is wrong with one, none.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/onboard", tag = "Convoy: Onboard", operation_id = "convoy.BulkOnboard",
    request_body = OnboardIn)]
pub(crate) async fn onboard(call: Call, asked: Asked<Trial>) -> ApiResult<Onboarded> {
    let effect = match read(&call, asked).await {
        Ok((true, rows)) => {
            let total_rows = rows.len();
            let errors: Vec<_> = rows.into_iter().filter_map(Result::err).collect();
            let trial = TrialOut { total_rows, valid_count: total_rows - errors.len(), errors };
            let answer = Told::<200, _>::new("Bulk onboard dry run completed", &trial).into_answer();
            return Ok(Answered { answer, is_replay: false }.into());
        }
        Ok((false, rows)) => {
            let items: Result<Vec<_>, Wrong> = rows.into_iter().collect();
            let refuse = |wrong: Wrong| ApiError::invalid(&["body", "items", &(wrong.row - 1).to_string(), wrong.field], wrong.message);
            items.map(|items| Onboard { tenant_id: call.tenant_id(), items }).map_err(refuse)
        }
        Err(refusal) => Err(refusal),
    };
    call.write(effect, |made| {
        let message = "the endpoints are there".to_owned();
        Onboarded(Told::new("Bulk onboard completed", &AcceptedOut { batch_count: 1, total_items: *made, message }))
    })
    .await
}

/// Whether it is only tried, and what each item is or what is wrong with it.
async fn read(call: &Call, asked: Asked<Trial>) -> ApiResult<(bool, Vec<Result<Item, Wrong>>)> {
    let Trial { dry_run } = asked.read()?;
    let OnboardIn { items } = call.json()?;
    if !(1..=MAX_ITEMS).contains(&items.len()) {
        return Err(ApiError::invalid(&["body", "items"], format!("must be endpoints: at least one, and at most {MAX_ITEMS}")));
    }
    let project = projects::find(call.db(), call.tenant_id()).await?;
    if project.kind == ProjectKind::Incoming {
        let why = "cannot be made by this in an incoming project: its endpoints need a subscription to a source";
        return Err(ApiError::invalid(&["body", "items"], why));
    }
    let item =
        |(place, item): (usize, ItemIn)| item.read(call, &project).map_err(|(field, message)| Wrong { row: place + 1, field, message });
    Ok((dry_run, items.into_iter().enumerate().map(item).collect()))
}

/// Reads a field, and says which it is if it cannot be.
fn field<T: DeserializeOwned>(name: &'static str, text: &str) -> Result<T, (&'static str, String)> {
    T::deserialize(text.into_deserializer()).map_err(|error: Error| (name, error.to_string()))
}

impl ItemIn {
    fn read(self, call: &Call, project: &Project) -> Result<Item, (&'static str, String)> {
        let name: Title = field("name", &self.name)?;
        let Url(url) = field("url", &self.url)?;
        call.context.config.urls.check(&url).map_err(|refused| ("url", refused.to_string()))?;
        check_url(project, Some(&url)).map_err(|error| ("url", why(error)))?;
        let event_type = match self.event_type.as_str() {
            "" | ALL_TYPES => ALL_TYPES.to_owned(),
            text => field::<EventTypeName>("event_type", text)?.0,
        };
        let change = Change { name: Some(name.0), url: Some(url), signature: Some(SignatureStyle::Advanced), ..Change::default() };
        let headers = self.headers()?;
        let endpoint = Create { tenant_id: call.tenant_id(), owner: None, change, secret: None, headers };
        Ok(Item { endpoint, event_types: vec![event_type] })
    }

    fn headers(&self) -> Result<Headers, (&'static str, String)> {
        for (missing, name) in [(&self.auth_username, "auth_username"), (&self.auth_password, "auth_password")] {
            let Text(_) = field(name, missing)?;
            if missing.is_empty() && !(self.auth_username.is_empty() && self.auth_password.is_empty()) {
                return Err((name, "is missing: a user name and a password go together".to_owned()));
            }
        }
        if self.auth_username.is_empty() {
            return Ok(Headers::new());
        }
        let header = basic_header(&self.auth_username, &self.auth_password).map_err(|why| ("auth_username", why.to_owned()))?;
        let headers = Headers::from([header]);
        check_headers(&headers).map_err(|error| ("auth_password", error.to_string()))?;
        Ok(headers)
    }
}

/// What an error says of a field.
fn why(error: storage::Error) -> String {
    match error {
        storage::Error::Invalid { why, .. } => why,
        other => other.to_string(),
    }
}
