//! Every path is the same with and without a trailing slash.

use axum::{
    extract::Request,
    http::{Uri, uri::PathAndQuery},
};

/// Takes it off. This happens before routing, so that a route's template never has one.
pub(crate) fn trim(request: &mut Request) {
    if let Some(uri) = trimmed(request.uri()) {
        *request.uri_mut() = uri;
    }
}

fn trimmed(uri: &Uri) -> Option<Uri> {
    // Two slashes are not a trailing one: they stay, so that the answer can speak of them.
    let path = uri.path().strip_suffix('/').filter(|path| !path.is_empty() && !path.ends_with('/'))?;
    let trimmed = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(trimmed).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_slash_changes_nothing() {
        let trim = |uri: &str| trimmed(&uri.parse().expect("a URI")).map(|uri| uri.to_string());
        assert_eq!(trim("/api/v1/app/"), Some("/api/v1/app".into()));
        assert_eq!(trim("/api/v1/app/?limit=1&x=/"), Some("/api/v1/app?limit=1&x=/".into()));
        assert_eq!(trim("/api/v1/app/%2F/"), Some("/api/v1/app/%2F".into()));
        for unchanged in ["/", "/api/v1/app", "/api/v1/app?next=/", "/api/v1/app//", "//"] {
            assert_eq!(trim(unchanged), None, "{unchanged}");
        }
    }
}
