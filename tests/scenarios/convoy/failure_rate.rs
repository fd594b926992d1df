//! How often deliveries to endpoints failed.

use serde_json::{Value, json};
use support::{App, Project, Receiver, Reply, eventually, project::uid};

#[tokio::test]
async fn failures_are_counted_by_endpoint_and_time() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let receiver = Receiver::start().await;
    receiver.on("/", [Reply::status(500), Reply::status(200), Reply::status(200)]);
    let endpoint = uid(&project.post("/endpoints", &json!({ "name": "one", "url": receiver.url("/") })).await);
    let idle = uid(&project.post("/endpoints", &json!({ "name": "idle", "url": receiver.url("/idle") })).await);
    project.post("/subscriptions", &json!({ "name": "all", "endpoint_id": endpoint })).await;
    for _ in 0..2 {
        project.post("/events", &json!({ "endpoint_id": endpoint, "event_type": "a", "data": {} })).await;
    }
    app.database.let_retries_fall_due().await;
    receiver.received(3).await;
    let ask =
        async |span: &str| project.get(&format!("/endpoints/period-failure-rates?endpointId={endpoint}&endpointId={idle}{span}")).await;
    let told = eventually("the attempts are counted", async || {
        let told = ask("").await;
        (told[0]["success_count"] == 2).then_some(told)
    })
    .await;
    assert_eq!((&told[0]["failure_count"], &told[0]["retry_count"], &told[0]["uid"]), (&json!(1), &json!(1), &json!(endpoint)));
    let rate = told[0]["period_failure_rate"].as_f64().expect("a number");
    assert!((rate - 100.0 / 3.0).abs() < 0.01, "{rate}");
    let nothing = json!({ "uid": idle, "success_count": 0, "failure_count": 0, "retry_count": 0, "period_failure_rate": 0.0 });
    assert_eq!(told[1], nothing);
    let before = ask("&startDate=2026-01-01T00:00:00&endDate=2026-01-02T00:00:00").await;
    assert_eq!(before[0]["success_count"], 0);
    let stranger = Project::of(&app.client.with_token(&support::token(&support::new_tenant()))).await;
    let theirs = stranger.get(&format!("/endpoints/period-failure-rates?endpointId={endpoint}")).await;
    assert_eq!(theirs[0]["success_count"], 0, "another project's endpoint has no counts here");
    for query in ["", "?endpointId=x"] {
        let why = project.refused("GET", &format!("/endpoints/period-failure-rates{query}"), &Value::Null, 400).await;
        assert!(why.starts_with("query.endpointId: "), "{why}");
    }
}
