//! What an endpoint wants, as it was subscribed: of which source, which types of events, and what has to be in them.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    content_filter::ContentFilter,
    id::{ApplicationId, EndpointId, FilterId, SourceId, SubscriptionId, TenantId},
    offer::Offer,
};

/// Stands for every event type.
pub const ALL_TYPES: &str = "*";

/// A subscription of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// Whose it is.
    pub tenant_id: TenantId,
    /// Whose endpoint's it is.
    pub application_id: ApplicationId,
    /// Whose it is.
    pub endpoint_id: EndpointId,
    /// Only what comes by this source; absent: only what comes by none.
    pub source_id: Option<SourceId>,
    /// For people.
    pub name: String,
    /// Only these event types, or [`ALL_TYPES`].
    pub event_types: Vec<String>,
    /// What must hold whatever the type.
    pub filter: ContentFilter,
    /// What else must hold, by type.
    pub filters: Vec<TypeFilter>,
    /// What clients note in it and read again: a JSON object.
    pub settings: Value,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last written.
    pub updated_at: DateTime<Utc>,
}

/// What else must hold for messages of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeFilter {
    /// Its id.
    pub id: FilterId,
    /// Of which type, or [`ALL_TYPES`]: that of a message's own type goes before the one of all types.
    pub event_type: String,
    /// From when on it counts. Absent: it is off, as if it were not there.
    pub enabled_at: Option<DateTime<Utc>>,
    /// The conditions.
    pub filter: ContentFilter,
}

/// What of a subscription decides whether its endpoint gets a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The subscription.
    pub id: SubscriptionId,
    /// As [`Subscription::source_id`].
    pub source_id: Option<SourceId>,
    /// As [`Subscription::event_types`].
    pub event_types: Vec<String>,
    /// As [`Subscription::filter`]; absent if that asks for nothing.
    pub filter: Option<ContentFilter>,
    /// As [`Subscription::filters`].
    pub filters: Vec<TypeFilter>,
}

impl Wanted {
    /// Whether it wants what comes as this message does.
    pub(crate) fn takes_source(&self, offer: &Offer<'_>) -> bool {
        self.source_id == offer.source()
    }

    /// Whether it wants messages of this source and type.
    pub(crate) fn takes_kind(&self, offer: &Offer<'_>) -> bool {
        self.takes_source(offer) && self.event_types.iter().any(|name| name == ALL_TYPES || name == offer.event_type())
    }

    /// Whether it lets messages through that have this in them.
    pub(crate) fn takes_content(&self, offer: &Offer<'_>) -> bool {
        let of_all = self.filter.as_ref();
        let of_type = self.filter_of(offer).map(|found| &found.filter);
        of_all.into_iter().chain(of_type).all(|filter| offer.satisfies(filter))
    }

    /// The filter of the message's type, else that of all types, of those that are on.
    fn filter_of(&self, offer: &Offer<'_>) -> Option<&TypeFilter> {
        let of = |event_type: &str| {
            let is_on = |found: &&TypeFilter| found.enabled_at.is_some_and(|from| from <= offer.at());
            self.filters.iter().filter(is_on).find(|found| found.event_type == event_type)
        };
        of(offer.event_type()).or_else(|| of(ALL_TYPES))
    }

    /// All that it looks into messages with.
    pub(crate) fn content_filters(&self) -> impl Iterator<Item = &ContentFilter> {
        self.filter.iter().chain(self.filters.iter().map(|found| &found.filter))
    }

    /// Takes over the filters that were made ready for what this was before.
    pub(crate) fn keep(&mut self, known: &Self) {
        if let (Some(filter), Some(known)) = (&mut self.filter, &known.filter) {
            filter.keep(known);
        }
        for found in &mut self.filters {
            if let Some(known) = known.filters.iter().find(|known| known.id == found.id) {
                found.filter.keep(&known.filter);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::message::Particulars;

    fn content(written: Value) -> ContentFilter {
        ContentFilter::parse(written).expect("a filter")
    }

    fn wanted(event_types: &[&str]) -> Wanted {
        let event_types = event_types.iter().map(ToString::to_string).collect();
        Wanted { id: Uuid::nil().into(), source_id: None, event_types, filter: None, filters: Vec::new() }
    }

    fn is_taken(wanted: &Wanted, offer: &Offer<'_>) -> bool {
        wanted.takes_kind(offer) && wanted.takes_content(offer)
    }

    #[test]
    fn types_are_named_exactly_or_all_of_them() {
        let offer = |event_type| Offer::new(event_type, &[]);
        assert!(is_taken(&wanted(&["paid", "sent"]), &offer("sent")));
        assert!(!is_taken(&wanted(&["paid", "sent"]), &offer("sent.late")));
        assert!(is_taken(&wanted(&["*"]), &offer("sent")));
        assert!(!is_taken(&wanted(&[]), &offer("sent")));
        assert!(!is_taken(&wanted(&["sen*"]), &offer("sent")), "no patterns");
    }

    #[test]
    fn what_comes_by_a_source_is_for_those_who_ask_for_it() {
        let [one, other] = [1, 2].map(|number| SourceId(Uuid::from_u128(number)));
        let by = |source| Particulars { source, ..Particulars::default() };
        let asks = Wanted { source_id: Some(one), ..wanted(&["*"]) };
        let takes_of = |wanted: &Wanted, source| is_taken(wanted, &Offer::new("paid", &[]).with(Some(&by(source))));
        assert!(takes_of(&asks, Some(one)));
        assert!(!takes_of(&asks, Some(other)));
        assert!(!takes_of(&asks, None));
        assert!(!takes_of(&wanted(&["*"]), Some(other)) && takes_of(&wanted(&["*"]), None));
    }

    #[test]
    fn the_filter_of_its_own_type_counts_before_that_of_all_types_and_only_while_it_is_on() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(1);
        let filter = |event_type: &str, enabled_at, amount: i32| TypeFilter {
            id: Uuid::from_u128(amount.unsigned_abs().into()).into(),
            event_type: event_type.to_owned(),
            enabled_at,
            filter: content(json!({ "body": { "amount": amount } })),
        };
        let takes = |filters: Vec<TypeFilter>, event_type: &str, body: &str| {
            let wanted = Wanted { filters, filter: Some(content(json!({ "path": { "path": "/in" } }))), ..wanted(&["*"]) };
            let particulars = Particulars { path: Some("/in".to_owned()), ..Particulars::default() };
            is_taken(&wanted, &Offer::new(event_type, &[]).of(body.as_bytes()).with(Some(&particulars)).asked_at(now))
        };
        let (five, six) = (r#"{"amount": 5}"#, r#"{"amount": 6}"#);
        let both = || vec![filter("*", Some(now), 6), filter("paid", Some(now), 5)];
        assert!(takes(both(), "paid", five) && !takes(both(), "paid", six));
        assert!(takes(both(), "sent", six) && !takes(both(), "sent", five));
        for off in [None, Some(now + TimeDelta::seconds(1))] {
            let filters = || vec![filter("paid", off, 5), filter("*", Some(now), 6)];
            assert!(takes(filters(), "paid", six) && !takes(filters(), "paid", five));
            assert!(takes(vec![filter("paid", off, 5)], "paid", six), "as if it were not there");
        }
    }
}
