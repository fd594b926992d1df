//! Writes under an `Idempotency-Key`: the operation that a key belongs to, and answers that are replayed.

use axum::http::Method;
use domain::{
    id::ApplicationId,
    idempotency::{Key, Operation, Policy, Saves, scope_hash},
};
use storage::{
    applications::{self, Reference},
    directory, endpoints,
    idempotency::{self, Answered, Claim, Effect, Found, Keyed},
    messages, policies,
};
use uuid::Uuid;

use super::{call::Call, dialect::Kind, reply::Replies};
use crate::error::{ApiError, ApiResult};

impl Call {
    /// Carries out a write, at most once per key, and renders what it brings.
    ///
    /// A request that turned out invalid still looks its key up: a saved answer wins over the refusal.
    pub(crate) async fn write<E, R, F>(&self, effect: ApiResult<E>, render: F) -> ApiResult<R>
    where
        E: Effect + 'static,
        R: Replies,
        F: FnOnce(&E::Output) -> R + Send + 'static,
    {
        let effect = match effect {
            Ok(effect) => effect,
            Err(refusal) => return self.replay_or(refusal).await,
        };
        match Box::pin(self.execute(effect, render)).await {
            Ok(answered) => Ok(answered.into()),
            Err(refusal) => self.refuse(refusal).await,
        }
    }

    async fn execute<E, R, F>(&self, effect: E, render: F) -> ApiResult<Answered>
    where
        E: Effect + 'static,
        R: Replies,
        F: FnOnce(&E::Output) -> R + Send + 'static,
    {
        let keyed = self.keyed().await?;
        let dialect = self.dialect;
        let render = move |result: Result<&E::Output, &storage::Error>| match result {
            Ok(output) => render(output).into_answer(),
            Err(error) => dialect.refusal(&ApiError::from(error)),
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

    async fn replay_or<R: Replies>(&self, refusal: ApiError) -> ApiResult<R> {
        match self.saved().await? {
            Some(Found::Answer(answer)) => Ok(Answered { answer, is_replay: true }.into()),
            Some(Found::Published(_)) | None => Err(refusal),
        }
    }

    /// How the request's key is treated; nothing if it has none.
    async fn policy(&self) -> ApiResult<Option<Policy>> {
        if self.key.is_none() {
            return Ok(None);
        }
        Ok(Some(policies::find(self.db(), self.tenant_id()).await?))
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
            tenant_id: self.tenant_id(),
            scope: self.operation(ids).scope(key),
            fingerprint: self.fingerprint(),
            refusal_scope: self.operation(&self.names()).scope(key),
            operation: format!("{} {}", self.method, self.route),
        }
    }

    fn operation<'a>(&'a self, ids: &'a [Uuid]) -> Operation<'a> {
        Operation { tenant: self.tenant_id().into(), method: self.method.as_str(), route: &self.route, ids }
    }

    /// Without the ids: it is the same whether the names in the path stand for something or not.
    fn fingerprint(&self) -> Uuid {
        self.operation(&[]).fingerprint(&self.query, !self.body.is_empty(), &self.body)
    }

    /// The request's key as a claim on its operation, under a policy.
    pub(crate) async fn claim(&self, policy: Policy) -> ApiResult<Option<Claim>> {
        let Some(key) = &self.key else { return Ok(None) };
        let scope = self.operation(&self.internal_ids().await?).scope(key);
        Ok(Some(Claim { tenant_id: self.tenant_id(), scope, fingerprint: self.fingerprint(), policy }))
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
        self.path().map(|(name, value)| scope_hash(name, self.tenant_id().into(), value)).collect()
    }

    /// Refuses a request of which nothing was done; under a policy that remembers such refusals, so that a repeat meets this
    /// one, or this one meets the first.
    pub(crate) async fn refuse<R: Replies>(&self, refusal: ApiError) -> ApiResult<R> {
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
            return Ok(Answered { answer, is_replay: true }.into());
        }
        if let Err(error) = idempotency::save_refusal(self.db(), &keyed, policy, &self.dialect.refusal(&refusal)).await {
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
            let kind = self.dialect.kind(name);
            let by_name = || scope_hash(name, self.tenant_id().into(), value);
            ids.push(match kind {
                Kind::Application | Kind::Endpoint if upserted == Some(name) && self.dialect.id(kind, value).is_none() => by_name(),
                Kind::Application => match self.application() {
                    Reference::Id(id) => id.into(),
                    // Boxed, here and below: these look-ups are large futures that most requests never enter.
                    reference @ Reference::Uid(_) => Box::pin(self.application_id(reference)).await?,
                },
                Kind::Endpoint => match self.endpoint() {
                    Reference::Id(id) => id.into(),
                    Reference::Uid(_) if !self.names_an_application() => by_name(),
                    Reference::Uid(_) => Box::pin(endpoints::get(self.db(), &self.address())).await?.id.into(),
                },
                Kind::Message => match self.message() {
                    Reference::Id(id) => id.into(),
                    Reference::Uid(_) if !self.names_an_application() => by_name(),
                    reference @ Reference::Uid(_) => {
                        Box::pin(messages::get(self.db(), self.tenant_id(), &self.application(), &reference)).await?.id.into()
                    }
                },
                Kind::Project
                | Kind::Attempt
                | Kind::Delivery
                | Kind::Task
                | Kind::EventType
                | Kind::Subscription
                | Kind::Filter
                | Kind::Source
                | Kind::PortalLink
                | Kind::Name => by_name(),
            });
        }
        Ok(ids)
    }

    async fn application_id(&self, reference: Reference<ApplicationId>) -> ApiResult<Uuid> {
        match directory::find(self.db(), self.tenant_id(), &reference).await {
            Ok(subscribers) => Ok(subscribers.application.id.into()),
            Err(storage::Error::NotFound(what)) => {
                let id = applications::id_even_if_deleted(self.db(), self.tenant_id(), &reference).await?;
                id.map(Uuid::from).ok_or(ApiError::NotFound(what))
            }
            Err(error) => Err(error.into()),
        }
    }
}
