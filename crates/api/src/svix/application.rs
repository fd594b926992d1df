//! Applications on the wire.

use domain::{
    application::{Application, Metadata, Uid},
    id::{ApplicationId, Id},
};
use serde::{Deserialize, Serialize};
use storage::{
    applications::{self, Change, Create, Delete, Made as Outcome, Reference, Update},
    directory,
};
use utoipa::{IntoParams, ToSchema};

use super::{
    Timestamp,
    fields::{ApplicationName, ApplicationUid, NotYet, NotYetAsked, Notes, nullable, present},
    page::{self, InOrder, Listed, Paging},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        query::{Asked, Parameters},
        reply::{Made, Nothing, Reply},
    },
};

/// An application to be made or replaced.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ApplicationIn {
    /// What people read
    name: ApplicationName,
    /// Optional unique identifier for the application
    uid: Option<ApplicationUid>,
    /// Whatever the tenant wants to note
    #[serde(default)]
    metadata: Notes,
    #[serde(default, rename = "throttleRate")]
    #[schema(ignore)]
    _throttle_rate: NotYet,
    #[serde(default, rename = "rateLimit")]
    #[schema(ignore)]
    _rate_limit: NotYet,
}

/// What is to change of an application: absent fields stay, null ones are unset.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ApplicationPatch {
    /// What people read
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    name: Option<ApplicationName>,
    /// Optional unique identifier for the application
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<ApplicationUid>, required = false)]
    uid: Option<Option<ApplicationUid>>,
    /// Whatever the tenant wants to note
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false)]
    metadata: Option<Notes>,
    #[serde(default, rename = "throttleRate")]
    #[schema(ignore)]
    _throttle_rate: NotYet,
    #[serde(default, rename = "rateLimit")]
    #[schema(ignore)]
    _rate_limit: NotYet,
}

/// An application.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApplicationOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "unique-app-identifier")]
    uid: Option<&'a str>,
    #[schema(example = "My first application")]
    name: &'a str,
    /// Null: the rate of a whole application cannot be limited yet
    #[schema(required)]
    throttle_rate: Option<u16>,
    #[schema(example = "app_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    id: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    metadata: &'a Metadata,
}

impl ApplicationIn {
    /// Makes the application of a path, if there is none; under its uid, if it is called by one.
    pub(super) async fn make(self, call: &Call, application: &Reference<ApplicationId>) -> ApiResult<()> {
        let Reference::Uid(uid) = application else { return Ok(()) };
        let path_uid = Uid::stored(uid.clone());
        if self.uid.as_ref().is_some_and(|named| named.0 != path_uid) {
            return Err(ApiError::invalid(&["body", "application", "uid"], "must be that of the path, or be left out"));
        }
        match directory::find(call.db(), call.tenant_id(), application).await {
            Err(storage::Error::NotFound(_)) => {}
            found => return found.map(drop).map_err(ApiError::from),
        }
        let change = Change { uid: Some(Some(path_uid)), ..self.into_change() };
        applications::ensure(call.db(), Create { tenant_id: call.tenant_id(), change, get_if_exists: true }).await?;
        Ok(())
    }

    pub(super) fn into_change(self) -> Change {
        Change { uid: Some(self.uid.map(|uid| uid.0)), name: Some(self.name.0), throttle_rate: Some(None), metadata: Some(self.metadata.0) }
    }
}

impl ApplicationPatch {
    fn into_change(self) -> Change {
        Change {
            uid: self.uid.map(|uid| uid.map(|uid| uid.0)),
            name: self.name.map(|name| name.0),
            throttle_rate: None,
            metadata: self.metadata.map(|notes| notes.0),
        }
    }
}

impl<'a> From<&'a Application> for ApplicationOut<'a> {
    fn from(application: &'a Application) -> Self {
        Self {
            uid: application.uid.as_ref().map(domain::application::Uid::as_str),
            name: &application.name,
            throttle_rate: application.throttle_rate,
            id: application.id.public(),
            created_at: Timestamp(application.created_at),
            updated_at: Timestamp(application.updated_at),
            metadata: &application.metadata,
        }
    }
}

/// What may be asked of a creation.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CreateOptions {
    /// Get an existing application with the same uid, or create a new one if there is none
    #[serde(default)]
    #[param(required = false, default = false)]
    get_if_exists: bool,
}

/// Which applications a list leaves out: none yet.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Exclusions {
    #[serde(default, rename = "exclude_apps_with_no_endpoints")]
    #[param(ignore)]
    _empty: NotYetAsked,
    #[serde(default, rename = "exclude_apps_with_disabled_endpoints")]
    #[param(ignore)]
    _disabled: NotYetAsked,
    #[serde(default, rename = "exclude_apps_with_svix_play_endpoints")]
    #[param(ignore)]
    _play: NotYetAsked,
}

impl Parameters for CreateOptions {}
impl Parameters for Exclusions {}

fn rendered(public_url: &str, application: &Application, outcome: Outcome) -> Made<ApplicationOut<'static>> {
    let body = ApplicationOut::from(application);
    match outcome {
        Outcome::Created => Made::created(format!("{public_url}/api/v1/app/{}", application.id), &body),
        Outcome::Existed => Made::existed(&body),
    }
}

/// List Applications
///
/// The tenant's applications, in the order in which they were made.
#[utoipa::path(get, path = "/api/v1/app", tag = "Application", operation_id = "v1.application.list")]
pub(crate) async fn list(call: Call, asked: Asked<(Paging, InOrder, Exclusions)>) -> ApiResult<Listed<ApplicationOut<'static>>> {
    let (paging, order, _) = asked.read()?;
    let page = paging.of_ids::<ApplicationId>(order.is_ascending(true))?;
    let page = applications::list(call.db(), call.tenant_id(), &page).await?;
    Ok(page::list(&page, |application| application.id.public(), ApplicationOut::from))
}

/// Create Application
///
/// With `get_if_exists`, one with the same uid is the answer (200), if there is one.
#[utoipa::path(post, path = "/api/v1/app", tag = "Application", operation_id = "v1.application.create", request_body = ApplicationIn)]
pub(crate) async fn create(call: Call, asked: Asked<CreateOptions>) -> ApiResult<Made<ApplicationOut<'static>>> {
    let effect = read_create(&call, asked);
    let public_url = call.context.config.public_url.clone();
    call.write(effect, move |(application, outcome)| rendered(&public_url, application, *outcome)).await
}

fn read_create(call: &Call, asked: Asked<CreateOptions>) -> ApiResult<Create> {
    let CreateOptions { get_if_exists } = asked.read()?;
    let change = call.json::<ApplicationIn>()?.into_change();
    Ok(Create { tenant_id: call.tenant_id(), change, get_if_exists })
}

/// Get Application
#[utoipa::path(get, path = "/api/v1/app/{app_id}", tag = "Application", operation_id = "v1.application.get")]
pub(crate) async fn get(call: Call) -> ApiResult<Reply<200, ApplicationOut<'static>>> {
    let application = applications::get(call.db(), call.tenant_id(), &call.application()).await?;
    Ok(Reply::new(&ApplicationOut::from(&application)))
}

/// Update Application
///
/// Replaces an application, or makes one if there is none of this uid. Called by its uid, it keeps it unless the body names another.
#[utoipa::path(put, path = "/api/v1/app/{app_id}", tag = "Application", operation_id = "v1.application.update",
    request_body = ApplicationIn)]
pub(crate) async fn update(call: Call) -> ApiResult<Made<ApplicationOut<'static>>> {
    let effect = call.json::<ApplicationIn>().map(|body| change(&call, body.into_change(), true));
    let public_url = call.context.config.public_url.clone();
    call.write(effect, move |(application, outcome)| rendered(&public_url, application, *outcome)).await
}

/// Patch Application
///
/// Changes the fields that are given.
#[utoipa::path(patch, path = "/api/v1/app/{app_id}", tag = "Application", operation_id = "v1.application.patch",
    request_body = ApplicationPatch)]
pub(crate) async fn patch(call: Call) -> ApiResult<Reply<200, ApplicationOut<'static>>> {
    let effect = call.json::<ApplicationPatch>().map(|body| change(&call, body.into_change(), false));
    call.write(effect, |(application, _)| Reply::new(&ApplicationOut::from(application))).await
}

fn change(call: &Call, change: Change, or_create: bool) -> Update {
    Update { tenant_id: call.tenant_id(), application: call.application(), change, or_create }
}

/// Delete Application
///
/// What is still owed to its endpoints is not sent. Its uid may be used again.
#[utoipa::path(delete, path = "/api/v1/app/{app_id}", tag = "Application", operation_id = "v1.application.delete")]
pub(crate) async fn delete(call: Call) -> ApiResult<Nothing> {
    let effect = Delete { tenant_id: call.tenant_id(), application: call.application() };
    call.write(Ok(effect), |()| Nothing::new()).await
}
