//! From a filter as it was written to one that is ready, within bounds.

use serde_json::{Map, Value};

use super::{
    InvalidFilter, MAX_CLAUSES, MAX_DEPTH, MAX_PATTERNS, MAX_VALUES, MAX_WRITTEN, Problem,
    clause::{Clause, Node, Place, Test},
    operator::{Bound, Comparison, Operator, Values},
    path::Path,
    pattern::Pattern,
};

/// The operators that look at a value.
const OPERATORS: [&str; 10] = ["$eq", "$neq", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exist", "$regex"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Body,
    Headers,
    Query,
    Path,
}

impl Scope {
    const ALL: [Self; 4] = [Self::Body, Self::Headers, Self::Query, Self::Path];

    fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Headers => "headers",
            Self::Query => "query",
            Self::Path => "path",
        }
    }
}

/// One scope on its way, and what the whole filter has used up.
pub(super) struct Compiler {
    scope: Scope,
    clauses: usize,
    values: usize,
    patterns: usize,
}

/// Where in the filter we are.
#[derive(Clone, Copy)]
struct Spot<'a> {
    /// From the scope on, for people.
    at: &'a str,
    /// The names of the fields around, with dots between them.
    field: &'a str,
    depth: usize,
}

impl Spot<'_> {
    fn refuse<T>(self, problem: Problem) -> Result<T, InvalidFilter> {
        Err(InvalidFilter { at: self.at.to_owned(), problem })
    }
}

impl Compiler {
    pub(super) fn compile(written: &Value) -> Result<Vec<Node>, InvalidFilter> {
        let refuse = |at: &str, problem| Err(InvalidFilter { at: at.to_owned(), problem });
        let Value::Object(scopes) = written else { return refuse("filter", Problem::NoScopes) };
        if written.to_string().len() > MAX_WRITTEN {
            return refuse("filter", Problem::Large);
        }
        let mut compiler = Self { scope: Scope::Body, clauses: 0, values: 0, patterns: 0 };
        let mut nodes = Vec::new();
        for (name, value) in scopes {
            let Some(scope) = Scope::ALL.into_iter().find(|scope| scope.name() == name) else { return refuse(name, Problem::UnknownScope) };
            compiler.scope = scope;
            let spot = Spot { at: name, field: "", depth: 1 };
            match value {
                Value::Null => {}
                Value::Object(members) => nodes.extend(compiler.fields(spot, members)?),
                _ => return spot.refuse(Problem::NotAnObject),
            }
        }
        Ok(nodes)
    }

    /// The clauses of an object whose members are fields, `$or` and `$and`.
    fn fields(&mut self, spot: Spot<'_>, members: &Map<String, Value>) -> Result<Vec<Node>, InvalidFilter> {
        if spot.depth > MAX_DEPTH {
            return spot.refuse(Problem::Deep);
        }
        members.iter().map(|(name, value)| self.member(spot, name, value)).collect()
    }

    fn member(&mut self, spot: Spot<'_>, name: &str, value: &Value) -> Result<Node, InvalidFilter> {
        let at = format!("{}.{name}", spot.at);
        let depth = spot.depth + 1;
        match name {
            "$or" => {
                let nodes = self.alternatives(Spot { at: &at, depth, ..spot }, value)?;
                Ok(Node::Any { at, nodes })
            }
            "$and" => Ok(Node::All(self.alternatives(Spot { at: &at, depth, ..spot }, value)?)),
            operator if OPERATORS.contains(&operator) => Spot { at: &at, ..spot }.refuse(Problem::WithoutField(operator.to_owned())),
            _ if is_operator(name) => Spot { at: &at, ..spot }.refuse(Problem::UnknownOperator),
            _ if self.scope != Scope::Body && !spot.field.is_empty() => spot.refuse(Problem::TextOnly),
            _ => {
                let field = if spot.field.is_empty() { name.to_owned() } else { format!("{}.{name}", spot.field) };
                self.field(Spot { at: &at, field: &field, depth }, value)
            }
        }
    }

    /// The list of `$or` or `$and`.
    fn alternatives(&mut self, spot: Spot<'_>, list: &Value) -> Result<Vec<Node>, InvalidFilter> {
        let list = list.as_array().filter(|list| !list.is_empty());
        let Some(list) = list else { return spot.refuse(Problem::NotClauses) };
        let one = |(i, value): (usize, &Value)| {
            let at = format!("{}[{i}]", spot.at);
            let spot = Spot { at: &at, ..spot };
            match value {
                Value::Object(members) if members.is_empty() => spot.refuse(Problem::Empty),
                // Inside of a field an alternative may speak of that field itself.
                Value::Object(members) if !spot.field.is_empty() && has_operators(members) => self.field(spot, value),
                Value::Object(members) => Ok(Node::All(self.fields(spot, members)?)),
                _ => spot.refuse(Problem::NotClauses),
            }
        };
        list.iter().enumerate().map(one).collect()
    }

    /// A field, or what is inside of it.
    fn field(&mut self, spot: Spot<'_>, value: &Value) -> Result<Node, InvalidFilter> {
        let Value::Object(members) = value else {
            return self.clause(spot, value, Test::Value(vec![Operator::Is(value.clone())]));
        };
        if members.is_empty() {
            return spot.refuse(Problem::Empty);
        }
        if has_operators(members) {
            let test = self.test(spot, members)?;
            return self.clause(spot, value, test);
        }
        Ok(Node::All(self.fields(spot, members)?))
    }

    fn clause(&mut self, spot: Spot<'_>, wanted: &Value, test: Test) -> Result<Node, InvalidFilter> {
        self.count_clause(spot)?;
        let is_text = self.scope != Scope::Body;
        let place = match self.scope {
            Scope::Body => Path::parse(spot.field).map(Place::Body).or_else(|problem| spot.refuse(problem))?,
            Scope::Headers => Place::Header(spot.field.to_owned()),
            Scope::Query => Place::Query(spot.field.to_owned()),
            Scope::Path if spot.field == "path" => Place::UrlPath,
            Scope::Path => return spot.refuse(Problem::UnknownPathField),
        };
        let compares_more_than_text = |operator: &Operator| match operator {
            Operator::Is(value) | Operator::Equal(value) | Operator::Differ(value) => value.is_array() || value.is_object(),
            Operator::Within(values) | Operator::Outside(values) => !values.composite.is_empty(),
            Operator::Order(..) | Operator::Exist | Operator::Pattern(_) => false,
        };
        match &test {
            Test::Value(operators) if is_text && operators.iter().any(compares_more_than_text) => spot.refuse(Problem::TextOnly),
            _ => Ok(Node::Clause(Clause { at: spot.at.to_owned(), wanted: wanted.clone(), place, test })),
        }
    }

    fn count_clause(&mut self, spot: Spot<'_>) -> Result<(), InvalidFilter> {
        self.clauses += 1;
        if self.clauses > MAX_CLAUSES { spot.refuse(Problem::ManyClauses) } else { Ok(()) }
    }

    /// The operators of one field.
    fn test(&mut self, spot: Spot<'_>, members: &Map<String, Value>) -> Result<Test, InvalidFilter> {
        let mut operators = Vec::with_capacity(members.len());
        let mut is_absent = false;
        for (name, operand) in members {
            let at = format!("{}.{name}", spot.at);
            let spot = Spot { at: &at, ..spot };
            match (name.as_str(), operand) {
                ("$exist", Value::Bool(false)) => is_absent = true,
                (name, operand) if OPERATORS.contains(&name) => operators.push(self.operator(spot, name, operand)?),
                (name, _) if is_operator(name) && name != "$or" && name != "$and" => return spot.refuse(Problem::UnknownOperator),
                _ => return spot.refuse(Problem::Mixed),
            }
        }
        match (is_absent, operators.is_empty()) {
            (false, _) => Ok(Test::Value(operators)),
            (true, true) => Ok(Test::Absent),
            (true, false) => spot.refuse(Problem::AbsentAndMore),
        }
    }

    fn operator(&mut self, spot: Spot<'_>, name: &str, operand: &Value) -> Result<Operator, InvalidFilter> {
        let order = |comparison| match Bound::of(operand) {
            Some(bound) => Ok(Operator::Order(comparison, bound)),
            None => spot.refuse(Problem::Unordered),
        };
        match name {
            "$eq" => Ok(Operator::Equal(operand.clone())),
            "$neq" => Ok(Operator::Differ(operand.clone())),
            "$gt" => order(Comparison::Greater),
            "$gte" => order(Comparison::GreaterOrEqual),
            "$lt" => order(Comparison::Less),
            "$lte" => order(Comparison::LessOrEqual),
            "$in" => self.values(spot, operand).map(Operator::Within),
            "$nin" => self.values(spot, operand).map(Operator::Outside),
            "$regex" => self.pattern(spot, operand).map(Operator::Pattern),
            _ if operand.is_boolean() => Ok(Operator::Exist),
            _ => spot.refuse(Problem::NotABoolean),
        }
    }

    fn values(&mut self, spot: Spot<'_>, operand: &Value) -> Result<Values, InvalidFilter> {
        let list = operand.as_array().filter(|list| !list.is_empty());
        let Some(list) = list else { return spot.refuse(Problem::NotAList) };
        self.values += list.len();
        if self.values > MAX_VALUES {
            return spot.refuse(Problem::ManyValues);
        }
        let values = Values::of(list);
        for _ in &values.composite {
            self.count_clause(spot)?;
        }
        Ok(values)
    }

    fn pattern(&mut self, spot: Spot<'_>, operand: &Value) -> Result<Pattern, InvalidFilter> {
        let Some(text) = operand.as_str() else { return spot.refuse(Problem::NotAPattern) };
        self.patterns += 1;
        if self.patterns > MAX_PATTERNS {
            return spot.refuse(Problem::ManyPatterns);
        }
        Pattern::compile(text).or_else(|problem| spot.refuse(problem))
    }
}

/// Whether a name is an operator, known or not. `$` alone is a position.
fn is_operator(name: &str) -> bool {
    name.starts_with('$') && name.len() > 1 && !name.starts_with("$.")
}

/// Whether an object says what a field must be. One of `$or` and `$and` alone says what is in it.
fn has_operators(members: &Map<String, Value>) -> bool {
    members.keys().any(|name| is_operator(name) && name != "$or" && name != "$and")
}
