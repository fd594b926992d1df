//! The published contract: complete, current, and true to the SDK contract that it follows.

use std::{collections::BTreeSet, fs};

use support::{App, contract};

#[test]
fn the_file_in_the_tree_is_what_the_server_generates() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../openapi.yaml");
    let file = fs::read_to_string(path).expect("openapi.yaml in the tree");
    assert_eq!(file.trim_end(), api::openapi_yaml().trim_end(), "run `just openapi` to bring openapi.yaml up to date");
}

#[test]
fn every_operation_of_the_first_release_is_documented() {
    let documented: BTreeSet<_> = contract::operations().into_iter().map(|(method, path)| format!("{method} {path}")).collect();
    let (app, ep) = ("/api/v1/app/{app_id}", "/api/v1/app/{app_id}/endpoint/{endpoint_id}");
    let msg = "/api/v1/app/{app_id}/msg";
    let event_type = "/api/v1/event-type/{event_type_name}";
    let crud = |list: &str, item: &str| {
        let of_list = ["GET", "POST"].map(|method| format!("{method} {list}"));
        let of_item = ["GET", "PUT", "PATCH", "DELETE"].map(|method| format!("{method} {item}"));
        of_list.into_iter().chain(of_item).collect::<Vec<_>>()
    };
    let mut wanted = [crud("/api/v1/app", app), crud(&format!("{app}/endpoint"), ep), crud("/api/v1/event-type", event_type)].concat();
    wanted.extend(["GET", "PUT", "PATCH"].map(|method| format!("{method} {ep}/headers")));
    wanted.extend([format!("GET {ep}/secret"), format!("POST {ep}/secret/rotate"), format!("GET {msg}"), format!("POST {msg}")]);
    wanted.extend([format!("GET {msg}/{{msg_id}}"), format!("GET {msg}/{{msg_id}}/attempt/{{attempt_id}}")]);
    wanted.extend([format!("GET {app}/attempt/msg/{{msg_id}}"), format!("GET {app}/attempt/endpoint/{{endpoint_id}}")]);
    wanted.extend([format!("POST {msg}/{{msg_id}}/endpoint/{{endpoint_id}}/resend"), format!("POST {msg}/{{msg_id}}/deliver")]);
    wanted.extend(["GET /api/v1/health".to_owned(), "GET /api/v1/health/ping".to_owned()]);
    let missing: Vec<_> = wanted.iter().filter(|operation| !documented.contains(*operation)).collect();
    assert!(missing.is_empty(), "{missing:?}");
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
