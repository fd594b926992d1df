//! Projects on the wire: a caller sees one, its own.

use domain::{
    api_key::{ApiKey, KnownKey},
    project::{Project, ProjectKind},
};
use serde::{Deserialize, Serialize};
use storage::projects::{self, Change, Create, Delete, Update};
use utoipa::ToSchema;

use super::{
    Time, Ulid,
    answer::{All, Null, Told},
    fields::{Text, Title},
    project_config::{ConfigIn, ConfigOut},
};
use crate::{
    error::ApiResult,
    transport::{call::Call, json::present},
};

/// Which way a project's events go.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ConvoyProjectType)]
enum ProjectType {
    /// From others, by sources.
    Incoming,
    /// To customers.
    Outgoing,
}

impl From<ProjectType> for ProjectKind {
    fn from(kind: ProjectType) -> Self {
        match kind {
            ProjectType::Incoming => Self::Incoming,
            ProjectType::Outgoing => Self::Outgoing,
        }
    }
}

/// A project to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyProjectCreate)]
pub(crate) struct ProjectIn {
    name: Title,
    /// Which way its events go
    #[serde(rename = "type")]
    kind: ProjectType,
    logo_url: Option<Text>,
    config: Option<ConfigIn>,
}

/// What is to change of a project: absent fields stay.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyProjectUpdate)]
pub(crate) struct ProjectUpdate {
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, required = false)]
    name: Option<Title>,
    #[serde(default, deserialize_with = "present")]
    #[schema(nullable = false, required = false)]
    logo_url: Option<Text>,
    /// Which way its events go; only while it has no endpoints
    #[serde(default, rename = "type", deserialize_with = "present")]
    #[schema(nullable = false, required = false)]
    kind: Option<ProjectType>,
    #[serde(default)]
    config: Option<ConfigIn>,
}

/// A project.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyProject)]
pub(crate) struct ProjectOut {
    uid: Ulid,
    name: String,
    logo_url: String,
    /// The same as `uid`: there is nothing above a project
    organisation_id: Ulid,
    #[serde(rename = "type")]
    kind: ProjectType,
    config: ConfigOut,
    #[schema(value_type = Option<Object>, required)]
    statistics: Option<()>,
    /// Always 0: not counted
    retained_events: u8,
    created_at: Time,
    updated_at: Time,
    #[schema(required)]
    deleted_at: Option<Time>,
}

/// A project that was made, and a key for it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyProjectCreated)]
pub(crate) struct Created {
    api_key: KeyOut,
    project: ProjectOut,
}

/// A key, with its text: it is shown here and nowhere else.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyProjectKey)]
struct KeyOut {
    uid: Ulid,
    name: String,
    role: KeyRole,
    key_type: &'static str,
    #[schema(example = "CO.…")]
    key: String,
    #[schema(required)]
    expires_at: Option<Time>,
    created_at: Time,
}

/// What a key is for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyKeyRole)]
struct KeyRole {
    /// What its bearer may do
    #[serde(rename = "type")]
    kind: &'static str,
    /// The project
    project: Ulid,
}

impl KeyOut {
    fn new(key: &ApiKey, known: &KnownKey) -> Self {
        Self {
            uid: Ulid::of(known.id),
            name: known.name.clone(),
            role: KeyRole { kind: "project_admin", project: Ulid::of(known.tenant_id) },
            key_type: "project_key",
            key: key.expose().to_owned(),
            expires_at: known.expires_at.map(Time),
            created_at: Time(known.created_at),
        }
    }
}

impl ProjectOut {
    fn new(project: &Project, max_payload: usize) -> Self {
        let kind = match project.kind {
            ProjectKind::Incoming => ProjectType::Incoming,
            ProjectKind::Outgoing => ProjectType::Outgoing,
        };
        Self {
            uid: Ulid::of(project.tenant_id),
            name: project.name.clone(),
            logo_url: project.logo_url.clone(),
            organisation_id: Ulid::of(project.tenant_id),
            kind,
            config: ConfigOut::of(project, max_payload),
            statistics: None,
            retained_events: 0,
            created_at: Time(project.created_at),
            updated_at: Time(project.updated_at),
            deleted_at: None,
        }
    }
}

/// List all projects
///
/// The one that the caller's key or token is of.
#[utoipa::path(get, path = "/api/v1/projects", tag = "Convoy: Projects", operation_id = "convoy.GetProjects")]
pub(crate) async fn list(call: Call) -> ApiResult<Told<200, All<ProjectOut>>> {
    let project = projects::find(call.db(), call.tenant_id()).await?;
    let shown = ProjectOut::new(&project, call.context.config.max_payload);
    Ok(Told::new("Projects fetched successfully", &All(vec![shown])))
}

/// Create a project
///
/// A tenant has one project, which is there from the start with defaults: this says what it is to be, once, and makes a key for it. Of a project that was
/// created or changed before this is refused.
#[utoipa::path(post, path = "/api/v1/projects", tag = "Convoy: Projects", operation_id = "convoy.CreateProject", request_body = ProjectIn)]
pub(crate) async fn create(call: Call) -> ApiResult<Told<201, Created>> {
    let max_payload = call.context.config.max_payload;
    let effect = call.json::<ProjectIn>().and_then(|body| {
        let config = body.config.map(|config| config.into_map(max_payload)).transpose()?.unwrap_or_default();
        let change = Change { name: Some(body.name.0), logo_url: body.logo_url.map(|text| text.0), kind: Some(body.kind.into()), config };
        Ok(Create { tenant_id: call.tenant_id(), change })
    });
    call.write(effect, move |(project, key, known)| {
        let made = Created { api_key: KeyOut::new(key, known), project: ProjectOut::new(project, max_payload) };
        Told::new("Project created successfully", &made)
    })
    .await
}

/// Delete a project
///
/// Makes it what it was before anybody created or changed it. One that still has endpoints or sources is left as it is.
#[utoipa::path(delete, path = "/api/v1/projects/{projectID}", tag = "Convoy: Projects", operation_id = "convoy.DeleteProject")]
pub(crate) async fn delete(call: Call) -> ApiResult<Told<200, Null>> {
    call.write(Ok(Delete { tenant_id: call.tenant_id() }), |()| Told::new("Project deleted successfully", &Null::NULL)).await
}

/// Retrieve a project
#[utoipa::path(get, path = "/api/v1/projects/{projectID}", tag = "Convoy: Projects", operation_id = "convoy.GetProject")]
pub(crate) async fn get(call: Call) -> ApiResult<Told<200, ProjectOut>> {
    let project = projects::find(call.db(), call.tenant_id()).await?;
    Ok(Told::new("Project fetched successfully", &ProjectOut::new(&project, call.context.config.max_payload)))
}

/// Update a project
///
/// Changes what is given. It holds from the next event on.
#[utoipa::path(put, path = "/api/v1/projects/{projectID}", tag = "Convoy: Projects", operation_id = "convoy.UpdateProject",
    request_body = ProjectUpdate)]
pub(crate) async fn update(call: Call) -> ApiResult<Told<202, ProjectOut>> {
    let max_payload = call.context.config.max_payload;
    let effect = read_update(&call, max_payload);
    call.write(effect, move |project| Told::new("Project updated successfully", &ProjectOut::new(project, max_payload))).await
}

fn read_update(call: &Call, max_payload: usize) -> ApiResult<Update> {
    let body = call.json::<ProjectUpdate>()?;
    let config = body.config.map(|config| config.into_map(max_payload)).transpose()?.unwrap_or_default();
    let change = Change {
        name: body.name.map(|name| name.0),
        logo_url: body.logo_url.map(|text| text.0),
        kind: body.kind.map(ProjectKind::from),
        config,
    };
    Ok(Update { tenant_id: call.tenant_id(), change })
}
