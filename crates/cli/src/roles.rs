//! What a process does.

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roles {
    /// Answers requests and sends webhooks.
    Both,
    /// Answers requests.
    Api,
    /// Sends webhooks.
    Worker,
}
