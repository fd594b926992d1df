//! Idempotency keys on the wire: a tenant's policy, and what is known of a key. svix-server has no such operations; these are
//! written in its style.

use std::time::Duration;

use domain::{
    id::Id,
    idempotency::{Key, MAX_TTL, MAX_WAIT, MIN_TTL, Override, Policy, Preset, Saves},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use storage::{
    idempotency::records::{self, Record},
    policies,
};
use utoipa::{IntoParams, ToSchema};

use super::{Timestamp, ok};
use crate::{
    error::{ApiError, ApiResult},
    extract::Call,
};

/// Which policy the rest is measured from.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PresetName {
    /// POST and PATCH, every executed outcome, 24 hours and a minute, no wait.
    Default,
    /// POST alone, successes alone, 12 hours, five seconds of wait.
    Svix,
    /// As `default`, and a 404 of something in the path and a 500 are remembered, too.
    Novu,
}

/// Which outcomes are remembered under a key.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SavedOutcomes {
    /// 2xx and 3xx.
    Successes,
    /// Those, and every refusal that the execution itself reached, such as a uid that is taken.
    Executed,
    /// Those, and a 404 of something in the path, and a 500.
    All,
}

/// The methods on which a key counts: `["POST"]`, or `["POST", "PATCH"]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Methods {
    covers_patch: bool,
}

impl<'de> Deserialize<'de> for Methods {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut methods = Vec::<String>::deserialize(deserializer)?;
        methods.sort_unstable();
        match methods.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["POST"] => Ok(Self { covers_patch: false }),
            ["PATCH", "POST"] => Ok(Self { covers_patch: true }),
            _ => Err(D::Error::custom(r#"must be ["POST"] or ["POST", "PATCH"]: a key on a POST always counts"#)),
        }
    }
}

/// How a tenant wants its keys treated. What is left out is as the preset has it; without a preset, as this installation has it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct IdempotencyPolicyIn {
    /// Which policy the rest is measured from; this installation's if absent
    preset: Option<PresetName>,
    /// The methods on which a key counts: `["POST"]`, or `["POST", "PATCH"]`
    #[schema(value_type = Option<Vec<String>>, example = json!(["POST", "PATCH"]))]
    methods: Option<Methods>,
    /// Which outcomes are remembered
    saved_outcomes: Option<SavedOutcomes>,
    /// For how long, in seconds
    #[schema(minimum = 1, maximum = 604_800, example = 86460)]
    ttl_seconds: Option<u64>,
    /// How long a repeat waits for the first request, in milliseconds, before it is answered 409
    #[schema(minimum = 0, maximum = 60_000, example = 0)]
    wait_ms: Option<u64>,
    /// Whether a repeat must be the same request: if not, any request under a known key gets its outcome
    fingerprint: Option<bool>,
}

/// The policy that holds for a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdempotencyPolicyOut {
    /// The preset that the tenant has chosen; null: this installation's policy
    #[schema(required)]
    preset: Option<PresetName>,
    /// The fields that the tenant has set itself
    #[schema(example = json!(["ttlSeconds"]))]
    overridden: Vec<&'static str>,
    /// The methods on which a key counts
    #[schema(value_type = Vec<String>, example = json!(["POST", "PATCH"]))]
    methods: &'static [&'static str],
    /// Which outcomes are remembered
    saved_outcomes: SavedOutcomes,
    /// For how long, in seconds
    #[schema(example = 86460)]
    ttl_seconds: u64,
    /// How long a repeat waits for the first request, in milliseconds, before it is answered 409
    #[schema(example = 0)]
    wait_ms: u64,
    /// Whether a repeat must be the same request
    fingerprint: bool,
}

impl IdempotencyPolicyIn {
    fn read(self) -> ApiResult<Override> {
        let ttl = self.ttl_seconds.map(Duration::from_secs);
        if ttl.is_some_and(|ttl| !(MIN_TTL..=MAX_TTL).contains(&ttl)) {
            let message = format!("must be from {} to {} (7 days)", MIN_TTL.as_secs(), MAX_TTL.as_secs());
            return Err(ApiError::invalid(&["body", "ttlSeconds"], message));
        }
        let wait = self.wait_ms.map(Duration::from_millis);
        if wait.is_some_and(|wait| wait > MAX_WAIT) {
            return Err(ApiError::invalid(&["body", "waitMs"], format!("must be at most {}", MAX_WAIT.as_millis())));
        }
        Ok(Override {
            preset: self.preset.map(|name| match name {
                PresetName::Default => Preset::Default,
                PresetName::Svix => Preset::Svix,
                PresetName::Novu => Preset::Novu,
            }),
            covers_patch: self.methods.map(|methods| methods.covers_patch),
            saves: self.saved_outcomes.map(|saved| match saved {
                SavedOutcomes::Successes => Saves::Successes,
                SavedOutcomes::Executed => Saves::Executed,
                SavedOutcomes::All => Saves::All,
            }),
            ttl,
            wait,
            compares: self.fingerprint,
        })
    }
}

impl IdempotencyPolicyOut {
    fn new(asked_for: &Override, policy: &Policy) -> Self {
        let set = [
            ("methods", asked_for.covers_patch.is_some()),
            ("savedOutcomes", asked_for.saves.is_some()),
            ("ttlSeconds", asked_for.ttl.is_some()),
            ("waitMs", asked_for.wait.is_some()),
            ("fingerprint", asked_for.compares.is_some()),
        ];
        Self {
            preset: asked_for.preset.map(|preset| match preset {
                Preset::Default => PresetName::Default,
                Preset::Svix => PresetName::Svix,
                Preset::Novu => PresetName::Novu,
            }),
            overridden: set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect(),
            methods: if policy.covers_patch { &["POST", "PATCH"] } else { &["POST"] },
            saved_outcomes: match policy.saves {
                Saves::Successes => SavedOutcomes::Successes,
                Saves::Executed => SavedOutcomes::Executed,
                Saves::All => SavedOutcomes::All,
            },
            ttl_seconds: policy.ttl.as_secs(),
            wait_ms: u64::try_from(policy.wait.as_millis()).unwrap_or(u64::MAX),
            fingerprint: policy.compares,
        }
    }
}

/// Get Idempotency Policy
///
/// How the keys of your requests are treated.
#[utoipa::path(get, path = "/api/v1/idempotency/policy", tag = "Idempotency", operation_id = "v1.idempotency.policy.get",
    responses((status = 200, description = "The policy that holds", body = IdempotencyPolicyOut)))]
pub(crate) async fn get_policy(call: Call) -> ApiResult {
    let (asked_for, policy) = policies::asked_for(call.db(), call.tenant_id).await?;
    Ok(ok(&IdempotencyPolicyOut::new(&asked_for, &policy)))
}

/// Replace Idempotency Policy
///
/// Holds from the next request on, at every replica. What is left out is as the preset has it, or as this installation has it, so
/// that `{}` undoes every change. Outcomes that are saved already keep the time that they were given.
#[utoipa::path(put, path = "/api/v1/idempotency/policy", tag = "Idempotency", operation_id = "v1.idempotency.policy.update",
    request_body = IdempotencyPolicyIn, responses((status = 200, description = "The policy that holds from now on", body = IdempotencyPolicyOut)))]
pub(crate) async fn update_policy(call: Call) -> ApiResult {
    let wanted = call.json::<IdempotencyPolicyIn>()?.read()?;
    let policy = policies::replace(call.db(), call.tenant_id, &wanted).await?;
    tracing::info!(tenant_id = %call.tenant_id, ?wanted, "an idempotency policy was replaced");
    Ok(ok(&IdempotencyPolicyOut::new(&wanted, &policy)))
}

/// The key that is asked about.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it exists for the document")]
pub(crate) struct OfKey {
    /// The `Idempotency-Key` as it was sent
    #[param(min_length = 1, max_length = 255, example = "0199b9a4-5a2e-7c31-9a3e-2f6f3a1c8d5e")]
    key: String,
}

/// What became of the requests under a key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IdempotencyRecordsOut {
    /// One for each operation that the key was used in, the newest first.
    data: Vec<IdempotencyRecordOut>,
}

/// A saved outcome.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdempotencyRecordOut {
    /// Method and route of the request; null if they were not recorded
    #[schema(required, example = "POST /api/v1/app/{app_id}/msg")]
    operation: Option<String>,
    /// The status code that it was answered with
    #[schema(example = 202)]
    status: u16,
    /// When it was executed.
    first_seen_at: Timestamp,
    /// Until when it is replayed.
    expires_at: Timestamp,
    /// How often it was replayed; what other replicas have counted shows within about a second
    #[schema(example = 2)]
    replays: u64,
    /// The message that it made; for a conflict of event ids, the message that has the id
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2")]
    message_id: Option<String>,
}

impl From<Record> for IdempotencyRecordOut {
    fn from(record: Record) -> Self {
        Self {
            operation: record.operation,
            status: record.status,
            first_seen_at: Timestamp(record.first_seen_at),
            expires_at: Timestamp(record.expires_at),
            replays: record.replays,
            message_id: record.message_id.map(Id::public),
        }
    }
}

/// Look Up Idempotency Key
///
/// What is remembered under a key: the outcome, when it was reached, how often it was replayed, and the message. Nothing is listed
/// once the key is forgotten, nor while its first request is running.
#[utoipa::path(get, path = "/api/v1/idempotency/records", tag = "Idempotency", operation_id = "v1.idempotency.records.list",
    params(OfKey), responses((status = 200, description = "What is remembered", body = IdempotencyRecordsOut)))]
pub(crate) async fn list_records(call: Call) -> ApiResult {
    let key = call.query.read("key", |text| Key::parse([text.as_bytes()].into_iter()))?.flatten();
    let key = key.ok_or_else(|| ApiError::invalid(&["query", "key"], "is missing: name the idempotency key to look up"))?;
    let records = records::find(call.db(), call.tenant_id, &key).await?;
    Ok(ok(&IdempotencyRecordsOut { data: records.into_iter().map(Into::into).collect() }))
}
