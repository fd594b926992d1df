//! Typed ids: a UUIDv7 inside, a sortable `prefix_` + 27 base62 characters outside, or a ULID.
//!
//! The public form holds 160 bits, big-endian: the seconds since 1400000000 (the KSUID epoch) as a `u32`, then the 128-bit
//! id. So it matches the SDK contract's pattern `^msg_[A-Za-z0-9]{27}$` and sorts by time, as KSUIDs do.
//! The other public form is the 128 bits as a ULID (<https://github.com/ulid/spec>): both begin with the same milliseconds.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use thiserror::Error;
use uuid::Uuid;

/// The epoch of KSUIDs, in seconds since 1970 (<https://github.com/segmentio/ksuid>).
const KSUID_EPOCH: u64 = 1_400_000_000;
/// Base62 digits in ASCII order, so that the text sorts as the number does.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The digits of Crockford's base32, which a ULID is written with; in ASCII order too.
const ULID_DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters that 128 bits need in base 32.
const ULID_LENGTH: usize = 26;
/// Characters that 160 bits need in base 62.
const LENGTH: usize = 27;

/// The text is not an id of this kind that we could have made.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not a known id")]
pub struct UnknownId;

/// What every typed id can do.
pub trait Id: Copy + From<Uuid> + Into<Uuid> {
    /// The letters before the underscore of the public form.
    const PREFIX: &'static str;

    /// The public form, for example `msg_` and 27 characters.
    fn public(self) -> String {
        let uuid: Uuid = self.into();
        let mut text = String::with_capacity(Self::PREFIX.len() + 1 + LENGTH);
        text.push_str(Self::PREFIX);
        text.push('_');
        encode(uuid, &mut text);
        text
    }

    /// Reads the public form back; anything that [`Id::public`] could not have written is unknown.
    fn parse(text: &str) -> Result<Self, UnknownId> {
        let digits = text.strip_prefix(Self::PREFIX).and_then(|rest| rest.strip_prefix('_')).ok_or(UnknownId)?;
        decode(digits).map(Self::from)
    }

    /// The id as a ULID: 26 characters, capital letters, without a prefix.
    fn ulid(self) -> String {
        let uuid: Uuid = self.into();
        let id = uuid.as_u128();
        let digit = |place: usize| char::from(ULID_DIGITS[usize::try_from(id >> (5 * place) & 31).unwrap_or(0)]);
        (0..ULID_LENGTH).rev().map(digit).collect()
    }

    /// Reads a ULID back; anything that [`Id::ulid`] could not have written is unknown, small letters included.
    fn parse_ulid(text: &str) -> Result<Self, UnknownId> {
        // Of the 130 bits that 26 digits hold, the first two are never used.
        if text.len() != ULID_LENGTH || text.as_bytes()[0] > b'7' {
            return Err(UnknownId);
        }
        let digits = text.bytes().map(|digit| ULID_DIGITS.binary_search(&digit).map_err(|_| UnknownId));
        let uuid = Uuid::from_u128(digits.into_iter().try_fold(0, |id, digit| Ok(id << 5 | digit? as u128))?);
        if uuid.get_version_num() == 7 { Ok(Self::from(uuid)) } else { Err(UnknownId) }
    }

    /// Whether `text` claims to be an id of this kind, known or not.
    fn has_prefix(text: &str) -> bool {
        text.strip_prefix(Self::PREFIX).is_some_and(|rest| rest.starts_with('_'))
    }

    /// The smallest id of a moment: ids made at `at` or later are not below it.
    fn first_at(at: DateTime<Utc>) -> Self {
        Self::from(floor(at))
    }

    /// When the id was made, to the millisecond.
    fn created_at(self) -> DateTime<Utc> {
        let uuid: Uuid = self.into();
        DateTime::from_timestamp_millis(i64::try_from(millis(uuid)).unwrap_or(i64::MAX)).unwrap_or_default()
    }
}

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl Id for $name {
            const PREFIX: &'static str = $prefix;
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.public())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.public())
            }
        }
    )*};
}

id! {
    /// One customer of a tenant.
    ApplicationId = "app";
    /// A key that programs call with.
    ApiKeyId = "key";
    /// What opens one application for its customer.
    PortalAccessId = "access";
    /// One HTTP request to an endpoint and what came back.
    AttemptId = "atmpt";
    /// A URL with filters, secrets and limits.
    EndpointId = "ep";
    /// A kind of event that a tenant publishes.
    EventTypeId = "evtype";
    /// What else must hold for a message of one type, of one subscription.
    FilterId = "flt";
    /// What was published.
    MessageId = "msg";
    /// An inbound URL with a verifier.
    SourceId = "src";
    /// What an endpoint wants, of which source.
    SubscriptionId = "sub";
    /// Long work that goes on by itself.
    TaskId = "qtask";
    /// The isolation boundary. Its public name is the token's subject; this id stays inside.
    TenantId = "org";
}

/// The smallest UUID whose UUIDv7 timestamp is `at` (RFC 9562 §5.7: 48 bits of milliseconds come first).
pub fn floor(at: DateTime<Utc>) -> Uuid {
    let millis = u128::try_from(at.timestamp_millis()).unwrap_or(0) & ((1 << 48) - 1);
    Uuid::from_u128(millis << 80)
}

/// The smallest UUIDv7 of the moments that are not before `at`. Ids hold whole milliseconds: what was made at 1 ms was made before
/// 1.5 ms, and what was made at 2 ms was not.
pub fn from(at: DateTime<Utc>) -> Uuid {
    let is_between = !at.timestamp_subsec_nanos().is_multiple_of(1_000_000);
    floor(if is_between { at + TimeDelta::milliseconds(1) } else { at })
}

fn millis(uuid: Uuid) -> u64 {
    u64::try_from(uuid.as_u128() >> 80).unwrap_or(0)
}

fn seconds(uuid: Uuid) -> u32 {
    u32::try_from((millis(uuid) / 1000).saturating_sub(KSUID_EPOCH)).unwrap_or(u32::MAX)
}

fn encode(uuid: Uuid, into: &mut String) {
    let id = uuid.as_u128();
    let word = |shift: u32| u32::try_from(id >> shift & 0xFFFF_FFFF).unwrap_or(0);
    let mut words = [seconds(uuid), word(96), word(64), word(32), word(0)];
    let mut digits = [b'0'; LENGTH];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u64;
        for word in &mut words {
            let value = rest << 32 | u64::from(*word);
            *word = u32::try_from(value / 62).unwrap_or(0);
            rest = value % 62;
        }
        *digit = DIGITS[usize::try_from(rest).unwrap_or(0)];
    }
    into.extend(digits.iter().map(|digit| char::from(*digit)));
}

fn decode(digits: &str) -> Result<Uuid, UnknownId> {
    if digits.len() != LENGTH {
        return Err(UnknownId);
    }
    let mut words = [0_u32; 5];
    for digit in digits.bytes() {
        let mut carry = DIGITS.binary_search(&digit).map_err(|_| UnknownId)? as u64;
        for word in words.iter_mut().rev() {
            let value = u64::from(*word) * 62 + carry;
            *word = u32::try_from(value & 0xFFFF_FFFF).unwrap_or(0);
            carry = value >> 32;
        }
        if carry != 0 {
            return Err(UnknownId);
        }
    }
    let uuid = Uuid::from_u128(words[1..].iter().fold(0, |id, word| id << 32 | u128::from(*word)));
    let is_ours = uuid.get_version_num() == 7 && words[0] == seconds(uuid);
    if is_ours { Ok(uuid) } else { Err(UnknownId) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any UUID of version 7, in the variant of RFC 9562.
    fn any_id() -> impl Strategy<Value = MessageId> {
        any::<u128>().prop_map(|bits| MessageId(Uuid::from_u128(bits & !(0xF << 76) & !(0b11 << 62) | 7 << 76 | 0b10 << 62)))
    }

    proptest! {
        #[test]
        fn both_public_forms_read_back_and_keep_the_order(one in any_id(), two in any_id()) {
            prop_assert_eq!(MessageId::parse_ulid(&one.ulid()), Ok(one));
            prop_assert_eq!(one.ulid().cmp(&two.ulid()), one.cmp(&two));
            prop_assert_eq!(MessageId::parse(&one.public()), Ok(one));
        }

        #[test]
        fn whatever_is_read_as_a_ulid_is_written_so(text in "[0-7][0-9A-HJKMNP-TV-Z]{9}[EF][0-9A-HJKMNP-TV-Z]{15}|[0-9A-Z]{10}[EF][0-9A-Zo]{15}|[0-9A-Za-z]{0,27}") {
            if let Ok(id) = MessageId::parse_ulid(&text) {
                prop_assert_eq!(id.ulid(), text);
            }
        }
    }

    #[test]
    fn a_ulid_has_the_digits_of_its_specification() {
        // Computed with Python from the digits of the specification.
        let id = MessageId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));
        assert_eq!(id.ulid(), "01J0000000E008000000000001");
        let last = MessageId(Uuid::from_u128(0xFFFF_FFFF_FFFF_7FFF_BFFF_FFFF_FFFF_FFFF));
        assert_eq!(last.ulid(), "7ZZZZZZZZZFZZVZZZZZZZZZZZZ");
        let text = last.ulid();
        let foreign = [
            "",
            "0",
            &text[1..],
            &format!("{text}0"),
            &text.to_lowercase(),
            &text.replacen('7', "8", 1),
            &text.replacen('Z', "U", 1),
            &text.replacen('Z', "é", 1),
        ];
        for text in foreign.into_iter().chain(["01ARZ3NDEKTSV4RRFFQ69G5FAV", "00000000000000000000000000"]) {
            assert_eq!(MessageId::parse_ulid(text), Err(UnknownId), "{text}");
        }
    }

    #[test]
    fn the_public_form_reads_back_and_sorts_by_time() {
        let earlier = MessageId(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 1_790_000_000, 0)));
        let later = MessageId(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 1_790_000_001, 0)));
        assert_eq!(MessageId::parse(&earlier.public()), Ok(earlier));
        assert_eq!(earlier.public().len(), 31);
        assert!(earlier.public() < later.public());
        assert_eq!(earlier.created_at().timestamp(), 1_790_000_000);
        assert!(MessageId::first_at(earlier.created_at()) < earlier);
    }

    #[test]
    fn a_moment_between_two_milliseconds_lies_between_their_ids() {
        let id = |micros: i64| MessageId(floor(DateTime::from_timestamp_micros(micros).expect("a time")));
        let bound = |micros: i64| MessageId(from(DateTime::from_timestamp_micros(micros).expect("a time")));
        assert_eq!(bound(1_790_000_000_001_000), id(1_790_000_000_001_000));
        assert_eq!(bound(1_790_000_000_001_001), id(1_790_000_000_002_000));
        assert_eq!(bound(1_790_000_000_001_999), id(1_790_000_000_002_000));
    }

    #[test]
    fn anything_that_we_could_not_have_made_is_unknown() {
        let id = MessageId(Uuid::now_v7()).public();
        let foreign =
            ["", "msg_", "msg_0", "msg_zzzzzzzzzzzzzzzzzzzzzzzzzzz", "msg_000000000000000000000000000", "ep_1srOrx2ZWZBpBUvZwXKQmoEYga2"];
        for text in foreign.into_iter().chain([id.replace("msg_", "ep_").as_str(), &format!("{id}0")]) {
            assert_eq!(MessageId::parse(text), Err(UnknownId), "{text}");
        }
    }
}
