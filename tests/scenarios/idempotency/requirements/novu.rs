//! Novu's document on idempotency, sentence by sentence.

use std::collections::BTreeSet;

use domain::idempotency::Policy;
use serde_json::{Value, json};
use support::{Answer, App, Clock, Customer, Options, Receiver, contract, customer::message, eventually};

use crate::idempotency::same;

/// "we recommend a collision-resistant Unique Identifier, such as UUIDv7, CUID, or ULID, as your idempotency keys"
#[tokio::test]
async fn a_key_is_a_uuid_v7_a_cuid_or_a_ulid() {
    let app = App::start().await;
    let customer = app.customer().await;
    let keys =
        ["0193553e-4b5c-7cc3-98c4-dc0c0c07398f", "cjld2cjxh0000qzrmn831i7rn", "tz4a98xxat96iws9zmbrgj3a", "01ARZ3NDEKTSV4RRFFQ69G5FAV"];
    for key in keys {
        let body = message(&json!({ "key": key }));
        same(&customer.publish_raw(&body, Some(key)).await.expect(202), &customer.publish_raw(&body, Some(key)).await);
    }
    assert_eq!(customer.messages().await.len(), keys.len());
}

/// What is sent to each operation that takes a key: a request, and another one with the same key. `{…}` stand for the ids of
/// things that are there.
const WRITES: [(&str, &str, &str, &str); 31] = [
    ("POST", "/api/v1/app", r#"{"name":"a"}"#, r#"{"name":"b"}"#),
    ("PATCH", "/api/v1/app/{app_id}", r#"{"name":"a"}"#, r#"{"name":"b"}"#),
    ("PUT", "/api/v1/app/{app_id}", r#"{"name":"c"}"#, r#"{"name":"d"}"#),
    ("PUT", "/api/v1/app/{app_id}/endpoint/{endpoint_id}", r#"{"url":"https://example.com/a"}"#, r#"{"url":"https://example.com/b"}"#),
    ("PUT", "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers", r#"{"headers":{"a":"b"}}"#, r#"{"headers":{"a":"c"}}"#),
    ("PUT", "/api/v1/event-type/{event_type_name}", r#"{"description":"a"}"#, r#"{"description":"b"}"#),
    ("PUT", "/api/v1/idempotency/policy", r#"{"waitMs":1}"#, r#"{"waitMs":2}"#),
    ("POST", "/api/v1/app/{app_id}/endpoint", r#"{"url":"https://example.com/a"}"#, r#"{"url":"https://example.com/b"}"#),
    ("PATCH", "/api/v1/app/{app_id}/endpoint/{endpoint_id}", r#"{"description":"a"}"#, r#"{"description":"b"}"#),
    ("PATCH", "/api/v1/app/{app_id}/endpoint/{endpoint_id}/headers", r#"{"headers":{"a":"b"}}"#, r#"{"headers":{"a":"c"}}"#),
    ("POST", "/api/v1/app/{app_id}/endpoint/{endpoint_id}/secret/rotate", "{}", r#"{"gracePeriodSeconds":1}"#),
    ("POST", "/api/v1/event-type", r#"{"name":"a","description":""}"#, r#"{"name":"b","description":""}"#),
    ("PATCH", "/api/v1/event-type/{event_type_name}", r#"{"description":"a"}"#, r#"{"description":"b"}"#),
    ("POST", "/api/v1/app/{app_id}/msg", r#"{"eventType":"a","payload":{}}"#, r#"{"eventType":"b","payload":{}}"#),
    ("POST", "/api/v1/app/{app_id}/msg/{msg_id}/endpoint/{endpoint_id}/resend", "", ""),
    (
        "POST",
        "/api/v1/app/{app_id}/endpoint/{endpoint_id}/recover",
        r#"{"since":"2026-01-01T00:00:00Z"}"#,
        r#"{"since":"2026-01-02T00:00:00Z"}"#,
    ),
    (
        "POST",
        "/api/v1/app/{app_id}/endpoint/{endpoint_id}/replay-missing",
        r#"{"since":"2026-01-01T00:00:00Z"}"#,
        r#"{"since":"2026-01-02T00:00:00Z"}"#,
    ),
    ("POST", "/api/v1/background-task/{task_id}/cancel", "", ""),
    ("POST", "/api/v1/operational-webhook/endpoint", r#"{"url":"https://example.com/a"}"#, r#"{"url":"https://example.com/b"}"#),
    (
        "PUT",
        "/api/v1/operational-webhook/endpoint/{own_endpoint_id}",
        r#"{"url":"https://example.com/a"}"#,
        r#"{"url":"https://example.com/b"}"#,
    ),
    ("PUT", "/api/v1/operational-webhook/endpoint/{own_endpoint_id}/headers", r#"{"headers":{"a":"b"}}"#, r#"{"headers":{"a":"c"}}"#),
    ("POST", "/api/v1/operational-webhook/endpoint/{own_endpoint_id}/secret/rotate", "{}", r#"{"key":null}"#),
    (
        "PUT",
        "/api/v1/retry/policy",
        r#"{"retryStrategy":{"type":"linear","interval":1,"attempts":1}}"#,
        r#"{"retryStrategy":{"type":"linear","interval":2,"attempts":1}}"#,
    ),
    (
        "POST",
        "/api/v1/event-type/import/openapi",
        r#"{"spec":{"openapi":"3.1.0","info":{"title":"t","version":"1"},"webhooks":{"z":{"post":{"summary":"a"}}}}}"#,
        r#"{"spec":{"openapi":"3.1.0","info":{"title":"t","version":"1"},"webhooks":{"y":{"post":{"summary":"a"}}}}}"#,
    ),
    ("POST", "/api/v1/auth/app-portal-access/{app_id}", "{}", r#"{"readOnly":true}"#),
    ("POST", "/api/v1/auth/app/{app_id}/expire-all", "{}", r#"{"expiry":5}"#),
    // Of a batch each message is told for itself that its key is another request's.
    ("POST", "/api/v1/app/{app_id}/msg/batch", r#"{"messages":[{"eventType":"a","payload":{}}]}"#, ""),
    (
        "POST",
        "/api/v1/app/{app_id}/endpoint/{endpoint_id}/send-example",
        r#"{"eventType":"with.example"}"#,
        r#"{"eventType":"with.example","exampleIndex":1}"#,
    ),
    (
        "POST",
        "/api/v1/app/{app_id}/endpoint/{endpoint_id}/bulk-replay",
        r#"{"since":"2026-01-01T00:00:00Z"}"#,
        r#"{"since":"2026-01-02T00:00:00Z"}"#,
    ),
    ("POST", "/api/v1/app/{app_id}/msg/bulk-expunge", r#"{"ids":[]}"#, r#"{"ids":["a"]}"#),
    ("POST", "/api/v1/app/{app_id}/msg/expunge-all-contents", "", ""),
];

/// What asks and changes nothing; and what only a token can do that is gone afterwards.
const NO_WRITES: [(&str, &str); 2] = [("POST", "/api/v1/app/{app_id}/msg/precheck/active"), ("POST", "/api/v1/auth/logout")];

/// "Our platform has a seamless integration of optional idempotent requests for POST and PATCH operations." Here PUT is one more, because
/// one under an unknown name makes something.
#[tokio::test]
async fn every_post_put_and_patch_replays() {
    let takes_a_key = |method: &str| matches!(method, "POST" | "PUT" | "PATCH");
    let documented: BTreeSet<_> = contract::operations_of_svix()
        .into_iter()
        .filter(|(method, path)| takes_a_key(method) && !NO_WRITES.contains(&(method.as_str(), path.as_str())))
        .collect();
    let deliver = ("POST", "/api/v1/app/{app_id}/msg/{duplicate_id}/deliver", "", "");
    let tried = WRITES.iter().chain([&deliver]);
    let shown: BTreeSet<_> = tried
        .clone()
        .map(|(method, path, ..)| ((*method).to_owned(), path.replace("duplicate_id", "msg_id").replace("own_endpoint_id", "endpoint_id")))
        .collect();
    assert_eq!(shown, documented, "each operation that takes a key is tried here");

    let app = App::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint("https://example.com/").await;
    app.client.post("/api/v1/event-type", &json!({ "name": "invoice.paid", "description": "" })).await.expect(201);
    let with_example = json!({ "name": "with.example", "description": "", "schemas": { "1": { "examples": [{}, {}] } } });
    app.client.post("/api/v1/event-type", &with_example).await.expect(201);
    let published = json!({ "eventType": "a", "payload": {}, "idempotency_key": "k" });
    let first = customer.publish_raw(&published, None).await.expect(202).text("id");
    let duplicate = customer.publish_raw(&published, None).await.expect(202).text("id");
    let own =
        app.client.post("/api/v1/operational-webhook/endpoint", &json!({ "url": "https://example.com/" })).await.expect(201).text("id");
    let since = json!({ "since": "2026-01-01T00:00:00Z" });
    let task = app.client.post(&customer.path(&format!("/endpoint/{endpoint}/recover")), &since).await.expect(202).text("id");
    let ids = [
        ("app_id", &customer.id),
        ("endpoint_id", &endpoint),
        ("msg_id", &first),
        ("duplicate_id", &duplicate),
        ("own_endpoint_id", &own),
        ("task_id", &task),
    ];
    for (method, template, body, other) in tried {
        let path = ids.iter().fold((*template).to_owned(), |path, (name, id)| path.replace(&format!("{{{name}}}"), id));
        let path = path.replace("{event_type_name}", "invoice.paid");
        let send = async |body: &str| {
            let request = app.client.request(method, &path).key("the same key");
            if body.is_empty() { request.send().await } else { request.bytes(body.to_owned()).send().await }
        };
        let first = send(body).await;
        assert!((200..300).contains(&first.status), "{method} {path}: {first:?}");
        same(&first, &send(body).await);
        if !other.is_empty() {
            assert_eq!(send(other).await.expect(422).code(), "idempotency_key_reused", "{method} {path}");
        }
    }
    let names: Vec<_> = customer.pages("/api/v1/app").await.iter().map(|app| app["name"].clone()).collect();
    assert_eq!(names, ["c", "a"], "the PUT, after the PATCH, and one POST took effect, once each");
    assert_eq!(customer.pages(&customer.path("/endpoint")).await.len(), 2);
    assert_eq!(customer.messages().await.len(), 5);
}

/// "This integration closely adheres to the Idempotency-key ietf draft.": there a key is a String of RFC 8941, in quotes.
#[tokio::test]
async fn a_key_in_quotes_is_the_same_key_as_without_them() {
    let app = App::start().await;
    let customer = app.customer().await;
    let key = "8e03978e-40d5-43dd-bc93-6894a57f9324";
    let body = message(&json!({ "n": 1 }));
    let first = customer.publish_raw(&body, Some(&format!("\"{key}\""))).await.expect(202);
    for spelling in [key.to_owned(), format!("\"{key}\""), format!("  \"{key}\"  "), format!("\"{key}\"; v=1")] {
        same(&first, &customer.publish_raw(&body, Some(&spelling)).await);
    }
    let create = async |key: &str| app.client.request("POST", "/api/v1/app").key(key).json(&json!({ "name": "x" })).send().await;
    same(&create("a\"b\\c").await.expect(201), &create("\"a\\\"b\\\\c\"").await);
    assert_eq!(customer.messages().await.len(), 1);
}

/// "the API will replay the saved response from the original request - even if it involves client or server error responses"
#[tokio::test]
async fn a_client_or_server_error_is_replayed() {
    for policy in [Policy::default(), Policy::novu()] {
        let is_novu = policy == Policy::novu();
        let app = App::with(Options { policy, ..Options::default() }).await;
        let post = async |path: &str, key: &str, body: Value| app.client.request("POST", path).key(key).json(&body).send().await;
        post("/api/v1/app", "1", json!({ "name": "a", "uid": "taken" })).await.expect(201);
        let conflict = async || post("/api/v1/app", "2", json!({ "name": "b", "uid": "taken" })).await;
        let refused = conflict().await.expect(409);
        app.client.delete("/api/v1/app/taken").await.expect(204);
        same(&refused, &conflict().await);

        let absent = async || post("/api/v1/app/late/msg", "3", message(&json!({}))).await;
        let refused = absent().await.expect(404);
        assert_eq!(refused.text("code"), "not_found");
        app.client.post("/api/v1/app", &json!({ "name": "late", "uid": "late" })).await.expect(201);
        replayed_if(is_novu, &refused, &absent().await);

        app.database.execute(REFUSES).await;
        let failing = [("/api/v1/app", json!({ "name": "poison" })), ("/api/v1/app/late/msg", message(&json!({ "is": "poison" })))];
        let mut failed = Vec::new();
        for (path, body) in &failing {
            failed.push(post(path, "4", body.clone()).await.expect(500));
        }
        app.database.execute("drop function refuse() cascade").await;
        for ((path, body), failed) in failing.iter().zip(&failed) {
            replayed_if(is_novu, failed, &post(path, "4", body.clone()).await);
        }
    }
}

/// Makes Postgres refuse whatever is inserted, as it would refuse what it cannot represent.
const REFUSES: &str =
    "create function refuse() returns trigger language plpgsql as $$ begin raise 'refused' using errcode = 'data_exception'; end $$;
    create trigger refuse before insert on application for each row execute function refuse();
    create trigger refuse before insert on message for each row execute function refuse();";

#[track_caller]
fn replayed_if(is_saved: bool, first: &Answer, second: &Answer) {
    if is_saved {
        same(first, second);
    } else {
        assert!((200..300).contains(&second.status) && !second.is_replay(), "nothing had happened, so it is executed: {second:?}");
    }
}

/// "In the event of a response replay, the response will carry an Idempotency-Replay: true header."
#[tokio::test]
async fn a_replay_says_that_it_is_one_and_nothing_else_does() {
    let app = App::start().await;
    let customer = app.customer().await;
    let markers = |answer: &Answer| {
        let all =
            |name: &str| answer.headers.get_all(name).iter().map(|value| value.to_str().expect("text").to_owned()).collect::<Vec<_>>();
        (all("idempotency-replay"), all("idempotent-replayed"))
    };
    let (marked, unmarked) = ((vec!["true".to_owned()], vec!["true".to_owned()]), (vec![], vec![]));
    let taken = json!({ "eventType": "a", "payload": {}, "eventId": "evt" });
    customer.publish_raw(&taken, None).await.expect(202);
    for (body, status) in [(&message(&json!({ "n": 1 })), 202), (&taken, 409)] {
        let key = status.to_string();
        let first = customer.publish_raw(body, Some(&key)).await.expect(status);
        let second = customer.publish_raw(body, Some(&key)).await.expect(status);
        assert_eq!((markers(&first), markers(&second)), (unmarked.clone(), marked.clone()));
        for answer in [&first, &second] {
            assert_eq!(answer.header("idempotency-key"), Some(key.as_str()), "both name the key");
        }
        assert_ne!(first.header("x-request-id"), second.header("x-request-id"), "each answer has a name of its own");
        let mismatch = customer.publish_raw(&message(&json!({ "n": 2 })), Some(&key)).await.expect(422);
        assert_eq!(markers(&mismatch), unmarked, "a refusal of the repeat itself is no replay");
    }
    assert_eq!(markers(&customer.publish_raw(&message(&json!({ "n": 1 })), None).await), unmarked);
}

/// "A <key> exceeding 255 characters will trigger a 400 Bad Request error."
#[tokio::test]
async fn a_key_has_up_to_255_characters() {
    let app = App::start().await;
    let customer = app.customer().await;
    let (longest, too_long) = ("k".repeat(255), "k".repeat(256));
    let body = message(&json!({}));
    let first = customer.publish_raw(&body, Some(&longest)).await.expect(202);
    same(&first, &customer.publish_raw(&body, Some(&longest)).await);
    same(&first, &customer.publish_raw(&body, Some(&format!("\"{longest}\""))).await);
    for key in [too_long.clone(), format!("\"{too_long}\""), "k".repeat(4000)] {
        let refused = customer.publish_raw(&body, Some(&key)).await.expect(400);
        assert_eq!(refused.text("code"), "idempotency_key_too_long");
        let refused = app.client.request("PATCH", &customer.path("")).key(&key).json(&json!({ "name": "x" })).send().await.expect(400);
        assert_eq!(refused.text("code"), "idempotency_key_too_long");
    }
    assert_eq!(customer.messages().await.len(), 1);
}

/// "An inconsistent request body compared to the initial request will return a 422 Unprocessable Entity error."
#[tokio::test]
async fn another_body_under_the_same_key_is_refused() {
    let app = App::start().await;
    let customer = app.customer().await;
    let first = customer.publish_raw(&message(&json!({ "n": 1 })), Some("key")).await.expect(202);
    let payloads = [json!({ "n": 2 }), json!({ "n": 1.0 }), json!({ "n": "1" }), json!({ "n": 1, "m": null })];
    for payload in payloads {
        let other = customer.publish_raw(&message(&payload), Some("key")).await.expect(422);
        assert_eq!(other.code(), "idempotency_key_reused");
        assert!(!other.is_replay());
    }
    let query = customer.client.request("POST", &customer.path("/msg?with_content=false")).key("key");
    assert_eq!(query.json(&message(&json!({ "n": 1 }))).send().await.status, 422, "the query is part of the request");
    same(&first, &customer.publish_raw(&message(&json!({ "n": 1 })), Some("key")).await);
    assert_eq!(customer.messages().await.len(), 1);
}

/// "A ongoing processing of the initial request that hasn’t yet responded will result in a 409 Conflict error. This will
/// include a Retry-After header."
#[tokio::test]
async fn while_the_first_runs_a_second_is_told_to_come_back() {
    let app = App::start().await;
    let other_node = app.second_node().await;
    let customer = app.customer().await;
    let hold = app.database.hold_inserts("message").await;
    let body = message(&json!({ "n": 1 }));
    let first = tokio::spawn({
        let (customer, body) = (customer.clone(), body.clone());
        async move { customer.publish_raw(&body, Some("key")).await }
    });
    hold.holds(1).await;
    for client in [&other_node.client, &app.client] {
        let second = customer.through(client).publish_raw(&body, Some("key")).await.expect(409);
        assert_eq!(second.text("code"), "idempotency_in_progress");
        assert_eq!(second.header("retry-after"), Some("1"));
        assert!(!second.is_replay());
    }
    assert!(!first.is_finished(), "nobody waited for it");
    hold.release().await;
    let first = first.await.expect("no panic").expect(202);
    same(&first, &customer.publish_raw(&body, Some("key")).await);
    assert_eq!(customer.messages().await.len(), 1);
}

/// "Results will not saved if an API request is invalid."
#[tokio::test]
async fn an_invalid_request_leaves_its_key_to_the_corrected_one() {
    for policy in [Policy::default(), Policy::svix(), Policy::novu()] {
        let app = App::with(Options { policy, ..Options::default() }).await;
        let customer = app.customer().await;
        let publish = async |body: Value| customer.publish_raw(&body, Some("key")).await;
        for _ in 0..2 {
            let invalid = publish(json!({ "eventType": "no spaces", "payload": {} })).await.expect(422);
            assert!(!invalid.is_replay());
            publish(json!({ "eventType": "a" })).await.expect(422);
        }
        let corrected = publish(message(&json!({}))).await.expect(202);
        same(&corrected, &publish(message(&json!({}))).await);
        let create = async |body: Value| app.client.request("POST", "/api/v1/app").key("key").json(&body).send().await;
        assert!(!create(json!({ "name": 1 })).await.expect(422).is_replay());
        let corrected = create(json!({ "name": "a" })).await.expect(201);
        same(&corrected, &create(json!({ "name": "a" })).await);
    }
}

/// "All idempotency keys are ensured to be automatically removed once they are 24 hours and 1 minute old. After this period,
/// the reused key will be treated as a new request and response."
#[tokio::test]
async fn a_key_is_forgotten_when_it_is_24_hours_and_1_minute_old() {
    let app = App::start().await;
    let clock = Clock::of(&app.database).await;
    let node = app.second_node().await;
    let customer = app.customer().await.through(&node.client);
    let publish = async |n: u32| customer.publish_raw(&message(&json!({ "n": n })), Some("key")).await;
    let create = async || node.client.request("POST", "/api/v1/app").key("key").json(&json!({ "name": "x" })).send().await;
    let (first, created) = (publish(1).await.expect(202), create().await.expect(201));
    clock.advance("24:00:59.999999").await;
    same(&first, &publish(1).await);
    same(&created, &create().await);
    clock.advance("00:00:00.000001").await;
    let anew = publish(2).await.expect(202);
    assert!(!anew.is_replay(), "even with another body: nothing is known of the first");
    assert_ne!(anew.text("id"), first.text("id"));
    same(&anew, &publish(2).await);
    let created_anew = create().await.expect(201);
    assert!(!created_anew.is_replay());
    assert_ne!(created_anew.text("id"), created.text("id"));
}

/// "Our platform has a seamless integration of optional idempotent requests": without a key each request is one of its own.
#[tokio::test]
async fn without_a_key_every_request_is_executed() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let body = message(&json!({ "n": 1 }));
    let answers = [customer.publish_raw(&body, None).await.expect(202), customer.publish_raw(&body, None).await.expect(202)];
    assert_ne!(answers[0].text("id"), answers[1].text("id"));
    assert!(answers.iter().all(|answer| !answer.is_replay() && answer.header("idempotency-key").is_none()));
    let ids: BTreeSet<_> = receiver.received(2).await.iter().map(|webhook| webhook.id().to_owned()).collect();
    assert_eq!(ids, answers.iter().map(|answer| answer.text("id")).collect(), "two messages, each delivered");
    assert_eq!(app.database.number("select count(*) from idempotency").await, 0);
}

/// "Not only is this seamless but it also ensures that no event request is dropped provided that your system stays up."
#[tokio::test]
async fn a_request_whose_client_went_away_is_carried_out_and_its_repeat_hears_of_it() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let hold = app.database.hold_inserts("message").await;
    let publish = async |customer: Customer| customer.publish_raw(&message(&json!({ "n": 1 })), Some("key")).await;
    let lost = tokio::spawn(publish(customer.clone()));
    hold.holds(1).await;
    lost.abort();
    assert!(lost.await.expect_err("it was given up").is_cancelled());
    publish(customer.clone()).await.expect(409);
    hold.release().await;
    let repeat = async || {
        let answer = publish(customer.clone()).await;
        (answer.status != 409).then_some(answer)
    };
    let heard = eventually("the first has ended", repeat).await.expect(202);
    assert!(heard.is_replay(), "it was executed although nobody waited for it");
    assert_eq!(receiver.received(1).await[0].id(), heard.text("id"));
    app.database.nothing_owed().await;
    assert_eq!((receiver.so_far().len(), customer.messages().await.len()), (1, 1));
}
