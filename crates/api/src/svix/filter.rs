//! The filters that lists of messages and lists of attempts share.

use chrono::{DateTime, Utc};
use domain::{
    application::{check_name, check_text},
    id::Id,
};
use storage::{attempts, messages, page::PageRequest};
use utoipa::IntoParams;

use super::{Paging, fields::EventTypeName};
use crate::{
    error::{ApiError, ApiResult},
    transport::query::Query,
};

/// Which messages, or attempts to deliver them, a list shows.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListFilter {
    /// Filter response based on the channel
    #[param(min_length = 1, max_length = 256, pattern = r"^[a-zA-Z0-9\-_.]+$", example = "project_1337")]
    channel: Option<String>,
    /// Only include items created before this moment
    #[param(value_type = Option<String>, format = DateTime)]
    before: Option<DateTime<Utc>>,
    /// Only include items created at this moment or later
    #[param(value_type = Option<String>, format = DateTime)]
    after: Option<DateTime<Utc>>,
    /// Filter response based on the event type: repeated, separated by commas, or as `event_types[]`
    #[param(value_type = Option<Vec<EventTypeName>>, style = Form, explode)]
    event_types: Option<Vec<String>>,
}

impl ListFilter {
    /// Reads the filters that lists of messages and lists of attempts share.
    pub(crate) fn read(query: &Query) -> ApiResult<Self> {
        let channel = query.read("channel", |text| check_text(text).map(|()| text.to_owned()))?;
        let names = query.list("event_types");
        for name in &names {
            check_name(name).map_err(|error| ApiError::invalid(&["query", "event_types"], error.to_string()))?;
        }
        let event_types = (!names.is_empty()).then(|| names.into_iter().map(str::to_owned).collect());
        Ok(Self { channel, before: query.time("before")?, after: query.time("after")?, event_types })
    }

    /// The page that the query asks for, the newest first.
    pub(crate) fn page<I: Id>(query: &Query) -> ApiResult<PageRequest<I>> {
        Paging::of_ids::<I>(query, false)
    }
}

impl From<ListFilter> for messages::Filter {
    fn from(filter: ListFilter) -> Self {
        let ListFilter { channel, before, after, event_types } = filter;
        Self { channel, event_types, before, after, ..Self::default() }
    }
}

impl From<ListFilter> for attempts::Filter {
    fn from(filter: ListFilter) -> Self {
        let ListFilter { channel, before, after, event_types } = filter;
        Self { channel, event_types, before, after, ..Self::default() }
    }
}
