//! What a clause asks of one value that it finds.

use std::{cmp::Ordering, collections::HashSet};

use serde_json::Value;

use super::{number::Number, pattern::Pattern};

/// Something that a clause came by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Item<'a> {
    /// A value of the payload.
    Json(&'a Value),
    /// A header, a parameter, or the path: text that may read as something else.
    Text(&'a str),
}

/// One operator with what it compares with.
#[derive(Clone, Debug)]
pub(super) enum Operator {
    /// A bare value: equal to it, or an array that has it.
    Is(Value),
    /// `$eq`.
    Equal(Value),
    /// `$neq`.
    Differ(Value),
    /// `$in`.
    Within(Values),
    /// `$nin`.
    Outside(Values),
    /// `$gt`, `$gte`, `$lt`, `$lte`.
    Order(Comparison, Bound),
    /// `$exist: true`. That a value was found says it all.
    Exist,
    /// `$regex`.
    Pattern(Pattern),
}

/// How a value stands to a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Comparison {
    fn admits(self, ordering: Ordering) -> bool {
        match self {
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
        }
    }
}

/// What values can be ordered against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Number(Number),
    Text(String),
}

impl Bound {
    /// Whatever has an order.
    pub(super) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(Self::Number(Number::of(number))),
            Value::String(text) => Some(Self::Text(text.clone())),
            _ => None,
        }
    }
}

impl Operator {
    pub(super) fn holds(&self, item: Item<'_>) -> bool {
        match self {
            Self::Is(wanted) => item.equals(wanted) || item.elements().iter().any(|element| equal(element, wanted)),
            Self::Equal(wanted) => item.equals(wanted),
            Self::Differ(wanted) => !item.equals(wanted),
            Self::Within(values) => values.have(item),
            Self::Outside(values) => !values.have(item),
            Self::Order(comparison, Bound::Number(bound)) => item.number().is_some_and(|number| comparison.admits(number.cmp(bound))),
            Self::Order(comparison, Bound::Text(bound)) => item.text().is_some_and(|text| comparison.admits(text.cmp(bound.as_str()))),
            Self::Exist => true,
            Self::Pattern(pattern) => item.text().is_some_and(|text| pattern.is_in(text)),
        }
    }
}

impl<'a> Item<'a> {
    fn text(self) -> Option<&'a str> {
        match self {
            Self::Json(value) => value.as_str(),
            Self::Text(text) => Some(text),
        }
    }

    fn number(self) -> Option<Number> {
        match self {
            Self::Json(Value::Number(number)) => Some(Number::of(number)),
            Self::Json(_) => None,
            Self::Text(text) => Number::read(text),
        }
    }

    fn elements(self) -> &'a [Value] {
        match self {
            Self::Json(Value::Array(elements)) => elements,
            _ => &[],
        }
    }

    fn equals(self, wanted: &Value) -> bool {
        match (self, wanted) {
            (Self::Json(value), _) => equal(value, wanted),
            (Self::Text(text), Value::String(wanted)) => text == wanted,
            (Self::Text(text), Value::Bool(wanted)) => text == if *wanted { "true" } else { "false" },
            (Self::Text(_), Value::Number(wanted)) => self.number() == Some(Number::of(wanted)),
            (Self::Text(_), _) => false,
        }
    }
}

/// Equality of JSON values, with numbers by value and members in any order. Stops at the first difference.
fn equal(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => Number::of(one) == Number::of(two),
        (Value::Array(one), Value::Array(two)) => one.len() == two.len() && one.iter().zip(two).all(|(one, two)| equal(one, two)),
        (Value::Object(one), Value::Object(two)) => {
            one.len() == two.len() && one.iter().all(|(name, one)| two.get(name).is_some_and(|two| equal(one, two)))
        }
        (Value::Null | Value::Bool(_) | Value::String(_), _) => one == two,
        _ => false,
    }
}

/// The list of `$in` or `$nin`, as something that is looked up in one step.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    texts: HashSet<String>,
    numbers: HashSet<Number>,
    booleans: HashSet<bool>,
    has_null: bool,
    /// Lists and objects, which are compared one by one.
    pub(super) composite: Vec<Value>,
}

impl Values {
    pub(super) fn of(list: &[Value]) -> Self {
        let mut values = Self::default();
        for value in list {
            match value {
                Value::Null => values.has_null = true,
                Value::Bool(boolean) => values.booleans.extend([*boolean]),
                Value::Number(number) => values.numbers.extend([Number::of(number)]),
                Value::String(text) => values.texts.extend([text.clone()]),
                Value::Array(_) | Value::Object(_) => values.composite.push(value.clone()),
            }
        }
        values
    }

    /// Whether this or one of its elements is among them.
    fn have(&self, item: Item<'_>) -> bool {
        self.has(item) || item.elements().iter().any(|element| self.has(Item::Json(element)))
    }

    fn has(&self, item: Item<'_>) -> bool {
        match item {
            Item::Json(Value::Null) => self.has_null,
            Item::Json(Value::Bool(boolean)) => self.booleans.contains(boolean),
            Item::Json(Value::String(text)) => self.texts.contains(text),
            Item::Json(Value::Number(number)) => self.numbers.contains(&Number::of(number)),
            Item::Json(value) => self.composite.iter().any(|one| equal(one, value)),
            Item::Text(text) => {
                let is_number = || !self.numbers.is_empty() && Number::read(text).is_some_and(|number| self.numbers.contains(&number));
                self.texts.contains(text) || self.booleans.iter().any(|boolean| text == boolean.to_string()) || is_number()
            }
        }
    }
}
