//! What happened to the project's own endpoints, as those were told who listen.

use serde_json::{Value, json};
use support::{App, Project, Receiver, Reply, eventually, project::items};

#[tokio::test]
async fn meta_events_are_listed_with_what_became_of_them_and_sent_again() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let endpoint = json!({ "name": "one", "url": "https://example.com/" });
    project.post("/endpoints", &endpoint).await;
    assert_eq!(items(&project.get("/meta-events").await), Vec::<Value>::new(), "nobody listened");

    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(200).body("heard"), Reply::status(200)]);
    let listener = json!({ "url": receiver.url("/"), "filterTypes": ["endpoint.created"] });
    app.client.post("/api/v1/operational-webhook/endpoint", &listener).await.expect(201);
    let second = project.post("/endpoints", &endpoint).await;
    receiver.received(1).await;
    app.database.nothing_owed().await;
    let events = eventually("the event is there with its attempt", async || {
        let events = items(&project.get("/meta-events").await);
        events.first().is_some_and(|event| event["status"] == "Success").then_some(events)
    })
    .await;
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!((&event["event_type"], &event["attempt"]["response_data"]), (&json!("endpoint.created"), &json!("heard")));
    assert!(second["uid"].is_string() && event["metadata"]["data"]["data"]["endpointId"].is_string(), "{event}");
    let path = format!("/meta-events/{}", event["uid"].as_str().expect("an id"));
    assert_eq!(project.get(&path).await["uid"], event["uid"]);
    assert_eq!(items(&project.get("/meta-events?endDate=2026-01-02T00:00:00&startDate=2026-01-01T00:00:00").await), Vec::<Value>::new());

    let resend = async || app.client.request("PUT", &project.path(&format!("{path}/resend"))).key("once").send().await.expect(200);
    let (first, again) = (resend().await, resend().await);
    assert_eq!((first.is_replay(), again.is_replay(), first.json() == again.json()), (false, true, true));
    let heard = receiver.received(2).await;
    assert_eq!(heard[0].id(), heard[1].id());
    app.database.nothing_owed().await;
    assert_eq!(receiver.so_far().len(), 2);
    let message = items(&project.get("/events").await);
    assert_eq!(message, Vec::<Value>::new(), "they are no events of the project");
    for (method, rest) in [("GET", ""), ("PUT", "/resend")] {
        project.refused(method, &format!("/meta-events/01J0000000E008000000000001{rest}"), &Value::Null, 404).await;
    }
}
