//! One admitted request, as handlers see it: who calls, what is in the path, the query and the body.

use axum::{
    extract::{FromRequestParts, MatchedPath, rejection::RawPathParamsRejection},
    http::{Method, request::Parts},
};
use bytes::Bytes;
use domain::{
    application::check_name,
    id::{ApplicationId, AttemptId, EndpointId, Id, MessageId, TenantId},
    idempotency::Key,
};
use serde::Deserialize;
use storage::{Db, applications::Reference, endpoints::Address};
use tracing::Span;

use super::{admission::Admitted, json, query::Query};
use crate::{
    Context,
    error::{ApiError, ApiResult},
};

/// An admitted request.
#[derive(Debug)]
pub(crate) struct Call {
    /// The server's state.
    pub(crate) context: Context,
    /// Who calls.
    pub(crate) tenant_id: TenantId,
    /// The method.
    pub(crate) method: Method,
    /// The route's template, such as `/api/v1/app/{app_id}`.
    pub(crate) route: String,
    /// The query.
    pub(crate) query: Query,
    /// The idempotency key.
    pub(crate) key: Option<Key>,
    /// The body.
    pub(crate) body: Bytes,
    /// The names in the path, in order.
    path: Vec<(String, String)>,
}

impl FromRequestParts<Context> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> ApiResult<Self> {
        let admitted = parts.extensions.remove::<Admitted>().ok_or(ApiError::Internal)?;
        let route = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned()).ok_or(ApiError::Internal)?;
        let path = path_names(parts, context).await?;
        for (name, value) in &path {
            match name.as_str() {
                "app_id" => Span::current().record("application", value),
                "endpoint_id" => Span::current().record("endpoint", value),
                "msg_id" => Span::current().record("message", value),
                _ => continue,
            };
        }
        let query = Query::parse(parts.uri.query().unwrap_or_default())?;
        let method = parts.method.clone();
        let Admitted { tenant_id, key, body } = admitted;
        Ok(Self { context: context.clone(), tenant_id, method, route, query, key, body, path })
    }
}

/// The names in the path. All are ids or names of the same alphabet; anything else cannot exist, and is refused before
/// it gets near the database.
async fn path_names(parts: &mut Parts, context: &Context) -> ApiResult<Vec<(String, String)>> {
    let names = axum::extract::RawPathParams::from_request_parts(parts, context).await.map_err(|rejection| match rejection {
        RawPathParamsRejection::InvalidUtf8InPathParam(garbage) => {
            // The name of the parameter is told in backticks, and not otherwise.
            let text = garbage.body_text();
            let name = text.split('`').nth(1).unwrap_or_default();
            ApiError::invalid(&["path", name], "is not valid UTF-8")
        }
        _ => ApiError::Internal,
    })?;
    let names: Vec<_> = names.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (name, value) in &names {
        check_name(value).map_err(|error| ApiError::invalid(&["path", name], error.to_string()))?;
    }
    Ok(names)
}

impl Call {
    /// The database.
    pub(crate) fn db(&self) -> &Db {
        &self.context.db
    }

    /// The names in the path, in order.
    pub(crate) fn path(&self) -> impl Iterator<Item = (&str, &str)> {
        self.path.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A name in the path. Every route that reads one has it; the empty name that stands for a missing one exists nowhere.
    pub(crate) fn name(&self, name: &str) -> &str {
        self.path().find(|(found, _)| *found == name).map_or("", |(_, value)| value)
    }

    /// The application in the path.
    pub(crate) fn application(&self) -> Reference<ApplicationId> {
        Reference::parse(self.name("app_id"))
    }

    /// The endpoint in the path.
    pub(crate) fn endpoint(&self) -> Reference<EndpointId> {
        Reference::parse(self.name("endpoint_id"))
    }

    /// The endpoint in the path, with whose it is.
    pub(crate) fn address(&self) -> Address {
        Address { tenant_id: self.tenant_id, application: self.application(), endpoint: self.endpoint() }
    }

    /// The message in the path.
    pub(crate) fn message(&self) -> Reference<MessageId> {
        Reference::parse(self.name("msg_id"))
    }

    /// The attempt in the path.
    pub(crate) fn attempt(&self) -> ApiResult<AttemptId> {
        AttemptId::parse(self.name("attempt_id")).map_err(|_| ApiError::NotFound("attempt"))
    }

    /// The event type in the path.
    pub(crate) fn event_type(&self) -> &str {
        self.name("event_type_name")
    }

    /// The body, which must be a JSON object.
    pub(crate) fn json<'a, T: Deserialize<'a>>(&'a self) -> ApiResult<T> {
        json::parse(&self.body)
    }
}
