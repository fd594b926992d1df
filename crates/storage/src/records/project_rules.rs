//! How a tenant wants the webhooks of all its endpoints made: what the configuration of its project says of it.

use std::{sync::Arc, time::Duration};

use domain::{
    convoy_signature::Version,
    id::TenantId,
    mac::{Encoding, Hash},
    project::{Rules, signature_header},
    retry_strategy::{Growth, RetryStrategy},
};
use serde_json::{Value, json};
use sqlx::types::Uuid;

use crate::{Result, connection::Connection};

/// The names of [`Growth`] in the tables.
const GROWTHS: [(Growth, &str); 2] = [(Growth::Linear, "linear"), (Growth::Exponential, "exponential")];
/// The names of [`Hash`].
const HASHES: [(Hash, &str); 2] = [(Hash::Sha256, "SHA256"), (Hash::Sha512, "SHA512")];
/// The names of [`Encoding`].
const ENCODINGS: [(Encoding, &str); 2] = [(Encoding::Hex, "hex"), (Encoding::Base64, "base64")];

/// The rules that hold for a tenant in the snapshot of `connection`.
pub(crate) async fn of(connection: &mut Connection, tenant_id: TenantId) -> Result<Arc<Rules>> {
    let config =
        sqlx::query_scalar!("select config from project where tenant_id = $1", Uuid::from(tenant_id)).fetch_optional(connection).await?;
    Ok(Arc::new(config.as_ref().map(read).unwrap_or_default()))
}

/// The rules of a project's configuration: what is missing or strange in it is as it is with all others.
pub fn read(config: &Value) -> Rules {
    let (default, signature) = (Rules::default(), &config["signature"]);
    let versions: Vec<_> = signature["versions"].as_array().into_iter().flatten().filter_map(version).collect();
    Rules {
        signature_header: signature["header"].as_str().and_then(signature_header).unwrap_or(default.signature_header),
        signature_versions: if versions.is_empty() { default.signature_versions } else { versions },
        retry: read_strategy(&config["strategy"]),
        has_many_subscriptions: config["multiple_endpoint_subscriptions"].as_bool().unwrap_or(default.has_many_subscriptions),
    }
}

fn version(written: &Value) -> Option<Version> {
    Some(Version { hash: named(&HASHES, &written["hash"])?, encoding: named(&ENCODINGS, &written["encoding"])? })
}

fn named<T: Copy>(known: &[(T, &str)], name: &Value) -> Option<T> {
    let name = name.as_str()?;
    known.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(value, _)| *value)
}

/// A retry strategy: `{"type", "duration": seconds, "retry_count"}`, each of which may be missing; nothing, if it is none that we could follow.
pub(crate) fn read_strategy(written: &Value) -> Option<RetryStrategy> {
    let (written, default) = (written.as_object()?, RetryStrategy::default());
    let growth = written.get("type").map_or(Some(default.growth()), |name| named(&GROWTHS, name))?;
    let seconds = written.get("duration").map_or(Some(default.interval().as_secs()), Value::as_u64)?;
    let attempts = written.get("retry_count").map_or(Some(default.attempts().into()), Value::as_u64)?;
    RetryStrategy::new(growth, Duration::from_secs(seconds), u32::try_from(attempts).ok()?).ok()
}

/// Writes what [`read_strategy`] reads.
pub(crate) fn write_strategy(strategy: RetryStrategy) -> Value {
    let growth = GROWTHS.into_iter().find(|(known, _)| *known == strategy.growth()).map_or("", |(_, name)| name);
    json!({ "type": growth, "duration": strategy.interval().as_secs(), "retry_count": strategy.attempts() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_project_says_holds_and_what_is_missing_or_strange_is_as_ever() {
        for nothing in
            [json!({}), json!(null), json!([]), json!({"signature": 5, "strategy": "often", "multiple_endpoint_subscriptions": "yes"})]
        {
            assert_eq!(read(&nothing), Rules::default(), "{nothing}");
        }
        let said = json!({
            "strategy": {"type": "exponential", "duration": 30, "retry_count": 4},
            "signature": {"header": "X-Acme-Signature", "versions": [
                {"hash": "SHA256", "encoding": "hex"}, {"hash": "MD5", "encoding": "hex"}, {"hash": "sha512", "encoding": "base64"}]},
            "multiple_endpoint_subscriptions": true,
            "ssl": {"enforce_secure_endpoints": true},
        });
        let expected = Rules {
            signature_header: "x-acme-signature".to_owned(),
            signature_versions: vec![Version::default(), Version { hash: Hash::Sha512, encoding: Encoding::Base64 }],
            retry: RetryStrategy::new(Growth::Exponential, Duration::from_secs(30), 4).ok(),
            has_many_subscriptions: true,
        };
        assert_eq!(read(&said), expected);
        assert_eq!(expected.retry.map(write_strategy), Some(said["strategy"].clone()));
        assert_eq!(read(&json!({"signature": {"header": "Host", "versions": []}})), Rules::default());
    }

    #[test]
    fn a_strategy_may_be_said_in_part_and_one_without_bounds_is_none() {
        assert_eq!(read_strategy(&json!({})), Some(RetryStrategy::default()));
        let twice = read_strategy(&json!({"retry_count": 2})).expect("a strategy");
        assert_eq!((twice.attempts(), twice.interval()), (2, Duration::from_secs(100)));
        for none in [
            json!({"duration": 0}),
            json!({"retry_count": 0}),
            json!({"retry_count": 1000}),
            json!({"type": "random"}),
            json!({"duration": "1m"}),
        ] {
            assert_eq!(read_strategy(&none), None, "{none}");
        }
    }
}
