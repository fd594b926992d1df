//! A request has a name, which its answer carries and the log repeats with whose it was.

use serde_json::{Value, json};
use support::{Customer, Database, customer::message, new_tenant, processes::ServerProcess};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
const LOGGING: [(&str, &str); 2] = [("POSTHASTE_LOG", "debug"), ("POSTHASTE_LOG_FORMAT", "json")];

/// The lines that were logged for the request of this name.
fn lines_of(server: &ServerProcess, name: &str) -> Vec<Value> {
    let log = server.process.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["span"]["request_id"] == name).collect()
}

#[tokio::test]
async fn a_request_is_found_in_the_log_by_the_name_that_its_client_gave_it() {
    let database = Database::create().await;
    let tenant = new_tenant();
    let mut server = ServerProcess::start(PROGRAM, "serve", &database.url, &tenant, &LOGGING).await;
    server.client.post("/api/v1/app", &json!({ "name": "ACME", "uid": "acme" })).await.expect(201);
    let name = "Root=1-67891233-abcdef012345678912345678";
    let publish = server.client.request("POST", "/api/v1/app/acme/msg").header("x-request-id", name).json(&message(&json!({})));
    let published = publish.send().await.expect(202);
    assert_eq!(published.header("x-request-id"), Some(name));
    server.process.printed("a message was accepted").await;
    let lines = lines_of(&server, name);
    let accepted = lines.iter().find(|line| line["message"] == "a message was accepted").unwrap_or_else(|| panic!("{lines:#?}"));
    assert_eq!((&accepted["span"]["tenant"], &accepted["span"]["application"]), (&json!(tenant), &json!("acme")));
    assert_eq!(accepted["message_id"], published.text("id"), "ids are spelled as the API spells them");
    let shown = server.client.get("/api/v1/app/acme").await.expect(200);
    assert_eq!(accepted["application_id"], shown.text("id"));

    let unnamed = server.client.get("/api/v1/app/acme/msg/nothing").await.expect(404);
    let ours = unnamed.header("x-request-id").expect("a name").to_owned();
    assert!(uuid::Uuid::parse_str(&ours).is_ok(), "{ours}");
    let lines = lines_of(&server, &ours);
    assert_eq!(lines.last().map(|line| (&line["status"], &line["span"]["message"])), Some((&json!(404), &json!("nothing"))));
}

#[tokio::test]
async fn a_name_that_could_forge_the_log_is_replaced() {
    let database = Database::create().await;
    let server = ServerProcess::start(PROGRAM, "serve", &database.url, &new_tenant(), &[("POSTHASTE_LOG", "debug")]).await;
    for name in ["a b", "\"quoted\"", "x=1 level=error", "<script>", &"x".repeat(129), "é"] {
        let answer = server.client.request("GET", "/api/v1/app").header("x-request-id", name).send().await.expect(200);
        assert!(uuid::Uuid::parse_str(answer.header("x-request-id").expect("a name")).is_ok(), "{name}");
        assert!(!server.process.log().contains(name), "{name}");
    }
}

#[tokio::test]
async fn our_own_fault_is_logged_under_the_name_of_the_request() {
    let database = Database::create().await;
    let tenant = new_tenant();
    let mut server = ServerProcess::start(PROGRAM, "serve", &database.url, &tenant, &[("POSTHASTE_LOG_FORMAT", "json")]).await;
    let customer = Customer::create(&server.client).await;
    database.execute("alter table endpoint rename to endpoint_elsewhere").await;
    let asked = server.client.request("GET", &customer.path("/endpoint/ep")).header("x-request-id", "trace-1").send().await;
    asked.expect(500);
    server.process.printed("a request failed").await;
    let lines = lines_of(&server, "trace-1");
    let failed = lines.iter().find(|line| line["level"] == "ERROR").unwrap_or_else(|| panic!("{}", server.process.log()));
    assert_eq!((&failed["span"]["tenant"], &failed["span"]["application"]), (&json!(tenant), &json!(customer.id)));
    assert_eq!(failed["span"]["endpoint"], "ep");
}
