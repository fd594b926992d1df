//! The keys that requests carry.

use domain::{
    id::TenantId,
    idempotency::{Policy, scope_hash},
};
use sqlx::types::Uuid;

/// A key that a request carries, ready to be claimed.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Whose request it is.
    pub tenant_id: TenantId,
    /// [`domain::idempotency::Operation::scope`] of the key.
    pub scope: Uuid,
    /// [`domain::idempotency::Operation::fingerprint`] of the request.
    pub fingerprint: Uuid,
    /// How the key is treated.
    pub policy: Policy,
}

impl Claim {
    /// The claim of one thing of several that a request asks for, each of which happens or not for itself.
    #[must_use]
    pub fn of_one(self, place: usize) -> Self {
        Self { scope: scope_hash("one of several", self.scope, &place.to_string()), ..self }
    }
}

/// A request with a key, before its policy is known.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// Whose request it is.
    pub tenant_id: TenantId,
    /// As [`Claim::scope`].
    pub scope: Uuid,
    /// As [`Claim::fingerprint`].
    pub fingerprint: Uuid,
    /// The scope under which a refusal would be remembered.
    pub refusal_scope: Uuid,
    /// Method and route, such as `POST /api/v1/app`: what its record says of it.
    pub operation: String,
}

impl Keyed {
    /// The claim on the operation.
    pub fn claim(&self, policy: Policy) -> Claim {
        Claim { tenant_id: self.tenant_id, scope: self.scope, fingerprint: self.fingerprint, policy }
    }

    /// The claim on what the request would be refused with.
    pub(crate) fn refusal(&self, policy: Policy) -> Claim {
        Claim { scope: self.refusal_scope, ..self.claim(policy) }
    }
}
