//! Holds every answer against `openapi.yaml`: an undocumented operation, status or field is a failure.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock},
};

use jsonschema::Validator;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::record;

/// The document that the server itself generates.
static CONTRACT: LazyLock<Contract> = LazyLock::new(Contract::of_the_server);

struct Contract {
    paths: Map<String, Value>,
    components: Value,
    compiled: Mutex<HashMap<String, Arc<Validator>>>,
}

/// Checks one answer; the error says what the contract does not know.
pub fn check(method: &str, path: &str, status: u16, content_type: Option<&str>, body: &[u8]) -> Result<(), String> {
    CONTRACT.check(method, path, status, content_type, body).map_err(|why| format!("{method} {path} answered {status}: {why}"))
}

/// Every documented operation, as method and path template.
pub fn operations() -> Vec<(String, String)> {
    let methods = ["get", "post", "put", "patch", "delete"];
    let of_path = |(path, item): (&String, &Value)| {
        methods
            .into_iter()
            .filter(|method| item.get(method).is_some())
            .map(|method| (method.to_uppercase(), path.clone()))
            .collect::<Vec<_>>()
    };
    CONTRACT.paths.iter().flat_map(of_path).collect()
}

/// The operations of a list that names a path and its methods in each line: method and path.
pub fn listed(list: &str) -> Vec<(&str, &str)> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    lines
        .flat_map(|line| {
            let (path, methods) = line.split_once(' ').expect("a path and methods");
            methods.split(' ').map(move |method| (method, path))
        })
        .collect()
}

/// Those of the Svix dialect, and of no dialect.
pub fn operations_of_svix() -> Vec<(String, String)> {
    let is_of_another = |path: &str| path.starts_with("/api/v1/projects") || path.starts_with("/ingest/");
    operations().into_iter().filter(|(_, path)| !is_of_another(path)).collect()
}

/// What a caller must be allowed, operation by operation: method, path template, and the name of the permission. Operations that anybody
/// may ask for are not among them.
pub fn permissions() -> Vec<(String, String, String)> {
    let of = |(method, path): (String, String)| {
        let named = CONTRACT.paths[&path][method.to_lowercase()]["security"][0]["HTTPBearer"][0].as_str()?.to_owned();
        Some((method, path, named))
    };
    operations().into_iter().filter_map(of).collect()
}

/// The fields of an operation's body, each with whether it must be there.
pub fn fields(method: &str, template: &str) -> Vec<(String, bool)> {
    let body = &CONTRACT.paths[template][method.to_lowercase()]["requestBody"]["content"]["application/json"]["schema"];
    let mut fields = Vec::new();
    CONTRACT.collect_fields(body, &mut fields);
    fields
}

impl Contract {
    fn collect_fields(&self, schema: &Value, fields: &mut Vec<(String, bool)>) {
        let schema = self.resolve(schema);
        let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for name in schema["properties"].as_object().into_iter().flat_map(Map::keys) {
            fields.push((name.clone(), required.contains(&name.as_str())));
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.collect_fields(part, fields);
        }
    }

    fn of_the_server() -> Self {
        let document: Value = serde_norway::from_str(&api::openapi_yaml()).expect("openapi.yaml is YAML");
        let paths = document["paths"].as_object().expect("openapi.yaml has paths").clone();
        let mut components = document["components"].clone();
        let mut parts = HashSet::new();
        composed(&components, false, &mut parts);
        if let Some(schemas) = components["schemas"].as_object_mut() {
            for (name, schema) in schemas {
                close(schema, parts.contains(name));
            }
        }
        Self { paths, components, compiled: Mutex::default() }
    }

    fn check(&self, method: &str, path: &str, status: u16, content_type: Option<&str>, body: &[u8]) -> Result<(), String> {
        let (template, item) = self.find(path).ok_or("the path is not documented")?;
        let operation = item.get(method.to_lowercase()).ok_or("the method is not documented")?;
        let answer = operation["responses"].get(status.to_string()).ok_or("the status is not documented")?;
        let answer = self.resolve(answer);
        let Some(content) = answer.get("content").and_then(Value::as_object) else {
            return if body.is_empty() { Ok(()) } else { Err(format!("no body is documented: {}", String::from_utf8_lossy(body))) };
        };
        let media_type = content_type.unwrap_or("").split(';').next().unwrap_or("").trim();
        let schema = content.get(media_type).ok_or_else(|| format!("the content type `{media_type}` is not documented"))?;
        if !media_type.ends_with("json") {
            return Ok(());
        }
        let validator = self.validator(&format!("{method} {template} {status}"), &schema["schema"])?;
        let value: Value = serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
        let errors: Vec<_> = validator.iter_errors(&value).map(|error| format!("{} at `{}`", error, error.instance_path())).collect();
        if !errors.is_empty() {
            return Err(format!("{} in {value}", errors.join("; ")));
        }
        if status < 300 && template.starts_with("/api/v1/projects") {
            record::note(method, template);
        }
        Ok(())
    }

    /// The path item whose template fits; a template with fewer parameters goes first.
    fn find(&self, path: &str) -> Option<(&String, &Value)> {
        let path = path.split('?').next().unwrap_or(path).trim_end_matches('/');
        let segments: Vec<_> = path.split('/').collect();
        let fits = |template: &str| {
            let wanted: Vec<_> = template.trim_end_matches('/').split('/').collect();
            wanted.len() == segments.len() && wanted.iter().zip(&segments).all(|(want, is)| want.starts_with('{') || want == is)
        };
        self.paths.iter().filter(|(template, _)| fits(template)).min_by_key(|(template, _)| template.matches('{').count())
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let pointer = value.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix("#/components"));
        pointer.and_then(|pointer| self.components.pointer(pointer)).unwrap_or(value)
    }

    fn validator(&self, name: &str, schema: &Value) -> Result<Arc<Validator>, String> {
        if let Some(known) = self.compiled.lock().get(name) {
            return Ok(known.clone());
        }
        let mut schema = schema.clone();
        close(&mut schema, false);
        let whole = json!({ "components": self.components, "allOf": [schema] });
        let draft = jsonschema::Draft::Draft202012;
        let validator = jsonschema::options().with_draft(draft).should_validate_formats(true).build(&whole);
        let validator = Arc::new(validator.map_err(|error| format!("its schema is broken: {error}"))?);
        self.compiled.lock().insert(name.to_owned(), validator.clone());
        Ok(validator)
    }
}

/// Collects the names of schemas that others are composed of: those must stay open, the composition is closed instead.
fn composed(value: &Value, is_part: bool, found: &mut HashSet<String>) {
    match value {
        Value::Object(members) => {
            if let (true, Some(name)) = (is_part, members.get("$ref").and_then(Value::as_str)) {
                found.insert(name.rsplit('/').next().unwrap_or(name).to_owned());
            }
            for (name, member) in members {
                composed(member, name == "allOf", found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| composed(item, is_part, found)),
        _ => {}
    }
}

/// Makes every object schema that lists its members refuse all others.
fn close(schema: &mut Value, is_part: bool) {
    match schema {
        Value::Object(members) => {
            let lists_members = members.contains_key("properties") || members.contains_key("allOf");
            for (name, member) in members.iter_mut() {
                match (name.as_str(), member) {
                    ("properties" | "patternProperties", Value::Object(properties)) => {
                        properties.values_mut().for_each(|property| close(property, false));
                    }
                    ("allOf", Value::Array(parts)) => parts.iter_mut().for_each(|part| close(part, true)),
                    ("example" | "examples" | "default" | "enum" | "const", _) => {}
                    (_, member) => close(member, is_part),
                }
            }
            if lists_members && !is_part && !members.contains_key("additionalProperties") {
                members.insert("unevaluatedProperties".into(), Value::Bool(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| close(item, is_part)),
        _ => {}
    }
}
