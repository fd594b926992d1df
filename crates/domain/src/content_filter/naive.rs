//! The language of filters told a second time, in the plainest way, to compare with: the payload is flattened into all of its paths,
//! each clause is tried on each of them, and numbers are compared in quarters.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// A part of a path, and whether it is a position in an array.
type Part = (String, bool);

/// Whether a payload satisfies a filter on its body. Numbers must be whole or quarters, and patterns plain words that may begin with `^`.
pub(super) fn holds(filter: &Value, payload: &Value) -> bool {
    let mut all = Vec::new();
    flatten(&[], payload, &mut all);
    fields("", filter.as_object().expect("an object"), &all)
}

/// Every path of a payload with the value there. A name with dots in it is several parts.
fn flatten<'a>(before: &[Part], value: &'a Value, all: &mut Vec<(Vec<Part>, &'a Value)>) {
    all.push((before.to_vec(), value));
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let parts: Vec<Part> = name.split('.').map(|part| (part.to_owned(), false)).collect();
                flatten(&[before, &parts].concat(), member, all);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                flatten(&[before, &[(i.to_string(), true)]].concat(), item, all);
            }
        }
        _ => {}
    }
}

fn fields(before: &str, members: &Map<String, Value>, all: &[(Vec<Part>, &Value)]) -> bool {
    members.iter().all(|(name, value)| match name.as_str() {
        "$or" => alternatives(value).any(|one| field(before, one, all)),
        "$and" => alternatives(value).all(|one| field(before, one, all)),
        _ => field(&format!("{before}.{name}"), value, all),
    })
}

fn alternatives(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().expect("a list").iter()
}

/// What stands behind a field with dots before each of its parts, or in a list behind `$or` and `$and`.
fn field(path: &str, value: &Value, all: &[(Vec<Part>, &Value)]) -> bool {
    let is_operator = |name: &String| name.starts_with('$') && name.len() > 1 && !name.starts_with("$.");
    let is_test = |name: &String| is_operator(name) && name != "$or" && name != "$and";
    match value {
        Value::Object(members) if !members.keys().any(is_test) => fields(path, members, all),
        _ => {
            let wanted: Vec<&str> = path.split('.').skip(1).collect();
            let fits = |parts: &[Part]| {
                parts.len() == wanted.len()
                    && parts.iter().zip(&wanted).all(|((part, is_position), wanted)| part == wanted || *is_position && *wanted == "$")
            };
            let found: Vec<&Value> = all.iter().filter(|(parts, _)| fits(parts)).map(|(_, value)| *value).collect();
            match value {
                Value::Object(operators) if operators.get("$exist") == Some(&Value::Bool(false)) => found.is_empty(),
                Value::Object(operators) => {
                    found.iter().any(|value| operators.iter().all(|(operator, operand)| test(operator, operand, value)))
                }
                _ => found.iter().any(|found| among(found, std::slice::from_ref(value), true)),
            }
        }
    }
}

fn test(operator: &str, operand: &Value, found: &Value) -> bool {
    let list = || operand.as_array().expect("a list");
    match operator {
        "$eq" => same(found, operand),
        "$neq" => !same(found, operand),
        "$in" => among(found, list(), true),
        "$nin" => !among(found, list(), true),
        "$gt" => order(found, operand) == Some(Ordering::Greater),
        "$gte" => matches!(order(found, operand), Some(Ordering::Greater | Ordering::Equal)),
        "$lt" => order(found, operand) == Some(Ordering::Less),
        "$lte" => matches!(order(found, operand), Some(Ordering::Less | Ordering::Equal)),
        "$exist" => true,
        "$regex" => {
            let (pattern, text) = (operand.as_str().expect("a pattern"), found.as_str());
            text.is_some_and(|text| pattern.strip_prefix('^').map_or_else(|| text.contains(pattern), |start| text.starts_with(start)))
        }
        other => panic!("{other} is no operator"),
    }
}

fn among(found: &Value, list: &[Value], with_elements: bool) -> bool {
    let elements = found.as_array().filter(|_| with_elements).into_iter().flatten();
    list.iter().any(|one| same(found, one)) || elements.into_iter().any(|element| among(element, list, false))
}

fn order(one: &Value, two: &Value) -> Option<Ordering> {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => Some(quarters(one).cmp(&quarters(two))),
        (Value::String(one), Value::String(two)) => Some(one.cmp(two)),
        _ => None,
    }
}

fn same(one: &Value, two: &Value) -> bool {
    spelled(one) == spelled(two)
}

/// One spelling for equal values.
fn spelled(value: &Value) -> String {
    match value {
        Value::Number(number) => quarters(number).to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(spelled).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let mut all: Vec<_> = members.iter().map(|(name, value)| format!("{name:?}:{}", spelled(value))).collect();
            all.sort();
            format!("{{{}}}", all.join(","))
        }
        other => other.to_string(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the numbers of the tests are whole or quarters, and far from the ends")]
fn quarters(number: &serde_json::Number) -> i128 {
    number.as_i128().map_or_else(|| (number.as_f64().expect("a double") * 4.0) as i128, |whole| whole * 4)
}
