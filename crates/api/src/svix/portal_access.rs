//! Tokens that a tenant's customers open their application with, on the wire.

use std::time::Duration;

use domain::{
    application::Uid,
    id::ApplicationId,
    portal::{Capabilities, Capability, PortalToken},
};
use serde::{Deserialize, Serialize};
use storage::{
    applications::{self, Change, Create, Reference},
    idempotency,
    portal_access::{ExpireAll, Grant, Revoke},
};
use utoipa::ToSchema;

use super::{
    application::ApplicationIn,
    fields::{Label, SessionId},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        reply::{Nothing, Replies, Reply},
    },
};

/// The shortest time for which a token opens anything, in seconds, as Svix has it.
const MIN_EXPIRY: u64 = 60 * 60;
/// The longest one, and what holds if nobody says: a week.
const MAX_EXPIRY: u64 = 7 * 24 * 60 * 60;
/// For how long expired tokens may go on, in seconds: three days.
const MAX_GRACE: u64 = 3 * 24 * 60 * 60;
/// The most sessions that are named at once.
const MAX_SESSIONS: usize = 1000;
/// The most flags of one token.
const MAX_FLAGS: usize = 25;

/// What a token is to be good for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppPortalAccessIn {
    /// The application, if it is not there yet
    application: Option<ApplicationIn>,
    /// What the bearer may do; everything if absent
    #[schema(example = json!(["ViewBase", "ViewEndpointSecret"]))]
    capabilities: Option<Vec<AppPortalCapability>>,
    /// For how long, in seconds
    #[schema(minimum = 3600, maximum = 604_800, default = 604_800)]
    expiry: Option<u64>,
    /// Of event types that are behind a flag, those with one of these are shown
    #[schema(max_items = 25)]
    feature_flags: Option<Vec<Label>>,
    /// The same as `ViewBase` alone
    read_only: Option<bool>,
    /// By which several tokens are expired together
    session_id: Option<SessionId>,
}

/// One thing that the bearer of a token may do.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
pub(crate) enum AppPortalCapability {
    /// Look around, but at no secrets.
    ViewBase,
    /// See the secrets of endpoints.
    ViewEndpointSecret,
    /// See and rotate them.
    ManageEndpointSecret,
    /// Nothing: there are no transformations.
    ManageTransformations,
    /// Have messages sent again.
    CreateAttempts,
    /// Make, change and remove endpoints, secrets included.
    ManageEndpoint,
}

impl From<AppPortalCapability> for Capability {
    fn from(capability: AppPortalCapability) -> Self {
        match capability {
            AppPortalCapability::ViewBase => Self::View,
            AppPortalCapability::ViewEndpointSecret => Self::ViewSecrets,
            AppPortalCapability::ManageEndpointSecret => Self::ManageSecrets,
            AppPortalCapability::ManageTransformations => Self::ManageTransformations,
            AppPortalCapability::CreateAttempts => Self::CreateAttempts,
            AppPortalCapability::ManageEndpoint => Self::ManageEndpoints,
        }
    }
}

/// A token: it is shown here and nowhere else.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppPortalAccessOut {
    /// Where the customer may go with it
    #[schema(format = "uri")]
    url: String,
    #[schema(example = "appsk_kV3ts5tKPNJN4Dl25cMTfUNdmabxbX0OkV3ts5tKPNJ")]
    token: String,
}

/// Which tokens are to open nothing any more.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApplicationTokenExpireIn {
    /// After how many seconds; at once if absent
    #[schema(minimum = 0, maximum = 259_200, default = 0)]
    expiry: Option<u64>,
    /// Only those of these sessions; of all, if there is none
    #[schema(max_items = 1000)]
    session_ids: Option<Vec<SessionId>>,
}

/// Get Consumer App Portal Access
///
/// Makes a token with which a customer sees and looks after this application and no other.
#[utoipa::path(post, path = "/api/v1/auth/app-portal-access/{app_id}", tag = "Authentication",
    operation_id = "v1.authentication.app-portal-access", request_body = AppPortalAccessIn)]
pub(crate) async fn grant(call: Call) -> ApiResult<Reply<200, AppPortalAccessOut>> {
    let effect = read_grant(&call).await;
    let public_url = call.context.config.public_url.clone();
    let told = move |token: &PortalToken| {
        let token = token.expose();
        Reply::new(&AppPortalAccessOut { url: format!("{public_url}/portal?token={token}"), token: token.to_owned() })
    };
    call.write(effect, told).await
}

async fn read_grant(call: &Call) -> ApiResult<Grant> {
    let body = call.json::<AppPortalAccessIn>()?;
    let expiry = body.expiry.unwrap_or(MAX_EXPIRY);
    if !(MIN_EXPIRY..=MAX_EXPIRY).contains(&expiry) {
        return Err(ApiError::invalid(&["body", "expiry"], format!("must be {MIN_EXPIRY} to {MAX_EXPIRY}: it counts seconds")));
    }
    let flags = body.feature_flags.unwrap_or_default();
    if flags.len() > MAX_FLAGS {
        return Err(ApiError::invalid(&["body", "featureFlags"], format!("must be at most {MAX_FLAGS}")));
    }
    let capabilities = match body.capabilities {
        _ if body.read_only == Some(true) => Capabilities::of(&[]),
        None => Capabilities::of(&Capability::ALL),
        Some(named) if named.contains(&AppPortalCapability::ViewBase) => {
            Capabilities::of(&named.into_iter().map(Capability::from).collect::<Vec<_>>())
        }
        Some(_) => return Err(ApiError::invalid(&["body", "capabilities"], "must contain `ViewBase`: without it nothing can be seen")),
    };
    if let Some(application) = body.application {
        ensure(call, application.into_change()).await?;
    }
    Ok(Grant {
        tenant_id: call.tenant_id(),
        application: call.application(),
        capabilities,
        feature_flags: Some(flags.into_iter().map(|flag| flag.0).collect()),
        session_id: body.session_id.map(|session| session.0),
        lifetime: Duration::from_secs(expiry),
    })
}

/// Makes the application in the path if there is none. That is done before the key of the request is looked at, since it belongs to the application.
async fn ensure(call: &Call, change: Change) -> ApiResult<()> {
    let Reference::Uid(name) = call.application() else { return Ok(()) };
    match applications::get(call.db(), call.tenant_id(), &Reference::Uid(name.clone())).await {
        Err(storage::Error::NotFound(_)) => {}
        found => return found.map(drop).map_err(ApiError::from),
    }
    let uid = Uid::parse::<ApplicationId>(&name).map_err(|_| ApiError::NotFound("application"))?;
    if change.uid.iter().flatten().any(|other| *other != uid) {
        return Err(ApiError::invalid(&["body", "application", "uid"], "must be the one in the path, if there is one"));
    }
    let change = Change { uid: Some(Some(uid)), ..change };
    let create = Create { tenant_id: call.tenant_id(), change, get_if_exists: true };
    idempotency::execute(call.db(), None, create, |_| Nothing::new().into_answer()).await?;
    Ok(())
}

/// Expire All
///
/// Lets the tokens of an application open nothing any more, and those of its portal links. Tokens that `posthaste token` printed go on.
#[utoipa::path(post, path = "/api/v1/auth/app/{app_id}/expire-all", tag = "Authentication", operation_id = "v1.authentication.expire-all",
    request_body = ApplicationTokenExpireIn)]
pub(crate) async fn expire_all(call: Call) -> ApiResult<Nothing> {
    call.write(read_expire_all(&call), |()| Nothing::new()).await
}

fn read_expire_all(call: &Call) -> ApiResult<ExpireAll> {
    let ApplicationTokenExpireIn { expiry, session_ids } = call.json()?;
    let (expiry, session_ids) = (expiry.unwrap_or_default(), session_ids.unwrap_or_default());
    if expiry > MAX_GRACE {
        return Err(ApiError::invalid(&["body", "expiry"], format!("must be at most {MAX_GRACE}: it counts seconds")));
    }
    if session_ids.len() > MAX_SESSIONS {
        return Err(ApiError::invalid(&["body", "sessionIds"], format!("must be at most {MAX_SESSIONS}")));
    }
    let sessions: Vec<_> = session_ids.into_iter().map(|session| session.0).collect();
    let (sessions, grace) = (Some(sessions).filter(|sessions| !sessions.is_empty()), Duration::from_secs(expiry));
    Ok(ExpireAll { tenant_id: call.tenant_id(), application: call.application(), sessions, grace })
}

/// Logout
///
/// Takes back the token with which this is asked.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "Authentication", operation_id = "v1.authentication.logout")]
pub(crate) async fn logout(call: Call) -> ApiResult<Nothing> {
    let why = "is not a token that `app-portal-access` or a portal link gave: only those can be logged out";
    let own = call.caller.access.ok_or_else(|| ApiError::invalid(&["header", "authorization"], why));
    call.write(own.map(|id| Revoke { tenant_id: call.tenant_id(), id }), |()| Nothing::new()).await
}
