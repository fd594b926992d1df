//! What a browser finds that was pointed at the server: what this is, and the list of its operations. Nothing is fetched from elsewhere.

use std::{fmt::Write, sync::LazyLock};

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
};
use utoipa::openapi::path::PathItem;

use crate::routes;

/// What a page of ours may do: show itself.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const STYLE: &str = "<style>body{font:16px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}td{padding:.1rem 1rem .1rem 0;\
    vertical-align:top}</style>";

static DOCUMENT: LazyLock<String> = LazyLock::new(routes::openapi_yaml);
static OPERATIONS: LazyLock<String> = LazyLock::new(operations);

/// What else this server has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extras {
    /// A receiver at `/_play/{id}`.
    pub(crate) playground: bool,
}

/// Says what this is and where to go from here.
pub(crate) async fn page(State(extras): State<Extras>) -> Response {
    let play =
        if extras.playground { "<li><a href=\"/_play/first\">/_play/first</a>: a receiver to try with, and what it got</li>" } else { "" };
    html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Posthaste</title>{STYLE}</head><body><h1>Posthaste {}</h1>\
         <p>Accepts a message once and delivers it to every subscribed endpoint. This is the server; its API is at <code>/api/v1</code>.</p>\
         <ul><li><a href=\"/docs\">/docs</a>: the operations</li>{play}\
         <li><a href=\"/api/v1/health\">/api/v1/health</a>: answers 204 if the server can work</li></ul></body></html>",
        env!("CARGO_PKG_VERSION")
    ))
}

/// Lists the operations.
pub(crate) async fn docs() -> Response {
    html(OPERATIONS.clone())
}

/// The whole API document.
pub(crate) async fn document() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"))], DOCUMENT.as_str()).into_response()
}

/// A page that can load nothing and run nothing, whatever it shows.
pub(crate) fn html(page: String) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (headers, Html(page)).into_response()
}

/// Text as it may stand in a page.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

fn operations() -> String {
    let mut rows = String::new();
    for (path, item) in &routes::document().paths.paths {
        let PathItem { get, put, post, delete, patch, .. } = item;
        for (method, operation) in [("GET", get), ("POST", post), ("PUT", put), ("PATCH", patch), ("DELETE", delete)] {
            if let Some(operation) = operation {
                let summary = escaped(operation.summary.as_deref().unwrap_or_default());
                let _ = write!(rows, "<tr><td>{method}</td><td><code>{}</code></td><td>{summary}</td></tr>", escaped(path));
            }
        }
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Posthaste: operations</title>{STYLE}</head><body>\
         <h1>Operations</h1><p>Send <code>Authorization: Bearer &lt;token&gt;</code> with a token that <code>posthaste token</code> printed. \
         Fields, limits and answers are in <a href=\"/openapi.yaml\">openapi.yaml</a>.</p><table>{rows}</table></body></html>"
    )
}
