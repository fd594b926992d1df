//! Projects on the wire: a caller sees one, its own.

use domain::project::{Project, ProjectKind};
use serde::{Deserialize, Serialize};
use storage::projects::{self, Change, Update};
use utoipa::ToSchema;

use super::{
    Time, Ulid,
    answer::{All, Told},
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
    let kind = body.kind.map(|kind| match kind {
        ProjectType::Incoming => ProjectKind::Incoming,
        ProjectType::Outgoing => ProjectKind::Outgoing,
    });
    let config = body.config.map(|config| config.into_map(max_payload)).transpose()?.unwrap_or_default();
    let change = Change { name: body.name.map(|name| name.0), logo_url: body.logo_url.map(|text| text.0), kind, config };
    Ok(Update { tenant_id: call.tenant_id(), change })
}
