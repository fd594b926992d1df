//! The fields of request bodies: each type reads only what its field may hold, so that a body that parses is valid.

use std::collections::BTreeMap;

use domain::{
    application::{InvalidName, MAX_NAME, Metadata, Uid, check_metadata, check_name, check_text},
    endpoint::EndpointUrl,
    id::{ApplicationId, EndpointId, MessageId},
    idempotency::{MAX_KEY, check_message_key},
    message::{MAX_ENDPOINT_CHANNELS, MAX_MESSAGE_CHANNELS},
    signing::Secret,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny},
};
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema, SchemaFormat,
        schema::{AdditionalProperties, ArrayBuilder, Type},
    },
};

use super::own_event::NAMES;
use crate::{
    error::{ApiError, ApiResult},
    transport::text_field::{text, text_field},
};

pub(crate) use crate::transport::json::{has_nul, nullable, present};

/// The names that stand in paths: uids, event ids, event type names. All but `.` and `..`, which URLs resolve away.
pub(crate) const NAME: &str = r"^(\.*[a-zA-Z0-9\-_][a-zA-Z0-9\-_.]*|\.{3,})$";
/// The same, without what looks like an id of the thing that is named.
const APPLICATION_UID: &str = r"^(?!app_)(\.*[a-zA-Z0-9\-_][a-zA-Z0-9\-_.]*|\.{3,})$";
const ENDPOINT_UID: &str = r"^(?!ep_)(\.*[a-zA-Z0-9\-_][a-zA-Z0-9\-_.]*|\.{3,})$";
const EVENT_ID: &str = r"^(?!msg_)(\.*[a-zA-Z0-9\-_][a-zA-Z0-9\-_.]*|\.{3,})$";
/// The names that never do: channels and labels.
const LABEL: &str = r"^[a-zA-Z0-9\-_.]+$";
/// The longest name of a session, as Svix has it.
const MAX_SESSION: usize = 64;
/// The longest channel, in bytes (the SDK contract).
const MAX_CHANNEL: usize = 128;
/// What messages are found by.
const TAG: &str = r"^[a-zA-Z0-9\-_./\\#]+$";
/// The longest tag, in bytes, and how many a message may have (the SDK contract).
const MAX_TAG: usize = 128;
const MAX_TAGS: usize = 10;
/// Visible ASCII that may contain spaces but not begin or end with one: the text travels in a header.
const MESSAGE_KEY: &str = "^[!-~]([ -~]*[!-~])?$";
/// What every URL that is accepted looks like; whether the host is one, in each of the ways in which an address can be written, is more than
/// a pattern can tell.
const URL: &str = r"^[hH][tT][tT][pP][sS]?:[a-zA-Z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+$";
/// `whsec_` and the base64 of 24 to 75 bytes, or `whsk_` and that of an ed25519 key pair; the bits that no byte needs are zero.
const SECRET: &str = r"^(whsec_([a-zA-Z0-9+/]{4}){8,24}([a-zA-Z0-9+/]{4}|[a-zA-Z0-9+/][AQgw]==|[a-zA-Z0-9+/]{2}[AEIMQUYcgkosw048]=)?|whsk_[a-zA-Z0-9+/]{85}[AQgw]==)$";
/// An idempotency key in a header: plain, or as a String of RFC 8941, whose parameters mean nothing to us.
pub(crate) const HEADER_KEY: &str = r#"^([!#-~]([ -~]{0,253}[!-~])?|"([ !#-\[\]-~]|\\["\\]){1,255}"([ \t]*;[\s\S]*)?)$"#;
fn name(longest: usize, example: &str) -> ObjectBuilder {
    text().min_length(Some(1)).max_length(Some(longest)).pattern(Some(NAME)).examples([json!(example)])
}

fn label(longest: usize, example: &str) -> ObjectBuilder {
    name(longest, example).pattern(Some(LABEL))
}

fn told<T>(result: Result<T, InvalidName>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

fn without_nul(text: &str) -> Result<String, String> {
    if text.contains('\0') { Err("must not contain NUL characters".into()) } else { Ok(text.to_owned()) }
}

text_field!(
    /// Any text but one with NUL characters.
    Text(String), without_nul, text().pattern(Some(r"^[^\x00]*$")).examples([json!("An example")])
);
text_field!(
    /// The name of an application.
    ApplicationName(String),
    |text| if text.is_empty() { Err("must not be empty".into()) } else { without_nul(text) },
    text().min_length(Some(1)).pattern(Some(r"^[^\x00]+$")).examples([json!("My first application")])
);
text_field!(
    /// The tenant's own name for an application. Must not begin with `app_`.
    ApplicationUid(Uid), |text| told(Uid::parse::<ApplicationId>(text)), name(MAX_NAME, "unique-app-identifier").pattern(Some(APPLICATION_UID))
);
text_field!(
    /// The tenant's own name for an endpoint. Must not begin with `ep_`.
    EndpointUid(Uid), |text| told(Uid::parse::<EndpointId>(text)), name(MAX_NAME, "unique-ep-identifier").pattern(Some(ENDPOINT_UID))
);
text_field!(
    /// The publisher's own name for a message. Must not begin with `msg_`.
    EventId(Uid), |text| told(Uid::parse::<MessageId>(text)), name(MAX_NAME, "unique-msg-identifier").pattern(Some(EVENT_ID))
);
text_field!(
    /// The id of a message, or its publisher's own name for it.
    MessageName(String), |text| told(check_name(text).map(|()| text.to_owned())), name(MAX_NAME, "unique-msg-identifier")
);
text_field!(
    /// The name of an event type.
    EventTypeName(String), |text| told(check_name(text).map(|()| text.to_owned())), name(MAX_NAME, "user.signup")
);
text_field!(
    /// What happens to the tenant's own endpoints and messages.
    OwnEventType(String),
    |text| if NAMES.contains(&text) { Ok(text.to_owned()) } else { Err(format!("must be one of {}", NAMES.join(", "))) },
    text().enum_values(Some(NAMES)).examples([json!("endpoint.disabled")])
);
text_field!(
    /// A plain name.
    Label(String), |text| told(check_text(text).map(|()| text.to_owned())), label(MAX_NAME, "cool-new-feature")
);
text_field!(
    /// What several tokens have in common, so that they can be expired together: 1 to 64 letters, digits, `@`, `-` and `_`.
    SessionId(String),
    |text| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'@' | b'-' | b'_');
        let is_one = (1..=MAX_SESSION).contains(&text.len()) && text.bytes().all(is_allowed);
        if is_one { Ok(text.to_owned()) } else { Err(format!("must be 1 to {MAX_SESSION} letters, digits, `@`, `-` or `_`")) }
    },
    text().min_length(Some(1)).max_length(Some(MAX_SESSION)).pattern(Some("^[a-zA-Z0-9@_-]+$")).examples([json!("user_1FB8")])
);
text_field!(
    /// A channel.
    Channel(String),
    |text| if text.len() > MAX_CHANNEL {
        Err(format!("must be 1 to {MAX_CHANNEL} characters long"))
    } else {
        told(check_text(text).map(|()| text.to_owned()))
    },
    label(MAX_CHANNEL, "project_1337")
);
text_field!(
    /// What messages are found by.
    Tag(String),
    |text| {
        let is_one = (1..=MAX_TAG).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./\\#".contains(&byte));
        if is_one { Ok(text.to_owned()) } else { Err(format!("must be 1 to {MAX_TAG} letters, digits and `-_./\\#`")) }
    },
    label(MAX_TAG, "my_tag").pattern(Some(TAG))
);
text_field!(
    /// The key that dedupes messages: a second message with it is stored, flagged and not delivered.
    MessageKey(String), |text| check_message_key(text).map(|()| text.to_owned()).map_err(|error| error.to_string()),
    text().min_length(Some(1)).max_length(Some(MAX_KEY)).pattern(Some(MESSAGE_KEY)).examples([json!("order-4711-paid")])
);
text_field!(
    /// Where webhooks go: an http or https URL without credentials, international names in punycode. The pattern admits every URL that is accepted,
    /// and some texts that are no URL, which are a 422.
    WebhookUrl(EndpointUrl), |text| EndpointUrl::parse(text).map_err(|error| error.to_string()),
    text().format(Some(SchemaFormat::Custom("uri".into())))
        .max_length(Some(2048)).pattern(Some(URL)).examples([json!("https://example.com/webhook/")])
);
text_field!(
    /// A signing secret: `whsec_` and the base64 of 24 to 75 bytes, or `whsk_` and that of an ed25519 key pair. That the halves
    /// of a pair belong together is more than the pattern can tell.
    SigningSecret(Secret), |text| Secret::parse(text).map_err(|error| error.to_string()),
    text().pattern(Some(SECRET)).examples([json!("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")])
);

/// Declares a list of names: at least one, at most so many; repeats count once.
macro_rules! list_field {
    ($(#[$doc:meta])* $name:ident, $item:ident, $most:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct $name(pub(crate) Vec<String>);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let given = Vec::<$item>::deserialize(deserializer)?;
                let most: usize = $most;
                if given.is_empty() || given.len() > most {
                    return Err(D::Error::custom(format!("must name at least one and at most {most}")));
                }
                let mut names = Vec::new();
                for $item(name) in given {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                Ok(Self(names))
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let list = ArrayBuilder::new().items($item::schema()).min_items(Some(1)).max_items(Some($most));
                Schema::from(list.build()).into()
            }
        }

        impl ToSchema for $name {}
    };
}

list_field!(
    /// The channels of a message.
    MessageChannels, Channel, MAX_MESSAGE_CHANNELS
);
list_field!(
    /// The tags of a message.
    MessageTags, Tag, MAX_TAGS
);
list_field!(
    /// The channels that an endpoint listens to.
    EndpointChannels, Channel, MAX_ENDPOINT_CHANNELS
);
/// The most event types that one endpoint can name.
const MAX_EVENT_TYPES: usize = 1000;
list_field!(
    /// The event types that an endpoint wants. They must exist.
    EventTypeNames, EventTypeName, MAX_EVENT_TYPES
);

list_field!(
    /// The event types that an operational webhook endpoint wants.
    OwnEventTypes, OwnEventType, NAMES.len()
);

/// The tenant's notes on a thing: text to text, at most 4096 bytes of JSON. Null is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(pub(crate) Metadata);

impl<'de> Deserialize<'de> for Notes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let notes = Option::<BTreeMap<Text, Text>>::deserialize(deserializer)?.unwrap_or_default();
        let notes = notes.into_iter().map(|(name, value)| (name.0, value.0)).collect();
        check_metadata(&notes).map_err(D::Error::custom)?;
        Ok(Self(notes))
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialSchema for Notes {
    fn schema() -> RefOr<Schema> {
        let notes = ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::SchemaType::from_iter([Type::Object, Type::Null]))
            .property_names(Some(Text::schema()))
            .additional_properties(Some(AdditionalProperties::RefOr(Text::schema())))
            .description(Some("Whatever the tenant wants to note: names with texts, at most 4096 bytes of JSON"))
            .default(Some(json!({})));
        Schema::from(notes.build()).into()
    }
}

impl ToSchema for Notes {}

/// JSON Schemas of an event type, by version.
#[derive(Clone, Debug)]
pub(crate) struct Schemas(pub(crate) Value);

impl<'de> Deserialize<'de> for Schemas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let versions = serde_json::Map::<String, Value>::deserialize(deserializer)?;
        if let Some((version, _)) = versions.iter().find(|(_, schema)| !schema.is_object()) {
            return Err(D::Error::custom(format!("the schema of version `{version}` must be an object")));
        }
        if let Some((version, _)) = versions.iter().find(|(_, schema)| !jsonschema::draft7::meta::is_valid(schema)) {
            return Err(D::Error::custom(format!("the schema of version `{version}` is not a JSON Schema (draft 7)")));
        }
        let schemas = Value::Object(versions);
        if has_nul(&schemas) { Err(D::Error::custom("must not contain NUL characters")) } else { Ok(Self(schemas)) }
    }
}

impl PartialSchema for Schemas {
    fn schema() -> RefOr<Schema> {
        let versions = ObjectBuilder::new()
            .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(ObjectBuilder::new().build().into()))))
            .examples([json!({"1": {
                "title": "Invoice Paid Event",
                "type": "object",
                "properties": {"invoiceId": {"type": "string", "description": "The invoice id"}},
                "required": ["invoiceId"]
            }})]);
        Schema::from(versions.build()).into()
    }
}

impl ToSchema for Schemas {}

/// A field of the contract that we do not act on. Absent or null is fine; anything else is refused by name, because to
/// accept and ignore it would be a lie.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NotYet;

impl<'de> Deserialize<'de> for NotYet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<IgnoredAny>::deserialize(deserializer)? {
            None => Ok(Self),
            Some(_) => Err(D::Error::custom("is not supported yet: leave it out")),
        }
    }
}

/// A parameter of a query that would change the answer if we acted on it, which we do not. Absent or `false` is fine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NotYetAsked;

impl<'de> Deserialize<'de> for NotYetAsked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "false" => Ok(Self),
            _ => Err(D::Error::custom("is not supported yet: leave it out")),
        }
    }
}

/// A field that newer clients call `name` and older ones `old_name`: read under either, and under both if they agree, as they do
/// in what we show.
pub(crate) fn either<T: PartialEq>(name: &str, value: Option<T>, old_name: &str, old_value: Option<T>) -> ApiResult<Option<T>> {
    match (value, old_value) {
        (Some(value), Some(old_value)) if value != old_value => {
            let why = format!("differs from `{name}`, which is another name of the same field: send one of them, or the same in both");
            Err(ApiError::invalid(&["body", old_name], why))
        }
        (value, old_value) => Ok(value.or(old_value)),
    }
}
