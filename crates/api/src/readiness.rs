//! Whether this server can do its work.

use std::time::Duration;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use storage::Db;

use crate::{error::ApiError, svix::error::ErrorBody};

/// What the answers to health checks call the server.
pub const SERVER_NAME: &str = "Posthaste";

/// How long the database may take to answer before we count as not ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// Readiness
///
/// Tells whether the server is ready: it is when its database answers.
///
/// The answer names us in `Server`, so that a check is not taken in by another program.
#[utoipa::path(get, path = "/api/v1/health", tag = "Health", operation_id = "v1.health.get", responses(
    (status = 204, description = "Ready"),
    (status = 503, description = "The database does not answer", body = ErrorBody),
))]
pub(crate) async fn ready(State(db): State<Db>) -> Response {
    let answer = if db.is_ready(PATIENCE).await { StatusCode::NO_CONTENT.into_response() } else { ApiError::Unavailable.into_response() };
    ([(header::SERVER, SERVER_NAME)], answer).into_response()
}

/// Liveness
///
/// Tells whether the server answers at all.
#[utoipa::path(get, path = "/api/v1/health/ping", tag = "Health", operation_id = "v1.health.ping", responses(
    (status = 204, description = "It does"),
))]
pub(crate) async fn ping() -> StatusCode {
    StatusCode::NO_CONTENT
}
