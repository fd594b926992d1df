//! Regular expressions that cost one step for each byte that they look at, whatever they are and whatever they look at.
//!
//! A pattern becomes a complete deterministic automaton when the filter is compiled, or is refused if that would be too large. So
//! nobody's pattern can make the process that accepts messages slow: about two milliseconds for each megabyte of text.

use std::{fmt, sync::Arc};

use regex_automata::{
    Input,
    dfa::{Automaton, StartKind, dense},
    nfa::thompson,
    util::syntax,
};
use regex_syntax::ast::{AssertionKind, Ast, ClassPerl, ClassPerlKind, ClassSetItem, Span, Visitor, parse::ParserBuilder, visit};

use super::{MAX_PATTERN, Problem};

/// How large the automaton of a pattern may be, in bytes. Most have less than ten thousand.
const AUTOMATON_SIZE: usize = 256 * 1024;
/// How much memory may be used on the way to it.
const BUILD_SIZE: usize = 1024 * 1024;
/// How deeply groups may be nested.
const NESTING: u32 = 32;

/// A pattern that is looked for anywhere in a text.
#[derive(Clone)]
pub(super) struct Pattern {
    automaton: Arc<dense::DFA<Vec<u32>>>,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({} bytes)", self.automaton.memory_usage())
    }
}

impl Pattern {
    pub(super) fn compile(text: &str) -> Result<Self, Problem> {
        if text.len() > MAX_PATTERN {
            return Err(Problem::LargePattern);
        }
        let plain = in_ascii(text)?;
        let built = dense::Builder::new()
            .syntax(syntax::Config::new().utf8(false))
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(BUILD_SIZE)))
            .configure(
                dense::Config::new()
                    .start_kind(StartKind::Unanchored)
                    .dfa_size_limit(Some(AUTOMATON_SIZE))
                    .determinize_size_limit(Some(BUILD_SIZE)),
            )
            .build(&plain);
        // The grammar has been checked, so whatever fails now fails for its size.
        built.map(|automaton| Self { automaton: Arc::new(automaton) }).map_err(|_| Problem::LargePattern)
    }

    pub(super) fn is_in(&self, text: &str) -> bool {
        self.automaton.try_search_fwd(&Input::new(text).earliest(true)).is_ok_and(|found| found.is_some())
    }
}

/// The pattern with `\d`, `\s`, `\w` and `\b` as they are in RE2 and Go: over ASCII. Over all of Unicode a single `\w` makes an automaton of a
/// hundred thousand bytes, and `\b` none at all.
fn in_ascii(text: &str) -> Result<String, Problem> {
    let ast =
        ParserBuilder::new().nest_limit(NESTING).build().parse(text).map_err(|error| Problem::BadPattern(error.kind().to_string()))?;
    let replacements = visit(&ast, Replacements::default()).unwrap_or_else(|never| match never {});
    let mut plain = text.to_owned();
    for (span, replacement) in replacements.into_iter().rev() {
        plain.replace_range(span.start.offset..span.end.offset, &replacement.replace("{}", &text[span.start.offset..span.end.offset]));
    }
    Ok(plain)
}

/// Where something stands in a pattern, from left to right, and what takes its place; `{}` stands for what was there.
#[derive(Default)]
struct Replacements(Vec<(Span, &'static str)>);

impl Replacements {
    fn class(&mut self, class: &ClassPerl) {
        let replacement = match (&class.kind, class.negated) {
            (ClassPerlKind::Digit, false) => "[0-9]",
            (ClassPerlKind::Digit, true) => "[^0-9]",
            (ClassPerlKind::Space, false) => r"[\t\n\f\r\x20]",
            (ClassPerlKind::Space, true) => r"[^\t\n\f\r\x20]",
            (ClassPerlKind::Word, false) => "[0-9A-Za-z_]",
            (ClassPerlKind::Word, true) => "[^0-9A-Za-z_]",
        };
        self.0.push((class.span, replacement));
    }
}

impl Visitor for Replacements {
    type Output = Vec<(Span, &'static str)>;
    type Err = std::convert::Infallible;

    fn finish(self) -> Result<Self::Output, Self::Err> {
        Ok(self.0)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Self::Err> {
        match ast {
            Ast::ClassPerl(class) => self.class(class),
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine | AssertionKind::EndLine | AssertionKind::StartText | AssertionKind::EndText => {}
                _ => self.0.push((assertion.span, "(?-u:{})")),
            },
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Self::Err> {
        if let ClassSetItem::Perl(class) = item {
            self.class(class);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in(pattern: &str, text: &str) -> bool {
        Pattern::compile(pattern).unwrap_or_else(|problem| panic!("{pattern}: {problem}")).is_in(text)
    }

    #[test]
    fn a_pattern_is_found_anywhere() {
        for (pattern, inside, outside) in [
            (r"^order\.(created|paid)$", "order.paid", "order.paid.twice"),
            ("paid", "order.paid.twice", "order.Paid"),
            ("(?i)straße", "STRASSE STRAßE", "strasse"),
            (r"^[\w.+-]+@[\w-]+\.[\w.]+$", "a.b+c@example.com", "a b@example.com"),
            (r"^\d{4}-\d{2}-\d{2}T", "2024-05-06T", "٢٠٢٤-05-06T"),
            (r"^\D+$", "٢٠٢٤", "2024"),
            (r"a\sb\Sc", "a bxc", "a\u{a0}bxc"),
            (r"\bcat\b", "the cat, purring", "concatenate"),
            (r"\Bcat\B", "concatenate", "the cat, purring"),
            (r"^[^\W_]+$", "Az09", "A_z"),
            (r"^.{2}$", "жé", "ж"),
            (r"\p{Greek}", "αβγ", "abc"),
            (r"(?x) a \w # a comment with \w", "ab", "a b"),
            ("", "", ""),
        ] {
            assert!(is_in(pattern, inside), "{pattern} is in {inside}");
            assert!(outside.is_empty() || !is_in(pattern, outside), "{pattern} is not in {outside}");
        }
    }

    #[test]
    fn what_could_become_slow_is_refused() {
        for pattern in [r"(a|b)*a(a|b){20}c", ".*a.{30}c", "((a{1,100}){1,100}){1,100}", r"\pL{100}", &"a".repeat(MAX_PATTERN + 1)] {
            assert_eq!(Pattern::compile(pattern).err(), Some(Problem::LargePattern), "{pattern}");
        }
        assert!(Pattern::compile(&"a".repeat(MAX_PATTERN)).is_ok());
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["(", "a)", "[z-a]", r"(a)\1", "(?=a)", "(?<!a)b", "*", r"\q", &"(".repeat(100)] {
            assert!(matches!(Pattern::compile(pattern).err(), Some(Problem::BadPattern(_))), "{pattern}");
        }
    }
}
