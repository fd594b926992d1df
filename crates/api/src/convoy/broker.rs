//! Sources that are read from a broker: their configuration is checked, so that whoever moves here hears of mistakes, and then refused by name.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::verifier::Wrong;

/// The kinds of brokers, each with what its configuration must say.
const BROKERS: [(&str, &[&str]); 4] = [
    ("sqs", &["queue_name", "access_key_id", "secret_key", "default_region"]),
    ("google", &["project_id", "subscription_id", "service_account"]),
    ("kafka", &["brokers", "topic_name"]),
    ("amqp", &["schema", "host", "port", "queue"]),
];

/// Where a broker is.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyPubSubIn)]
pub(super) struct PubSubIn {
    /// `sqs`, `google`, `kafka` or `amqp`
    #[serde(rename = "type", default)]
    kind: String,
    /// How many read from it at a time
    #[serde(default, rename = "workers")]
    _workers: Option<u32>,
    /// What is said of each kind
    #[serde(flatten)]
    #[schema(value_type = Object)]
    brokers: Map<String, Value>,
}

impl PubSubIn {
    /// Whether it says all that reading from the broker would take.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        let broker = BROKERS.iter().find(|(name, _)| *name == self.kind);
        let (name, wanted) = broker.ok_or(("pub_sub.type", "must be `sqs`, `google`, `kafka` or `amqp`".to_owned()))?;
        let said = self.brokers.get(*name).and_then(Value::as_object);
        let said = said.ok_or_else(|| ("pub_sub", format!("must have `{name}`, an object that says where the broker is")))?;
        let is_said = |field: &&&str| match said.get(**field) {
            Some(Value::String(text)) => !text.trim().is_empty(),
            Some(Value::Array(items)) => {
                **field == "brokers" && !items.is_empty() && items.iter().all(|item| item.as_str().is_some_and(|text| !text.is_empty()))
            }
            Some(Value::Number(number)) => **field == "port" && number.is_u64(),
            _ => false,
        };
        match wanted.iter().find(|field| !is_said(field)) {
            Some(field) => Err(("pub_sub", format!("must say `{field}` in `{name}`"))),
            None => Ok(()),
        }
    }
}
