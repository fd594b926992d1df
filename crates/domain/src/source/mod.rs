//! Requests that other services send to us: whether they are who they say they are, which of them are the same, and what goes on to the
//! endpoints.
//!
//! Reading order: [`Incoming`] what came · [`verifier`] from whom · [`location`] where a key is looked for · [`key`] the key that makes
//! repeats known · [`forward`] which headers go on.
//!
//! The order of these is a promise: a request is verified over its raw bytes first, and whatever is not verified costs no look-up.

pub mod forward;
mod found;
pub mod key;
pub mod location;
pub mod verifier;

/// A request as it came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Incoming<'a> {
    /// Names and values, a name as often as it came.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Names and values, decoded, in their order.
    pub query: &'a [(&'a str, &'a str)],
    /// The raw bytes.
    pub body: &'a [u8],
}

impl<'a> Incoming<'a> {
    /// The values of the header of this name, in the order in which they came.
    pub fn header(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// The first value of the parameter of this name.
    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.query.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }
}

/// What a body is, as its media type says and its parser found.
#[derive(Clone, Copy, Debug)]
pub enum Content<'a> {
    /// JSON, as it is spelled: a key must not be rounded.
    Json(&'a str),
    /// The pairs of a form, decoded, in their order.
    Form(&'a [(&'a str, &'a str)]),
    /// The fields of a multipart form by name, in their order, with their bytes.
    Multipart(&'a [(&'a str, &'a [u8])]),
    /// Something else, or something that could not be parsed: nothing is found in it.
    Opaque,
}
