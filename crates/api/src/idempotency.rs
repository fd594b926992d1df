//! Writes under an `Idempotency-Key`: the operation that a key belongs to, and answers that are replayed.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use domain::{
    id::ApplicationId,
    idempotency::{Operation, scope_hash},
};
use storage::{
    applications::{self, Reference},
    directory, endpoints,
    idempotency::{self, Answer, Answered, Claim, Effect, Found},
    messages,
};
use uuid::Uuid;

use crate::{
    error::{ApiError, ApiResult},
    extract::Call,
};

/// The header that marks a saved answer.
pub(crate) const IDEMPOTENCY_REPLAY: HeaderName = HeaderName::from_static("idempotency-replay");

impl Call {
    /// Carries out a write, at most once per key, and renders what it brings.
    ///
    /// A request that turned out invalid still looks its key up: a saved answer wins over the refusal.
    pub(crate) async fn write<E, R>(&self, effect: ApiResult<E>, render: R) -> ApiResult
    where
        E: Effect + 'static,
        R: FnOnce(&E::Output) -> Answer + Send + 'static,
    {
        let effect = match effect {
            Ok(effect) => effect,
            Err(refusal) => return self.refuse(refusal).await,
        };
        let claim = self.claim().await?;
        let render = move |result: Result<&E::Output, &storage::Error>| match result {
            Ok(output) => render(output),
            Err(error) => ApiError::from(error).answer(),
        };
        let answered = idempotency::execute(self.db(), claim, effect, render).await?;
        tracing::debug!(
            tenant_id = %self.tenant_id,
            method = %self.method,
            route = self.route,
            status = answered.answer.status,
            is_replay = answered.is_replay,
            "a write was answered"
        );
        Ok(respond(answered))
    }

    async fn refuse(&self, refusal: ApiError) -> ApiResult {
        match self.saved().await? {
            Some(Found::Answer(answer)) => Ok(respond(Answered { answer, is_replay: true })),
            Some(Found::Published(_)) | None => Err(refusal),
        }
    }

    /// What is saved under the request's key, for a request that is about to be refused.
    pub(crate) async fn saved(&self) -> ApiResult<Option<Found>> {
        match self.claim().await {
            Ok(Some(claim)) => Ok(idempotency::find(self.db(), &claim).await?),
            // Without a key, or under something that never existed, nothing can be saved.
            Ok(None) | Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The request's key as a claim on its operation.
    pub(crate) async fn claim(&self) -> ApiResult<Option<Claim>> {
        let Some(key) = &self.key else { return Ok(None) };
        let ids = self.internal_ids().await?;
        let operation = Operation { tenant: self.tenant_id.into(), method: self.method.as_str(), route: &self.route, ids: &ids };
        let is_json = !self.body.is_empty();
        let fingerprint = operation.fingerprint(&self.query.raw, is_json, &self.body);
        Ok(Some(Claim { scope: operation.scope(key), fingerprint, policy: self.context.config.policy }))
    }

    /// The internal ids of what the path names, so that an id and a uid of the same thing are one operation.
    async fn internal_ids(&self) -> ApiResult<Vec<Uuid>> {
        let mut ids = Vec::new();
        for (name, value) in self.path() {
            ids.push(match name {
                "app_id" => match self.application() {
                    Reference::Id(id) => id.into(),
                    // Boxed, here and below: these look-ups are large futures that most requests never enter.
                    reference @ Reference::Uid(_) => Box::pin(self.application_id(reference)).await?,
                },
                "endpoint_id" => match self.endpoint() {
                    Reference::Id(id) => id.into(),
                    Reference::Uid(_) => Box::pin(endpoints::get(self.db(), &self.address())).await?.id.into(),
                },
                "msg_id" => match self.message() {
                    Reference::Id(id) => id.into(),
                    reference @ Reference::Uid(_) => {
                        Box::pin(messages::get(self.db(), self.tenant_id, &self.application(), &reference)).await?.id.into()
                    }
                },
                _ => scope_hash(name, self.tenant_id.into(), value),
            });
        }
        Ok(ids)
    }

    async fn application_id(&self, reference: Reference<ApplicationId>) -> ApiResult<Uuid> {
        match directory::find(self.db(), self.tenant_id, &reference).await {
            Ok(subscribers) => Ok(subscribers.application.id.into()),
            Err(storage::Error::NotFound(what)) => {
                let id = applications::id_even_if_deleted(self.db(), self.tenant_id, &reference).await?;
                id.map(Uuid::from).ok_or(ApiError::NotFound(what))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// An answer as a response; a saved one says that it is.
pub(crate) fn respond(answered: Answered) -> Response {
    let Answered { answer, is_replay } = answered;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in [(header::CONTENT_TYPE, answer.content_type), (header::LOCATION, answer.location)] {
        if let Some(value) = value.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(name, value);
        }
    }
    if is_replay {
        headers.insert(IDEMPOTENCY_REPLAY, HeaderValue::from_static("true"));
    }
    response
}
