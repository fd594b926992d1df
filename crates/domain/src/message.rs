//! What a tenant publishes.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::id::{ApplicationId, EndpointId, MessageId, SourceId, TenantId};

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
    /// What is special about it; absent for most.
    pub particulars: Option<Arc<Particulars>>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
}

/// What only some messages have. Headers and query are content: they go with the payload, once that is expunged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Particulars {
    /// The source that it came by.
    pub source: Option<SourceId>,
    /// The one endpoint that may get it, if it wants it.
    pub only: Option<EndpointId>,
    /// Headers that go on with each copy, a name as often as it came.
    pub headers: Vec<(String, String)>,
    /// The query of the request that it came with, as it was written. Filters look into it; it does not go on.
    pub query: Option<String>,
    /// The path of that request, with its first slash.
    pub path: Option<String>,
    /// What its publisher finds it by.
    pub tags: Vec<String>,
    /// It is an example for the one endpoint that may get it, whatever that asks for.
    pub is_example: bool,
}

impl Particulars {
    /// How many bytes of text they are.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let tags: usize = self.tags.iter().map(String::len).sum();
        headers + tags + length(&self.query) + length(&self.path)
    }
}

impl Message {
    /// Whether an earlier message carried the same key.
    pub fn is_duplicate(&self) -> bool {
        self.duplicate_of.is_some()
    }
}
