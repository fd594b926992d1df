//! The envelope around every answer: whether it went well, what happened in a sentence, and what there is to show.

use std::{borrow::Cow, marker::PhantomData};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use storage::idempotency::{Answer, Answered};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ArrayBuilder, ObjectBuilder, Ref, RefOr, Schema, path::Operation, schema::Type},
};

use crate::transport::reply::{self, Replies, Reply, Schemas, add_named};

/// An answer with this status that went well, and shows a thing of this shape.
#[derive(Debug)]
pub(crate) struct Told<const STATUS: u16, T> {
    reply: Reply<STATUS, ()>,
    /// As in [`Reply`].
    shape: PhantomData<fn(T)>,
}

#[derive(Debug, Serialize)]
struct Envelope<'a, T> {
    status: bool,
    message: &'a str,
    data: &'a T,
}

impl<const STATUS: u16, T: Serialize> Told<STATUS, T> {
    /// What happened, and what there is to show.
    pub(crate) fn new(message: &str, data: &T) -> Self {
        let status = StatusCode::from_u16(STATUS).unwrap_or_default();
        Answered { answer: reply::json(status, &Envelope { status: true, message, data }), is_replay: false }.into()
    }
}

impl<const STATUS: u16, T> Told<STATUS, T> {
    /// The same answer, as one that was given before.
    pub(crate) fn replayed(self, is_replay: bool) -> Self {
        Self { reply: self.reply.replayed(is_replay), ..self }
    }
}

impl<const STATUS: u16, T> From<Answered> for Told<STATUS, T> {
    fn from(answered: Answered) -> Self {
        Self { reply: answered.into(), shape: PhantomData }
    }
}

impl<const STATUS: u16, T> IntoResponse for Told<STATUS, T> {
    fn into_response(self) -> Response {
        self.reply.into_response()
    }
}

impl<const STATUS: u16, T: ToSchema> Replies for Told<STATUS, T> {
    fn into_answer(self) -> Answer {
        self.reply.into_answer()
    }

    /// The envelope of each kind of thing has a name of its own.
    fn document(operation: &mut Operation, schemas: &mut Schemas) {
        let name = format!("Convoy.Answer_{}", T::name());
        let data = RefOr::Ref(Ref::from_schema_name(T::name()));
        let envelope = [("status", bool::schema()), ("message", String::schema()), ("data", data)];
        schemas.extend([(name.clone(), object(envelope)), (T::name().into_owned(), T::schema())]);
        T::schemas(schemas);
        let words = match STATUS {
            201 => "Created",
            202 => "Accepted",
            _ => "Success",
        };
        add_named(operation, STATUS, words, Some(&name));
    }
}

/// An object with these members, all of which are there.
pub(super) fn object<const N: usize>(members: [(&str, RefOr<Schema>); N]) -> RefOr<Schema> {
    let object = members.into_iter().fold(ObjectBuilder::new(), |object, (name, schema)| object.property(name, schema).required(name));
    Schema::from(object.build()).into()
}

/// Nothing to show: `null`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Null(());

impl Null {
    /// That.
    pub(crate) const NULL: Self = Self(());
}

impl PartialSchema for Null {
    fn schema() -> RefOr<Schema> {
        Schema::from(ObjectBuilder::new().schema_type(Type::Null).build()).into()
    }
}

impl ToSchema for Null {
    fn name() -> Cow<'static, str> {
        "Convoy.Null".into()
    }
}

/// Whether something is so.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Flag(pub(crate) bool);

impl PartialSchema for Flag {
    fn schema() -> RefOr<Schema> {
        bool::schema()
    }
}

impl ToSchema for Flag {
    fn name() -> Cow<'static, str> {
        "Convoy.Flag".into()
    }
}

/// Everything that there is, without pages.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct All<T>(pub(crate) Vec<T>);

impl<T: ToSchema> PartialSchema for All<T> {
    fn schema() -> RefOr<Schema> {
        Schema::from(ArrayBuilder::new().items(Ref::from_schema_name(T::name())).build()).into()
    }
}

impl<T: ToSchema> ToSchema for All<T> {
    fn name() -> Cow<'static, str> {
        format!("Convoy.All_{}", T::name()).into()
    }

    fn schemas(schemas: &mut Schemas) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_happened_and_shows_it() {
        let body = |answer: Answer| (answer.status, String::from_utf8(answer.body.to_vec()).expect("JSON is UTF-8"));
        let made = body(Told::<201, String>::new("Thing created successfully", &"it".to_owned()).into_answer());
        assert_eq!(made, (201, r#"{"status":true,"message":"Thing created successfully","data":"it"}"#.into()));
        let nothing = body(Told::<200, Null>::new("Gone", &Null::NULL).into_answer());
        assert_eq!(nothing, (200, r#"{"status":true,"message":"Gone","data":null}"#.into()));
    }
}
