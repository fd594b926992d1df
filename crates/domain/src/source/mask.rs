//! What a source is called in its URL: whoever knows it may knock, so it is as hard to guess as a key, and does not get into a log.

use std::{fmt, ops::RangeInclusive};

/// How many letters and digits a mask may have.
const LENGTHS: RangeInclusive<usize> = 16..=64;

/// The mask of a source.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Mask(String);

impl Mask {
    /// How many letters and digits a new one has: about 190 random bits.
    pub const LENGTH: usize = 32;

    /// Reads a mask; anything that no source can be called by is none.
    pub fn parse(text: &str) -> Option<Self> {
        (LENGTHS.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())).then(|| Self(text.to_owned()))
    }

    /// Its letters and digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mask(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_letters_and_digits_are_a_mask() {
        let mask = "aZ09".repeat(8);
        assert_eq!(Mask::parse(&mask).expect("a mask").as_str(), mask);
        assert!(!format!("{:?}", Mask::parse(&mask)).contains(&mask));
        for bad in ["", "short", &"a".repeat(65), &format!("{}%", "a".repeat(31)), &format!("{}é", "a".repeat(30)), &"a/".repeat(16)] {
            assert_eq!(Mask::parse(bad), None, "{bad}");
        }
    }
}
