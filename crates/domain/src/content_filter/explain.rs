//! Which clause of a filter did not hold, and what was found in its place.

use std::fmt;

use super::{
    Subject,
    clause::{Clause, Node, Place},
    operator::Item,
};

/// How many of the values that a clause came by are quoted.
const MAX_QUOTED: usize = 3;
/// How much of each is quoted, in characters.
const MAX_QUOTE: usize = 100;

/// A clause that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The clause, from its scope on.
    pub at: String,
    /// What it asks for, as JSON; empty for `$or`.
    pub wanted: String,
    /// What there was in its place.
    pub found: Found,
}

/// What a clause came by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The payload is not JSON, or was not given.
    NoPayload,
    /// Nothing is there.
    Nothing,
    /// The first values, shortened.
    Values(Vec<String>),
    /// Why each alternative of an `$or` does not hold.
    Alternatives(Vec<Mismatch>),
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Found::NoPayload => write!(f, "{} asks for {}, but the payload is not JSON", self.at, self.wanted),
            Found::Nothing => write!(f, "{} asks for {}, but is absent", self.at, self.wanted),
            Found::Values(values) => write!(f, "{} asks for {}, but is {}", self.at, self.wanted, values.join(" and ")),
            Found::Alternatives(reasons) => {
                write!(f, "{}: no alternative holds: ", self.at)?;
                for (i, reason) in reasons.iter().enumerate() {
                    write!(f, "{}{reason}", if i == 0 { "" } else { "; " })?;
                }
                Ok(())
            }
        }
    }
}

/// Why `node` does not hold; nothing, if it does.
pub(super) fn mismatch(node: &Node, subject: &Subject<'_>) -> Option<Mismatch> {
    match node {
        Node::All(nodes) => nodes.iter().find_map(|node| mismatch(node, subject)),
        Node::Any { at, nodes } => {
            let reasons: Option<Vec<_>> = nodes.iter().map(|node| mismatch(node, subject)).collect();
            Some(Mismatch { at: at.clone(), wanted: String::new(), found: Found::Alternatives(reasons?) })
        }
        Node::Clause(clause) => (!clause.holds(subject)).then(|| Mismatch {
            at: clause.at.clone(),
            wanted: quote(clause.wanted.to_string()),
            found: found(clause, subject),
        }),
    }
}

fn found(clause: &Clause, subject: &Subject<'_>) -> Found {
    if matches!(clause.place, Place::Body(_)) && subject.body.is_none() {
        return Found::NoPayload;
    }
    let mut quotes = Vec::new();
    clause.place.leads_to(subject, &mut |item| {
        quotes.push(quote(match item {
            Item::Json(value) => value.to_string(),
            Item::Text(text) => format!("{text:?}"),
        }));
        quotes.len() == MAX_QUOTED
    });
    if quotes.is_empty() { Found::Nothing } else { Found::Values(quotes) }
}

fn quote(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_QUOTE) {
        text.truncate(end);
        text.push('…');
    }
    text
}
