//! What holds for the requests to one endpoint where the installation does otherwise, and what people note of it.

use std::time::Duration;

use crate::retry_strategy::RetryStrategy;

/// What only some endpoints have: the default is that of all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// For people.
    pub name: Option<String>,
    /// Whose it is, where its application does not say that: an id of the tenant's.
    pub owner: Option<String>,
    /// Requests carry the signature that receivers of Convoy's webhooks verify, in this style; absent: they do not.
    pub signature: Option<SignatureStyle>,
    /// How long one request may take, if that is less than the installation permits.
    pub timeout: Option<Duration>,
    /// When failed deliveries are tried again; otherwise as its project says.
    pub retry: Option<RetryStrategy>,
    /// So many messages,
    pub throttle_count: Option<u32>,
    /// in this time, as it was asked for: what holds is [`throttle_rate`](super::Endpoint::throttle_rate).
    pub throttle_per: Option<Duration>,
    /// The media type that was asked for.
    pub content_type: Option<String>,
    /// Whom to write to.
    pub support_email: Option<String>,
    /// Where its failures are told, as it was asked for.
    pub slack_webhook_url: Option<String>,
    /// As [`Settings::slack_webhook_url`].
    pub teams_webhook_url: Option<String>,
}

/// What a signature is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureStyle {
    /// The body alone.
    Simple,
    /// The time of the attempt and the body.
    Advanced,
}
