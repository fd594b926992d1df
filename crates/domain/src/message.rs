//! What a tenant publishes.

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::id::{ApplicationId, MessageId, TenantId};

/// The most channels that one message may name.
pub const MAX_MESSAGE_CHANNELS: usize = 5;
/// The most channels that one endpoint may ask for.
pub const MAX_ENDPOINT_CHANNELS: usize = 10;

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its id, sent as `webhook-id` with every copy.
    pub id: MessageId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// For which customer.
    pub application_id: ApplicationId,
    /// What happened.
    pub event_type: String,
    /// The publisher's name for the event, unique in the application.
    pub event_id: Option<String>,
    /// Where it belongs; empty, if nowhere in particular.
    pub channels: Vec<String>,
    /// The publisher's exact bytes; absent once expunged.
    pub payload: Option<Bytes>,
    /// What the bytes are.
    pub content_type: String,
    /// The key that dedupes messages.
    pub message_key: Option<String>,
    /// The first message with the same key, if this one is a duplicate (and so not delivered, unless it is released).
    pub duplicate_of: Option<MessageId>,
    /// When this duplicate was released, to be delivered after all.
    pub released_at: Option<DateTime<Utc>>,
    /// This duplicate carries another payload than the first.
    pub payload_mismatch: bool,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
}

impl Message {
    /// Whether an earlier message carried the same key.
    pub fn is_duplicate(&self) -> bool {
        self.duplicate_of.is_some()
    }
}
