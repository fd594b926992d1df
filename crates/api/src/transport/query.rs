//! The query of a request, read by serde into the struct that the document describes it by; whatever is wrong with it is told by the
//! name of the parameter.

use std::{borrow::Cow, convert::Infallible};

use axum::{extract::FromRequestParts, http::request::Parts};
use percent_encoding::percent_decode_str;
use serde::{
    Deserializer,
    de::{
        DeserializeOwned, DeserializeSeed, Error as _, IntoDeserializer, MapAccess, Visitor,
        value::{Error, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use utoipa::{
    IntoParams,
    openapi::path::{Parameter, ParameterIn},
};

use crate::error::{ApiError, ApiResult};

/// Parameters that belong together.
pub(crate) trait Parameters: DeserializeOwned + IntoParams {}

/// All that an operation can be asked in its query: parameters, or several groups of them.
pub(crate) trait Question: Sized {
    /// Reads them.
    fn read(query: &Query<'_>) -> ApiResult<Self>;

    /// What the document says of them.
    fn document() -> Vec<Parameter>;
}

impl<T: Parameters> Question for T {
    fn read(query: &Query<'_>) -> ApiResult<Self> {
        let mut current = None;
        T::deserialize(Named { query, current: &mut current }).map_err(|error| fault(current, &error))
    }

    fn document() -> Vec<Parameter> {
        T::into_params(|| Some(ParameterIn::Query))
    }
}

macro_rules! groups {
    ($($group:ident)*) => {
        impl<$($group: Parameters),*> Question for ($($group,)*) {
            fn read(query: &Query<'_>) -> ApiResult<Self> {
                Ok(($($group::read(query)?,)*))
            }

            fn document() -> Vec<Parameter> {
                [$($group::document()),*].concat()
            }
        }
    };
}
groups!(A B);
groups!(A B C);
groups!(A B C D);

/// What a request asks in its query. It is read when its handler gets it, and told when the handler asks: a write looks its key up
/// before it is refused.
#[derive(Clone, Debug)]
pub(crate) struct Asked<Q>(ApiResult<Q>);

impl<Q> Asked<Q> {
    /// What is asked, or what is wrong with it.
    pub(crate) fn read(self) -> ApiResult<Q> {
        self.0
    }
}

impl<Q: Question, S: Sync> FromRequestParts<S> for Asked<Q> {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Query::parse(parts.uri.query().unwrap_or_default()).and_then(|query| Q::read(&query))))
    }
}

/// A query, decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Decodes a query; anything that is not UTF-8 is refused.
    pub(crate) fn parse(raw: &'a str) -> ApiResult<Self> {
        let mut pairs = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| ApiError::invalid(&["query"], "a name is not valid UTF-8"))?;
            let value = decode(value).ok_or_else(|| ApiError::invalid(&["query", &name], "is not valid UTF-8"))?;
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The values of a parameter that may be given once.
    fn plain(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(found, _)| found == name).map(|(_, value)| &**value)
    }

    /// The items of a list: separated by commas, repeated, or as `name[]=` and `name[1]=`.
    fn items(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let is_index = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_named = move |found: &str| {
            found
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(is_index))
        };
        let values = self.0.iter().filter(move |(found, _)| is_named(found)).flat_map(|(_, value)| value.split(','));
        values.filter(|value| !value.is_empty())
    }

    /// Whether a parameter is there, in whatever form.
    fn has(&self, name: &'static str) -> bool {
        self.plain(name).next().is_some() || self.items(name).next().is_some()
    }
}

fn fault(name: Option<&'static str>, error: &Error) -> ApiError {
    let text = error.to_string();
    match (text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')), name) {
        (Some(missing), _) => ApiError::invalid(&["query", missing], "is missing: the operation needs it"),
        (None, Some(name)) => ApiError::invalid(&["query", name], text),
        (None, None) => ApiError::invalid(&["query"], text),
    }
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('+') {
        return percent_decode_str(text).decode_utf8().ok();
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
}

/// The query as a struct sees it: its fields are looked up one after the other, so that the parameters of other groups, and those that
/// nobody knows, are passed over.
struct Named<'q> {
    query: &'q Query<'q>,
    /// The parameter that is being read.
    current: &'q mut Option<&'static str>,
}

impl<'de> Deserializer<'de> for Named<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("only a struct names its parameters"))
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        let Self { query, current } = self;
        visitor.visit_map(Fields { query, current, rest: fields.iter() })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

struct Fields<'q> {
    query: &'q Query<'q>,
    current: &'q mut Option<&'static str>,
    rest: std::slice::Iter<'static, &'static str>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        *self.current = self.rest.find(|name| self.query.has(name)).copied();
        self.current.map(|name| seed.deserialize(name.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let value = seed.deserialize(Value { query: self.query, name: self.current.unwrap_or_default() })?;
        *self.current = None;
        Ok(value)
    }
}

/// One parameter, which its field reads as it likes.
#[derive(Clone, Copy)]
struct Value<'q> {
    query: &'q Query<'q>,
    name: &'static str,
}

impl<'q> Value<'q> {
    fn text(self) -> Result<&'q str, Error> {
        let mut values = self.query.plain(self.name);
        match (values.next(), values.next()) {
            (Some(text), None) => Ok(text),
            (Some(_), Some(_)) => Err(Error::custom("is given more than once")),
            (None, _) => Err(Error::custom("is missing: the operation needs it")),
        }
    }
}

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text()?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.text()?.parse().map_err(|_| Error::custom("must be `true` or `false`"))?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.query.plain(self.name).next().is_some() { visitor.visit_some(self) } else { visitor.visit_none() }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let text: serde::de::value::StrDeserializer<'_, Error> = self.text()?.into_deserializer();
        text.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(SeqDeserializer::new(self.query.items(self.name)))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, IntoParams, PartialEq)]
    struct Sample {
        limit: Option<String>,
        #[serde(default)]
        flag: bool,
        order: Option<Order>,
        #[serde(default)]
        e: Vec<String>,
    }

    #[derive(Debug, Deserialize, PartialEq, utoipa::ToSchema)]
    #[serde(rename_all = "lowercase")]
    enum Order {
        Up,
    }

    #[derive(Debug, Deserialize, IntoParams)]
    struct Required {
        key: String,
    }

    impl Parameters for Sample {}
    impl Parameters for Required {}

    fn read<Q: Question>(raw: &str) -> Result<Q, String> {
        Query::parse(raw).and_then(|query| Q::read(&query)).map_err(|error| match error {
            ApiError::Invalid(problem) => format!("{}: {}", problem.place.join("."), problem.why),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn lists_come_in_four_forms() {
        for raw in ["e=a,b", "e=a&e=b", "e%5B%5D=a&e[]=b", "e[0]=a&e[1]=b", "e=a&e=&x=1&e[1]=b"] {
            assert_eq!(read::<Sample>(raw).expect("a query").e, ["a", "b"], "{raw}");
        }
        assert_eq!(read::<Sample>("ee=a&e[x]=b&e=").expect("a query").e, Vec::<String>::new());
    }

    #[test]
    fn what_is_no_list_has_one_form() {
        let nothing = Sample { limit: None, flag: false, order: None, e: Vec::new() };
        for raw in ["", "limit[]=1", "limit[0]=1&order[]=up", "unknown=1&unknown=2"] {
            assert_eq!(read::<Sample>(raw).as_ref(), Ok(&nothing), "{raw}");
        }
        let all = Sample { limit: Some("a b+c".into()), flag: true, order: Some(Order::Up), e: Vec::new() };
        assert_eq!(read::<Sample>("limit=a+b%2Bc&flag=true&order=up"), Ok(all));
    }

    #[test]
    fn garbage_is_refused_by_name() {
        for (raw, told) in [
            ("limit=%FF", "query.limit: is not valid UTF-8"),
            ("nobody%FF=1", "query: a name is not valid UTF-8"),
            ("limit=1&limit=2", "query.limit: is given more than once"),
            ("flag=yes", "query.flag: must be `true` or `false`"),
            ("flag=", "query.flag: must be `true` or `false`"),
            ("order=down", "query.order: unknown variant `down`, expected `up`"),
        ] {
            assert_eq!(read::<Sample>(raw), Err(told.to_owned()), "{raw}");
        }
        assert_eq!(read::<Required>("key=a").map(|read| read.key), Ok("a".into()));
        assert_eq!(read::<Required>("").map(|read| read.key), Err("query.key: is missing: the operation needs it".into()));
    }

    #[test]
    fn groups_are_read_from_one_query() {
        let (sample, required) = read::<(Sample, Required)>("key=k&limit=1").expect("a query");
        assert_eq!((sample.limit.as_deref(), required.key.as_str()), (Some("1"), "k"));
        assert_eq!(read::<(Sample, Required)>("limit=1").map(|_| ()), Err("query.key: is missing: the operation needs it".into()));
    }
}
