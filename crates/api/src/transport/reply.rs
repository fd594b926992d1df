//! What a handler answers, by type: the status and the shape of the body stand in its signature, and the document is made from them.

use std::marker::PhantomData;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;
use storage::idempotency::{Answer, Answered};
use utoipa::{
    ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, Schema, path::Operation},
};

use super::json::MEDIA_TYPE;

/// The header that marks a saved answer.
pub(crate) const IDEMPOTENCY_REPLAY: HeaderName = HeaderName::from_static("idempotency-replay");
/// The same for clients that know it by the name that Stripe gave it.
pub(crate) const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// An answer with this status and a body of this shape, in JSON.
///
/// It is rendered when it is made, so that the body may borrow what it shows; the shape in the type is for the compiler and the document.
#[derive(Debug)]
pub(crate) struct Reply<const STATUS: u16, T> {
    answered: Answered,
    /// A body that borrows for a moment is of the same shape as one that does not: hence the function.
    shape: PhantomData<fn(T)>,
}

/// An answer that has no body.
#[derive(Debug)]
pub(crate) struct Nothing(Reply<204, ()>);

/// The answer to what makes a thing or finds it made: 201 and where it is, or 200.
#[derive(Debug)]
pub(crate) struct Made<T>(Reply<201, T>);

impl<const STATUS: u16, T: Serialize> Reply<STATUS, T> {
    /// An answer with this body.
    pub(crate) fn new(body: &T) -> Self {
        Self::of(json(StatusCode::from_u16(STATUS).unwrap_or_default(), body), false)
    }

    /// The same with the place where the thing is.
    pub(crate) fn at(location: String, body: &T) -> Self {
        let mut reply = Self::new(body);
        reply.answered.answer.location = Some(location);
        reply
    }
}

impl<const STATUS: u16, T> Reply<STATUS, T> {
    fn of(answer: Answer, is_replay: bool) -> Self {
        Self { answered: Answered { answer, is_replay }, shape: PhantomData }
    }

    /// The same answer, as one that was given before.
    pub(crate) fn replayed(mut self, is_replay: bool) -> Self {
        self.answered.is_replay = is_replay;
        self
    }
}

impl Nothing {
    /// That answer.
    pub(crate) fn new() -> Self {
        let answer = Answer { status: StatusCode::NO_CONTENT.as_u16(), body: Bytes::new(), content_type: None, location: None };
        Self(Reply::of(answer, false))
    }
}

impl<T: Serialize> Made<T> {
    /// The thing was made, and is here.
    pub(crate) fn created(location: String, body: &T) -> Self {
        Self(Reply::at(location, body))
    }

    /// There was one.
    pub(crate) fn existed(body: &T) -> Self {
        Self(Reply::of(json(StatusCode::OK, body), false))
    }
}

/// Schemas of the document, by name.
pub(crate) type Schemas = Vec<(String, RefOr<Schema>)>;

/// What handlers answer with.
pub(crate) trait Replies: IntoResponse + From<Answered> {
    /// What is saved of it under a key.
    fn into_answer(self) -> Answer;

    /// Adds to the document what it may be, and the schemas that it is made of.
    fn document(operation: &mut Operation, schemas: &mut Schemas);
}

/// A saved answer stands for the reply that it was, and for a refusal that was saved in its place.
impl<const STATUS: u16, T> From<Answered> for Reply<STATUS, T> {
    fn from(answered: Answered) -> Self {
        Self { answered, shape: PhantomData }
    }
}

impl From<Answered> for Nothing {
    fn from(answered: Answered) -> Self {
        Self(answered.into())
    }
}

impl<T> From<Answered> for Made<T> {
    fn from(answered: Answered) -> Self {
        Self(answered.into())
    }
}

impl<const STATUS: u16, T> IntoResponse for Reply<STATUS, T> {
    fn into_response(self) -> Response {
        let Answered { answer, is_replay } = self.answered;
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, answer.body).into_response();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        for (name, value) in [(header::CONTENT_TYPE, answer.content_type), (header::LOCATION, answer.location)] {
            if let Some(value) = value.and_then(|text| HeaderValue::try_from(text).ok()) {
                headers.insert(name, value);
            }
        }
        if is_replay {
            headers.insert(IDEMPOTENCY_REPLAY, HeaderValue::from_static("true"));
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

impl IntoResponse for Nothing {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl<T> IntoResponse for Made<T> {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl<const STATUS: u16, T: ToSchema> Replies for Reply<STATUS, T> {
    fn into_answer(self) -> Answer {
        self.answered.answer
    }

    fn document(operation: &mut Operation, schemas: &mut Schemas) {
        let words = match STATUS {
            201 => "Created",
            202 => "Accepted",
            _ => "Success",
        };
        add::<T>(operation, schemas, STATUS, words);
    }
}

impl Replies for Nothing {
    fn into_answer(self) -> Answer {
        self.0.answered.answer
    }

    fn document(operation: &mut Operation, _: &mut Schemas) {
        add_named(operation, 204, "Success, and nothing to show", None);
    }
}

impl<T: ToSchema> Replies for Made<T> {
    fn into_answer(self) -> Answer {
        self.0.into_answer()
    }

    fn document(operation: &mut Operation, schemas: &mut Schemas) {
        add::<T>(operation, schemas, 200, "There was one already");
        add::<T>(operation, schemas, 201, "Created");
    }
}

fn add<T: ToSchema>(operation: &mut Operation, schemas: &mut Schemas, status: u16, words: &str) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
    add_named(operation, status, words, Some(&T::name()));
}

/// Adds to the document an answer with this status, and a body of the schema that is called so.
pub(crate) fn add_named(operation: &mut Operation, status: u16, words: &str, schema: Option<&str>) {
    let body = schema.map(|name| RefOr::Ref(Ref::from_schema_name(name)));
    let content = body.map(|body| ContentBuilder::new().schema(Some(body)).build());
    let response =
        content.into_iter().fold(ResponseBuilder::new().description(words), |response, content| response.content(MEDIA_TYPE, content));
    operation.responses.responses.insert(status.to_string(), RefOr::T(response.build()));
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let (status, body) = match serde_json::to_vec(body) {
        Ok(body) => (status, body),
        Err(error) => {
            tracing::error!(%error, "an answer could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, Vec::new())
        }
    };
    Answer { status: status.as_u16(), body: Bytes::from(body), content_type: Some(MEDIA_TYPE.to_owned()), location: None }
}
