//! Names and values that are percent-encoded: those of a query, and of a form in a body.
//!
//! What is no text stays as it is spelled, behind a mark: two values that differ must not become one, or one request would be
//! taken for a repeat of the other.

use percent_encoding::percent_decode;

/// Stands before what is no text when it is decoded.
const MARK: char = char::REPLACEMENT_CHARACTER;

/// The pairs, decoded, in their order.
pub(super) fn decoded(encoded: &[u8]) -> Vec<(String, String)> {
    of(encoded).map(decoded_pair).collect()
}

/// The pairs as they are spelled, without those of these names.
pub(super) fn without(encoded: &str, names: &[String]) -> String {
    let stays = |pair: &&str| !names.contains(&decoded_pair(pair.as_bytes()).0);
    encoded.split('&').filter(stays).collect::<Vec<_>>().join("&")
}

fn of(encoded: &[u8]) -> impl Iterator<Item = &[u8]> {
    encoded.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty())
}

fn decoded_pair(pair: &[u8]) -> (String, String) {
    let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
        Some(place) => (&pair[..place], &pair[place + 1..]),
        None => (pair, &b""[..]),
    };
    (text(name), text(value))
}

fn text(encoded: &[u8]) -> String {
    let spaced: Vec<_> = encoded.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    let bytes: Vec<u8> = percent_decode(&spaced).collect();
    String::from_utf8(bytes).unwrap_or_else(|_| format!("{MARK}{}", encoded.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_and_what_differs_stays_different() {
        let decode = |text: &[u8]| decoded(text).into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        assert_eq!(decode(b"a=1&&b+c=%C3%A9+%2B&d&=e"), ["a=1", "b c=\u{e9} +", "d=", "=e"]);
        assert_ne!(decode(b"a=%FF"), decode(b"a=%FE"));
        assert_ne!(decode(b"a=\xff"), decode(b"a=\xfe"));
        assert_eq!(decode(b"a=%"), ["a=%"]);
    }

    #[test]
    fn what_is_left_out_is_left_out_however_it_is_spelled() {
        let names = ["key".to_owned()];
        assert_eq!(without("a=%31&key=s3cret&%6Bey=s3cret&Key=2&b", &names), "a=%31&Key=2&b");
        assert_eq!(without("key=s3cret", &names), "");
        assert_eq!(without("", &names), "");
    }
}
