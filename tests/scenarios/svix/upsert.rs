//! Things that are made when they are not there yet: once, however often and by however many.

use std::collections::BTreeSet;

use domain::id::{ApplicationId, EndpointId, Id};
use serde_json::{Value, json};
use support::{Answer, App, Client, Customer, new_tenant, token};

use crate::idempotency::same;

const URL: &str = "https://example.com/";

/// What can be made by a PUT: the path under which it is listed, and a body.
fn things(customer: &Customer) -> [(String, Value); 3] {
    [
        ("/api/v1/app".to_owned(), json!({ "name": "x" })),
        (customer.path("/endpoint"), json!({ "url": URL })),
        ("/api/v1/event-type".to_owned(), json!({ "description": "" })),
    ]
}

fn with(body: &Value, member: &str, value: impl Into<Value>) -> Value {
    let mut body = body.clone();
    body[member] = value.into();
    body
}

#[tokio::test]
async fn a_put_under_a_new_name_makes_one_thing_however_often_it_is_repeated() {
    let app = App::start().await;
    let customer = app.customer().await;
    for (list, body) in things(&customer) {
        let before = customer.pages(&list).await.len();
        let path = format!("{list}/new");
        let first = app.client.put(&path, &body).await.expect(201).json();
        for body in [&body, &with(&body, "uid", Value::Null), &with(&body, "uid", "new"), &body] {
            let again = app.client.put(&path, body).await.expect(200).json();
            assert_eq!((&again["id"], &again["uid"]), (&first["id"], &first["uid"]), "PUT {path} {body}");
        }
        assert_eq!(customer.pages(&list).await.len(), before + 1, "{list}");
        assert_eq!(app.client.get(&path).await.expect(200).json()["id"], first["id"], "its name finds it");
    }
}

#[tokio::test]
async fn a_put_makes_nothing_under_another_name_or_an_unknown_id() {
    let app = App::start().await;
    let customer = app.customer().await;
    let unknown = [ApplicationId::public(uuid::Uuid::now_v7().into()), EndpointId::public(uuid::Uuid::now_v7().into())];
    for ((list, body), id) in things(&customer).into_iter().zip(unknown) {
        let before = customer.pages(&list).await.len();
        let other = app.client.put(&format!("{list}/one"), &with(&body, "uid", "other")).await.expect(422).json();
        assert_eq!(other["detail"][0]["loc"], json!(["body", "uid"]), "{other}");
        assert!(other["detail"][0]["msg"].as_str().expect("a reason").contains("`one`"), "{other}");
        let prefix = id.split('_').next().expect("a prefix");
        for id in [&id, &format!("{prefix}_"), &format!("{prefix}_nonsense")] {
            for key in [None, Some("key")] {
                let request = app.client.request("PUT", &format!("{list}/{id}")).json(&body);
                let request = if let Some(key) = key { request.key(key) } else { request };
                assert_eq!(request.send().await.expect(404).text("code"), "not_found", "{list}/{id}");
            }
        }
        assert_eq!(customer.pages(&list).await.len(), before, "{list}");
    }
}

#[tokio::test]
async fn a_put_renames_what_is_there_and_by_its_id_drops_its_uid() {
    let app = App::start().await;
    let customer = app.customer().await;
    for (list, body) in things(&customer).into_iter().take(2) {
        let id = app.client.put(&format!("{list}/old"), &body).await.expect(201).text("id");
        app.client.put(&format!("{list}/old"), &with(&body, "uid", "new")).await.expect(200);
        assert_eq!(app.client.get(&format!("{list}/old")).await.status, 404);
        assert_eq!(app.client.get(&format!("{list}/new")).await.expect(200).text("id"), id);
        let taken = app.client.put(&format!("{list}/other"), &body).await.expect(201).text("id");
        assert_eq!(app.client.put(&format!("{list}/{taken}"), &with(&body, "uid", "new")).await.status, 409, "that is another one's name");
        app.client.put(&format!("{list}/{id}"), &body).await.expect(200);
        assert_eq!(app.client.get(&format!("{list}/new")).await.status, 404, "{list}: a PUT by the id drops what it does not name");
    }
}

#[tokio::test]
async fn a_key_counts_on_a_put_that_makes_something_and_on_one_that_does_not() {
    let app = App::start().await;
    let customer = app.customer().await;
    let put = async |path: &str, key: &str, body: &Value| app.client.request("PUT", path).key(key).json(body).send().await;
    for (list, body) in things(&customer) {
        let path = format!("{list}/new");
        let first = put(&path, "key", &body).await.expect(201);
        app.client.put(&path, &with(&body, "description", "changed since")).await.expect(200);
        same(&first, &put(&path, "key", &body).await);
        let other = put(&path, "key", &with(&body, "description", "another")).await.expect(422);
        assert_eq!(other.code(), "idempotency_key_reused");
        assert_eq!(put(&path, "", &body).await.expect(400).text("code"), "idempotency_key_empty");
        if list == "/api/v1/event-type" {
            continue;
        }
        let renaming = with(&body, "uid", "renamed");
        let renamed = put(&path, "rename", &renaming).await.expect(200);
        same(&renamed, &put(&path, "rename", &renaming).await);
        app.client.delete(&format!("{list}/renamed")).await.expect(204);
        same(&renamed, &put(&path, "rename", &renaming).await);
        same(&first, &put(&path, "key", &body).await);
        assert_eq!(app.client.get(&path).await.status, 404, "a replay makes nothing");
    }
    let endpoint = customer.endpoint_with(&json!({ "url": URL, "uid": "main" })).await;
    let headers = customer.path("/endpoint/main/headers");
    let first = put(&headers, "headers", &json!({ "headers": { "x-a": "1" } })).await.expect(204);
    app.client.put(&headers, &json!({ "headers": {} })).await.expect(204);
    let by_id = customer.path(&format!("/endpoint/{endpoint}/headers"));
    same(&first, &put(&by_id, "headers", &json!({ "headers": { "x-a": "1" } })).await);
    assert_eq!(app.client.get(&headers).await.expect(200).json()["headers"], json!({}));
}

/// Sends the same request from many at once, half of them to each server.
async fn storm(clients: [&Client; 2], method: &str, path: &str, body: &Value, key: Option<&str>) -> Vec<Answer> {
    let requests = (0..32).map(|number| {
        let request = clients[number % 2].request(method, path).json(body);
        let request = if let Some(key) = key { request.key(key) } else { request };
        tokio::spawn(request.send())
    });
    let mut answers = Vec::new();
    for request in requests.collect::<Vec<_>>() {
        answers.push(request.await.expect("no panic"));
    }
    answers
}

#[tokio::test]
async fn of_many_who_ask_two_servers_at_once_one_makes_it_and_all_get_it() {
    let app = App::start().await;
    let other = app.second_node().await;
    let customer = app.customer().await;
    for round in 0..6 {
        let name = format!("name-{round}");
        let puts = things(&customer).map(|(list, body)| ("PUT", format!("{list}/put-{name}"), body));
        let post = ("POST", "/api/v1/app?get_if_exists=true".to_owned(), json!({ "name": "x", "uid": name }));
        for (method, path, body) in puts.into_iter().chain([post]) {
            let answers = storm([&app.client, &other.client], method, &path, &body, None).await;
            let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
            assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{method} {path}: {statuses:?}");
            assert!(statuses.iter().all(|status| matches!(status, 200 | 201)), "{method} {path}: {statuses:?}");
            let found: BTreeSet<_> = answers.iter().map(|answer| answer.json()["createdAt"].to_string()).collect();
            assert_eq!(found.len(), 1, "{method} {path}: all got the same one");
        }
    }
    assert_eq!(customer.pages("/api/v1/app").await.len(), 13);
    assert_eq!(customer.pages(&customer.path("/endpoint")).await.len(), 6);
    assert_eq!(customer.pages("/api/v1/event-type").await.len(), 6);
}

#[tokio::test]
async fn under_a_key_many_puts_at_once_are_one() {
    let app = App::start().await;
    let other = app.second_node().await;
    let customer = app.customer().await;
    for (list, body) in things(&customer) {
        let path = format!("{list}/new");
        let answers = storm([&app.client, &other.client], "PUT", &path, &body, Some("key")).await;
        let made: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
        assert_eq!(made.iter().filter(|answer| !answer.is_replay()).count(), 1, "{answers:?}");
        assert!(made.iter().all(|answer| answer.body == made[0].body));
        let in_progress = |answer: &&Answer| answer.status == 409 && answer.code() == "idempotency_in_progress";
        assert_eq!(made.len() + answers.iter().filter(in_progress).count(), answers.len(), "{answers:?}");
    }
}

#[tokio::test]
async fn what_is_made_and_deleted_by_many_at_once_is_never_in_the_way() {
    let app = App::start().await;
    let other = app.second_node().await;
    let customer = app.customer().await;
    for (list, body) in things(&customer) {
        let path = format!("{list}/contested");
        let expunged = if list.ends_with("event-type") { format!("{path}?expunge=true") } else { path.clone() };
        let requests = (0..60).map(|number| {
            let client = if number % 2 == 0 { &app.client } else { &other.client };
            let request = if number % 3 == 0 { client.request("DELETE", &expunged) } else { client.request("PUT", &path).json(&body) };
            (number % 3 == 0, tokio::spawn(request.send()))
        });
        for (is_deletion, request) in requests.collect::<Vec<_>>() {
            let answer = request.await.expect("no panic");
            let expected = if is_deletion { [204, 404] } else { [200, 201] };
            assert!(expected.contains(&answer.status), "{path}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_tenant_whose_first_requests_reach_two_servers_at_once_is_one() {
    let app = App::start().await;
    let other = app.second_node().await;
    for _ in 0..5 {
        let token = token(&new_tenant());
        let [here, there] = [&app.client, &other.client].map(|client| client.with_token(&token));
        for answer in storm([&here, &there], "POST", "/api/v1/app", &json!({ "name": "x" }), None).await {
            answer.expect(201);
        }
        let list = here.get("/api/v1/app").await.expect(200).json();
        assert_eq!(list["data"].as_array().map(Vec::len), Some(32));
    }
}
