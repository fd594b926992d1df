//! One request, one effect: the header, the event id and the message key.

mod claim;
mod layers;
mod lost_answer;
mod policy;
mod races;
mod records;
mod release;
mod requirements;
mod syntax;

use support::Answer;

/// Fails unless the second answer is the first one again, and says so.
#[track_caller]
pub(crate) fn same(first: &Answer, second: &Answer) {
    assert_eq!((first.status, &first.body), (second.status, &second.body), "the same status and the same bytes");
    assert!(!first.is_replay() && second.is_replay(), "the second is the saved one, and the first was not");
    assert_eq!(first.header("content-type"), second.header("content-type"));
    assert_eq!(first.header("location"), second.header("location"));
}
