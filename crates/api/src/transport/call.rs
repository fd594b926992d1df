//! One admitted request, as handlers see it: who calls, what is in the path, the query and the body.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, MatchedPath, rejection::RawPathParamsRejection},
    http::{Method, request::Parts},
};
use bytes::Bytes;
use domain::{
    application::check_name,
    caller::Caller,
    id::{ApplicationId, AttemptId, EndpointId, Id, MessageId, TaskId, TenantId},
    idempotency::Key,
};
use serde::Deserialize;
use storage::{
    Db,
    applications::{self, Reference},
    endpoints::Address,
};
use tracing::Span;

use super::{
    admission::{Admitted, Rules},
    dialect::{Dialect, Kind},
    json,
    query::Query,
};
use crate::{
    context::Context,
    error::{ApiError, ApiResult},
};

/// What a caller is told that asks for another project.
const NOT_THIS_PROJECT: &str = "this token or key is of another project: GET /api/v1/projects shows the one that it is for";
/// What a caller is told that asks for what no single application is.
const NOT_ITS_OWN: &str = "the token of an application may ask about this application alone";

/// An admitted request.
#[derive(Debug)]
pub(crate) struct Call {
    /// The server's state.
    pub(crate) context: Context,
    /// Who calls.
    pub(crate) caller: Caller,
    /// Of event types that are behind a flag, the caller sees only those with one of these; absent: all.
    pub(crate) feature_flags: Option<Arc<[String]>>,
    /// In which words.
    pub(crate) dialect: &'static dyn Dialect,
    /// The method.
    pub(crate) method: Method,
    /// The route's template, such as `/api/v1/app/{app_id}`.
    pub(crate) route: String,
    /// The query, as it came.
    pub(crate) query: String,
    /// The idempotency key.
    pub(crate) key: Option<Key>,
    /// The body.
    pub(crate) body: Bytes,
    /// The names in the path, in order.
    path: Vec<(String, String)>,
    /// Whether it is about the endpoints of the tenant's hidden application, which no path names.
    is_own: bool,
}

impl FromRequestParts<Context> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> ApiResult<Self> {
        let admitted = parts.extensions.remove::<Admitted>().ok_or(ApiError::Internal)?;
        let route = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned()).ok_or(ApiError::Internal)?;
        let path = path_names(parts, context).await?;
        let Admitted { caller, feature_flags, rules, key, body } = admitted;
        let dialect = rules.dialect;
        for (name, value) in &path {
            match dialect.kind(name) {
                Kind::Application => Span::current().record("application", value),
                Kind::Endpoint => Span::current().record("endpoint", value),
                Kind::Message => Span::current().record("message", value),
                _ => continue,
            };
        }
        let query = parts.uri.query().unwrap_or_default();
        Query::parse(query)?;
        let (query, method) = (query.to_owned(), parts.method.clone());
        let call = Self {
            context: context.clone(),
            caller,
            feature_flags,
            dialect,
            method,
            route,
            query,
            key,
            body,
            path,
            is_own: rules.permission.is_of_own_endpoints(),
        };
        if call.named(Kind::Project).is_some_and(|text| dialect.id(Kind::Project, text) != Some(caller.tenant_id.into())) {
            return Err(ApiError::Forbidden(NOT_THIS_PROJECT));
        }
        if let Some(own) = caller.application() {
            // Boxed, so that the requests of tenants stay small.
            Box::pin(call.keep_to(own, rules)).await?;
        }
        Ok(call)
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
    /// Refuses a request of a caller that is kept to one application unless it is about that one. The others do not exist for it.
    async fn keep_to(&self, own: ApplicationId, rules: Rules) -> ApiResult<()> {
        let is_own = match self.named(Kind::Application) {
            None if rules.permission.is_of_the_tenant() => true,
            // A route that was given a permission that it should not have had.
            None => return Err(ApiError::Forbidden(NOT_ITS_OWN)),
            Some(_) => match self.reference(Kind::Application) {
                Reference::Id(id) => id == own,
                // Asked of the database: a name may have gone over to another application.
                uid @ Reference::Uid(_) => applications::get(self.db(), self.tenant_id(), &uid).await?.id == own,
            },
        };
        if is_own { Ok(()) } else { Err(ApiError::NotFound("application")) }
    }

    /// The tenant that is asked about.
    pub(crate) fn tenant_id(&self) -> TenantId {
        self.caller.tenant_id
    }

    /// The database.
    pub(crate) fn db(&self) -> &Db {
        &self.context.db
    }

    /// The names in the path, in order.
    pub(crate) fn path(&self) -> impl Iterator<Item = (&str, &str)> {
        self.path.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// What is called by its kind in the path.
    fn named(&self, kind: Kind) -> Option<&str> {
        self.path().find(|(name, _)| self.dialect.kind(name) == kind).map(|(_, value)| value)
    }

    /// The thing of this kind in the path, by its id or by the tenant's name for it. Every route that reads one has it; the empty name
    /// that stands for a missing one exists nowhere.
    fn reference<I: Id>(&self, kind: Kind) -> Reference<I> {
        let text = self.named(kind).unwrap_or_default();
        self.dialect.id(kind, text).map_or_else(|| Reference::Uid(text.to_owned()), |id| Reference::Id(id.into()))
    }

    /// The application in the path; of a caller that is kept to one, that one, whatever its name stands for by now. The hidden one on
    /// the routes that are about its endpoints.
    pub(crate) fn application(&self) -> Reference<ApplicationId> {
        match self.caller.application() {
            Some(id) => Reference::Id(id),
            None if self.is_own => Reference::own(),
            None => self.reference(Kind::Application),
        }
    }

    /// Whether it is known from the path whose endpoints and messages are meant, so that their names say which.
    pub(crate) fn names_an_application(&self) -> bool {
        self.is_own || self.named(Kind::Application).is_some()
    }

    /// The endpoint in the path.
    pub(crate) fn endpoint(&self) -> Reference<EndpointId> {
        self.reference(Kind::Endpoint)
    }

    /// The endpoint in the path, with whose it is.
    pub(crate) fn address(&self) -> Address {
        Address { tenant_id: self.tenant_id(), application: self.application(), endpoint: self.endpoint() }
    }

    /// The message in the path.
    pub(crate) fn message(&self) -> Reference<MessageId> {
        self.reference(Kind::Message)
    }

    /// The attempt in the path.
    pub(crate) fn attempt(&self) -> ApiResult<AttemptId> {
        self.id(Kind::Attempt, "attempt")
    }

    /// The task in the path.
    pub(crate) fn task(&self) -> ApiResult<TaskId> {
        self.id(Kind::Task, "task")
    }

    /// The thing of this kind in the path, where all are called by their ids: `what` is what it is.
    pub(crate) fn id<I: Id>(&self, kind: Kind, what: &'static str) -> ApiResult<I> {
        let id = self.named(kind).and_then(|text| self.dialect.id(kind, text));
        id.map(I::from).ok_or_else(|| self.missing().map_or(ApiError::NotFound(what), ApiError::NotYet))
    }

    /// The operation that we do not have whose name stands where another one has an id.
    fn missing(&self) -> Option<String> {
        let path = self.path.iter().fold(self.route.clone(), |path, (name, value)| path.replace(&format!("{{{name}}}"), value));
        self.dialect.missing(&self.method, &path)
    }

    /// The name in the path of what has no id.
    pub(crate) fn name(&self) -> &str {
        self.named(Kind::Name).unwrap_or_default()
    }

    /// The body, which must be a JSON array.
    pub(crate) fn json_list<'a, T: Deserialize<'a>>(&'a self) -> ApiResult<Vec<T>> {
        json::parse_list(&self.body)
    }

    /// The body, which must be a JSON object.
    pub(crate) fn json<'a, T: Deserialize<'a>>(&'a self) -> ApiResult<T> {
        json::parse(&self.body)
    }
}
