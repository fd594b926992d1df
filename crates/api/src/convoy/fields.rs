//! Fields of the dialect: what they hold, how they are read, and how they are documented.

use domain::{
    application::{MAX_NAME, Uid, check_name},
    endpoint::EndpointUrl,
    id::ApplicationId,
    idempotency::{MAX_KEY, check_message_key},
    signing::Secret,
};
use serde::Serialize;
use serde_json::json;
use utoipa::openapi::SchemaFormat;

use crate::transport::text_field::{text, text_field};

/// The longest text that people read, in bytes.
const MAX_TEXT: usize = 4096;

/// A text that the database can hold.
pub(crate) fn plain(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        Err("must not contain NUL characters".into())
    } else if text.len() > MAX_TEXT {
        Err(format!("must be at most {MAX_TEXT} bytes long"))
    } else {
        Ok(text.to_owned())
    }
}

text_field!(
    /// Any text of at most 4096 bytes without NUL characters.
    Text as "Convoy.Text", String, plain, text().pattern(Some(r"^[^\x00]*$")).max_length(Some(MAX_TEXT))
);
text_field!(
    /// What people call a thing.
    Title as "Convoy.Title", String, |text| if text.trim().is_empty() { Err("must not be empty".into()) } else { plain(text) },
    text().pattern(Some(r"^[^\x00]*[^\x00\s][^\x00]*$")).max_length(Some(MAX_TEXT))
);
text_field!(
    /// Where webhooks go: an http or https URL without credentials, international names in punycode.
    Url as "Convoy.Url", EndpointUrl, |text| EndpointUrl::parse(text).map_err(|error| error.to_string()),
    text().format(Some(SchemaFormat::Custom("uri".into()))).max_length(Some(2048))
);

text_field!(
    /// The name of an event type.
    EventTypeName as "Convoy.EventTypeName", String,
    |text| check_name(text).map(|()| text.to_owned()).map_err(|error| error.to_string()),
    text().pattern(Some(r"^[a-zA-Z0-9\-_.]+$")).min_length(Some(1)).max_length(Some(MAX_NAME)).examples([json!("user.signup")])
);

text_field!(
    /// Dedupes events of the whole project: at most 255 visible ASCII characters. An empty one is none.
    EventKey as "Convoy.EventKey", String,
    |text| if text.is_empty() { Ok(String::new()) } else { check_message_key(text).map(|()| text.to_owned()).map_err(|error| error.to_string()) },
    text().max_length(Some(MAX_KEY)).pattern(Some("^([!-~]([ -~]*[!-~])?)?$")).examples([json!("order-4711-paid")])
);
text_field!(
    /// The tenant's name for one of its customers; empty is none. Letters, digits, `-`, `_` and `.`, and not like an id of ours.
    Owner as "Convoy.Owner", Option<Uid>,
    |text| if text.is_empty() { Ok(None) } else { Uid::parse::<ApplicationId>(text).map(Some).map_err(|error| error.to_string()) },
    text().pattern(Some(r"^[a-zA-Z0-9\-_.]*$")).max_length(Some(MAX_NAME)).examples([json!("customer-4711")])
);
text_field!(
    /// A secret that signs webhooks: any text, which is used as it is; empty is none.
    SecretText as "Convoy.Secret", String, plain, text().pattern(Some(r"^[^\x00]*$")).max_length(Some(MAX_TEXT))
);

impl SecretText {
    /// The secret, if there is one.
    pub(crate) fn secret(&self) -> Option<Secret> {
        (!self.0.is_empty()).then(|| Secret::symmetric(self.0.as_bytes().to_vec()))
    }
}

impl Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
