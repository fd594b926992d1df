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
    policies::{self, Replace},
};
use utoipa::{IntoParams, ToSchema};

use super::Timestamp;
use crate::{
    error::{ApiError, ApiResult},
    transport::{
        call::Call,
        query::{Asked, Parameters},
        reply::Reply,
    },
};

/// Which policy the rest is measured from.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PresetName {
    /// POST, PUT and PATCH, every executed outcome, 24 hours and a minute, no wait.
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

/// The methods on which a key counts: POST, and perhaps PUT and PATCH.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Methods {
    covers_patch: bool,
    covers_put: bool,
}

impl<'de> Deserialize<'de> for Methods {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut methods = Vec::<String>::deserialize(deserializer)?;
        methods.sort_unstable();
        let (covers_patch, covers_put) = match methods.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["POST"] => (false, false),
            ["PATCH", "POST"] => (true, false),
            ["POST", "PUT"] => (false, true),
            ["PATCH", "POST", "PUT"] => (true, true),
            _ => return Err(D::Error::custom(r#"must be ["POST"], and perhaps "PUT" and "PATCH": a key on a POST always counts"#)),
        };
        Ok(Self { covers_patch, covers_put })
    }
}

/// How a tenant wants its keys treated. What is left out is as the preset has it; without a preset, as this installation has it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct IdempotencyPolicyIn {
    /// Which policy the rest is measured from; this installation's if absent
    preset: Option<PresetName>,
    /// The methods on which a key counts: `["POST"]`, and perhaps `"PUT"` and `"PATCH"`
    #[schema(value_type = Option<Vec<String>>, example = json!(["POST", "PUT", "PATCH"]))]
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
    /// As the answer shows it. If it is given, a field that it does not name counts only where it differs from the preset, so that what
    /// was shown can be sent back
    #[schema(example = json!(["ttlSeconds"]))]
    overridden: Option<Vec<String>>,
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
    #[schema(value_type = Vec<String>, example = json!(["POST", "PUT", "PATCH"]))]
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
    fn preset(&self) -> Option<Preset> {
        self.preset.map(|name| match name {
            PresetName::Default => Preset::Default,
            PresetName::Svix => Preset::Svix,
            PresetName::Novu => Preset::Novu,
        })
    }

    /// What is asked for; `base` is what would hold if nothing but the preset were.
    fn read(self, base: Policy) -> ApiResult<Override> {
        let preset = self.preset();
        let ttl = self.ttl_seconds.map(Duration::from_secs);
        if ttl.is_some_and(|ttl| !(MIN_TTL..=MAX_TTL).contains(&ttl)) {
            let message = format!("must be from {} to {} (7 days)", MIN_TTL.as_secs(), MAX_TTL.as_secs());
            return Err(ApiError::invalid(&["body", "ttlSeconds"], message));
        }
        let wait = self.wait_ms.map(Duration::from_millis);
        if wait.is_some_and(|wait| wait > MAX_WAIT) {
            return Err(ApiError::invalid(&["body", "waitMs"], format!("must be at most {}", MAX_WAIT.as_millis())));
        }
        let saves = self.saved_outcomes.map(|saved| match saved {
            SavedOutcomes::Successes => Saves::Successes,
            SavedOutcomes::Executed => Saves::Executed,
            SavedOutcomes::All => Saves::All,
        });
        let overridden = self.overridden;
        let counts = |name: &str, differs: bool| differs || overridden.as_ref().is_none_or(|names| names.iter().any(|named| named == name));
        let of_base = (base.covers_patch, base.covers_put);
        let methods = self.methods.filter(|of| counts("methods", (of.covers_patch, of.covers_put) != of_base));
        Ok(Override {
            preset,
            covers_patch: methods.map(|methods| methods.covers_patch),
            covers_put: methods.map(|methods| methods.covers_put),
            saves: saves.filter(|saves| counts("savedOutcomes", *saves != base.saves)),
            ttl: ttl.filter(|ttl| counts("ttlSeconds", *ttl != base.ttl)),
            wait: wait.filter(|wait| counts("waitMs", *wait != base.wait)),
            compares: self.fingerprint.filter(|compares| counts("fingerprint", *compares != base.compares)),
        })
    }
}

impl IdempotencyPolicyOut {
    fn new(asked_for: &Override, policy: &Policy) -> Self {
        let set = [
            ("methods", asked_for.covers_patch.is_some() || asked_for.covers_put.is_some()),
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
            methods: match (policy.covers_put, policy.covers_patch) {
                (true, true) => &["POST", "PUT", "PATCH"],
                (true, false) => &["POST", "PUT"],
                (false, true) => &["POST", "PATCH"],
                (false, false) => &["POST"],
            },
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
#[utoipa::path(get, path = "/api/v1/idempotency/policy", tag = "Idempotency", operation_id = "v1.idempotency.policy.get")]
pub(crate) async fn get_policy(call: Call) -> ApiResult<Reply<200, IdempotencyPolicyOut>> {
    let (asked_for, policy) = policies::asked_for(call.db(), call.tenant_id()).await?;
    Ok(Reply::new(&IdempotencyPolicyOut::new(&asked_for, &policy)))
}

/// Replace Idempotency Policy
///
/// Holds from the next request on, at every replica. What is left out is as the preset has it, or as this installation has it, so
/// that `{}` undoes every change. Outcomes that are saved already keep the time that they were given.
#[utoipa::path(put, path = "/api/v1/idempotency/policy", tag = "Idempotency", operation_id = "v1.idempotency.policy.update",
    request_body = IdempotencyPolicyIn)]
pub(crate) async fn update_policy(call: Call) -> ApiResult<Reply<200, IdempotencyPolicyOut>> {
    let wanted = call.json::<IdempotencyPolicyIn>().and_then(|body| {
        let base = policies::without_wishes(call.db(), body.preset());
        body.read(base)
    });
    if let Ok(wanted) = &wanted {
        policies::prepare(call.db(), wanted).await?;
    }
    let tenant_id = call.tenant_id();
    let effect = wanted.map(|wanted| Replace { tenant_id, wanted });
    let asked_for = effect.as_ref().map(|effect| effect.wanted).unwrap_or_default();
    let render = move |policy: &Policy| {
        tracing::info!(wanted = ?asked_for, "an idempotency policy was replaced");
        Reply::new(&IdempotencyPolicyOut::new(&asked_for, policy))
    };
    call.write(effect, render).await
}

/// The key that is asked about.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfKey {
    /// The `Idempotency-Key` as it was sent
    #[serde(deserialize_with = "key")]
    #[param(
        value_type = String,
        pattern = r#"^[ \t\n\f\r]*([!#-~]([ -~]{0,253}[!-~])?|"([ !#-\[\]-~]|\\["\\]){1,255}"([ \t\n\f\r]*;[\s\S]*)?)[ \t\n\f\r]*$"#,
        example = "0199b9a4-5a2e-7c31-9a3e-2f6f3a1c8d5e"
    )]
    key: Key,
}

impl Parameters for OfKey {}

fn key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
    let text = String::deserialize(deserializer)?;
    let key = Key::parse([text.as_bytes()].into_iter()).map_err(D::Error::custom)?;
    key.ok_or_else(|| D::Error::custom("is missing: name the idempotency key to look up"))
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
#[utoipa::path(get, path = "/api/v1/idempotency/records", tag = "Idempotency", operation_id = "v1.idempotency.records.list")]
pub(crate) async fn list_records(call: Call, asked: Asked<OfKey>) -> ApiResult<Reply<200, IdempotencyRecordsOut>> {
    let OfKey { key } = asked.read()?;
    let records = records::find(call.db(), call.tenant_id(), &key).await?;
    Ok(Reply::new(&IdempotencyRecordsOut { data: records.into_iter().map(Into::into).collect() }))
}
