//! What this server counts, for Prometheus to scrape.

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use storage::Db;

/// Metrics
///
/// Shows what this server counts, in the OpenMetrics text format. It takes no token, and answers without the database too.
#[utoipa::path(get, path = "/metrics", tag = "Health", operation_id = "metrics.get", responses(
    (status = 200, description = "Metrics, as Prometheus reads them", body = String, content_type = "application/openmetrics-text"),
))]
pub(crate) async fn scrape(State(db): State<Db>) -> Response {
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(storage::metrics::CONTENT_TYPE))];
    (headers, db.scrape().await).into_response()
}
