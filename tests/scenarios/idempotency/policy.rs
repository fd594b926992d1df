//! A tenant's own policy: set at one replica, it holds for the very next request at another.

use serde_json::{Value, json};
use support::{Answer, App, Client, Customer, Node, customer::message, new_tenant, token};

const PATH: &str = "/api/v1/idempotency/policy";

/// Two replicas, of which the second already knows the customer and its tenant's policy as it was.
async fn stage() -> (App, Node, Customer) {
    let app = App::start().await;
    let other = app.second_node().await;
    let customer = app.customer().await;
    customer.through(&other.client).publish_raw(&message(&json!({})), Some("warm")).await.expect(202);
    let customer = customer.through(&other.client);
    (app, other, customer)
}

async fn set(client: &Client, policy: &Value) -> Value {
    client.put(PATH, policy).await.expect(200).json()
}

async fn create(client: &Client, key: &str, body: &Value) -> Answer {
    client.request("POST", "/api/v1/app").key(key).json(body).send().await
}

#[tokio::test]
async fn a_tenant_reads_replaces_and_undoes_its_policy() {
    let (app, other, _) = stage().await;
    let standard = json!({ "preset": null, "overridden": [], "methods": ["POST", "PUT", "PATCH"], "savedOutcomes": "executed",
        "ttlSeconds": 86460, "waitMs": 0, "fingerprint": true });
    assert_eq!(app.client.get(PATH).await.expect(200).json(), standard);
    let svix = set(&app.client, &json!({ "preset": "svix", "waitMs": 1 })).await;
    let expected = json!({ "preset": "svix", "overridden": ["waitMs"], "methods": ["POST"], "savedOutcomes": "successes",
        "ttlSeconds": 43200, "waitMs": 1, "fingerprint": true });
    assert_eq!(svix, expected);
    assert_eq!(other.client.get(PATH).await.expect(200).json(), expected);
    let stranger = other.client.with_token(&token(&new_tenant()));
    assert_eq!(stranger.get(PATH).await.expect(200).json(), standard, "it is the tenant's own");
    assert_eq!(set(&other.client, &json!({})).await, standard);
    assert_eq!(app.client.get(PATH).await.expect(200).json(), standard);
}

#[tokio::test]
async fn a_policy_that_cannot_be_is_refused_by_field() {
    let app = App::start().await;
    for (policy, field) in [
        (json!({ "preset": "stripe" }), "preset"),
        (json!({ "methods": [] }), "methods"),
        (json!({ "methods": ["PATCH"] }), "methods"),
        (json!({ "methods": ["POST", "DELETE"] }), "methods"),
        (json!({ "methods": ["POST", "POST"] }), "methods"),
        (json!({ "savedOutcomes": "everything" }), "savedOutcomes"),
        (json!({ "ttlSeconds": 0 }), "ttlSeconds"),
        (json!({ "ttlSeconds": 604_801 }), "ttlSeconds"),
        (json!({ "ttlSeconds": "1d" }), "ttlSeconds"),
        (json!({ "waitMs": 60_001 }), "waitMs"),
        (json!({ "fingerprint": "off" }), "fingerprint"),
        (json!({ "ttl": 5 }), "ttl"),
    ] {
        let refusal = app.client.put(PATH, &policy).await.expect(422).json();
        let told = refusal["detail"][0].to_string();
        assert!(told.contains(field), "{policy}: {refusal}");
    }
    assert_eq!(app.database.number("select count(*) from idempotency_policy").await, 0);
}

#[tokio::test]
async fn methods_decide_whether_a_put_and_a_patch_take_a_key() {
    let (app, _other, customer) = stage().await;
    let send = async |method: &str, name: &str, key: &str| {
        let request = customer.client.request(method, &customer.path("")).key(key).json(&json!({ "name": name }));
        request.send().await
    };
    let all = [["POST"].as_slice(), &["POST", "PATCH"], &["PUT", "POST"], &["PATCH", "PUT", "POST"]];
    for (number, methods) in all.into_iter().enumerate() {
        let shown = set(&app.client, &json!({ "methods": methods })).await;
        assert_eq!(shown["methods"].as_array().map(Vec::len), Some(methods.len()), "{shown}");
        for method in ["PUT", "PATCH"] {
            let key = format!("{method} {number}");
            send(method, "a", &key).await.expect(200);
            if methods.contains(&method) {
                assert!(send(method, "a", &key).await.expect(200).is_replay(), "{method} under {methods:?}");
                assert_eq!(send(method, "b", &key).await.status, 422, "{method} under {methods:?}");
            } else {
                assert_eq!(send(method, "b", &key).await.expect(200).text("name"), "b", "the key means nothing");
                send(method, "c", "a key that is\tnone").await.expect(200);
            }
        }
    }
}

#[tokio::test]
async fn saved_outcomes_decide_what_is_replayed() {
    let (app, _other, customer) = stage().await;
    let client = &customer.client;
    let taken = json!({ "name": "b", "uid": "taken" });
    let conflict_then_free = async |key: &str| {
        app.client.post("/api/v1/app", &json!({ "name": "a", "uid": "taken" })).await.expect(201);
        create(client, key, &taken).await.expect(409);
        app.client.delete("/api/v1/app/taken").await.expect(204);
        let again = create(client, key, &taken).await;
        if again.status == 201 {
            app.client.delete("/api/v1/app/taken").await.expect(204);
        }
        (again.status, again.is_replay())
    };
    let missing_then_made = async |uid: &str| {
        let path = format!("/api/v1/app/{uid}/msg");
        let publish = async || client.request("POST", &path).key(uid).json(&message(&json!({}))).send().await;
        publish().await.expect(404);
        app.client.post("/api/v1/app", &json!({ "name": uid, "uid": uid })).await.expect(201);
        let again = publish().await;
        (again.status, again.is_replay())
    };
    set(&app.client, &json!({ "savedOutcomes": "successes" })).await;
    assert_eq!(conflict_then_free("s").await, (201, false));
    assert_eq!(missing_then_made("successes").await, (202, false));
    set(&app.client, &json!({ "savedOutcomes": "executed" })).await;
    assert_eq!(conflict_then_free("e").await, (409, true));
    assert_eq!(missing_then_made("executed").await, (202, false));
    set(&app.client, &json!({ "savedOutcomes": "all" })).await;
    assert_eq!(conflict_then_free("a").await, (409, true));
    assert_eq!(missing_then_made("all").await, (404, true));
    assert_eq!(client.get("/api/v1/app/all/msg").await.json()["data"], json!([]));
}

#[tokio::test]
async fn a_conflict_of_event_ids_is_saved_as_the_policy_says() {
    let (app, _other, customer) = stage().await;
    let body = json!({ "eventType": "a", "payload": {}, "eventId": "evt" });
    customer.publish_raw(&body, None).await.expect(202);
    set(&app.client, &json!({ "savedOutcomes": "successes" })).await;
    for _ in 0..2 {
        assert!(!customer.publish_raw(&body, Some("s")).await.expect(409).is_replay());
    }
    set(&app.client, &json!({ "savedOutcomes": "executed" })).await;
    assert!(!customer.publish_raw(&body, Some("e")).await.expect(409).is_replay());
    assert!(customer.publish_raw(&body, Some("e")).await.expect(409).is_replay());
}

#[tokio::test]
async fn a_key_is_remembered_as_long_as_the_policy_says_and_a_record_keeps_its_own_time() {
    let (app, _other, customer) = stage().await;
    let life = async || {
        let sql = "select extract(epoch from expires_at - created_at) from idempotency order by created_at desc limit 1";
        app.database.number(sql).await
    };
    for (ttl, key) in [(90, "short"), (604_800, "long")] {
        set(&app.client, &json!({ "ttlSeconds": ttl })).await;
        customer.publish_raw(&message(&json!({})), Some(key)).await.expect(202);
        assert_eq!(life().await, ttl);
        create(&customer.client, key, &json!({ "name": "x" })).await.expect(201);
        assert_eq!(life().await, ttl);
    }
    set(&app.client, &json!({ "ttlSeconds": 1 })).await;
    assert!(customer.publish_raw(&message(&json!({})), Some("long")).await.expect(202).is_replay());
    // Two days ago, under a policy of seven: it is found all the same.
    app.database
        .execute("update idempotency set created_at = created_at - interval '1 day', expires_at = expires_at - interval '1 day'")
        .await;
    assert!(customer.publish_raw(&message(&json!({})), Some("long")).await.expect(202).is_replay());
    assert!(!customer.publish_raw(&message(&json!({})), Some("short")).await.expect(202).is_replay());
}

#[tokio::test]
async fn a_repeat_waits_as_long_as_the_policy_says() {
    let (app, _other, customer) = stage().await;
    let hold = app.database.hold_inserts("message").await;
    let publish = |client: &Client, key: &'static str| {
        let customer = customer.through(client);
        tokio::spawn(async move { customer.publish_raw(&message(&json!({})), Some(key)).await })
    };
    let first = publish(&app.client, "key");
    hold.holds(1).await;
    publish(&customer.client, "key").await.expect("no panic").expect(409);
    hold.release().await;
    first.await.expect("no panic").expect(202);

    set(&app.client, &json!({ "waitMs": 20_000 })).await;
    let hold = app.database.hold_again().await;
    let first = publish(&app.client, "other");
    hold.holds(1).await;
    let second = publish(&customer.client, "other");
    // It has looked at the key, found it busy, and stays.
    let is_busy = "select 1 where exists (select from pg_stat_activity where query like '%idempotency_policy%' and query_start > now() - interval '5 s')";
    support::eventually("the second has met the first", async || (app.database.number(is_busy).await == 1).then_some(())).await;
    assert!(!second.is_finished());
    hold.release().await;
    let (first, second) = (first.await.expect("no panic").expect(202), second.await.expect("no panic").expect(202));
    assert!(second.is_replay() && second.body == first.body);
}

#[tokio::test]
async fn without_a_fingerprint_any_request_under_a_key_is_a_repeat() {
    let (app, _other, customer) = stage().await;
    set(&app.client, &json!({ "fingerprint": false })).await;
    let first = customer.publish_raw(&message(&json!({ "n": 1 })), Some("key")).await.expect(202);
    let second = customer.publish_raw(&message(&json!({ "n": 2 })), Some("key")).await.expect(202);
    assert!(second.is_replay() && second.body == first.body);
    create(&app.client, "key", &json!({ "name": "a" })).await.expect(201);
    assert_eq!(create(&customer.client, "key", &json!({ "name": "b" })).await.expect(201).text("name"), "a");
    set(&app.client, &json!({})).await;
    customer.publish_raw(&message(&json!({ "n": 2 })), Some("key")).await.expect(422);
    create(&customer.client, "key", &json!({ "name": "b" })).await.expect(422);
}

#[tokio::test]
async fn under_novu_a_failure_of_ours_is_replayed_and_otherwise_tried_again() {
    let (app, _other, customer) = stage().await;
    for (preset, replays) in [("default", false), ("novu", true)] {
        set(&app.client, &json!({ "preset": preset })).await;
        let create = async || create(&customer.client, preset, &json!({ "name": preset })).await;
        let publish = async || customer.publish_raw(&message(&json!({ "preset": preset })), Some(preset)).await;
        app.database
            .execute(
                "create function fail() returns trigger language plpgsql as $$ begin raise exception using errcode = '22000'; end $$;
                 create trigger fail before insert on application for each row execute function fail();
                 create trigger fail before insert on message for each row execute function fail();",
            )
            .await;
        create().await.expect(500);
        publish().await.expect(500);
        app.database.execute("drop function fail() cascade").await;
        let expected = if replays { [(500, true), (500, true)] } else { [(201, false), (202, false)] };
        let (created, published) = (create().await, publish().await);
        assert_eq!([(created.status, created.is_replay()), (published.status, published.is_replay())], expected, "{preset}");
    }
}
