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

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use serde_json::Value;

use self::{clause::Node, compile::Compiler};
pub use self::{
    explain::{Found, Mismatch},
    invalid::{InvalidFilter, Problem},
};

/// The longest filter, in bytes of JSON.
pub const MAX_WRITTEN: usize = 64 * 1024;
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

/// What a filter looks into.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The payload, if it is JSON that is nested no more than 128 levels deep. It may be left out if no filter [needs it](ContentFilter::needs_body).
    pub body: Option<&'a Value>,
    /// Names and values, a name as often as it came.
    pub headers: &'a [(&'a str, &'a str)],
    /// Names and values, decoded.
    pub query: &'a [(&'a str, &'a str)],
    /// The path of the request, with its first slash.
    pub path: &'a str,
}

/// A filter, cheap to clone. It is made ready once, for all clones.
#[derive(Clone)]
pub struct ContentFilter(Arc<Inner>);

struct Inner {
    /// The document with its scopes.
    written: Value,
    ready: OnceLock<Ready>,
}

#[derive(Default)]
struct Ready {
    conditions: Vec<Node>,
    needs_body: bool,
    clauses: usize,
}

impl Ready {
    fn compile(written: &Value) -> Result<Self, InvalidFilter> {
        let conditions = Compiler::compile(written)?;
        Ok(Self { needs_body: conditions.iter().any(Node::needs_body), clauses: conditions.iter().map(Node::clauses).sum(), conditions })
    }
}

impl ContentFilter {
    /// Checks a document and makes it ready; the error says which clause is wrong and what to do about it. Its members are the scopes, `body`,
    /// `headers`, `query` and `path`; one that is absent, null or empty asks for nothing.
    pub fn parse(written: Value) -> Result<Self, InvalidFilter> {
        let ready = Ready::compile(&written)?;
        Ok(Self(Arc::new(Inner { written, ready: OnceLock::from(ready) })))
    }

    /// A document that [`ContentFilter::parse`] took at some time. Should it be no filter any more, it asks for nothing: an endpoint that
    /// gets too much is better than one that silently gets nothing.
    pub fn stored(written: Value) -> Self {
        Self(Arc::new(Inner { written, ready: OnceLock::new() }))
    }

    /// Becomes one with a filter that asks for the same: what has been made ready of it need not be made again.
    pub fn keep(&mut self, known: &Self) {
        if self == known {
            *self = known.clone();
        }
    }

    /// The document.
    pub fn written(&self) -> &Value {
        &self.0.written
    }

    fn ready(&self) -> &Ready {
        self.0.ready.get_or_init(|| Ready::compile(&self.0.written).unwrap_or_default())
    }

    /// Whether every clause holds.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        self.ready().conditions.iter().all(|node| node.holds(subject))
    }

    /// The first clause that does not hold, or nothing if the filter matches.
    ///
    /// The answer quotes the payload: it is for whoever may read the message, not for a log.
    pub fn explain(&self, subject: &Subject<'_>) -> Option<Mismatch> {
        self.ready().conditions.iter().find_map(|node| explain::mismatch(node, subject))
    }

    /// How often a payload may have to be walked through; none, if that is not known since the filter has still to be made ready, which takes
    /// longer.
    pub fn clauses(&self) -> Option<usize> {
        self.0.ready.get().map(|ready| ready.clauses)
    }

    /// Whether the payload has to be parsed before this filter can be asked.
    pub fn needs_body(&self) -> bool {
        self.ready().needs_body
    }
}

impl PartialEq for ContentFilter {
    fn eq(&self, other: &Self) -> bool {
        self.0.written == other.0.written
    }
}

impl Eq for ContentFilter {}

impl fmt::Debug for ContentFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentFilter({})", self.0.written)
    }
}
