//! The operations of the dialect that we do not have: they are told from paths that nobody knows.

use axum::http::Method;

use crate::transport::dialect::find_operation;

/// Where operations of the contract are that look like those of sources.
pub(crate) const INGEST: &str = "/ingest/api";
/// Paths of the contract with the methods that we do not have on them. A test compares the list with the contract.
pub(crate) const OPERATIONS: [(&str, &str); 40] = [
    ("/api/v1/app/{app_id}/endpoint/{endpoint_id}/transformation", "GET PATCH"),
    ("/api/v1/app/{app_id}/integration", "GET POST"),
    ("/api/v1/app/{app_id}/integration/{integ_id}", "GET PUT DELETE"),
    ("/api/v1/app/{app_id}/integration/{integ_id}/key/rotate", "POST"),
    ("/api/v1/app/{app_id}/poller/{sink_id}", "GET"),
    ("/api/v1/app/{app_id}/poller/{sink_id}/consumer/{consumer_id}", "GET"),
    ("/api/v1/app/{app_id}/poller/{sink_id}/consumer/{consumer_id}/seek", "POST"),
    ("/api/v1/auth/stream-logout", "POST"),
    ("/api/v1/auth/stream-portal-access/{stream_id}", "POST"),
    ("/api/v1/auth/stream/{stream_id}/expire-all", "POST"),
    ("/api/v1/auth/stream/{stream_id}/sink/{sink_id}/poller/token", "GET"),
    ("/api/v1/auth/stream/{stream_id}/sink/{sink_id}/poller/token/rotate", "POST"),
    ("/api/v1/connector", "GET POST"),
    ("/api/v1/connector/{connector_id}", "GET PUT PATCH DELETE"),
    ("/api/v1/environment/export", "POST"),
    ("/api/v1/environment/import", "POST"),
    ("/api/v1/stats/usage/app", "POST"),
    ("/api/v1/stats/usage/event-types", "PUT"),
    ("/api/v1/stream", "GET POST"),
    ("/api/v1/stream/event-type", "GET POST"),
    ("/api/v1/stream/event-type/{name}", "GET PUT PATCH DELETE"),
    ("/api/v1/stream/{stream_id}", "GET PUT PATCH DELETE"),
    ("/api/v1/stream/{stream_id}/events", "POST"),
    ("/api/v1/stream/{stream_id}/sink", "GET POST"),
    ("/api/v1/stream/{stream_id}/sink/{sink_id}", "GET PUT PATCH DELETE"),
    ("/api/v1/stream/{stream_id}/sink/{sink_id}/events", "GET"),
    ("/api/v1/stream/{stream_id}/sink/{sink_id}/headers", "GET PATCH"),
    ("/api/v1/stream/{stream_id}/sink/{sink_id}/secret", "GET"),
    ("/api/v1/stream/{stream_id}/sink/{sink_id}/secret/rotate", "POST"),
    ("/api/v1/stream/{stream_id}/sink/{sink_id}/transformation", "GET PATCH"),
    ("/ingest/api/v1/source", "GET POST"),
    ("/ingest/api/v1/source/{source_id}", "GET PUT DELETE"),
    ("/ingest/api/v1/source/{source_id}/dashboard", "POST"),
    ("/ingest/api/v1/source/{source_id}/endpoint", "GET POST"),
    ("/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}", "GET PUT DELETE"),
    ("/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}/headers", "GET PUT"),
    ("/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}/secret", "GET"),
    ("/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}/secret/rotate", "POST"),
    ("/ingest/api/v1/source/{source_id}/endpoint/{endpoint_id}/transformation", "GET PATCH"),
    ("/ingest/api/v1/source/{source_id}/token/rotate", "POST"),
];

/// The operation that this is a request for, as the contract writes it, if it is one that we do not have.
pub(super) fn operation(method: &Method, path: &str) -> Option<String> {
    find_operation(&OPERATIONS, method, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_known_by_method_and_path() {
        let known = |method: Method, path: &str| operation(&method, path);
        let portal = "/api/v1/auth/stream-portal-access/acme";
        assert_eq!(known(Method::POST, portal).as_deref(), Some("POST /api/v1/auth/stream-portal-access/{stream_id}"));
        assert_eq!(known(Method::GET, "/api/v1/stream/event-type").as_deref(), Some("GET /api/v1/stream/event-type"));
        for (method, path) in [(Method::GET, portal), (Method::POST, "/api/v1/auth/stream-portal-access/"), (Method::GET, "/nowhere")] {
            assert_eq!(known(method.clone(), path), None, "{method} {path}");
        }
    }
}
