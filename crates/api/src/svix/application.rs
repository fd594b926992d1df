//! Applications on the wire.

use axum::http::StatusCode;
use domain::{
    application::{Application, Metadata},
    id::{ApplicationId, Id},
};
use serde::{Deserialize, Serialize};
use storage::{
    applications::{self, Change, Create, Delete, Made, Update},
    idempotency::Answer,
};
use utoipa::{IntoParams, ToSchema};

use super::{
    InOrder, ListResponse, Paging, Timestamp, answer, created,
    fields::{ApplicationName, ApplicationUid, NotYet, Notes, nullable, present},
    list as render_list, nothing, ok,
};
use crate::{error::ApiResult, transport::call::Call};

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
    fn into_change(self) -> Change {
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
#[derive(Clone, Copy, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CreateOptions {
    /// Get an existing application with the same uid, or create a new one if there is none
    #[param(required = false, default = false)]
    get_if_exists: bool,
}

fn rendered(public_url: &str, application: &Application, made: Made) -> Answer {
    let body = ApplicationOut::from(application);
    match made {
        Made::Created => created(&body, format!("{public_url}/api/v1/app/{}", application.id)),
        Made::Existed => answer(StatusCode::OK, &body),
    }
}

/// List Applications
///
/// The tenant's applications, in the order in which they were made.
#[utoipa::path(get, path = "/api/v1/app", tag = "Application", operation_id = "v1.application.list", params(Paging, InOrder),
    responses((status = 200, description = "A page", body = ListResponse<ApplicationOut>)))]
pub(crate) async fn list(call: Call) -> ApiResult {
    let is_ascending = InOrder::is_ascending(&call.query, true)?;
    call.query.refuse(&[
        "exclude_apps_with_no_endpoints",
        "exclude_apps_with_disabled_endpoints",
        "exclude_apps_with_svix_play_endpoints",
    ])?;
    let page = Paging::of_ids::<ApplicationId>(&call.query, is_ascending)?;
    let page = applications::list(call.db(), call.tenant_id, &page).await?;
    Ok(render_list(&page, |application| application.id.public(), ApplicationOut::from))
}

/// Create Application
#[utoipa::path(post, path = "/api/v1/app", tag = "Application", operation_id = "v1.application.create", params(CreateOptions),
    request_body = ApplicationIn, responses(
    (status = 201, description = "Created", body = ApplicationOut),
    (status = 200, description = "There was one already (`get_if_exists`)", body = ApplicationOut)))]
pub(crate) async fn create(call: Call) -> ApiResult {
    let effect = read_create(&call);
    let public_url = call.context.config.public_url.clone();
    call.write(effect, move |(application, made)| rendered(&public_url, application, *made)).await
}

fn read_create(call: &Call) -> ApiResult<Create> {
    let CreateOptions { get_if_exists } = CreateOptions { get_if_exists: call.query.flag("get_if_exists", false)? };
    let change = call.json::<ApplicationIn>()?.into_change();
    Ok(Create { tenant_id: call.tenant_id, change, get_if_exists })
}

/// Get Application
#[utoipa::path(get, path = "/api/v1/app/{app_id}", tag = "Application", operation_id = "v1.application.get",
    responses((status = 200, description = "The application", body = ApplicationOut)))]
pub(crate) async fn get(call: Call) -> ApiResult {
    let application = applications::get(call.db(), call.tenant_id, &call.application()).await?;
    Ok(ok(&ApplicationOut::from(&application)))
}

/// Update Application
///
/// Replaces an application, or makes one if there is none of this uid. Called by its uid, it keeps it unless the body names another.
#[utoipa::path(put, path = "/api/v1/app/{app_id}", tag = "Application", operation_id = "v1.application.update",
    request_body = ApplicationIn, responses(
    (status = 200, description = "Replaced", body = ApplicationOut),
    (status = 201, description = "Created", body = ApplicationOut)))]
pub(crate) async fn update(call: Call) -> ApiResult {
    let change = call.json::<ApplicationIn>().map(ApplicationIn::into_change);
    write_update(&call, change, true).await
}

/// Patch Application
///
/// Changes the fields that are given.
#[utoipa::path(patch, path = "/api/v1/app/{app_id}", tag = "Application", operation_id = "v1.application.patch",
    request_body = ApplicationPatch, responses((status = 200, description = "Changed", body = ApplicationOut)))]
pub(crate) async fn patch(call: Call) -> ApiResult {
    let change = call.json::<ApplicationPatch>().map(ApplicationPatch::into_change);
    write_update(&call, change, false).await
}

async fn write_update(call: &Call, change: ApiResult<Change>, or_create: bool) -> ApiResult {
    let effect = change.map(|change| Update { tenant_id: call.tenant_id, application: call.application(), change, or_create });
    let public_url = call.context.config.public_url.clone();
    call.write(effect, move |(application, made)| rendered(&public_url, application, *made)).await
}

/// Delete Application
///
/// What is still owed to its endpoints is not sent. Its uid may be used again.
#[utoipa::path(delete, path = "/api/v1/app/{app_id}", tag = "Application", operation_id = "v1.application.delete",
    responses((status = 204, description = "Deleted")))]
pub(crate) async fn delete(call: Call) -> ApiResult {
    let effect = Delete { tenant_id: call.tenant_id, application: call.application() };
    call.write(Ok(effect), |()| nothing()).await
}
