//! What is told of long work.

use serde_json::json;
use support::{App, Options, Receiver, Reply};

use super::{LIST, NOTED};

#[tokio::test]
async fn the_end_of_long_work_is_told_with_what_it_did() {
    let app = App::with(Options::retries(0)).await;
    let receiver = Receiver::start().await;
    let wanted = json!({ "url": receiver.url("/ops"), "eventTypes": ["background_task.finished"] });
    app.client.post(LIST, &wanted).await.expect(201);
    let customer = app.customer().await;
    receiver.on("/broken", [Reply::status(500), Reply::status(500), Reply::status(200)]);
    let endpoint = customer.endpoint(&receiver.url("/broken")).await;
    for n in 0..2 {
        let message = customer.publish(&json!({ "n": n })).await;
        customer.attempts(&message, 1).await;
    }
    let recover = customer.path(&format!("/endpoint/{endpoint}/recover"));
    let asked = app.client.post(&recover, &json!({ "since": "2026-01-01T00:00:00Z" })).await.expect(202).json();
    receiver.received_at("/broken", 4).await;
    let heard = receiver.received_at("/ops", 1).await.remove(0).json();
    assert_eq!(heard["type"], "background_task.finished");
    let shown = app.client.get(&format!("/api/v1/background-task/{}", asked["id"].as_str().expect("an id"))).await.expect(200).json();
    let expected = json!({ "taskId": asked["id"], "task": "endpoint.recover", "status": "finished", "data": shown["data"] });
    assert_eq!(heard["data"], expected);
    assert_eq!(shown["data"]["messagesSent"], 2);
    super::all_is_published(&app.database).await;
    app.database.nothing_owed().await;
    assert_eq!((receiver.received_at("/ops", 1).await.len(), app.database.number(NOTED).await), (1, 0), "once");
}
