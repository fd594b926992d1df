//! Which endpoints a message is owed to.

use crate::{content_filter::ContentFilter, id::SubscriptionId, offer::Offer, subscription::Wanted};

/// What an endpoint asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these event types; all, if absent.
    pub event_types: Option<Vec<String>>,
    /// Only messages in one of these channels; all, if absent.
    pub channels: Option<Vec<String>>,
    /// Only messages that this takes; all, if absent.
    pub content: Option<ContentFilter>,
    /// Only what one of these lets through. Where they are, what is asked for beside them does not count.
    pub subscriptions: Option<Vec<Wanted>>,
}

impl Filter {
    /// Whether a message is wanted. What is in it is looked at last, since that costs most.
    pub fn wants(&self, offer: &Offer<'_>) -> bool {
        match &self.subscriptions {
            None => self.wants_kind(offer) && self.wants_content(offer),
            Some(_) => self.let_through_by(offer).is_some(),
        }
    }

    /// Whether messages of this type, in these channels and by this source may be wanted. A message without channels never matches an endpoint that
    /// names some (the Svix contract).
    pub fn wants_kind(&self, offer: &Offer<'_>) -> bool {
        if self.subscriptions.is_some() {
            return self.wants_type(offer);
        }
        self.wants_type(offer) && self.channels.as_ref().is_none_or(|wanted| wanted.iter().any(|name| offer.channels().contains(name)))
    }

    /// Whether messages that are wanted otherwise are wanted with this in them.
    pub fn wants_content(&self, offer: &Offer<'_>) -> bool {
        match &self.subscriptions {
            None => self.content.as_ref().is_none_or(|content| offer.satisfies(content)),
            Some(_) => self.let_through_by(offer).is_some(),
        }
    }

    /// The first subscription that lets a message through.
    pub fn let_through_by(&self, offer: &Offer<'_>) -> Option<SubscriptionId> {
        let subscriptions = self.subscriptions.as_ref()?;
        subscriptions.iter().find(|wanted| wanted.takes_kind(offer) && wanted.takes_content(offer)).map(|wanted| wanted.id)
    }

    /// Whether messages of this type are wanted, of those that come by this source.
    pub(crate) fn wants_type(&self, offer: &Offer<'_>) -> bool {
        match &self.subscriptions {
            None => self.event_types.as_ref().is_none_or(|wanted| wanted.iter().any(|name| name == offer.event_type())),
            Some(subscriptions) => subscriptions.iter().any(|wanted| wanted.takes_kind(offer)),
        }
    }

    /// Whether something is asked of what comes as this message does, whatever its type.
    pub(crate) fn wants_source(&self, offer: &Offer<'_>) -> bool {
        self.subscriptions.as_ref().is_none_or(|subscriptions| subscriptions.iter().any(|wanted| wanted.takes_source(offer)))
    }

    /// All that it looks into messages with.
    pub fn content_filters(&self) -> impl Iterator<Item = &ContentFilter> {
        let own = self.content.as_ref().filter(|_| self.subscriptions.is_none());
        own.into_iter().chain(self.subscriptions.iter().flatten().flat_map(Wanted::content_filters))
    }

    /// Takes over from what it was before the filters that are as they were: they have been made ready, which takes longer than all else.
    pub fn keep(&mut self, known: &Self) {
        if let (Some(content), Some(known)) = (&mut self.content, &known.content) {
            content.keep(known);
        }
        for wanted in self.subscriptions.iter_mut().flatten() {
            if let Some(same) = known.subscriptions.iter().flatten().find(|known| known.id == wanted.id) {
                wanted.keep(same);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;

    fn content(document: Value) -> ContentFilter {
        ContentFilter::parse(document).expect("a filter")
    }

    #[test]
    fn an_endpoint_gets_what_it_asks_for() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let wants = |filter: &Filter, event_type, channels: &[String]| filter.wants(&Offer::new(event_type, channels).of(b"{}"));
        let all = Filter::default();
        let paid = Filter { event_types: Some(names(&["invoice.paid"])), ..Filter::default() };
        let berlin = Filter { channels: Some(names(&["berlin"])), ..Filter::default() };
        assert!(wants(&all, "user.created", &[]));
        assert!(wants(&all, "user.created", &names(&["paris"])));
        assert!(wants(&paid, "invoice.paid", &[]));
        assert!(!wants(&paid, "invoice.sent", &[]));
        assert!(wants(&berlin, "x", &names(&["paris", "berlin"])));
        assert!(!wants(&berlin, "x", &names(&["paris"])));
        assert!(!wants(&berlin, "x", &[]));
    }

    #[test]
    fn where_there_are_subscriptions_one_of_them_has_to_let_it_through() {
        let wanted = |number: u128, event_type: &str, filter: Value| Wanted {
            id: Uuid::from_u128(number).into(),
            source_id: None,
            event_types: vec![event_type.to_owned()],
            filter: Some(content(filter)),
            filters: Vec::new(),
        };
        let mut filter = Filter { event_types: Some(vec!["other".to_owned()]), subscriptions: Some(Vec::new()), ..Filter::default() };
        let offer = |event_type| Offer::new(event_type, &[]).of(br#"{"n": 5}"#);
        assert!(!filter.wants(&offer("other")) && !filter.wants(&offer("paid")), "without one there is nothing");
        let large = json!({"body": {"n": {"$gt": 5}}});
        filter.subscriptions = Some(vec![wanted(1, "sent", json!({})), wanted(2, "paid", large), wanted(3, "paid", json!({}))]);
        assert_eq!(filter.let_through_by(&offer("paid")), Some(Uuid::from_u128(3).into()));
        assert_eq!(filter.let_through_by(&offer("sent")), Some(Uuid::from_u128(1).into()));
        assert!(filter.wants(&offer("paid")) && !filter.wants(&offer("other")));
        assert_eq!(filter.content_filters().count(), 3);
    }

    #[test]
    fn what_was_made_ready_is_kept_as_long_as_it_is_the_same() {
        let stored = |n: i32| {
            let content = ContentFilter::stored(json!({"body": {"n": n}}));
            let wanted = Wanted {
                id: Uuid::nil().into(),
                source_id: None,
                event_types: Vec::new(),
                filter: Some(ContentFilter::stored(json!({"body": {"m": n}}))),
                filters: Vec::new(),
            };
            (
                Filter { content: Some(content.clone()), ..Filter::default() },
                Filter { subscriptions: Some(vec![wanted]), ..Filter::default() },
            )
        };
        let is_ready = |filter: &Filter| filter.content_filters().all(|filter| filter.clauses().is_some());
        let ((own, subscribed), (mut same_own, mut same), (mut other_own, mut other)) = (stored(1), stored(1), stored(2));
        assert!(!own.wants(&Offer::new("x", &[])) && !subscribed.wants(&Offer::new("x", &[])));
        same_own.keep(&own);
        same.keep(&subscribed);
        other_own.keep(&own);
        other.keep(&subscribed);
        assert!(is_ready(&own) && is_ready(&same_own) && !is_ready(&other_own));
        assert!(!is_ready(&same) && !is_ready(&other), "no subscription named the type, so nothing was made ready");
    }
}
