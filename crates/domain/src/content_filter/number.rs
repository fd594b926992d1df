//! Numbers of JSON by their value: equal and ordered without rounding, and fit to be looked up.

use std::cmp::Ordering;

/// The value of a number. Each value has exactly one form, so that equality and hashing can be derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Number {
    /// A whole number, whichever way it was written.
    Whole(i128),
    /// The bits of a double that is not whole, or that is too large for the other form.
    Double(u64),
}

/// From here on doubles are kept as such: all of them are whole, and none of them is the value of a 64-bit integer.
const LARGE: f64 = 1e30;

impl Number {
    pub(super) fn of(number: &serde_json::Number) -> Self {
        if let Some(whole) = number.as_i128() {
            return Self::Whole(whole);
        }
        Self::of_double(number.as_f64().unwrap_or(f64::NAN))
    }

    fn of_double(double: f64) -> Self {
        if double.fract() == 0.0 && double.abs() < LARGE { Self::Whole(whole(double)) } else { Self::Double(double.to_bits()) }
    }

    /// What a text reads as, if it is a number by the grammar of JSON.
    pub(super) fn read(text: &str) -> Option<Self> {
        let is_plain =
            text.starts_with(|first: char| first == '-' || first.is_ascii_digit()) && text.ends_with(|last: char| last.is_ascii_digit());
        let number: serde_json::Number = is_plain.then(|| serde_json::from_str(text).ok())??;
        Some(Self::of(&number))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (*self, *other) {
            (Self::Whole(one), Self::Whole(two)) => one.cmp(&two),
            (Self::Double(one), Self::Double(two)) => f64::from_bits(one).total_cmp(&f64::from_bits(two)),
            (Self::Whole(one), Self::Double(two)) => compare(one, f64::from_bits(two)),
            (Self::Double(one), Self::Whole(two)) => compare(two, f64::from_bits(one)).reverse(),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A whole number against a double that is not whole or beyond all whole numbers: the two are never equal.
fn compare(one: i128, two: f64) -> Ordering {
    let is_less = if two.abs() < LARGE { one <= whole(two.floor()) } else { two > 0.0 };
    if is_less { Ordering::Less } else { Ordering::Greater }
}

#[expect(clippy::cast_possible_truncation, reason = "callers keep to doubles without a fraction that are below 1e30")]
fn whole(double: f64) -> i128 {
    double as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::read(text).unwrap_or_else(|| panic!("{text} is a number"))
    }

    #[test]
    fn a_value_is_one_number_however_it_is_written() {
        for (one, two) in [
            ("1", "1.0"),
            ("0", "-0"),
            ("0", "-0.0"),
            ("100", "1e2"),
            ("0.5", "5e-1"),
            ("18446744073709551616", "1.8446744073709551616e19"),
        ] {
            assert_eq!(number(one), number(two), "{one} {two}");
        }
    }

    #[test]
    fn neighbours_are_told_apart_and_ordered() {
        let ascending = [
            "-1e300",
            "-1e30",
            "-9223372036854775809",
            "-9223372036854775808",
            "-1.5",
            "-1",
            "-0.5",
            "0",
            "5e-324",
            "0.5",
            "1",
            "1.5",
            "9007199254740992.0",
            "9007199254740993",
            "9007199254740994.0",
            "18446744073709551615",
            "18446744073709551616",
            "1e30",
            "1e300",
        ];
        // The parser makes the double -2^63 of the third, which is the fourth: the one pair that is equal.
        for (i, one) in ascending.iter().enumerate() {
            for (j, two) in ascending.iter().enumerate() {
                let expected = if [i, j] == [2, 3] || [i, j] == [3, 2] { Ordering::Equal } else { i.cmp(&j) };
                assert_eq!(number(one).cmp(&number(two)), expected, "{one} {two}");
            }
        }
    }

    #[test]
    fn what_is_no_number_of_json_is_no_number() {
        for text in ["", " 1", "1 ", "+1", "0x10", "01", "1.", ".5", "NaN", "Infinity", "1_000", "\"1\"", "1e999", "-"] {
            assert_eq!(Number::read(text), None, "{text}");
        }
    }
}
