//! What the worker logs of a delivery or an endpoint says whose it is, spelled as the API and the tokens spell it.

use domain::id::{Id, TenantId};
use serde_json::{Value, json};
use support::{Customer, Database, Receiver, Reply, new_tenant, processes::ServerProcess};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
/// As many failures as it takes until an endpoint is held, and some more.
const MESSAGES: usize = 25;

/// The first line with this message about this endpoint.
async fn line(server: &mut ServerProcess, message: &str, endpoint: &str) -> Value {
    let about = |log: &str| {
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["message"] == message && line["endpoint_id"] == endpoint)
    };
    support::eventually(&format!("`{message}` is logged"), async || about(&server.process.log())).await
}

#[tokio::test]
async fn a_line_about_a_delivery_or_an_endpoint_says_whose_it_is() {
    let (database, receiver, tenant) = (Database::create().await, Receiver::start().await, new_tenant());
    receiver.on("/fails", [Reply::status(500)]);
    receiver.on("/gone", [Reply::status(410)]);
    let logging = [("POSTHASTE_LOG", "debug"), ("POSTHASTE_LOG_FORMAT", "json"), ("POSTHASTE_RETRY_SCHEDULE", "1h")];
    let mut server = ServerProcess::start(PROGRAM, "serve", &database.url, &tenant, &logging).await;
    let acme = server.client.post("/api/v1/app", &json!({ "name": "ACME", "uid": "acme" })).await.expect(201).text("id");
    let customer = Customer { id: acme, client: server.client.clone() };
    let nameless = Customer::create(&server.client).await;
    let (good, failing) = (customer.endpoint(&receiver.url("/good")).await, customer.endpoint(&receiver.url("/fails")).await);
    let gone = nameless.endpoint(&receiver.url("/gone")).await;
    let mut messages = Vec::new();
    for number in 0..MESSAGES {
        messages.push(customer.publish(&json!({ "n": number })).await);
    }
    let lost = nameless.publish(&json!({})).await;
    let [named, unnamed] = [(customer.id.as_str(), json!("acme")), (nameless.id.as_str(), Value::Null)];
    for (message, endpoint, (application, uid)) in [
        ("delivered", &good, &named),
        ("not delivered", &failing, &named),
        ("holding the deliveries of an endpoint that keeps failing", &failing, &named),
        ("not delivered", &gone, &unnamed),
        ("disabled an endpoint that is gone", &gone, &unnamed),
    ] {
        let line = line(&mut server, message, endpoint).await;
        assert_eq!(
            (&line["tenant"], &line["application_id"], &line["application_uid"]),
            (&json!(tenant), &json!(application), uid),
            "{line}"
        );
        if message.ends_with("delivered") {
            let id = line["message_id"].as_str().expect("a message's id");
            assert!(id == lost || messages.iter().any(|message| message == id), "{line}");
        }
    }
    let ours = database.texts("select id::text from tenant").await.remove(0).parse::<uuid::Uuid>().expect("a uuid");
    let log = server.process.log();
    assert!(!log.contains("tenant_id") && !log.contains(&TenantId(ours).public()), "a tenant is what its tokens call it:\n{log}");
}
