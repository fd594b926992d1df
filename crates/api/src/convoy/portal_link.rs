//! Portal links on the wire: what opens an owner's endpoints for the owner.

use domain::{
    application::Uid,
    id::PortalAccessId,
    portal::{Capabilities, Capability, PortalToken},
};
use serde::{Deserialize, Serialize};
use storage::portal_access::{self, CreateLink, Filter, Link, RenewLink, Revoke, UpdateLink};
use utoipa::{IntoParams, ToSchema};

use super::{
    Time, Ulid,
    answer::{Null, Told},
    fields::{Owner, Title},
    page::{Paged, Paging},
};
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        dialect::Kind,
        query::{Asked, Parameters},
    },
};

/// What a link is to be. Of one that there is, what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyPortalLinkUpdate)]
pub(crate) struct PortalLinkIn {
    name: Option<Title>,
    /// Whose endpoints it opens. A link stays with its owner
    owner_id: Option<Owner>,
    auth_type: Option<AuthType>,
    /// Whether endpoints can be changed through it, and not only seen; false if nobody says
    can_manage_endpoint: Option<bool>,
    #[serde(default)]
    #[schema(ignore)]
    endpoints: Vec<serde::de::IgnoredAny>,
}

/// How long the token of a link opens anything.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ConvoyPortalAuthType)]
enum AuthType {
    /// Until it is taken back.
    #[serde(alias = "")]
    StaticToken,
    /// For an hour: then it is refreshed.
    RefreshToken,
}

/// A link.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyPortalLink)]
pub(crate) struct PortalLinkOut {
    uid: Ulid,
    project_id: Ulid,
    name: String,
    owner_id: String,
    auth_type: AuthType,
    can_manage_endpoint: bool,
    endpoint_count: i64,
    /// The token of a link that was just made; else empty, since it is not kept
    token: String,
    /// The same
    auth_key: String,
    /// Where the owner may go; with the token of a link that was just made
    #[schema(example = "https://hooks.example.com/portal?token=appsk_…")]
    url: String,
    created_at: Time,
    updated_at: Time,
    #[schema(required)]
    deleted_at: Option<Time>,
}

impl PortalLinkOut {
    fn new(link: &Link, token: Option<&PortalToken>, public_url: &str) -> Self {
        let token = token.map(PortalToken::expose).unwrap_or_default();
        Self {
            uid: Ulid::of(link.id),
            project_id: Ulid::of(link.tenant_id),
            name: link.name.clone(),
            owner_id: link.owner.clone().unwrap_or_default(),
            auth_type: if link.is_renewed { AuthType::RefreshToken } else { AuthType::StaticToken },
            can_manage_endpoint: link.capabilities.contain(Capability::ManageEndpoints),
            endpoint_count: link.endpoints,
            token: token.to_owned(),
            auth_key: token.to_owned(),
            url: if token.is_empty() { format!("{public_url}/portal") } else { format!("{public_url}/portal?token={token}") },
            created_at: Time(link.created_at),
            updated_at: Time(link.updated_at),
            deleted_at: None,
        }
    }
}

/// Which links are listed.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListFilter {
    /// Only those with this in their name
    q: Option<String>,
    /// Only those of this owner
    #[serde(rename = "ownerId")]
    owner_id: Option<String>,
}

impl Parameters for ListFilter {}

fn id(call: &Call) -> ApiResult<PortalAccessId> {
    call.id(Kind::PortalLink, "portal link")
}

fn capabilities(can_manage: bool) -> Capabilities {
    if can_manage { Capabilities::of(&Capability::ALL) } else { Capabilities::of(&[]) }
}

/// List all portal links
///
/// The newest first, without their tokens.
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/portal-links",
    tag = "Convoy: Portal Links",
    operation_id = "convoy.LoadPortalLinksPaged"
)]
pub(crate) async fn list(call: Call, asked: Asked<(Paging, ListFilter)>) -> ApiResult<Told<200, Paged<PortalLinkOut>>> {
    let (paging, ListFilter { q, owner_id }) = asked.read()?;
    let given = |text: Option<String>| text.filter(|text| !text.is_empty() && !text.contains('\0'));
    let wanted = paging.of_ids::<PortalAccessId>()?;
    let filter = Filter { owner: given(owner_id), text: given(q) };
    let page = portal_access::list(call.db(), call.tenant_id(), &filter, &wanted.request).await?;
    let render = |link| PortalLinkOut::new(link, None, &call.context.config.public_url);
    Ok(wanted.told("Portal links fetched successfully", &page, |link| link.id, render))
}

/// Create a portal link
///
/// Its token opens the endpoints of one owner. It is shown in this answer alone.
#[utoipa::path(post, path = "/api/v1/projects/{projectID}/portal-links", tag = "Convoy: Portal Links",
    operation_id = "convoy.CreatePortalLink", request_body = PortalLinkIn)]
pub(crate) async fn create(call: Call) -> ApiResult<Told<201, PortalLinkOut>> {
    let public_url = call.context.config.public_url.clone();
    let told = move |(link, token): &(Link, PortalToken)| {
        Told::new("Portal link created successfully", &PortalLinkOut::new(link, Some(token), &public_url))
    };
    call.write(read_create(&call), told).await
}

fn read_create(call: &Call) -> ApiResult<CreateLink> {
    let body = call.json::<PortalLinkIn>()?.checked()?;
    let missing = |name: &str| ApiError::invalid(&["body", name], "is missing: a portal link needs it");
    Ok(CreateLink {
        tenant_id: call.tenant_id(),
        name: body.name.ok_or_else(|| missing("name"))?.0,
        owner: body.owner_id.and_then(|owner| owner.0).ok_or_else(|| missing("owner_id"))?,
        is_renewed: body.auth_type == Some(AuthType::RefreshToken),
        capabilities: capabilities(body.can_manage_endpoint.unwrap_or_default()),
    })
}

/// Retrieve a portal link
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/portal-links/{portalLinkID}",
    tag = "Convoy: Portal Links",
    operation_id = "convoy.GetPortalLink"
)]
pub(crate) async fn get(call: Call) -> ApiResult<Told<200, PortalLinkOut>> {
    let link = portal_access::get(call.db(), call.tenant_id(), id(&call)?).await?;
    Ok(Told::new("Portal link fetched successfully", &PortalLinkOut::new(&link, None, &call.context.config.public_url)))
}

/// Update a portal link
///
/// Changes what is given. It counts for the very next request with its token.
#[utoipa::path(put, path = "/api/v1/projects/{projectID}/portal-links/{portalLinkID}", tag = "Convoy: Portal Links",
    operation_id = "convoy.UpdatePortalLink", request_body = PortalLinkIn)]
pub(crate) async fn update(call: Call) -> ApiResult<Told<202, PortalLinkOut>> {
    let public_url = call.context.config.public_url.clone();
    let told = move |link: &Link| Told::new("Portal link updated successfully", &PortalLinkOut::new(link, None, &public_url));
    call.write(read_update(&call), told).await
}

fn read_update(call: &Call) -> ApiResult<UpdateLink> {
    let id = id(call)?;
    let body = call.json::<PortalLinkIn>()?.checked()?;
    Ok(UpdateLink {
        tenant_id: call.tenant_id(),
        id,
        owner: body.owner_id.and_then(|owner: Owner| -> Option<Uid> { owner.0 }),
        name: body.name.map(|name| name.0),
        is_renewed: body.auth_type.map(|kind| kind == AuthType::RefreshToken),
        capabilities: body.can_manage_endpoint.map(capabilities),
    })
}

/// Get a portal link auth token
///
/// Gives the link another token, which is shown in this answer alone; the one before it opens nothing any more.
#[utoipa::path(
    get,
    path = "/api/v1/projects/{projectID}/portal-links/{portalLinkID}/refresh_token",
    tag = "Convoy: Portal Links",
    operation_id = "convoy.RefreshPortalLinkAuthToken"
)]
pub(crate) async fn refresh(call: Call) -> ApiResult<Told<200, String>> {
    let effect = id(&call).map(|id| RenewLink { tenant_id: call.tenant_id(), id });
    call.write(effect, |token| Told::new("Portal link auth token refreshed successfully", &token.expose().to_owned())).await
}

/// Revoke a portal link
///
/// It is gone, and its token opens nothing any more.
#[utoipa::path(
    put,
    path = "/api/v1/projects/{projectID}/portal-links/{portalLinkID}/revoke",
    tag = "Convoy: Portal Links",
    operation_id = "convoy.RevokePortalLink"
)]
pub(crate) async fn revoke(call: Call) -> ApiResult<Told<200, Null>> {
    let effect = id(&call).map(|id| Revoke { tenant_id: call.tenant_id(), id });
    call.write(effect, |()| Told::new("Portal link revoked successfully", &Null::NULL)).await
}

impl PortalLinkIn {
    fn checked(self) -> ApiResult<Self> {
        if self.endpoints.is_empty() {
            return Ok(self);
        }
        Err(ApiError::invalid(&["body", "endpoints"], "must be empty: a link is for all endpoints of its `owner_id`"))
    }
}
