//! One spelling for all spellings of a JSON text: what a fingerprint is made of.

use std::{borrow::Cow, io::Write, ops::Range};

/// One spelling for all spellings of a JSON text: members sorted by name, no white space, strings unescaped and length
/// prefixed, numbers as they were written (so `1` and `1.0` differ, and no two large integers coincide as they would in
/// RFC 8785). A text that is not JSON, or that repeats a member name, stands for itself.
pub fn canonical(json: &[u8]) -> Cow<'_, [u8]> {
    let mut scan = Scan { json, at: 0, out: Vec::with_capacity(json.len()) };
    let is_whole = scan.value(0).is_some() && scan.skip_white_space().is_none();
    if is_whole { Cow::Owned(scan.out) } else { Cow::Borrowed(json) }
}

/// Deeper texts stand for themselves; the parser in front refuses them anyway.
const MAX_DEPTH: usize = 256;

struct Scan<'a> {
    json: &'a [u8],
    at: usize,
    out: Vec<u8>,
}

/// A member of an object: its name, and where its name and value are in what has been written.
type Member<'a> = (Cow<'a, str>, Range<usize>);

impl<'a> Scan<'a> {
    /// The next byte that is not white space, without taking it.
    fn skip_white_space(&mut self) -> Option<u8> {
        while matches!(self.json.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.json.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        let found = self.skip_white_space()? == byte;
        self.at += usize::from(found);
        found.then_some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.skip_white_space()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => {
                let text = self.string()?;
                self.write_string(&text);
                Some(())
            }
            _ => self.scalar(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.take(b'{')?;
        self.out.push(b'{');
        let start = self.out.len();
        let mut members = Vec::new();
        while self.skip_white_space()? != b'}' {
            if !members.is_empty() {
                self.take(b',')?;
                self.skip_white_space()?;
            }
            let begin = self.out.len();
            let name = self.string()?;
            self.write_string(&name);
            self.take(b':')?;
            self.value(depth + 1)?;
            members.push((name, begin..self.out.len()));
        }
        self.take(b'}')?;
        self.sort(start, members)?;
        self.out.push(b'}');
        Some(())
    }

    /// Puts the members that were written from `start` on in the order of their names, which must differ.
    fn sort(&mut self, start: usize, mut members: Vec<Member<'a>>) -> Option<()> {
        let is_sorted = members.is_sorted_by(|(a, _), (b, _)| a < b);
        if !is_sorted {
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                return None;
            }
            let written = self.out.split_off(start);
            for (_, Range { start: begin, end }) in members {
                self.out.extend_from_slice(&written[begin - start..end - start]);
            }
        }
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.take(b'[')?;
        self.out.push(b'[');
        let mut is_first = true;
        while self.skip_white_space()? != b']' {
            if !is_first {
                self.take(b',')?;
            }
            is_first = false;
            self.value(depth + 1)?;
        }
        self.take(b']')?;
        self.out.push(b']');
        Some(())
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        let start = self.at;
        self.take(b'"')?;
        let mut is_plain = true;
        loop {
            match *self.json.get(self.at)? {
                b'"' => break,
                b'\\' => {
                    is_plain = false;
                    self.at += 2;
                }
                byte => {
                    is_plain &= byte >= b' ';
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        let text = &self.json[start..self.at];
        if is_plain {
            return std::str::from_utf8(&text[1..text.len() - 1]).ok().map(Cow::Borrowed);
        }
        serde_json::from_slice(text).ok().map(Cow::Owned)
    }

    fn scalar(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.json.get(self.at), Some(b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.' | b'E')) {
            self.at += 1;
        }
        if start == self.at {
            return None;
        }
        self.out.extend_from_slice(&self.json[start..self.at]);
        self.out.push(b',');
        Some(())
    }

    fn write_string(&mut self, text: &str) {
        write!(self.out, "\"{}:", text.len()).expect("a vector takes all");
        self.out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_text_keeps_structures_apart() {
        let texts = [
            "[[1],2]",
            "[[1,2]]",
            "[1,2]",
            "[12]",
            r#"{"a":{"b":1}}"#,
            r#"{"a":{},"b":1}"#,
            r#"["1"]"#,
            "null",
            "[null]",
            "[]",
            "{}",
            "[{}]",
        ];
        let forms: std::collections::HashSet<_> = texts.iter().map(|text| canonical(text.as_bytes()).into_owned()).collect();
        assert_eq!(forms.len(), texts.len());
    }
}
