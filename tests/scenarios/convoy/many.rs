//! What is asked for by the hundred: an event for everybody, events and deliveries once more. Tasks do it, whoever dies.

use serde_json::{Value, json};
use support::{
    App, Client, Database, Options, Project, Receiver, Reply, eventually, new_tenant,
    processes::ServerProcess,
    project::{items, uid},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");

/// The one task of this type, once it is over.
async fn over(client: &Client, kind: &str) -> Value {
    let path = format!("/api/v1/background-task?task={kind}");
    eventually("the task is over", async || {
        let shown = client.get(&path).await.expect(200).json()["data"].as_array().expect("tasks").clone();
        assert_eq!(shown.len(), 1, "one task was asked for");
        (shown[0]["status"] != "running").then(|| shown[0].clone())
    })
    .await
}

/// An endpoint of an owner, or of nobody, with a subscription to one type.
async fn subscribed(project: &Project, owner: Option<&str>, url: &str, event_type: &str) -> String {
    let mut endpoint = json!({ "name": url, "url": url });
    if let Some(owner) = owner {
        endpoint["owner_id"] = json!(owner);
    }
    let endpoint = uid(&project.post("/endpoints", &endpoint).await);
    let subscription = json!({ "name": "it", "endpoint_id": endpoint, "filter_config": { "event_types": [event_type] } });
    project.post("/subscriptions", &subscription).await;
    endpoint
}

#[tokio::test]
async fn a_broadcast_goes_once_to_every_endpoint_of_the_project_that_wants_it() {
    let (app, receiver) = (App::start().await, Receiver::start().await);
    let project = Project::of(&app.client).await;
    for owner in [Some("anna"), Some("bert"), None] {
        for nth in 0..2 {
            let path = format!("/{}/{nth}", owner.unwrap_or("nobody"));
            subscribed(&project, owner, &receiver.url(&path), "paid").await;
        }
    }
    subscribed(&project, Some("carl"), &receiver.url("/carl"), "sent").await;
    let of_the_other_dialect = app.customer().await;
    of_the_other_dialect.endpoint(&receiver.url("/dora")).await;
    let event = json!({ "event_type": "paid", "data": { "n": 1 }, "idempotency_key": "all-1", "custom_headers": { "X-Why": "because" } });
    let first = project.ask("POST", "/events/broadcast", &event).await.expect(201).json();
    assert_eq!((&first["message"], &first["data"]["is_duplicate_event"]), (&json!("Broadcast event created successfully"), &json!(false)));
    let received = receiver.received(7).await;
    let mut paths: Vec<_> = received.iter().map(|webhook| webhook.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/anna/0", "/anna/1", "/bert/0", "/bert/1", "/dora", "/nobody/0", "/nobody/1"]);
    for webhook in &received {
        assert_eq!((webhook.header("X-Convoy-Idempotency-Key"), webhook.header("X-Why")), ("all-1", "because"));
        assert_eq!(webhook.json(), event["data"]);
    }
    let task = over(&app.client, "message.broadcast").await;
    assert_eq!(
        (&task["status"], &task["data"]["messagesSent"], &task["data"]["scanned"]),
        (&json!("finished"), &json!(5), &json!(4)),
        "those without an owner had theirs with the event"
    );
    assert_eq!(task["data"].get("appId"), None);
    let again = project.ask("POST", "/events/broadcast", &event).await.expect(201).json();
    assert_eq!(again["message"], "Duplicate event received, but will not be sent");
    assert_eq!(again["data"]["duplicate_of"], first["data"]["uid"]);
    let fan_out = json!({ "owner_id": "anna", "event_type": "paid", "data": {}, "idempotency_key": "all-1" });
    assert_eq!(project.post("/events/fanout", &fan_out).await["duplicate_of"], first["data"]["uid"], "its key is the project's");
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 7);
    assert_eq!(app.database.number("select count(*) from task").await, 1, "a repeat is no task");
    let owners = app
        .database
        .texts("select a.name from message m join application a on a.id = m.application_id where duplicate_of is null order by 1");
    assert!(!owners.await.contains(&"carl".to_owned()), "who wants nothing of it gets no event");
}

/// More owners than one step looks at.
const OWNERS: i64 = 250;

#[tokio::test]
async fn a_broadcast_that_is_cut_off_by_kill_9_is_finished_by_another_node_and_gives_nobody_two() {
    let (database, tenant) = (Database::create().await, new_tenant());
    let start = async |role| ServerProcess::start(PROGRAM, role, &database.url, &tenant, &[]).await;
    let api = start("api").await;
    let project = Project::of(&api.client).await;
    subscribed(&project, Some("first"), "http://127.0.0.1:9/", "paid").await;
    database
        .execute(&format!(
            "with made as (
               insert into application (id, tenant_id, name)
                 select overlay(uuid_floor(now() - n * interval '1 s')::text placing '7' from 15)::uuid, tenant_id, 'copy'
                   from application, generate_series(2, {OWNERS}) n where uid = 'first' returning id
             )
             insert into endpoint (id, tenant_id, application_id, url, subscriptions)
               select made.id, e.tenant_id, made.id, e.url, e.subscriptions from made, endpoint e"
        ))
        .await;
    // All are held, so that what they are owed stays where it can be counted.
    let held = "insert into endpoint_health (endpoint_id, tenant_id, state, probe_at, changed_at)
                  select id, tenant_id, 1, now() + interval '100 s', now() from endpoint";
    database.execute(held).await;
    let unlucky = database.texts("select id::text from application order by id offset 120 limit 1").await.remove(0);
    let hold = database.hold_inserts_where("queue", &format!("new.application_id = '{unlucky}'")).await;
    let mut first = start("worker").await;
    project.post("/events/broadcast", &json!({ "event_type": "paid", "data": {}, "idempotency_key": "all" })).await;
    hold.holds(1).await;
    let copies = "select count(*) from message where application_id in (select application_id from endpoint)";
    assert_eq!(database.number(copies).await, 100, "the step before is there");
    first.process.kill().await;
    let second = start("worker").await;
    hold.release().await;
    let task = over(&api.client, "message.broadcast").await;
    assert_eq!((&task["data"]["messagesSent"], &task["data"]["scanned"]), (&json!(OWNERS), &json!(OWNERS)));
    assert_eq!(database.number(copies).await, OWNERS);
    let owed = "select count(*) from queue where application_id in (select application_id from message)";
    assert_eq!([database.number(owed).await, database.owed().await], [OWNERS, OWNERS], "nobody is owed two");
    drop((api, second));
}

#[tokio::test]
async fn failed_deliveries_of_the_whole_project_are_counted_and_then_made_once_more() {
    let app = App::with(Options { schedule: vec![], ..Options::default() }).await;
    let (project, receiver) = (Project::of(&app.client).await, Receiver::start().await);
    receiver.on("/anna", [500; 3].map(Reply::status));
    receiver.on("/bert", [500; 2].map(Reply::status));
    let mut endpoints = Vec::new();
    for (owner, count) in [("anna", 3), ("bert", 2), ("carl", 1)] {
        endpoints.push(subscribed(&project, Some(owner), &receiver.url(&format!("/{owner}")), "paid").await);
        for n in 0..count {
            let event = json!({ "owner_id": owner, "event_type": "paid", "data": { "n": n }, "idempotency_key": format!("{owner}-{n}") });
            project.post("/events/fanout", &event).await;
            // Its duplicate is stored, and owes nothing now or later.
            project.post("/events/fanout", &event).await;
        }
    }
    app.database.nothing_owed().await;
    assert_eq!(items(&project.get("/eventdeliveries?status=Failure").await).len(), 5);
    let num = async |query: &str| project.get(&format!("/eventdeliveries/countbatchretryevents?{query}")).await["num"].clone();
    assert_eq!(
        [num("").await, num(&format!("endpointId={}", endpoints[1])).await, num("eventType=sent").await],
        [5, 2, 0].map(Value::from)
    );
    let why = project.refused("POST", "/eventdeliveries/batchretry?status=Success", &Value::Null, 400).await;
    assert!(why.contains("query.status") && why.contains("forceresend"), "{why}");
    project.refused("POST", "/eventdeliveries/batchretry?subscriptionId=x", &Value::Null, 400).await;
    receiver.on("/anna", [Reply::status(200)]);
    receiver.on("/bert", [Reply::status(200)]);
    // One client sends a body where there is none to send; the repeat of a request is the same request.
    for _ in 0..2 {
        let path = project.path("/eventdeliveries/batchretry?status=Failure");
        let asked = app.client.request("POST", &path).header("Idempotency-Key", "retry-1").json(&json!("{}")).send().await.expect(200);
        assert_eq!(asked.json()["message"], "Batch retry processing");
    }
    let task = over(&app.client, "endpoint.bulk-replay").await;
    assert_eq!((&task["status"], &task["data"]["messagesSent"]), (&json!("finished"), &json!(5)));
    receiver.received(11).await;
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 11, "what was delivered and what is a duplicate are left alone");
    assert_eq!([num("").await, json!(items(&project.get("/eventdeliveries?status=Success").await).len())], [0, 6].map(Value::from));
}

#[tokio::test]
async fn events_of_the_whole_project_are_replayed_to_those_that_want_them_now() {
    let app = App::start().await;
    let (project, receiver) = (Project::of(&app.client).await, Receiver::start().await);
    let anna = subscribed(&project, Some("anna"), &receiver.url("/anna"), "paid").await;
    subscribed(&project, Some("bert"), &receiver.url("/bert"), "paid").await;
    for (owner, key) in [("anna", "1"), ("anna", "2"), ("anna", "2"), ("bert", "3")] {
        let event = json!({ "owner_id": owner, "event_type": "paid", "data": { "key": key }, "idempotency_key": key });
        project.post("/events/fanout", &event).await;
    }
    receiver.received(3).await;
    // One that came later wants them too.
    subscribed(&project, Some("anna"), &receiver.url("/late"), "paid").await;
    assert_eq!(project.get("/events/countbatchreplayevents").await["num"], 4);
    let task = project.ask("POST", "/events/batchreplay", &Value::Null).await.expect(200).json();
    let task = task["data"].as_str().expect("an id").to_owned();
    let shown = eventually("the task is over", async || {
        let shown = app.client.get(&format!("/api/v1/background-task/{task}")).await.expect(200).json();
        (shown["status"] == "finished").then_some(shown)
    });
    assert_eq!(shown.await["data"]["messagesSent"], 5, "of a duplicate nothing is sent");
    receiver.received(8).await;
    assert_eq!(receiver.received_at("/late", 2).await.len(), 2);
    project.done("POST", &format!("/events/batchreplay?endpointId={anna}&idempotencyKey=1"), &json!({}), 200).await;
    receiver.received(9).await;
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 9);
    let last = receiver.so_far().pop().expect("one");
    assert_eq!((last.path.as_str(), last.json()), ("/anna", json!({ "key": "1" })), "to the endpoint that is named alone");
}

#[tokio::test]
async fn a_batch_of_more_than_one_step_goes_through_each_owner_to_its_end() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    for (owner, count) in [("anna", 1_203), ("bert", 1)] {
        let endpoint = subscribed(&project, Some(owner), "http://127.0.0.1:9/", "paid").await;
        // Paused, so that what it is owed stays where it can be counted.
        project.done("PUT", &format!("/endpoints/{endpoint}/pause"), &Value::Null, 202).await;
        app.database
            .execute(&format!(
                "insert into message (id, tenant_id, application_id, event_type, content_type, payload)
                   select overlay(uuid_floor(now() - n * interval '1 ms')::text placing '7' from 15)::uuid, tenant_id, id, 'paid', 'application/json', '{{}}'
                     from application, generate_series(1, {count}) n where uid = '{owner}'"
            ))
            .await;
    }
    project.done("POST", "/events/batchreplay", &Value::Null, 200).await;
    let task = over(&app.client, "endpoint.bulk-replay").await;
    assert_eq!([&task["data"]["messagesSent"], &task["data"]["scanned"]], [&json!(1_204), &json!(1_204)]);
    assert_eq!(app.database.number("select count(distinct message_id) from queue").await, 1_204);
}
