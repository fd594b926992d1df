//! What is wrong with a filter, where, and what to write instead.

use thiserror::Error;

use super::{MAX_CLAUSES, MAX_DEPTH, MAX_PARTS, MAX_PATTERN, MAX_PATTERNS, MAX_VALUES, MAX_WRITTEN};

/// A filter that is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{at}: {problem}")]
pub struct InvalidFilter {
    /// The clause, from its scope on: `body.$or[1].amount.$gt`.
    pub at: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a clause.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Problem {
    /// No document of scopes.
    #[error("must be an object with the members `body`, `headers`, `query` and `path`, or some of them")]
    NoScopes,
    /// A member of the document that is no scope.
    #[error("is not a part of a message: use `body`, `headers`, `query` or `path`, and write fields of the payload inside `body`")]
    UnknownScope,
    /// The whole is too long.
    #[error("is too large: a filter may have {MAX_WRITTEN} bytes of JSON")]
    Large,
    /// Something else than an object where clauses are expected.
    #[error("must be an object of fields and the values that they must have")]
    NotAnObject,
    /// An object without a member below the top.
    #[error("is empty and would ask for nothing: leave it out, or write `{{\"$exist\": true}}` or `{{\"$eq\": {{}}}}`")]
    Empty,
    /// A word with `$` that is no operator.
    #[error("is not an operator: use $eq, $neq, $gt, $gte, $lt, $lte, $in, $nin, $exist, $regex, $or or $and")]
    UnknownOperator,
    /// An operator where a field is expected.
    #[error("stands without a field: write `{{\"field\": {{\"{0}\": …}}}}`")]
    WithoutField(String),
    /// Operators and fields in one object.
    #[error("stands beside operators in one object: say what a field must be, or what is in it, and join the two with `$and`")]
    Mixed,
    /// `$exist: false` and something that asks for a value.
    #[error("can never match beside other operators: leave one of them out")]
    AbsentAndMore,
    /// Something else than a list of objects for `$or` and `$and`.
    #[error("must be a list of at least one object of clauses")]
    NotClauses,
    /// Something else than a list for `$in` and `$nin`.
    #[error("must be a list of at least one value")]
    NotAList,
    /// `$gt` and its kind with something that has no order.
    #[error("must be a number or a string")]
    Unordered,
    /// `$exist` with something else than a boolean.
    #[error("must be true or false")]
    NotABoolean,
    /// `$regex` with something else than a text.
    #[error("must be a string that holds a regular expression")]
    NotAPattern,
    /// `$regex` with a text that is no pattern.
    #[error("is not a regular expression (there is no look-around, and there are no back-references): {0}")]
    BadPattern(String),
    /// A pattern that is too long, or that cannot be made to read each byte once.
    #[error(
        "is too large a pattern: use at most {MAX_PATTERN} bytes, anchor it with `^`, write `*` for counted repetitions and `[a-z]` \
         for classes of Unicode"
    )]
    LargePattern,
    /// Too many patterns.
    #[error("is one pattern too many: a filter may have {MAX_PATTERNS}; join some with `|`")]
    ManyPatterns,
    /// A path with an empty part.
    #[error("has an empty part: write names with single dots between them")]
    EmptyPart,
    /// A path with too many parts.
    #[error("has too many parts: a path may have {MAX_PARTS}")]
    LongPath,
    /// A value inside a header, a parameter or the path.
    #[error("is text and has nothing inside it: compare it with a string, a number or a boolean")]
    TextOnly,
    /// A field of the path other than `path`.
    #[error("is not known here: the whole path of the request is the field `path`")]
    UnknownPathField,
    /// Too many levels.
    #[error("is nested too deeply: a filter may have {MAX_DEPTH} levels; write `a.b.c` in place of nested objects")]
    Deep,
    /// Too many clauses.
    #[error("is one clause too many: a filter may have {MAX_CLAUSES}; use `$in` in place of many alternatives")]
    ManyClauses,
    /// Too many values.
    #[error("makes too many values: all lists of `$in` and `$nin` together may have {MAX_VALUES}")]
    ManyValues,
}
