//! Writes under an `Idempotency-Key`: the operation that a key belongs to, and answers that are replayed.

use axum::{
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use domain::{
    id::{ApplicationId, EndpointId, Id},
    idempotency::{Key, Operation, Policy, Saves, scope_hash},
};
use storage::{
    applications::{self, Reference},
    directory, endpoints,
    idempotency::{self, Answer, Answered, Claim, Effect, Found, Keyed},
    messages, policies,
};
use uuid::Uuid;

use super::call::Call;
use crate::error::{ApiError, ApiResult};

/// The header that marks a saved answer.
pub(crate) const IDEMPOTENCY_REPLAY: HeaderName = HeaderName::from_static("idempotency-replay");
/// The same for clients that know it by the name that Stripe gave it.
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

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
            Err(refusal) => return self.replay_or(refusal).await,
        };
        match Box::pin(self.execute(effect, render)).await {
            Ok(answered) => Ok(respond(answered)),
            Err(refusal) => self.refuse(refusal).await,
        }
    }

    async fn execute<E, R>(&self, effect: E, render: R) -> ApiResult<Answered>
    where
        E: Effect + 'static,
        R: FnOnce(&E::Output) -> Answer + Send + 'static,
    {
        let keyed = self.keyed().await?;
        let render = move |result: Result<&E::Output, &storage::Error>| match result {
            Ok(output) => render(output),
            Err(error) => ApiError::from(error).answer(),
        };
        let answered = idempotency::execute(self.db(), keyed, effect, render).await?;
        tracing::debug!(
            method = %self.method,
            route = self.route,
            status = answered.answer.status,
            is_replay = answered.is_replay,
            "a write was answered"
        );
        Ok(answered)
    }

    async fn replay_or(&self, refusal: ApiError) -> ApiResult {
        match self.saved().await? {
            Some(Found::Answer(answer)) => Ok(respond(Answered { answer, is_replay: true })),
            Some(Found::Published(_)) | None => Err(refusal),
        }
    }

    /// How the request's key is treated; nothing if it has none.
    async fn policy(&self) -> ApiResult<Option<Policy>> {
        if self.key.is_none() {
            return Ok(None);
        }
        Ok(Some(policies::find(self.db(), self.tenant_id).await?))
    }

    /// What is saved under the request's key, for a request that is about to be refused.
    pub(crate) async fn saved(&self) -> ApiResult<Option<Found>> {
        let Some(policy) = self.policy().await? else { return Ok(None) };
        match self.keyed().await {
            Ok(Some(keyed)) => Ok(idempotency::find(self.db(), &keyed.claim(policy)).await?),
            // Under something that never existed, nothing can be saved.
            Ok(None) | Err(ApiError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The request's key in its operation.
    pub(crate) async fn keyed(&self) -> ApiResult<Option<Keyed>> {
        let Some(key) = &self.key else { return Ok(None) };
        Ok(Some(self.key_on(key, &self.internal_ids().await?)))
    }

    fn key_on(&self, key: &Key, ids: &[Uuid]) -> Keyed {
        Keyed {
            tenant_id: self.tenant_id,
            scope: self.operation(ids).scope(key),
            fingerprint: self.fingerprint(),
            refusal_scope: self.operation(&self.names()).scope(key),
            operation: format!("{} {}", self.method, self.route),
        }
    }

    fn operation<'a>(&'a self, ids: &'a [Uuid]) -> Operation<'a> {
        Operation { tenant: self.tenant_id.into(), method: self.method.as_str(), route: &self.route, ids }
    }

    /// Without the ids: it is the same whether the names in the path stand for something or not.
    fn fingerprint(&self) -> Uuid {
        self.operation(&[]).fingerprint(&self.query.raw, !self.body.is_empty(), &self.body)
    }

    /// The request's key as a claim on its operation, under a policy.
    pub(crate) async fn claim(&self, policy: Policy) -> ApiResult<Option<Claim>> {
        let Some(key) = &self.key else { return Ok(None) };
        let scope = self.operation(&self.internal_ids().await?).scope(key);
        Ok(Some(Claim { tenant_id: self.tenant_id, scope, fingerprint: self.fingerprint(), policy }))
    }

    /// The refusal that an earlier request with this key met, if the policy remembers such.
    pub(crate) async fn known_refusal(&self, policy: Policy) -> ApiResult<Option<Answered>> {
        if policy.saves != Saves::All {
            return Ok(None);
        }
        let Some(keyed) = Box::pin(self.keyed()).await? else { return Ok(None) };
        let refusal = Box::pin(idempotency::known_refusal(self.db(), &keyed, policy)).await?;
        Ok(refusal.map(|answer| Answered { answer, is_replay: true }))
    }

    /// The names in the path, whatever they stand for: refusals are remembered under them, because what they miss has no id.
    fn names(&self) -> Vec<Uuid> {
        self.path().map(|(name, value)| scope_hash(name, self.tenant_id.into(), value)).collect()
    }

    /// Refuses a request of which nothing was done; under a policy that remembers such refusals, so that a repeat meets this
    /// one, or this one meets the first.
    pub(crate) async fn refuse(&self, refusal: ApiError) -> ApiResult {
        let Some(key) = self.key.as_ref().filter(|_| matches!(refusal, ApiError::NotFound(_) | ApiError::Internal)) else {
            return Err(refusal);
        };
        let policy = match self.policy().await {
            Ok(Some(policy)) if policy.saves == Saves::All => policy,
            _ => return Err(refusal),
        };
        let keyed = match self.keyed().await {
            Ok(Some(keyed)) => keyed,
            _ => self.key_on(key, &self.names()),
        };
        if let Some(answer) = idempotency::known_refusal(self.db(), &keyed, policy).await? {
            return Ok(respond(Answered { answer, is_replay: true }));
        }
        if let Err(error) = idempotency::save_refusal(self.db(), &keyed, policy, &refusal.answer()).await {
            tracing::warn!(%error, "a refusal could not be remembered: a repeat will be tried anew");
        }
        Err(refusal)
    }

    /// The internal ids of what the path names, so that an id and a uid of the same thing are one operation. What a PUT may make has
    /// none before, and may have another uid afterwards: it is known by the name that it is called by.
    async fn internal_ids(&self) -> ApiResult<Vec<Uuid>> {
        let mut ids = Vec::new();
        let (upserted, _) = self.path().last().filter(|_| self.method == Method::PUT && self.route.ends_with('}')).unzip();
        for (name, value) in self.path() {
            ids.push(match name {
                "app_id" | "endpoint_id" if upserted == Some(name) && !Self::is_id(name, value) => {
                    scope_hash(name, self.tenant_id.into(), value)
                }
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

    /// Whether a segment of the path is one of our ids, and not a name.
    fn is_id(name: &str, value: &str) -> bool {
        match name {
            "app_id" => ApplicationId::parse(value).is_ok(),
            _ => EndpointId::parse(value).is_ok(),
        }
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
        headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}
