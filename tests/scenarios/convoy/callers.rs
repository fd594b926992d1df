//! Who may do what: every operation, asked for by every kind of caller.

use domain::api_key::Role;
use serde_json::json;
use support::{Answer, App, Client, Project, api_key, application_token, contract, new_tenant, token};

/// An id that nothing has.
const NOTHING: &str = "01J0000000E008000000000001";

/// Asks with a body that changes nothing: the checks of the caller come before those of the body.
async fn ask(client: &Client, method: &str, path: &str) -> Answer {
    let request = client.request(method, path);
    if matches!(method, "GET" | "DELETE") { request.send().await } else { request.json(&json!([])).send().await }
}

#[tokio::test]
async fn every_operation_lets_in_whom_the_route_table_names() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let customer = app.customer().await;
    let admin = app.client.with_token(&api_key(&app.database, &app.tenant, Role::Admin).await);
    let viewer = app.client.with_token(&api_key(&app.database, &app.tenant, Role::Viewer).await);
    let application = app.client.with_token(&application_token(&app.tenant, &customer.id));
    let stranger = new_tenant();
    let strangers = [token(&stranger), api_key(&app.database, &stranger, Role::Admin).await].map(|token| app.client.with_token(&token));
    let mut named = contract::permissions();
    named.retain(|(_, template, _)| template.starts_with("/api/v1/projects"));
    assert!(named.len() > 2, "{named:?}");
    for (method, template, permission) in named {
        let what = format!("{method} {template} ({permission})");
        let path = |project: &str| {
            let path = template.replace("{projectID}", project);
            path.split('/').map(|segment| if segment.starts_with('{') { NOTHING } else { segment }).collect::<Vec<_>>().join("/")
        };
        let own = path(&project.id);
        for who in [&app.client, &admin] {
            let answer = ask(who, &method, &own).await;
            assert!(!matches!(answer.status, 401 | 403), "{what}: {answer:?}");
        }
        let is_for_viewers = permission.ends_with(":read");
        let answer = ask(&viewer, &method, &own).await;
        assert_eq!(answer.status == 403, !is_for_viewers, "{what}: {answer:?}");
        let answer = ask(&application, &method, &own).await;
        assert_eq!(answer.status == 403, permission != "event-type:read", "{what}: {answer:?}");
        assert_eq!(ask(&app.client.anonymous(), &method, &own).await.status, 401, "{what}");
        if template.contains("{projectID}") {
            for who in &strangers {
                let answer = ask(who, &method, &own).await;
                assert_eq!(answer.status, 403, "{what}: {answer:?}");
                assert!(answer.text("message").contains("another project"), "{answer:?}");
            }
            for foreign in [NOTHING, "x", &app.tenant] {
                assert_eq!(ask(&app.client, &method, &path(foreign)).await.status, 403, "{what}: {foreign}");
            }
        }
    }
}
