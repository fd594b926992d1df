//! Custom headers in request bodies: names and values as HTTP has them, each name once.

use std::{fmt, marker::PhantomData};

use domain::endpoint::{Headers, MAX_HEADERS, RESERVED, RESERVED_PREFIXES, check_header_changes, check_header_count};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema,
        schema::{AdditionalProperties, Type},
    },
};

/// The name of an HTTP header, reserved ones included.
const HEADER_NAME: &str = r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}$";
/// The value of an HTTP header.
const HEADER_VALUE: &str = r"^[\t -~]{0,4096}$";

/// The members of a JSON object as they are written: of two with one name, a map would keep the second without a word.
struct Pairs<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Members<V> {
            type Value = Vec<(String, V)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// Custom headers of an endpoint: name to value.
#[derive(Clone, Debug, Default)]
pub(crate) struct CustomHeaders(pub(crate) Headers);

impl<'de> Deserialize<'de> for CustomHeaders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Pairs(pairs) = Pairs::<String>::deserialize(deserializer)?;
        let checked = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        check_header_changes(checked).and_then(|()| check_header_count(pairs.len())).map_err(D::Error::custom)?;
        Ok(Self(pairs.into_iter().collect()))
    }
}

/// Changes of custom headers: name to value, or to null to remove the header.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderChanges(pub(crate) Vec<(String, Option<String>)>);

impl<'de> Deserialize<'de> for HeaderChanges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Pairs(changes) = Pairs::<Option<String>>::deserialize(deserializer)?;
        let checked = changes.iter().map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or_default()));
        check_header_changes(checked).map_err(D::Error::custom)?;
        Ok(Self(changes))
    }
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// The pattern of the names of custom headers: the reserved ones are left out, in whatever case they are written.
fn header_name() -> String {
    let in_any_case = |name: &&str| -> String {
        let each = |c: char| if c.is_ascii_alphabetic() { format!("[{c}{}]", c.to_ascii_uppercase()) } else { c.to_string() };
        name.chars().map(each).collect()
    };
    let one_of = |names: &[&str]| names.iter().map(in_any_case).collect::<Vec<_>>().join("|");
    format!("^(?!({})$)(?!{}){}", one_of(&RESERVED), one_of(&RESERVED_PREFIXES), &HEADER_NAME[1..])
}

fn header_map(value: Schema, most: Option<usize>) -> RefOr<Schema> {
    let map = ObjectBuilder::new()
        .property_names(Some(text().pattern(Some(header_name())).build()))
        .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(value))))
        .max_properties(most)
        .examples([json!({"X-Example": "123", "X-Foobar": "Bar"})]);
    Schema::from(map.build()).into()
}

impl PartialSchema for CustomHeaders {
    fn schema() -> RefOr<Schema> {
        header_map(text().pattern(Some(HEADER_VALUE)).build().into(), Some(MAX_HEADERS))
    }
}

impl ToSchema for CustomHeaders {}

impl PartialSchema for HeaderChanges {
    fn schema() -> RefOr<Schema> {
        let kinds = utoipa::openapi::schema::SchemaType::from_iter([Type::String, Type::Null]);
        header_map(ObjectBuilder::new().schema_type(kinds).pattern(Some(HEADER_VALUE)).build().into(), None)
    }
}

impl ToSchema for HeaderChanges {}
