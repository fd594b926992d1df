//! Reads the query of a request so that whatever is wrong with it is reported with the name of the parameter.

use std::fmt::Display;

use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;

use crate::error::{ApiError, ApiResult};

/// The query of a request, decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    /// As it came.
    pub(crate) raw: String,
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Decodes a query; anything that is not UTF-8 is refused.
    pub(crate) fn parse(raw: &str) -> ApiResult<Self> {
        let mut pairs = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| ApiError::invalid(&["query"], "a name is not valid UTF-8"))?;
            let value = decode(value).ok_or_else(|| ApiError::invalid(&["query", &name], "is not valid UTF-8"))?;
            pairs.push((name, value));
        }
        Ok(Self { raw: raw.to_owned(), pairs })
    }

    /// The value of a parameter that may be given once.
    pub(crate) fn text(&self, name: &str) -> ApiResult<Option<&str>> {
        let mut values = self.pairs.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str());
        let value = values.next();
        if values.next().is_some() { Err(ApiError::invalid(&["query", name], "is given more than once")) } else { Ok(value) }
    }

    /// A parameter as `read` understands it.
    pub(crate) fn read<T, E: Display>(&self, name: &str, read: impl FnOnce(&str) -> Result<T, E>) -> ApiResult<Option<T>> {
        let text = self.text(name)?;
        text.map(read).transpose().map_err(|error| ApiError::invalid(&["query", name], error.to_string()))
    }

    /// A parameter that is `true` or `false`.
    pub(crate) fn flag(&self, name: &str, default: bool) -> ApiResult<bool> {
        self.read(name, |text| text.parse().map_err(|_| "must be `true` or `false`")).map(|flag| flag.unwrap_or(default))
    }

    /// A moment: RFC 3339, or the looser forms that chrono reads (a space for the `T`, ` UTC` for the offset). A moment
    /// that no clock of ours can show is the nearest one that it can.
    pub(crate) fn time(&self, name: &str) -> ApiResult<Option<DateTime<Utc>>> {
        let time = self.read(name, |text| {
            // The plus of an offset that was not percent-encoded arrives as a space.
            let repaired = text.rsplit_once(' ').map(|(start, offset)| format!("{start}+{offset}"));
            text.parse::<DateTime<Utc>>().or_else(|error| repaired.and_then(|text| text.parse().ok()).ok_or(error))
        })?;
        let latest = DateTime::from_timestamp(LATEST, 0).unwrap_or_default();
        Ok(time.map(|time| time.clamp(DateTime::UNIX_EPOCH, latest)))
    }

    /// A list: separated by commas, repeated, or as `name[]=` and `name[1]=`.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        let is_named = |found: &str| {
            found
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(is_index))
        };
        let values = self.pairs.iter().filter(|(found, _)| is_named(found)).flat_map(|(_, value)| value.split(','));
        values.filter(|value| !value.is_empty()).collect()
    }

    /// Refuses parameters that would change the answer if we acted on them, which we do not.
    pub(crate) fn refuse(&self, names: &[&str]) -> ApiResult<()> {
        for name in names {
            if self.text(name)?.is_some_and(|value| value != "false") {
                return Err(ApiError::invalid(&["query", name], "is not supported yet: leave it out"));
            }
        }
        Ok(())
    }
}

/// The end of the year 9999, in seconds since 1970.
const LATEST: i64 = 253_402_300_799;

fn is_index(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(error: ApiError) -> String {
        if let ApiError::Invalid(problems) = error { problems[0].loc.join(".") } else { format!("{error:?}") }
    }

    #[test]
    fn lists_come_in_four_forms() {
        for raw in ["e=a,b", "e=a&e=b", "e%5B%5D=a&e[]=b", "e[0]=a&e[1]=b", "e=a&e=&x=1&e[1]=b"] {
            assert_eq!(Query::parse(raw).expect("a query").list("e"), ["a", "b"], "{raw}");
        }
        assert_eq!(Query::parse("ee=a&e[x]=b").expect("a query").list("e"), Vec::<&str>::new());
    }

    #[test]
    fn garbage_is_refused_by_name() {
        assert_eq!(place(Query::parse("limit=%FF").expect_err("not UTF-8")), "query.limit");
        let query = Query::parse("limit=1&limit=2&flag=yes&at=yesterday&tag=x").expect("a query");
        assert_eq!(place(query.text("limit").expect_err("twice")), "query.limit");
        assert_eq!(place(query.flag("flag", true).expect_err("not a flag")), "query.flag");
        assert_eq!(place(query.time("at").expect_err("not a time")), "query.at");
        assert_eq!(place(query.refuse(&["tag"]).expect_err("not supported")), "query.tag");
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
            let time = Query::parse(&format!("at={raw}")).expect("a query").time("at").expect("a time").expect("one");
            assert_eq!(time.timestamp(), 1_787_313_600, "{raw}");
        }
        let ancient = Query::parse("at=0001-01-01T00:00:00Z").expect("a query").time("at").expect("a time");
        assert_eq!(ancient, Some(DateTime::UNIX_EPOCH));
    }
}
