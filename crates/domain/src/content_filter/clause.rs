//! A filter made ready, and whether it holds.

use serde_json::Value;

use super::{
    Subject,
    operator::{Item, Operator},
    path::Path,
};

/// A clause, or several that are joined.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// All must hold.
    All(Vec<Node>),
    /// One must hold.
    Any {
        /// Where the `$or` stands.
        at: String,
        /// Its alternatives.
        nodes: Vec<Node>,
    },
    /// One field and what it must be.
    Clause(Clause),
}

/// One field and what it must be.
#[derive(Clone, Debug)]
pub(super) struct Clause {
    /// Where it stands in the filter.
    pub(super) at: String,
    /// What it asks for, as it was written.
    pub(super) wanted: Value,
    /// Where it looks.
    pub(super) place: Place,
    /// What some value there must satisfy.
    pub(super) test: Test,
}

/// Where a clause looks.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Body(Path),
    /// A header's name.
    Header(String),
    /// A parameter's name.
    Query(String),
    /// The path of the request.
    UrlPath,
}

/// What a clause asks for.
#[derive(Clone, Debug)]
pub(super) enum Test {
    /// That there is nothing.
    Absent,
    /// That one value satisfies all of these.
    Value(Vec<Operator>),
}

impl Node {
    pub(super) fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.holds(subject)),
            Self::Any { nodes, .. } => nodes.iter().any(|node| node.holds(subject)),
            Self::Clause(clause) => clause.holds(subject),
        }
    }

    pub(super) fn clauses(&self) -> usize {
        match self {
            Self::All(nodes) | Self::Any { nodes, .. } => nodes.iter().map(Self::clauses).sum(),
            Self::Clause(_) => 1,
        }
    }

    pub(super) fn needs_body(&self) -> bool {
        match self {
            Self::All(nodes) | Self::Any { nodes, .. } => nodes.iter().any(Self::needs_body),
            Self::Clause(clause) => matches!(clause.place, Place::Body(_)),
        }
    }
}

impl Clause {
    pub(super) fn holds(&self, subject: &Subject<'_>) -> bool {
        match &self.test {
            Test::Absent => !self.place.leads_to(subject, &mut |_| true),
            Test::Value(operators) => self.place.leads_to(subject, &mut |item| operators.iter().all(|operator| operator.holds(item))),
        }
    }
}

impl Place {
    /// Whether `wanted` takes one of the values there; it is asked about one after the other, until it does.
    pub(super) fn leads_to(&self, subject: &Subject<'_>, wanted: &mut dyn FnMut(Item<'_>) -> bool) -> bool {
        match self {
            Self::Body(path) => subject.body.is_some_and(|body| path.leads_to(body, &mut |value| wanted(Item::Json(value)))),
            Self::Header(name) => {
                subject.headers.iter().any(|(found, value)| found.eq_ignore_ascii_case(name) && wanted(Item::Text(value)))
            }
            Self::Query(name) => subject.query.iter().any(|(found, value)| found == name && wanted(Item::Text(value))),
            Self::UrlPath => wanted(Item::Text(subject.path)),
        }
    }
}
