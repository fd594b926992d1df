//! Which endpoints a message is owed to.

/// What an endpoint asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these event types; all, if absent.
    pub event_types: Option<Vec<String>>,
    /// Only messages in one of these channels; all, if absent.
    pub channels: Option<Vec<String>>,
}

impl Filter {
    /// Whether a message of `event_type` in `channels` is wanted. A message without channels never matches an endpoint
    /// that names some (the Svix contract).
    pub fn wants(&self, event_type: &str, channels: &[String]) -> bool {
        let type_fits = self.event_types.as_ref().is_none_or(|wanted| wanted.iter().any(|name| name == event_type));
        let channel_fits = self.channels.as_ref().is_none_or(|wanted| wanted.iter().any(|name| channels.contains(name)));
        type_fits && channel_fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_gets_what_it_asks_for() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let all = Filter::default();
        let paid = Filter { event_types: Some(names(&["invoice.paid"])), channels: None };
        let berlin = Filter { event_types: None, channels: Some(names(&["berlin"])) };
        assert!(all.wants("user.created", &[]));
        assert!(all.wants("user.created", &names(&["paris"])));
        assert!(paid.wants("invoice.paid", &[]));
        assert!(!paid.wants("invoice.sent", &[]));
        assert!(berlin.wants("x", &names(&["paris", "berlin"])));
        assert!(!berlin.wants("x", &names(&["paris"])));
        assert!(!berlin.wants("x", &[]));
    }
}
