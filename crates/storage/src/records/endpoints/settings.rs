//! The settings of an endpoint as its row keeps them: a JSON object, or nothing.

use std::time::Duration;

use domain::endpoint::{Settings, SignatureStyle};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::project_rules::{read_strategy, write_strategy};

/// A field that the endpoint does not have is absent.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttle_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    throttle_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    support_email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slack_webhook_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    teams_webhook_url: Option<String>,
}

/// The names of [`SignatureStyle`] in the table.
const STYLES: [(SignatureStyle, &str); 2] = [(SignatureStyle::Simple, "simple"), (SignatureStyle::Advanced, "advanced")];

/// Reads them; what is no such object is none.
pub(super) fn read(written: Value) -> Settings {
    let written: Written = serde_json::from_value(written).unwrap_or_default();
    let style = |name: String| STYLES.into_iter().find(|(_, known)| *known == name).map(|(style, _)| style);
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
    Settings {
        name: written.name,
        owner: written.owner,
        signature: written.signature.and_then(style),
        timeout: written.timeout_seconds.and_then(seconds),
        retry: written.retry.as_ref().and_then(read_strategy),
        throttle_count: written.throttle_count,
        throttle_per: written.throttle_seconds.and_then(seconds),
        content_type: written.content_type,
        support_email: written.support_email,
        slack_webhook_url: written.slack_webhook_url,
        teams_webhook_url: written.teams_webhook_url,
    }
}

/// Writes them; nothing, if they are those of most.
pub(super) fn write(settings: &Settings) -> Option<Value> {
    if *settings == Settings::default() {
        return None;
    }
    let settings = settings.clone();
    let name = |style: SignatureStyle| STYLES.into_iter().find(|(known, _)| *known == style).map(|(_, name)| name.to_owned());
    let written = Written {
        name: settings.name,
        owner: settings.owner,
        signature: settings.signature.and_then(name),
        timeout_seconds: settings.timeout.map(|timeout| timeout.as_secs_f64()),
        retry: settings.retry.map(write_strategy),
        throttle_count: settings.throttle_count,
        throttle_seconds: settings.throttle_per.map(|per| per.as_secs_f64()),
        content_type: settings.content_type,
        support_email: settings.support_email,
        slack_webhook_url: settings.slack_webhook_url,
        teams_webhook_url: settings.teams_webhook_url,
    };
    Some(serde_json::to_value(written).expect("texts and numbers are JSON"))
}

#[cfg(test)]
mod tests {
    use domain::retry_strategy::{Growth, RetryStrategy};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_is_read_back_and_most_have_nothing() {
        let settings = Settings {
            name: Some("billing".into()),
            owner: Some("team-1".into()),
            signature: Some(SignatureStyle::Advanced),
            timeout: Some(Duration::from_millis(1500)),
            retry: RetryStrategy::new(Growth::Exponential, Duration::from_secs(20), 3).ok(),
            throttle_count: Some(7),
            throttle_per: Some(Duration::from_mins(1)),
            content_type: Some("application/json".into()),
            support_email: Some("a@example.com".into()),
            slack_webhook_url: Some("https://hooks.example/a".into()),
            teams_webhook_url: Some("https://hooks.example/b".into()),
        };
        assert_eq!(read(write(&settings).expect("some")), settings);
        let simple = Settings { signature: Some(SignatureStyle::Simple), ..Settings::default() };
        assert_eq!(write(&simple), Some(json!({ "signature": "simple" })));
        assert_eq!(write(&Settings::default()), None);
        for strange in
            [json!([]), json!({ "signature": 5 }), json!({ "signature": "none", "timeout_seconds": -1.0, "retry": {"retry_count": 0} })]
        {
            assert_eq!(read(strange), Settings::default());
        }
    }
}
