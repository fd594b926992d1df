//! Requests that other services send to us: whether they are who they say they are, which of them are the same, and what goes on to the
//! endpoints.
//!
//! Reading order: [`Source`] where they are sent · [`Incoming`] what came · [`verifier`] from whom · [`location`] where a key is looked for · [`key`] the key that makes
//! repeats known · [`forward`] which headers go on.
//!
//! The order of these is a promise: a request is verified over its raw bytes first, and whatever is not verified costs no look-up.

pub mod forward;
mod found;
pub mod key;
pub mod location;
mod mask;
pub mod verifier;

use chrono::{DateTime, Utc};

use self::{
    forward::ForwardedHeaders,
    location::{Location, Locations},
    verifier::Verifier,
};
pub use self::{found::text_at, mask::Mask};
use crate::id::{SourceId, TenantId};

/// The longest text that a source answers with, in bytes.
pub const MAX_RESPONSE: usize = 16 * 1024;
/// What that text is, if nothing is said of it.
pub const PLAIN: &str = "text/plain; charset=utf-8";

/// Where another service sends to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its id.
    pub id: SourceId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// What it is called in its URL.
    pub mask: Mask,
    /// What its owner made of it.
    pub definition: Definition,
    /// Grows with each write.
    pub version: i64,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last written.
    pub updated_at: DateTime<Utc>,
}

/// What the owner of a source decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// For people.
    pub name: String,
    /// Whose requests it takes, if that is one of those that we know.
    pub provider: Option<Provider>,
    /// How they prove who sent them.
    pub verifier: Verifier,
    /// What makes a repeat known.
    pub locations: Locations,
    /// A request that has nothing at any of these is refused; else it is never a repeat.
    pub rejects_missing_key: bool,
    /// Which headers go on to the endpoints.
    pub forwarded: ForwardedHeaders,
    /// Where a request says what happened.
    pub event_type_at: Option<Location>,
    /// What senders are answered with, in place of our words.
    pub response: Option<CustomResponse>,
    /// It takes nothing for now.
    pub is_disabled: bool,
}

/// What senders are answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomResponse {
    /// The body.
    pub body: String,
    /// What that is.
    pub content_type: String,
}

macro_rules! providers {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// A service whose way of signing is known.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Provider {
            $($(#[$doc])* $name,)*
        }

        impl Provider {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name, in small letters.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The one of this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|provider| provider.name() == name)
            }
        }
    };
}

providers! {
    /// GitHub.
    Github = "github";
    /// Shopify.
    Shopify = "shopify";
    /// X, under its former name.
    Twitter = "twitter";
    /// Stripe.
    Stripe = "stripe";
    /// Slack.
    Slack = "slack";
    /// Whoever signs as Standard Webhooks says.
    StandardWebhooks = "standard_webhooks";
    /// Another Convoy, or another server like this one.
    Convoy = "convoy";
}

/// The longest name of what happened, in bytes.
const MAX_EVENT_TYPE: usize = 256;

impl Definition {
    /// Whether something is looked for in bodies, so that they have to be parsed.
    pub fn looks_into_bodies(&self) -> bool {
        self.locations.need_body() || self.event_type_at.as_ref().is_some_and(Location::is_in_body)
    }

    /// What happened, as the request says where the source has it look. Where it says nothing, or nothing that can be a name, it is
    /// `source.` and the source's id: so renaming a source changes nothing, and its mask stays unknown.
    pub fn event_type(&self, id: SourceId, request: &Incoming<'_>, content: Content<'_>) -> String {
        use crate::id::Id;

        let told = self.event_type_at.as_ref().and_then(|location| text_at(location, request, content));
        let is_a_name = |text: &String| (1..=MAX_EVENT_TYPE).contains(&text.len()) && !text.chars().any(char::is_control);
        told.map(|text| text.trim().to_owned()).filter(is_a_name).unwrap_or_else(|| format!("source.{}", id.ulid()))
    }
}

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
