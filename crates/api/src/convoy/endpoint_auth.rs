//! What an endpoint's requests carry so that it lets them in: a header, as all custom headers are.

use domain::{
    endpoint::{Headers, check_headers},
    mac::Encoding,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fields::Text;
use crate::error::{ApiError, ApiResult};

/// The header of user names and passwords.
const AUTHORIZATION: &str = "Authorization";
/// What its value begins with.
const BASIC: &str = "Basic ";

/// How an endpoint is told that a request is ours.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConvoyAuthenticationUpdate)]
pub(crate) struct AuthenticationIn {
    /// Which of the others counts
    #[serde(default, rename = "type")]
    #[schema(required = false)]
    kind: AuthenticationType,
    /// A header and its value
    api_key: Option<ApiKeyIn>,
    /// A user name and a password
    basic_auth: Option<BasicAuth>,
}

/// The ways to do so.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ConvoyAuthenticationType)]
enum AuthenticationType {
    /// A header.
    ApiKey,
    /// A user name and a password.
    BasicAuth,
    /// Tokens of a server of its own, which we do not fetch.
    Oauth2,
    /// As it is.
    #[default]
    #[serde(rename = "")]
    None,
}

/// A header.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = ConvoyApiKeyHeader)]
struct ApiKeyIn {
    #[schema(example = "X-Api-Key")]
    header_name: Text,
    header_value: Text,
}

/// A user name and a password.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = ConvoyBasicAuth)]
struct BasicAuth {
    username: Text,
    password: Text,
}

/// The header of a user name and a password.
pub(super) fn basic_header(username: &str, password: &str) -> Result<(String, String), &'static str> {
    if username.contains(':') {
        return Err("must not contain `:`, which ends it");
    }
    let both = format!("{username}:{password}");
    Ok((AUTHORIZATION.to_owned(), format!("{BASIC}{}", Encoding::Base64.encode(both.as_bytes()))))
}

impl AuthenticationIn {
    /// The headers that come of it; nothing, if it asks for nothing.
    pub(super) fn headers(&self) -> ApiResult<Option<Headers>> {
        let missing = |name: &str| ApiError::invalid(&["body", "authentication", name], "is missing: `type` names it");
        let (name, value) = match self.kind {
            AuthenticationType::None => return Ok(None),
            AuthenticationType::Oauth2 => return Err(ApiError::NotYet("`authentication` of an endpoint by oauth2".to_owned())),
            AuthenticationType::ApiKey => {
                let ApiKeyIn { header_name, header_value } = self.api_key.as_ref().ok_or_else(|| missing("api_key"))?;
                (header_name.0.clone(), header_value.0.clone())
            }
            AuthenticationType::BasicAuth => {
                let BasicAuth { username, password } = self.basic_auth.as_ref().ok_or_else(|| missing("basic_auth"))?;
                let place = ["body", "authentication", "basic_auth", "username"];
                basic_header(&username.0, &password.0).map_err(|why| ApiError::invalid(&place, why))?
            }
        };
        let headers = Headers::from([(name, value)]);
        let place = ["body", "authentication", if self.kind == AuthenticationType::ApiKey { "api_key" } else { "basic_auth" }];
        check_headers(&headers).map_err(|error| ApiError::invalid(&place, error.to_string()))?;
        Ok(Some(headers))
    }
}

/// How an endpoint is told that a request is ours, as far as its headers show it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConvoyAuthentication)]
pub(crate) struct AuthenticationOut {
    #[serde(rename = "type")]
    kind: AuthenticationType,
    #[schema(required)]
    api_key: Option<ApiKeyIn>,
    #[schema(required)]
    basic_auth: Option<BasicAuth>,
    #[schema(value_type = Option<Object>, required)]
    oauth2: Option<()>,
}

impl AuthenticationOut {
    /// Of several headers, which an endpoint of the other dialect may have, the first.
    pub(super) fn of(headers: &Headers, with_secrets: bool) -> Option<Self> {
        let basic = headers
            .iter()
            .find_map(|(name, value)| Some(value).filter(|_| name.eq_ignore_ascii_case(AUTHORIZATION)).and_then(|value| basic(value)));
        let hidden = |text: String| Text(if with_secrets { text } else { String::new() });
        if let Some((username, password)) = basic {
            let basic_auth = Some(BasicAuth { username: Text(username), password: hidden(password) });
            return Some(Self { kind: AuthenticationType::BasicAuth, api_key: None, basic_auth, oauth2: None });
        }
        let (name, value) = headers.first_key_value()?;
        let api_key = Some(ApiKeyIn { header_name: Text(name.clone()), header_value: hidden(value.clone()) });
        Some(Self { kind: AuthenticationType::ApiKey, api_key, basic_auth: None, oauth2: None })
    }
}

fn basic(value: &str) -> Option<(String, String)> {
    let text = String::from_utf8(Encoding::Base64.decode(value.strip_prefix(BASIC)?)?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn headers(authentication: Value) -> ApiResult<Option<Headers>> {
        serde_json::from_value::<AuthenticationIn>(authentication).expect("its shape").headers()
    }

    #[test]
    fn what_lets_requests_in_is_a_header_and_is_shown_as_it_was_asked_for() {
        let api_key = json!({ "type": "api_key", "api_key": { "header_name": "X-Api-Key", "header_value": "sesame" } });
        let basic_auth = json!({ "type": "basic_auth", "basic_auth": { "username": "me", "password": "a:b" } });
        for (asked, name, value) in [(&api_key, "X-Api-Key", "sesame"), (&basic_auth, "Authorization", "Basic bWU6YTpi")] {
            let made = headers(asked.clone()).expect("headers").expect("some");
            assert_eq!(made, Headers::from([(name.to_owned(), value.to_owned())]));
            let shown = json!(AuthenticationOut::of(&made, true));
            let kind = asked["type"].as_str().expect("a type");
            assert_eq!((&shown["type"], &shown[kind]), (&asked["type"], &asked[kind]));
            assert!(!json!(AuthenticationOut::of(&made, false)).to_string().contains(if kind == "api_key" { "sesame" } else { "a:b" }));
        }
        assert_eq!(headers(json!({ "type": "" })).expect("nothing"), None);
        assert!(AuthenticationOut::of(&Headers::new(), true).is_none());
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for asked in [
            json!({ "type": "api_key" }),
            json!({ "type": "basic_auth", "api_key": { "header_name": "X", "header_value": "y" } }),
            json!({ "type": "api_key", "api_key": { "header_name": "Host", "header_value": "y" } }),
            json!({ "type": "api_key", "api_key": { "header_name": "X-A", "header_value": "a\nb" } }),
            json!({ "type": "basic_auth", "basic_auth": { "username": "a:b", "password": "c" } }),
        ] {
            assert!(matches!(headers(asked.clone()), Err(ApiError::Invalid(_))), "{asked}");
        }
        assert!(matches!(headers(json!({ "type": "oauth2", "oauth2": {} })), Err(ApiError::NotYet(_))));
    }
}
