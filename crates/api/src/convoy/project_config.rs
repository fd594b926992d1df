//! How a project wants its webhooks made, on the wire. What we do not act on is kept and shown; what asks for something that would not happen is
//! refused by name.

use std::time::Duration;

use domain::{
    id::Id,
    project::Project,
    retry_strategy::{Growth, RetryStrategy},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{Time, fields::Text};
use crate::{
    error::{ApiError, ApiResult},
    transport::json::nullable,
};

/// The header that carries the signature if a project names no other.
const SIGNATURE_HEADER: &str = "X-Convoy-Signature";
/// The header that carries an event's key.
const KEY_HEADER: &str = "X-Convoy-Idempotency-Key";
/// The most signatures of one request.
const MAX_VERSIONS: usize = 5;

/// What a project wants. What is absent stays as it is, and null is as if it had never been set.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = ConvoyProjectConfigUpdate)]
pub(crate) struct ConfigIn {
    /// When deliveries are tried again, unless their endpoint says otherwise; null: as the installation has it
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<Strategy>, required = false)]
    strategy: Option<Option<Strategy>>,
    /// How webhooks are signed
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<Signature>, required = false)]
    signature: Option<Option<Signature>>,
    /// Whether endpoints must have https URLs
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<Ssl>, required = false)]
    ssl: Option<Option<Ssl>>,
    /// Whether an endpoint may have several subscriptions
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<bool>, required = false)]
    multiple_endpoint_subscriptions: Option<Option<bool>>,
    /// Only noted: the `advanced_signatures` of an endpoint decide
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<bool>, required = false)]
    replay_attacks_prevention_enabled: Option<Option<bool>>,
    /// Only noted: it is known before the answer where an event goes
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<bool>, required = false)]
    verify_dynamic_events: Option<Option<bool>>,
    /// Only noted: every URL of a dynamic event makes an endpoint
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<bool>, required = false)]
    allow_unmatched_dynamic_urls: Option<Option<bool>>,
    /// Only noted
    #[serde(deserialize_with = "nullable")]
    #[schema(value_type = Option<Text>, required = false)]
    search_policy: Option<Option<Text>>,
    #[schema(ignore)]
    disable_endpoint: Option<bool>,
    #[schema(ignore)]
    add_event_id_trace_headers: Option<bool>,
    #[schema(ignore)]
    max_payload_read_size: Option<u64>,
    #[schema(ignore)]
    request_id_header: Option<String>,
    #[schema(ignore)]
    ratelimit: Option<Value>,
    #[schema(ignore)]
    circuit_breaker: Option<Value>,
    #[schema(ignore)]
    meta_event: Option<MetaEvent>,
}

#[derive(Debug, Deserialize)]
struct MetaEvent {
    #[serde(default)]
    is_enabled: bool,
}

/// How waits between attempts follow each other.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ConvoyStrategyType)]
enum StrategyType {
    /// All are the same.
    Linear,
    /// Each is twice the one before it, up to two hours.
    Exponential,
}

/// When a delivery is tried again.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = ConvoyStrategy)]
pub(crate) struct Strategy {
    #[serde(rename = "type")]
    kind: StrategyType,
    /// The wait after the first attempt, in seconds
    #[schema(minimum = 1, example = 100)]
    duration: u64,
    /// How often a delivery is attempted, the first time included
    #[schema(minimum = 1, maximum = 100, example = 10)]
    retry_count: u32,
}

impl<'de> Deserialize<'de> for Strategy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Given {
            #[serde(rename = "type")]
            kind: StrategyType,
            duration: u64,
            retry_count: u32,
        }
        let Given { kind, duration, retry_count } = Given::deserialize(deserializer)?;
        let growth = match kind {
            StrategyType::Linear => Growth::Linear,
            StrategyType::Exponential => Growth::Exponential,
        };
        RetryStrategy::new(growth, Duration::from_secs(duration), retry_count).map_err(D::Error::custom)?;
        Ok(Self { kind, duration, retry_count })
    }
}

/// How webhooks are signed.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = ConvoySignature)]
pub(crate) struct Signature {
    /// The header that carries the signature
    #[serde(default = "signature_header", deserialize_with = "header_name")]
    #[schema(value_type = String, required = false, example = "X-Convoy-Signature")]
    header: String,
    /// One for each hash; an advanced signature has all of them, a simple one the last
    #[serde(default = "first_version", deserialize_with = "versions")]
    #[schema(required = false, min_items = 1, max_items = 5)]
    versions: Vec<SignatureVersion>,
}

/// One way to sign.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = ConvoySignatureVersion)]
pub(crate) struct SignatureVersion {
    hash: HashName,
    encoding: EncodingName,
    /// As it was given
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<Text>,
    /// As it was given
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_at: Option<Text>,
}

/// The hash of an HMAC.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = ConvoyHash)]
enum HashName {
    /// SHA-256.
    SHA256,
    /// SHA-512.
    SHA512,
}

/// How an HMAC is written.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ConvoyEncoding)]
enum EncodingName {
    /// Hexadecimal digits.
    Hex,
    /// Base64.
    Base64,
}

/// What endpoints must be.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = ConvoySsl)]
pub(crate) struct Ssl {
    /// Whether their URLs must be https
    #[serde(default)]
    #[schema(required = false)]
    enforce_secure_endpoints: bool,
}

fn signature_header() -> String {
    SIGNATURE_HEADER.to_owned()
}

fn first_version() -> Vec<SignatureVersion> {
    vec![SignatureVersion { hash: HashName::SHA256, encoding: EncodingName::Hex, uid: None, created_at: None }]
}

fn header_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if name.is_empty() || name.eq_ignore_ascii_case(SIGNATURE_HEADER) {
        return Ok(signature_header());
    }
    match domain::project::signature_header(&name) {
        Some(_) => Ok(name),
        None => Err(D::Error::custom("must be the name of a header that is not reserved, such as `X-Convoy-Signature`")),
    }
}

fn versions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SignatureVersion>, D::Error> {
    let versions = Option::<Vec<SignatureVersion>>::deserialize(deserializer)?.unwrap_or_default();
    match versions.len() {
        0 => Ok(first_version()),
        1..=MAX_VERSIONS => Ok(versions),
        _ => Err(D::Error::custom(format!("must be at most {MAX_VERSIONS}"))),
    }
}

impl ConfigIn {
    /// What of it is to be kept, by name.
    pub(super) fn into_map(self, max_payload: usize) -> ApiResult<Map<String, Value>> {
        self.check(max_payload)?;
        let mut map = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(name.to_owned(), value);
            }
        };
        put("strategy", self.strategy.map(|strategy| json!(strategy)));
        put("signature", self.signature.map(|signature| json!(signature)));
        put("ssl", self.ssl.map(|ssl| json!(ssl)));
        put("multiple_endpoint_subscriptions", self.multiple_endpoint_subscriptions.map(|flag| json!(flag)));
        put("replay_attacks_prevention_enabled", self.replay_attacks_prevention_enabled.map(|flag| json!(flag)));
        put("verify_dynamic_events", self.verify_dynamic_events.map(|flag| json!(flag)));
        put("allow_unmatched_dynamic_urls", self.allow_unmatched_dynamic_urls.map(|flag| json!(flag)));
        put("search_policy", self.search_policy.map(|text| json!(text)));
        Ok(map)
    }

    /// Refuses what would not happen.
    fn check(&self, max_payload: usize) -> ApiResult<()> {
        let refuse = |name: &str, why: String| Err(ApiError::invalid(&["body", "config", name], why));
        if self.disable_endpoint == Some(true) {
            let why = "must be false: endpoints are switched off when nothing has reached them for days, not when one event is given up";
            return refuse("disable_endpoint", why.into());
        }
        if self.add_event_id_trace_headers == Some(true) {
            let why = "must be false: the header `webhook-id` of every request names its event";
            return refuse("add_event_id_trace_headers", why.into());
        }
        if self.request_id_header.as_ref().is_some_and(|name| !name.is_empty() && !name.eq_ignore_ascii_case(KEY_HEADER)) {
            return refuse("request_id_header", format!("must be `{KEY_HEADER}`: other names are not supported yet"));
        }
        if self.max_payload_read_size.is_some_and(|size| size != 0 && usize::try_from(size) != Ok(max_payload)) {
            let why = format!("must be {max_payload} or be left out: POSTHASTE_MAX_PAYLOAD sets it for all projects");
            return refuse("max_payload_read_size", why);
        }
        if self.ratelimit.is_some() {
            return refuse("ratelimit", "must be null: limit endpoints by their `rate_limit` and `rate_limit_duration`".into());
        }
        if self.circuit_breaker.is_some() {
            return refuse("circuit_breaker", "must be null: endpoints that fail are held and probed, and nothing is to be set".into());
        }
        if self.meta_event.as_ref().is_some_and(|meta| meta.is_enabled) {
            let why = "must not be enabled: subscribe to the same by POST /api/v1/operational-webhook/endpoint";
            return refuse("meta_event", why.into());
        }
        Ok(())
    }
}

/// How a project wants its webhooks made; what it does not say is null or the default.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyProjectConfig)]
#[expect(clippy::struct_excessive_bools, reason = "they are the contract's")]
pub(crate) struct ConfigOut {
    /// The largest request body, in bytes
    max_payload_read_size: usize,
    multiple_endpoint_subscriptions: bool,
    add_event_id_trace_headers: bool,
    disable_endpoint: bool,
    replay_attacks_prevention_enabled: bool,
    verify_dynamic_events: bool,
    allow_unmatched_dynamic_urls: bool,
    #[schema(example = "X-Convoy-Idempotency-Key")]
    request_id_header: &'static str,
    search_policy: String,
    #[schema(value_type = Option<Object>, required)]
    ratelimit: Option<()>,
    /// Null: as the installation has it
    #[schema(value_type = Option<Strategy>, required)]
    strategy: Value,
    #[schema(value_type = Signature)]
    signature: Value,
    #[schema(value_type = Ssl)]
    ssl: Value,
    #[schema(value_type = Option<Object>, required)]
    meta_event: Option<()>,
    #[schema(value_type = Option<Object>, required)]
    circuit_breaker: Option<()>,
}

impl ConfigOut {
    /// That of a project.
    pub(super) fn of(project: &Project, max_payload: usize) -> Self {
        let set = |name: &str| project.config.get(name);
        let flag = |name: &str| set(name).and_then(Value::as_bool).unwrap_or_default();
        let signature = Signature { header: signature_header(), versions: first_version() };
        let mut signature = set("signature").cloned().unwrap_or_else(|| json!(signature));
        for version in signature["versions"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            version.entry("uid").or_insert_with(|| project.tenant_id.ulid().into());
            version.entry("created_at").or_insert_with(|| json!(Time(project.created_at)));
        }
        Self {
            max_payload_read_size: max_payload,
            multiple_endpoint_subscriptions: flag("multiple_endpoint_subscriptions"),
            add_event_id_trace_headers: false,
            disable_endpoint: false,
            replay_attacks_prevention_enabled: flag("replay_attacks_prevention_enabled"),
            verify_dynamic_events: flag("verify_dynamic_events"),
            allow_unmatched_dynamic_urls: flag("allow_unmatched_dynamic_urls"),
            request_id_header: KEY_HEADER,
            search_policy: set("search_policy").and_then(Value::as_str).unwrap_or_default().to_owned(),
            ratelimit: None,
            strategy: set("strategy").cloned().unwrap_or_default(),
            signature,
            ssl: set("ssl").cloned().unwrap_or_else(|| json!(Ssl { enforce_secure_endpoints: false })),
            meta_event: None,
            circuit_breaker: None,
        }
    }
}
