//! Which messages an endpoint wants by what is in them: conditions over body, headers, query and path.
//!
//! The language is the one that Convoy documents for its subscription filters
//! (<https://docs.getconvoy.io/product-manual/filters>), with the corners that it leaves open settled:
//!
//! - A filter is an object of fields and what they must be; all of its clauses must hold. `{"a": {"b": 1}}` and `{"a.b": 1}` are the
//!   same. A field is also found under a name that contains the dots itself.
//! - In a path a number is a position in an array, and `$` is every position: the clause holds if *some* value there satisfies
//!   *all* that stands beside it.
//! - A field that is absent satisfies nothing, not even `$neq` and `$nin`; only `{"$exist": false}` holds.
//! - A bare value asks for that value, or for an array that has it. `$eq` and `$neq` compare the whole value.
//! - `$in` and `$nin` take a list; an array counts by its elements.
//! - `$gt`, `$gte`, `$lt` and `$lte` compare numbers with numbers and strings with strings (by code point); other pairs never match.
//! - `$regex` looks for its pattern anywhere in a string. `\d`, `\s`, `\w` and `\b` know ASCII alone, as in Go; `\pN` and `\pL` know more.
//! - `$or` and `$and` take lists of such objects, and may stand inside a field.
//! - Numbers compare by value, never by rounding: `1` is `1.0`, and 9007199254740993 is not 9007199254740992.0. What no 64 bits hold is
//!   compared as the double that the JSON parser made of it.
//! - Headers, query and path are text: a number or a boolean of the filter is compared with what the text reads as. A name is one
//!   name, dots included; headers ignore case; `path` is the one field of the path. Of several values one has to fit.
//!
//! Everything that could make a filter expensive is bounded when it is compiled, so evaluation is linear in what is looked at.

mod clause;
mod compile;
mod explain;
mod invalid;
mod number;
mod operator;
mod path;
mod pattern;

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value;

use self::{clause::Node, compile::Compiler};
pub use self::{
    explain::{Found, Mismatch},
    invalid::{InvalidFilter, Problem},
};

/// The most levels of fields and `$or`/`$and` inside each other.
pub const MAX_DEPTH: usize = 16;
/// The most clauses of one filter; a list or an object among the values of `$in` and `$nin` counts as one.
pub const MAX_CLAUSES: usize = 128;
/// The most values in all lists of `$in` and `$nin` together.
pub const MAX_VALUES: usize = 1000;
/// The most parts of a path, dots between them.
pub const MAX_PARTS: usize = 32;
/// The most patterns of one filter.
pub const MAX_PATTERNS: usize = 8;
/// The longest pattern, in bytes.
pub const MAX_PATTERN: usize = 512;

/// The four parts of a filter as they were written; an absent or empty one asks for nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written<'a> {
    /// Conditions on the payload.
    pub body: Option<&'a Value>,
    /// Conditions on the request's headers.
    pub headers: Option<&'a Value>,
    /// Conditions on the parameters of its query.
    pub query: Option<&'a Value>,
    /// Conditions on its path.
    pub path: Option<&'a Value>,
}

/// What a filter looks into.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The payload, if it is JSON. It may be left out if no filter [needs it](ContentFilter::needs_body).
    pub body: Option<&'a Value>,
    /// Names and values, a name as often as it came.
    pub headers: &'a [(&'a str, &'a str)],
    /// Names and values, decoded.
    pub query: &'a [(&'a str, &'a str)],
    /// The path of the request, with its first slash.
    pub path: &'a str,
}

/// A filter that has been checked and made ready. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct ContentFilter {
    conditions: Arc<[Node]>,
    needs_body: bool,
}

impl ContentFilter {
    /// Checks what was written and makes it ready; the error says which clause is wrong and what to do about it.
    pub fn compile(written: Written<'_>) -> Result<Self, InvalidFilter> {
        let conditions = Compiler::compile(written)?;
        let needs_body = conditions.iter().any(Node::needs_body);
        Ok(Self { conditions: conditions.into(), needs_body })
    }

    /// Whether every clause holds.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        self.conditions.iter().all(|node| node.holds(subject))
    }

    /// The first clause that does not hold, or nothing if the filter matches.
    ///
    /// The answer quotes the payload: it is for whoever may read the message, not for a log.
    pub fn explain(&self, subject: &Subject<'_>) -> Option<Mismatch> {
        self.conditions.iter().find_map(|node| explain::mismatch(node, subject))
    }

    /// Whether the payload has to be parsed before this filter can be asked.
    pub fn needs_body(&self) -> bool {
        self.needs_body
    }
}
