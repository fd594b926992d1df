//! What a browser finds: a front page, the operations, and a receiver that shows hostile webhooks harmlessly.

use serde_json::json;
use support::{Database, client::Answer, new_tenant, processes::ServerProcess};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn a_browser_finds_its_way_from_the_front_page() {
    let database = Database::create().await;
    let server = ServerProcess::start(PROGRAM, "serve", &database.url, &new_tenant(), &[]).await;
    let open = async |path: &str| server.client.anonymous().request("GET", path).header("accept", "text/html").unchecked().send().await;
    let front = open("/").await.expect(200);
    assert_eq!(front.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(text(&front).contains("href=\"/docs\"") && !text(&front).contains("_play"), "{}", text(&front));
    let docs = open("/docs").await.expect(200);
    assert!(text(&docs).contains("href=\"/openapi.yaml\""), "{}", text(&docs));
    for (method, path) in support::contract::operations() {
        assert!(text(&docs).contains(&format!("<td>{method}</td><td><code>{path}</code></td>")), "{method} {path}");
    }
    for page in [&front, &docs] {
        assert!(!text(page).contains("://"), "nothing is fetched from elsewhere");
        assert!(page.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'")));
    }
    let document = open("/openapi.yaml").await.expect(200);
    assert_eq!(text(&document), api::openapi_yaml());
    let refused = server.client.request("POST", "/").unchecked().json(&json!({})).send().await;
    assert_eq!(refused.status, 405);
}
