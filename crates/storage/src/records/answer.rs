//! An answer of the API, as it is given and as it is saved.

use bytes::Bytes;

/// An answer as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body's bytes; empty for none.
    pub body: Bytes,
    /// The body's media type.
    pub content_type: Option<String>,
    /// Where the thing that was made can be found.
    pub location: Option<String>,
}
