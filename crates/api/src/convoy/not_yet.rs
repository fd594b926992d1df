//! The operations of the dialect that we do not have: they are told from paths that nobody knows.

use axum::http::Method;

use crate::transport::dialect::find_operation;

/// Paths of the contract with the methods that we do not have on them. A test compares the list with the contract.
pub(crate) const OPERATIONS: &[(&str, &str)] = &[
    ("/api/v1/projects/{projectID}/endpoints/oauth2/test", "POST"),
    ("/api/v1/projects/{projectID}/sources/test_function", "POST"),
    ("/api/v1/projects/{projectID}/subscriptions/test_function", "POST"),
];

/// The operation that this is a request for, as the contract writes it, if it is one that we do not have.
pub(super) fn operation(method: &Method, path: &str) -> Option<String> {
    find_operation(OPERATIONS, method, path)
}
