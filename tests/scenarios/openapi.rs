//! The published contract: complete, current, and true to the SDK contract that it follows.

use std::fs;

use support::{App, contract};

#[test]
fn the_file_in_the_tree_is_what_the_server_generates() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi.yaml");
    let file = fs::read_to_string(path).expect("openapi.yaml in the tree");
    assert_eq!(file.trim_end(), api::openapi_yaml().trim_end(), "run `just openapi` to bring openapi.yaml up to date");
}

#[tokio::test]
async fn every_path_is_served_with_and_without_a_trailing_slash() {
    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    let message = customer.publish(&serde_json::json!({})).await;
    for (method, template) in contract::operations().into_iter().filter(|(method, _)| method == "GET") {
        let path = template.replace("{app_id}", &customer.id).replace("{endpoint_id}", &endpoint).replace("{msg_id}", &message);
        let [plain, slashed] = [path.clone(), format!("{path}/")];
        let statuses = [app.client.get(&plain).await.status, app.client.get(&slashed).await.status];
        assert_eq!(statuses[0], statuses[1], "{method} {template}");
        assert_ne!(statuses[0], 405, "{method} {template}");
    }
}

#[tokio::test]
async fn browsers_may_read_the_headers_that_matter() {
    let app = App::start().await;
    let request = app.client.request("GET", "/api/v1/app").header("origin", "https://example.com");
    let answer = request.send().await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let exposed = answer.header("access-control-expose-headers").expect("a list").to_lowercase();
    for name in ["x-request-id", "idempotency-key", "idempotency-replay", "retry-after"] {
        assert!(exposed.contains(name), "{exposed}");
    }
}
