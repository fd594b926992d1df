//! Where in a payload a clause looks: names, positions and `$`, with dots between them.

use serde_json::Value;

use super::{MAX_PARTS, Problem};

/// The way from the root of a payload to the values that a clause looks at.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// The parts with dots between them.
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    /// Where it is in the text.
    start: usize,
    end: usize,
    /// `$`: every position of an array.
    is_any: bool,
    /// What it is in an array, if it can be that.
    position: Option<usize>,
}

impl Path {
    /// Reads a path.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let mut parts = Vec::new();
        let mut start = 0;
        for part in text.split('.') {
            if part.is_empty() {
                return Err(Problem::EmptyPart);
            }
            let end = start + part.len();
            let is_position = part.bytes().all(|byte| byte.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
            parts.push(Part { start, end, is_any: part == "$", position: if is_position { part.parse().ok() } else { None } });
            start = end + 1;
        }
        if parts.len() > MAX_PARTS {
            return Err(Problem::LongPath);
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// Whether `wanted` takes one of the values that the path leads to; it is asked about one after the other, until it does.
    ///
    /// Each node of the payload is come by at most once: the names on the way to it, joined by dots, say how many parts it has used up.
    pub(super) fn leads_to(&self, root: &Value, wanted: &mut dyn FnMut(&Value) -> bool) -> bool {
        self.walk(0, root, wanted)
    }

    fn walk(&self, done: usize, value: &Value, wanted: &mut dyn FnMut(&Value) -> bool) -> bool {
        let Some(next) = self.parts.get(done) else {
            return wanted(value);
        };
        match value {
            // A name may contain dots itself, so it can use up several parts.
            Value::Object(members) => {
                let names = self.parts[done..].iter().take_while(|part| !part.is_any);
                names.enumerate().any(|(more, last)| {
                    members.get(&self.text[next.start..last.end]).is_some_and(|member| self.walk(done + more + 1, member, wanted))
                })
            }
            Value::Array(items) if next.is_any => items.iter().any(|item| self.walk(done + 1, item, wanted)),
            Value::Array(items) => next.position.and_then(|at| items.get(at)).is_some_and(|item| self.walk(done + 1, item, wanted)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_through_names_positions_and_every_position() {
        let payload = json!({"a": {"b": [{"c": 1}, {"c": 2, "0": 3}, 4]}, "a.b": 5, "x": {"y.z": {"w": 6}}});
        let found = |path: &str| {
            let mut values = Vec::new();
            let path = Path::parse(path).expect("a path");
            path.leads_to(&payload, &mut |value| {
                values.push(value.clone());
                false
            });
            Value::Array(values)
        };
        assert_eq!(found("a.b.0.c"), json!([1]));
        assert_eq!(found("a.b.$.c"), json!([1, 2]));
        assert_eq!(found("a.b.1.0"), json!([3]));
        assert_eq!(found("a.b.$.0"), json!([3]));
        assert_eq!(found("a.b.$"), json!([{"c": 1}, {"c": 2, "0": 3}, 4]));
        assert_eq!(found("a.b"), json!([[{"c": 1}, {"c": 2, "0": 3}, 4], 5]), "a name with dots in it is found too");
        assert_eq!(found("x.y.z.w"), json!([6]));
        for nowhere in ["a.b.3", "a.b.00.c", "a.$", "$", "a.b.2.c", "a.b.$.$", "a.b.99999999999999999999999"] {
            assert_eq!(found(nowhere), json!([]), "{nowhere}");
        }
    }

    #[test]
    fn empty_and_endless_paths_are_refused() {
        for text in ["", ".", "a.", ".a", "a..b"] {
            assert_eq!(Path::parse(text).err(), Some(Problem::EmptyPart), "{text}");
        }
        assert!(Path::parse(&["a"; MAX_PARTS].join(".")).is_ok());
        assert_eq!(Path::parse(&["a"; MAX_PARTS + 1].join(".")).err(), Some(Problem::LongPath));
    }
}
