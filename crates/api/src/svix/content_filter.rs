//! The field `filter` of an endpoint: conditions on the payload.

use domain::content_filter::{ContentFilter, MAX_WRITTEN};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ObjectBuilder, RefOr, Schema,
        schema::{AdditionalProperties, Type},
    },
};

use super::fields::has_nul;

/// Which payloads an endpoint wants.
#[derive(Clone, Debug)]
pub(crate) struct PayloadFilter(pub(crate) ContentFilter);

impl<'de> Deserialize<'de> for PayloadFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Value::deserialize(deserializer)?;
        if has_nul(&written) {
            return Err(D::Error::custom("must not contain NUL characters"));
        }
        let filter = ContentFilter::parse(written).map_err(D::Error::custom)?;
        let scopes = filter.written().as_object();
        // A message that is published here has nothing else: such a filter would never match.
        if let Some(scope) = scopes.and_then(|scopes| scopes.keys().find(|name| *name != "body")) {
            return Err(D::Error::custom(format!("{scope}: messages that are published have a payload alone: use `body`")));
        }
        let has_body = scopes.and_then(|scopes| scopes.get("body")).is_some_and(Value::is_object);
        if has_body { Ok(Self(filter)) } else { Err(D::Error::custom("must have the member `body`, with conditions on the payload")) }
    }
}

impl PartialSchema for PayloadFilter {
    fn schema() -> RefOr<Schema> {
        let conditions = ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(AdditionalProperties::FreeForm(true)))
            .description(Some("Fields of the payload, with dots between names (`order.items.0.sku`; `$` in place of a position is any of them), and what each must be: a value, or an object of `$eq`, `$neq`, `$gt`, `$gte`, `$lt`, `$lte`, `$in`, `$nin`, `$exist` and `$regex`. All must hold; `$or` and `$and` take lists of such objects. A field that is absent satisfies only `{\"$exist\": false}`."));
        let filter = ObjectBuilder::new()
            .schema_type(Type::Object)
            .property("body", conditions)
            .required("body")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .description(Some(format!("Which payloads are wanted; at most {MAX_WRITTEN} bytes of JSON. A filter that could not be told in linear time is refused, with the clause and what to write instead.")))
            .examples([json!({"body": {"amount": {"$gte": 1000}, "currency": {"$in": ["EUR", "USD"]}}})]);
        Schema::from(filter.build()).into()
    }
}

impl ToSchema for PayloadFilter {}
