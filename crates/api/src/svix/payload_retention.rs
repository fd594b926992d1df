//! For how long a message's payload is kept, as the contract writes it: in days or in hours.

use std::{ops::RangeInclusive, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::error::{ApiError, ApiResult};

/// The days that a payload can be kept. Posthaste's own retention ends it sooner, if that is shorter.
const DAYS: RangeInclusive<u64> = 1..=90;
/// The same in hours.
const HOURS: RangeInclusive<u64> = 1..=90 * 24;

/// A number of days; null is none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Days(Option<u64>);

/// A number of hours; null is none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hours(Option<u64>);

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        within(&DAYS, deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        within(&HOURS, deserializer).map(Self)
    }
}

fn within<'de, D: Deserializer<'de>>(bounds: &RangeInclusive<u64>, deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<i64>::deserialize(deserializer)? {
        None => Ok(None),
        Some(number) => match u64::try_from(number).ok().filter(|number| bounds.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(D::Error::custom(format!("must be from {} to {}", bounds.start(), bounds.end()))),
        },
    }
}

/// What the two fields of a message ask for together; nothing: as long as the message itself.
pub(crate) fn wanted(days: Days, hours: Hours) -> ApiResult<Option<Duration>> {
    match (days.0, hours.0) {
        (Some(_), Some(_)) => Err(ApiError::invalid(
            &["body", "payloadRetentionHours"],
            "cannot be given together with payloadRetentionPeriod: leave one of them out",
        )),
        (Some(days), None) => Ok(Some(Duration::from_hours(24 * days))),
        (None, hours) => Ok(hours.map(Duration::from_hours)),
    }
}
