//! The filters that lists of messages and lists of attempts share.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, de::Error as _};
use storage::{attempts, messages};
use utoipa::IntoParams;

use super::fields::{EventTypeName, Label, Tag};
use crate::transport::query::Parameters;

/// The end of the year 9999, in seconds since 1970.
const LATEST: i64 = 253_402_300_799;

/// Which messages, or attempts to deliver them, a list shows.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListFilter {
    /// Filter response based on the channel
    #[param(value_type = Option<String>, min_length = 1, max_length = 256, pattern = r"^[a-zA-Z0-9\-_.]+$", example = "project_1337")]
    channel: Option<Label>,
    /// Only include items created before this moment
    #[param(value_type = Option<String>, format = DateTime)]
    before: Option<Moment>,
    /// Only include items created at this moment or later
    #[param(value_type = Option<String>, format = DateTime)]
    after: Option<Moment>,
    /// Filter response based on the event type: repeated, separated by commas, or as `event_types[]`
    #[serde(default)]
    #[param(value_type = Option<Vec<EventTypeName>>, required = false, style = Form, explode)]
    event_types: Vec<EventTypeName>,
    /// Filter response based on the message tags
    tag: Option<Tag>,
}

impl Parameters for ListFilter {}

/// A moment: RFC 3339, or the looser forms that chrono reads (a space for the `T`, ` UTC` for the offset). A moment that no clock of ours
/// can show is the nearest one that it can.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(pub(super) DateTime<Utc>);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The plus of an offset that was not percent-encoded arrives as a space.
        let repaired = || text.rsplit_once(' ').and_then(|(start, offset)| format!("{start}+{offset}").parse().ok());
        let time = text.parse::<DateTime<Utc>>().or_else(|error| repaired().ok_or(error)).map_err(D::Error::custom)?;
        let latest = DateTime::from_timestamp(LATEST, 0).unwrap_or_default();
        Ok(Self(time.clamp(DateTime::UNIX_EPOCH, latest)))
    }
}

impl ListFilter {
    fn event_types(names: Vec<EventTypeName>) -> Option<Vec<String>> {
        (!names.is_empty()).then(|| names.into_iter().map(|name| name.0).collect())
    }
}

impl From<ListFilter> for messages::Filter {
    fn from(filter: ListFilter) -> Self {
        Self {
            channel: filter.channel.map(|channel| channel.0),
            tag: filter.tag.map(|tag| tag.0),
            event_types: ListFilter::event_types(filter.event_types),
            before: filter.before.map(|moment| moment.0),
            after: filter.after.map(|moment| moment.0),
            ..Self::default()
        }
    }
}

impl From<ListFilter> for attempts::Filter {
    fn from(filter: ListFilter) -> Self {
        Self {
            channel: filter.channel.map(|channel| channel.0),
            tag: filter.tag.map(|tag| tag.0),
            event_types: ListFilter::event_types(filter.event_types),
            before: filter.before.map(|moment| moment.0),
            after: filter.after.map(|moment| moment.0),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::query::{Query, Question};

    fn after(raw: &str) -> DateTime<Utc> {
        let filter = Query::parse(raw).and_then(|query| ListFilter::read(&query)).expect("a query");
        filter.after.expect("a moment").0
    }

    #[test]
    fn times_are_read_in_relaxed_forms() {
        for raw in [
            "2026-08-21T12:00:00Z",
            "2026-08-21T12:00:00.000000Z",
            "2026-08-21T14:00:00%2B02:00",
            "2026-08-21T14:00:00+02:00",
            "2026-08-21%2012:00:00.000000000%20UTC",
        ] {
            assert_eq!(after(&format!("after={raw}")).timestamp(), 1_787_313_600, "{raw}");
        }
        assert_eq!(after("after=0001-01-01T00:00:00Z"), DateTime::UNIX_EPOCH);
    }
}
