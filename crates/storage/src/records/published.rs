//! What became of a message that was to be accepted.

use domain::{id::MessageId, message::Message};

use crate::answer::Answer;

/// What became of it.
#[derive(Clone, Debug)]
pub enum Published {
    /// It is stored, and so is everything that it owes.
    Accepted {
        /// As stored.
        message: Box<Message>,
        /// Whether this is the outcome of an earlier request with the same key.
        is_replay: bool,
    },
    /// Its event id is taken, by this message.
    EventIdTaken {
        /// The holder.
        by: MessageId,
        /// Whether this is the outcome of an earlier request with the same key.
        is_replay: bool,
    },
    /// An earlier request with the same key was refused, and its policy remembers that: this is what it was told.
    Refused(Answer),
}

impl Published {
    /// Whether this is the outcome of an earlier request with the same key.
    pub fn is_replay(&self) -> bool {
        match self {
            Self::Accepted { is_replay, .. } | Self::EventIdTaken { is_replay, .. } => *is_replay,
            Self::Refused(_) => true,
        }
    }
}
