//! Event types that an OpenAPI document declares: its webhooks, as both dialects import them.

use std::{cell::Cell, collections::BTreeMap, fmt};

use domain::application::check_name;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::{error::ApiError, transport::json::has_nul};

/// The most webhooks of one document.
const MAX_WEBHOOKS: usize = 500;
/// What a document may weigh once it is read, in bytes: a text of YAML can stand for far more than it says.
const MAX_WEIGHT: usize = 16 << 20;
/// What each value weighs besides its text.
const WEIGHT: usize = 32;
/// What the schemas of all webhooks may have together, in bytes: each has a copy of whatever it refers to.
const MAX_SCHEMAS: usize = 4 << 20;
/// How many references may lead to one another.
const MAX_HOPS: usize = 16;
/// Where documents of OpenAPI 3.1 and older ones have their webhooks.
const SECTIONS: [&str; 2] = ["webhooks", "x-webhooks"];
/// Where schemas are that others refer to.
const SCHEMAS: &str = "#/components/schemas/";
/// What a webhook may be called with.
const METHODS: [&str; 5] = ["post", "put", "patch", "get", "delete"];

/// An event type as a document has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Declared {
    /// The webhook's name.
    pub(crate) name: String,
    /// What people read.
    pub(crate) description: String,
    /// The first tag, if it can be the name of a group.
    pub(crate) group_name: Option<String>,
    /// Whether it is discouraged.
    pub(crate) is_deprecated: bool,
    /// JSON Schema (draft 7) of its payload, with all that it refers to.
    pub(crate) schema: Option<Value>,
}

/// What is wrong with a document, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    place: Vec<String>,
    why: String,
}

impl Fault {
    fn at(place: &[&str], why: impl Into<String>) -> Self {
        Self { place: place.iter().map(ToString::to_string).collect(), why: why.into() }
    }

    /// The same as a refusal of the field of the body that has the document.
    pub(crate) fn in_field(&self, field: &str) -> ApiError {
        let place: Vec<_> = ["body", field].into_iter().chain(self.place.iter().map(String::as_str)).collect();
        ApiError::invalid(&place, self.why.clone())
    }
}

/// Reads a document from its text, which is JSON or YAML.
///
/// # Errors
/// The parser's, which names line and column.
pub(crate) fn parse(text: &str) -> Result<Value, Fault> {
    let room = Cell::new(MAX_WEIGHT);
    if text.trim_start().starts_with('{')
        && let Ok(document) = serde_json::from_str(text)
    {
        return Ok(document);
    }
    let read = Bounded(&room).deserialize(yaml_serde::Deserializer::from_str(text));
    read.map_err(|error| Fault::at(&[], format!("is neither JSON nor YAML that could be read: {error}")))
}

/// Reads a value of at most so many bytes. Aliases of YAML would otherwise make gigabytes of some lines.
#[derive(Clone, Copy)]
struct Bounded<'a>(&'a Cell<usize>);

impl Bounded<'_> {
    fn weigh<E: serde::de::Error>(self, text: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(WEIGHT + text);
        self.0.set(left.ok_or_else(|| E::custom("it is too large once its aliases are replaced by what they stand for"))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("what JSON can say")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.weigh(0).map(|()| value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.weigh(0).map(|()| value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.weigh(0).map(|()| value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.weigh(0).map(|()| value.into())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.weigh(text.len()).map(|()| text.into())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.weigh(0).map(|()| Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.weigh(0)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        self.weigh(0)?;
        let mut object = Map::new();
        // Names such as 200 are numbers in YAML, and read as the texts that they are in JSON.
        while let Some(name) = members.next_key::<String>()? {
            self.weigh(name.len())?;
            let value = members.next_value_seed(self)?;
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!("`{name}` is there twice")));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// The event types of a document, by name.
///
/// # Errors
/// The first thing in it that cannot be an event type, or that we cannot follow, and where it is.
pub(crate) fn read(document: &Value) -> Result<Vec<Declared>, Fault> {
    let sections = SECTIONS.into_iter().filter_map(|section| Some((section, document.get(section)?)));
    let mut found = BTreeMap::new();
    let mut left = MAX_SCHEMAS;
    for (section, webhooks) in sections {
        let webhooks = webhooks.as_object().ok_or_else(|| Fault::at(&[section], "must be an object: webhooks by their names"))?;
        for (name, item) in webhooks {
            let declared = webhook(document, name, item, &mut left).map_err(|mut fault| {
                fault.place.splice(0..0, [section.to_owned(), name.clone()]);
                fault
            })?;
            found.insert(name, declared);
            if found.len() > MAX_WEBHOOKS {
                return Err(Fault::at(&[section], format!("has more than {MAX_WEBHOOKS} webhooks: import them in several documents")));
            }
        }
    }
    if found.is_empty() {
        return Err(Fault::at(&[], "has no webhooks: they are looked for in `webhooks` and in `x-webhooks`"));
    }
    Ok(found.into_values().collect())
}

fn webhook(document: &Value, name: &str, item: &Value, left: &mut usize) -> Result<Declared, Fault> {
    check_name(name).map_err(|error| Fault::at(&[], format!("cannot be the name of an event type: {error}")))?;
    let item = followed(document, item, &[])?;
    let operation = METHODS.into_iter().find_map(|method| Some((method, item.get(method)?)));
    let Some((method, operation)) = operation else {
        return Err(Fault::at(&[], "has no operation: it must say under `post` what is sent"));
    };
    let texts = [operation, item].into_iter().flat_map(|said| [said.get("description"), said.get("summary")]);
    let description = texts.flatten().find_map(Value::as_str).unwrap_or_default();
    if description.contains('\0') {
        return Err(Fault::at(&[method, "description"], "must not contain NUL characters"));
    }
    let tag = operation.get("tags").and_then(|tags| tags.get(0)).and_then(Value::as_str);
    Ok(Declared {
        name: name.to_owned(),
        description: description.to_owned(),
        group_name: tag.filter(|tag| check_name(tag).is_ok()).map(str::to_owned),
        is_deprecated: operation.get("deprecated").and_then(Value::as_bool).unwrap_or_default(),
        schema: payload(document, method, operation, left)?,
    })
}

/// The schema of what an operation sends.
fn payload(document: &Value, method: &str, operation: &Value, left: &mut usize) -> Result<Option<Value>, Fault> {
    let Some(body) = operation.get("requestBody") else { return Ok(None) };
    let body = followed(document, body, &[method, "requestBody"])?;
    let Some(content) = body.get("content").and_then(Value::as_object) else { return Ok(None) };
    let json = content.get_key_value("application/json").or_else(|| content.iter().find(|(media_type, _)| media_type.ends_with("+json")));
    let Some((media_type, schema)) = json.and_then(|(media_type, said)| Some((media_type, said.get("schema")?))) else { return Ok(None) };
    let place = [method, "requestBody", "content", media_type, "schema"];
    let schema = bundled(document, followed(document, schema, &place)?, &place)?;
    let weight = serde_json::to_vec(&schema).map_or(usize::MAX, |text| text.len());
    let too_large = || Fault::at(&place, format!("is too large: all schemas with what they refer to may have {MAX_SCHEMAS} bytes"));
    *left = left.checked_sub(weight).ok_or_else(too_large)?;
    Ok(Some(schema))
}

/// What a value is, or refers to.
fn followed<'a>(document: &'a Value, value: &'a Value, place: &[&str]) -> Result<&'a Value, Fault> {
    let mut found = value;
    for _ in 0..MAX_HOPS {
        let Some(reference) = found.get("$ref").and_then(Value::as_str) else { return Ok(found) };
        found = referred(document, reference, place)?;
    }
    Err(Fault::at(place, "refers to what refers to it"))
}

fn referred<'a>(document: &'a Value, reference: &str, place: &[&str]) -> Result<&'a Value, Fault> {
    let pointer = reference.strip_prefix('#').filter(|pointer| pointer.starts_with('/'));
    let pointer =
        pointer.ok_or_else(|| Fault::at(place, format!("refers to `{reference}`: only what is in the document itself is read")))?;
    document.pointer(pointer).ok_or_else(|| Fault::at(place, format!("refers to `{reference}`, which is not there")))
}

/// A schema that stands for itself: with a copy of each schema that it refers to, at the place where the reference looks for it.
fn bundled(document: &Value, schema: &Value, place: &[&str]) -> Result<Value, Fault> {
    let mut own = checked(schema, place, "it")?.clone();
    let mut components = Map::new();
    let mut unread = vec![schema];
    while let Some(value) = unread.pop() {
        match value {
            Value::Array(items) => unread.extend(items),
            Value::Object(members) => {
                unread.extend(members.values());
                let Some(reference) = members.get("$ref").and_then(Value::as_str) else { continue };
                let name = reference.strip_prefix(SCHEMAS).map(|rest| rest.split('/').next().unwrap_or_default());
                let name =
                    name.ok_or_else(|| Fault::at(place, format!("refers to `{reference}`: only schemas below `{SCHEMAS}` are read")))?;
                let written = name.replace("~1", "/").replace("~0", "~");
                if !components.contains_key(&written) {
                    let target = referred(document, &format!("{SCHEMAS}{name}"), place)?;
                    components.insert(written, Value::Object(checked(target, place, name)?.clone()));
                    unread.push(target);
                }
            }
            _ => {}
        }
    }
    if !components.is_empty() {
        own.insert("components".to_owned(), Value::Object(Map::from_iter([("schemas".to_owned(), Value::Object(components))])));
    }
    Ok(Value::Object(own))
}

/// A schema that can be kept.
fn checked<'a>(schema: &'a Value, place: &[&str], name: &str) -> Result<&'a Map<String, Value>, Fault> {
    if !jsonschema::draft7::meta::is_valid(schema) {
        return Err(Fault::at(place, format!("{name} is not a JSON Schema (draft 7)")));
    }
    if has_nul(schema) {
        return Err(Fault::at(place, format!("{name} must not contain NUL characters")));
    }
    schema.as_object().ok_or_else(|| Fault::at(place, format!("{name} must be an object")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DOCUMENT: &str = "
openapi: 3.1.0
webhooks:
  pet.new:
    post:
      summary: A pet is here
      tags: [pets]
      requestBody: {$ref: '#/components/requestBodies/Pet'}
      responses: {200: {description: ok}}
  pet.gone:
    post: {deprecated: true, description: ''}
components:
  requestBodies:
    Pet: {content: {application/json: {schema: {$ref: '#/components/schemas/Pet'}}}}
  schemas:
    Pet: {type: object, required: [id], properties: {id: {type: integer}, mother: {$ref: '#/components/schemas/Pet'}}}
    Unused: {type: string}
";

    fn text(document: &str) -> Result<Vec<Declared>, String> {
        let told = |fault: Fault| format!("{}: {}", fault.place.join("."), fault.why);
        parse(document).and_then(|document| read(&document)).map_err(told)
    }

    #[test]
    fn a_webhook_is_an_event_type_with_all_that_its_schema_refers_to() {
        let found = text(DOCUMENT).expect("a document");
        let [gone, new] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((gone.name.as_str(), gone.is_deprecated, &gone.schema), ("pet.gone", true, &None));
        assert_eq!((new.description.as_str(), new.group_name.as_deref()), ("A pet is here", Some("pets")));
        let schema = new.schema.as_ref().expect("a schema");
        assert_eq!(schema["components"]["schemas"].as_object().map(Map::len), Some(1));
        let validator = jsonschema::validator_for(schema).expect("a schema");
        assert!(validator.is_valid(&json!({ "id": 1, "mother": { "id": 2 } })));
        assert!(!validator.is_valid(&json!({ "id": 1, "mother": { "id": "x" } })), "the reference holds");
        let as_json = serde_json::to_string(&parse(DOCUMENT).expect("a document")).expect("JSON");
        assert_eq!(text(&as_json), Ok(found));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (document, told) in [
            ("[", ": is neither JSON nor YAML"),
            ("a: 1\na: 2", ": is neither JSON nor YAML that could be read: `a` is there twice"),
            ("openapi: 3.1.0", ": has no webhooks"),
            ("webhooks: 5", "webhooks: must be an object"),
            ("webhooks: {'a b': {post: {}}}", "webhooks.a b: cannot be the name"),
            ("x-webhooks: {a: {}}", "x-webhooks.a: has no operation"),
            ("webhooks: {a: {$ref: 'other.yaml'}}", "webhooks.a: refers to `other.yaml`"),
            ("webhooks: {a: {$ref: '#/webhooks/a'}}", "webhooks.a: refers to what refers to it"),
            (
                "webhooks: {a: {post: {requestBody: {content: {application/json: {schema: {type: nothing}}}}}}}",
                "webhooks.a.post.requestBody.content.application/json.schema: it is not a JSON Schema",
            ),
            (
                "webhooks: {a: {post: {requestBody: {content: {application/json: {schema: {items: {$ref: '#/components/schemas/B'}}}}}}}}",
                "webhooks.a.post.requestBody.content.application/json.schema: refers to `#/components/schemas/B`, which is not there",
            ),
        ] {
            let fault = text(document).expect_err(document);
            assert!(fault.starts_with(told), "{document}: {fault}");
        }
    }

    #[test]
    fn a_text_that_stands_for_far_more_than_it_says_is_refused() {
        let many = format!("a: &a [{}]\nb: [{}]", "x,".repeat(20_000), "*a,".repeat(20_000));
        let fault = text(&many).expect_err("too large");
        assert!(fault.contains("too large once its aliases"), "{fault}");
    }
}
