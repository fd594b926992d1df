//! What customers are told: events for one endpoint and for an owner, each once, and what became of them.

use std::collections::HashSet;

use serde_json::{Value, json};
use support::{
    App, Customer, Project, Receiver, Reply, eventually, new_tenant,
    project::{items, uid},
    token,
};

/// The request of Convoy's page on idempotency, but for the endpoint.
fn as_documented(endpoint: &str) -> Value {
    json!({
        "endpoint_id": endpoint,
        "data": { "name": "{{$randomAdjective}}", "email": "{{$randomEmail}}", "age": 10 },
        "idempotency_key": "12d851d0255ea37d2a0253016e62d35047ab4a737b5bcd75fb8fddff4b029249",
        "custom_headers": { "header": "valve" },
        "event_type": "read"
    })
}

/// A customer with an endpoint at a receiver, and its project. The endpoint gets what its own filters take.
struct Story {
    app: App,
    project: Project,
    receiver: Receiver,
    customer: Customer,
    /// The endpoint, as projects call it.
    endpoint: String,
}

impl Story {
    async fn begin() -> Self {
        let app = App::start().await;
        let receiver = Receiver::start().await;
        let customer = app.customer().await;
        let endpoint = customer.endpoint(&receiver.url("/")).await;
        let endpoint = ulid(&app, &endpoint).await;
        Self { project: Project::of(&app.client).await, app, receiver, customer, endpoint }
    }

    /// The deliveries that stand so, when there are as many.
    async fn deliveries(&self, status: &str, count: usize) -> Vec<Value> {
        let look = async || {
            let found = items(&self.project.get(&format!("/eventdeliveries?status={status}")).await);
            (found.len() == count).then_some(found)
        };
        eventually(&format!("{count} deliveries are {status}"), look).await
    }
}

/// An endpoint's id as projects write it.
async fn ulid(app: &App, endpoint: &str) -> String {
    let sql = format!("select posthaste_id('{endpoint}')::text");
    let hex = app.database.texts(&sql).await.remove(0).replace('-', "");
    let number = u128::from_str_radix(&hex, 16).expect("an id");
    let digit = |place: u32| char::from(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[usize::try_from(number >> (5 * place) & 31).expect("a digit")]);
    (0..26).rev().map(digit).collect()
}

/// "As expected if you send the same idempotency key in a request it would create the event but no event delivery will be sent."
#[tokio::test]
async fn the_documented_request_sent_twice_creates_two_events_and_delivers_one() {
    let story = Story::begin().await;
    let (first, second) = (as_documented(&story.endpoint), as_documented(&story.endpoint));
    let answer = story.project.ask("POST", "/events", &first).await.expect(201).json();
    assert_eq!((&answer["message"], &answer["data"]["is_duplicate_event"]), (&json!("Event queued successfully"), &json!(false)));
    let again = story.project.ask("POST", "/events", &second).await.expect(201).json();
    assert_eq!(again["message"], "Duplicate event received, but will not be sent");
    let [original, duplicate] = [uid(&answer["data"]), uid(&again["data"])];
    assert_ne!(original, duplicate, "it creates the event");

    let webhook = story.receiver.received(1).await.remove(0);
    assert_eq!(webhook.header("X-Convoy-Idempotency-Key"), first["idempotency_key"]);
    assert_eq!(webhook.header("header"), "valve");
    assert_eq!(webhook.json(), first["data"]);
    story.app.database.nothing_owed().await;
    assert_eq!(story.receiver.so_far().len(), 1, "no event delivery of the second");

    let shown = story.project.get(&format!("/events/{duplicate}")).await;
    assert_eq!((&shown["is_duplicate_event"], &shown["duplicate_of"], &shown["endpoints"]), (&json!(true), &json!(original), &json!([])));
    let shown = story.project.get(&format!("/events/{original}")).await;
    assert_eq!((&shown["endpoints"], &shown["data"]), (&json!([story.endpoint]), &first["data"]));
    assert_eq!(shown["headers"]["header"], json!(["valve"]));
    let of_key = format!("/events?idempotencyKey={}", first["idempotency_key"].as_str().expect("a key"));
    let listed: Vec<_> = items(&story.project.get(&of_key).await).iter().map(uid).collect();
    assert_eq!(listed, [duplicate, original], "the newest first");
    assert_eq!(story.deliveries("Success", 1).await[0]["idempotency_key"], first["idempotency_key"]);
}

/// "This works the same way when creating dynamic and fanout events."
#[tokio::test]
async fn a_key_is_the_projects_whatever_the_endpoint_the_owner_or_the_kind_of_event() {
    let story = Story::begin().await;
    let owner = "acme";
    story.app.client.put(&story.customer.path(""), &json!({ "name": "Acme", "uid": owner })).await.expect(200);
    let other = story.app.customer().await;
    let elsewhere = other.endpoint(&story.receiver.url("/elsewhere")).await;
    let elsewhere = ulid(&story.app, &elsewhere).await;
    let fan_out = json!({ "owner_id": owner, "event_type": "paid", "data": { "n": 1 }, "idempotency_key": "order-1" });
    let answer = story.project.ask("POST", "/events/fanout", &fan_out).await.expect(201).json();
    assert_eq!(answer["message"], "Endpoint fanout event queued successfully");
    assert_eq!(story.receiver.received(1).await[0].header("X-Convoy-Idempotency-Key"), "order-1");
    let event = |endpoint: &str| json!({ "endpoint_id": endpoint, "event_type": "sent", "data": [1, "two"], "idempotency_key": "order-1" });
    for body in [event(&story.endpoint), event(&elsewhere)] {
        assert_eq!(story.project.post("/events", &body).await["duplicate_of"], answer["data"]["uid"]);
    }
    assert_eq!(story.project.ask("POST", "/events/fanout", &fan_out).await.expect(201).json()["data"]["is_duplicate_event"], true);
    // Another project's keys are its own.
    let client = story.app.client.with_token(&token(&new_tenant()));
    let theirs = Project::of(&client).await;
    client.post("/api/v1/app", &json!({ "name": "Acme", "uid": owner })).await.expect(201);
    assert_eq!(theirs.post("/events/fanout", &fan_out).await["is_duplicate_event"], false);
    let wrong = json!({ "owner_id": "nobody", "event_type": "paid", "data": {} });
    assert!(story.project.refused("POST", "/events/fanout", &wrong, 400).await.contains("body.owner_id"), "it names the field");
    story.app.database.nothing_owed().await;
    assert_eq!(story.receiver.so_far().len(), 1);
}

/// "This works the same way when creating dynamic and fanout events."
#[tokio::test]
async fn a_dynamic_event_makes_one_endpoint_for_a_url_and_a_duplicate_makes_none() {
    let story = Story::begin().await;
    let event = |path: &str, key: &str| {
        let url = story.receiver.url(path);
        json!({ "url": url, "secret": "a secret", "event_type": "paid", "data": { "path": path }, "idempotency_key": key })
    };
    let first = story.project.post("/events/dynamic", &event("/dynamic", "order-1")).await;
    let webhook = story.receiver.received_at("/dynamic", 1).await.remove(0);
    assert_eq!(webhook.header("X-Convoy-Idempotency-Key"), "order-1");
    let signed = webhook.header("X-Convoy-Signature");
    assert!(signed.starts_with("t=") && signed.contains(",v1="), "{signed}");
    let duplicate = story.project.post("/events/dynamic", &event("/elsewhere", "order-1")).await;
    assert_eq!((&duplicate["is_duplicate_event"], &duplicate["duplicate_of"]), (&json!(true), &first["uid"]));
    let made = async || items(&story.project.get("/endpoints").await).iter().filter(|endpoint| endpoint["name"] != "").count();
    assert_eq!(made().await, 1, "the duplicate made none");
    story.project.post("/events/dynamic", &event("/dynamic", "order-2")).await;
    story.receiver.received_at("/dynamic", 2).await;
    assert_eq!(made().await, 1, "the same URL is the same endpoint");
    let mut other = event("/dynamic", "order-3");
    other["event_types"] = json!(["sent"]);
    story.project.post("/events/dynamic", &other).await;
    story.app.database.nothing_owed().await;
    assert_eq!(story.receiver.so_far().len(), 2, "from now on it gets another type");
    let mut wrong = event("/dynamic", "order-4");
    wrong["url"] = json!("ftp://example.com");
    assert!(story.project.refused("POST", "/events/dynamic", &wrong, 400).await.contains("body.url"));
}

#[tokio::test]
async fn an_event_for_one_endpoint_goes_to_no_other_of_its_owner() {
    let story = Story::begin().await;
    story.customer.endpoint(&story.receiver.url("/sibling")).await;
    let event = json!({ "endpoint_id": story.endpoint, "event_type": "paid", "data": { "n": 1 } });
    let made = story.project.post("/events", &event).await;
    let webhook = story.receiver.received(1).await.remove(0);
    assert_eq!(webhook.path, "/");
    assert!(!webhook.header("X-Convoy-Idempotency-Key").is_empty(), "there is always something to dedupe by");
    story.project.done("PUT", &format!("/events/{}/replay", uid(&made)), &json!("{}"), 200).await;
    assert_eq!(story.receiver.received(2).await[1].json(), event["data"], "a replay really replays");
    story.app.database.nothing_owed().await;
    assert!(story.receiver.so_far().iter().all(|webhook| webhook.path == "/"));
    let unknown = json!({ "endpoint_id": story.project.id, "event_type": "paid", "data": {} });
    story.project.refused("POST", "/events", &unknown, 404).await;
    for (field, value) in [("event_type", json!("a b")), ("idempotency_key", json!("é")), ("custom_headers", json!({ "Host": "x" }))] {
        let mut body = event.clone();
        body[field] = value;
        let why = story.project.refused("POST", "/events", &body, 400).await;
        assert!(why.contains(&format!("body.{field}")), "{why}");
    }
}

#[tokio::test]
async fn a_delivery_tells_how_far_it_got_and_is_sent_again_on_request() {
    let story = Story::begin().await;
    story.receiver.on("/", [410].map(Reply::status));
    let event = json!({ "endpoint_id": story.endpoint, "event_type": "paid", "data": { "n": 1 } });
    story.project.post("/events", &event).await;
    let failed = story.deliveries("Failure", 1).await.remove(0);
    assert_eq!((&failed["endpoint_id"], &failed["metadata"]["num_trials"]), (&json!(story.endpoint), &json!(1)));
    let path = format!("/eventdeliveries/{}", uid(&failed));
    assert_eq!(story.project.get(&path).await["description"], "the receiver answered 410");
    let why = story.project.refused("PUT", &format!("{path}/resend"), &Value::Null, 400).await;
    assert!(why.contains("activate"), "the 410 switched it off: {why}");
    let endpoint =
        story.app.client.get(&story.customer.path("/endpoint")).await.json()["data"][0]["id"].as_str().expect("an id").to_owned();
    story.app.client.patch(&story.customer.path(&format!("/endpoint/{endpoint}")), &json!({ "disabled": false })).await.expect(200);
    story.receiver.on("/", [Reply::status(200)]);
    story.project.done("PUT", &format!("{path}/resend"), &json!("{}"), 200).await;
    story.deliveries("Success", 1).await;
    let attempts = story.project.get(&format!("{path}/deliveryattempts")).await;
    let statuses: Vec<_> = attempts.as_array().expect("attempts").iter().map(|attempt| attempt["http_status"].clone()).collect();
    assert_eq!(statuses, ["200 OK", "410 Gone"], "the last one first");
    let one = story.project.get(&format!("{path}/deliveryattempts/{}", uid(&attempts[0]))).await;
    assert_eq!((&one["status"], &one["msg_id"]), (&json!(true), &failed["uid"]));

    let why = story.project.refused("PUT", &format!("{path}/resend"), &Value::Null, 400).await;
    assert_eq!(why, "event already sent");
    let ids = json!({ "ids": [failed["uid"], format!("{}{}", story.project.id, story.endpoint)] });
    let answer = story.project.ask("POST", "/eventdeliveries/forceresend", &ids).await.expect(200).json();
    assert_eq!(answer["message"], "1 successful, 1 failed");
    story.receiver.received(3).await;
}

#[tokio::test]
async fn lists_of_events_and_deliveries_are_turned_over_to_their_end_and_back() {
    let story = Story::begin().await;
    let other = story.app.customer().await;
    let elsewhere = other.endpoint(&story.receiver.url("/")).await;
    let elsewhere = ulid(&story.app, &elsewhere).await;
    for number in 0..7 {
        let endpoint = [&story.endpoint, &elsewhere][number % 2];
        story.project.post("/events", &json!({ "endpoint_id": endpoint, "event_type": "paid", "data": { "n": number } })).await;
    }
    story.receiver.received(7).await;
    story.app.database.nothing_owed().await;
    for list in ["/events", "/eventdeliveries"] {
        let whole: Vec<_> = items(&story.project.get(list).await).iter().map(uid).collect();
        assert_eq!(whole.iter().collect::<HashSet<_>>().len(), 7, "of all owners");
        let (mut turned, mut cursor) = (Vec::new(), String::new());
        let mut page;
        loop {
            page = story.project.get(&format!("{list}?perPage=3&next_page_cursor={cursor}")).await;
            turned.extend(items(&page).iter().map(uid));
            if page["pagination"]["has_next_page"] == false {
                break;
            }
            cursor = page["pagination"]["next_page_cursor"].as_str().expect("a cursor").to_owned();
        }
        assert_eq!(turned, whole);
        let back =
            format!("{list}?perPage=3&direction=prev&prev_page_cursor={}", page["pagination"]["prev_page_cursor"].as_str().expect("one"));
        let back: Vec<_> = items(&story.project.get(&back).await).iter().map(uid).collect();
        assert_eq!(back, whole[3..6]);
        let ascending: Vec<_> = items(&story.project.get(&format!("{list}?sort=ASC")).await).iter().map(uid).collect();
        assert_eq!(ascending, whole.iter().rev().cloned().collect::<Vec<_>>());
        assert_eq!(items(&story.project.get(&format!("{list}?endpointId={elsewhere}")).await).len(), 3);
        assert_eq!(items(&story.project.get(&format!("{list}?endDate=2020-01-02T00:00:00&startDate=2020-01-01T00:00:00")).await).len(), 0);
        story.project.refused("GET", &format!("{list}?endDate=2020-01-02T00:00:00"), &Value::Null, 400).await;
    }
    assert_eq!(story.project.get("/events/countbatchreplayevents").await["num"], 7);
    let event = items(&story.project.get("/events?perPage=1").await).remove(0);
    let of_event = items(&story.project.get(&format!("/eventdeliveries?eventId={}", uid(&event))).await);
    assert_eq!(of_event.iter().map(|delivery| delivery["event_id"].clone()).collect::<Vec<_>>(), [event["uid"].clone()]);
    assert_eq!(items(&story.project.get("/eventdeliveries?eventType=sent").await).len(), 0);
}
