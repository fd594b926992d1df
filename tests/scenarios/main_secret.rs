//! The main secret is changed while two servers run: in the documented order nothing is stranded, and in another one it shows.

use rustix::process::Signal;
use serde_json::json;
use support::{
    Answer, Customer, Database, MAIN_SECRET, Project, Receiver, eventually, new_tenant,
    processes::{self, ServerProcess, command, run},
    scrape::Scrape,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste-under-test");
const NEW: &str = "another main secret, long enough by far";

/// A main secret, and the other one that is accepted.
type Secrets = (&'static str, Option<&'static str>);

const OLD_ALONE: Secrets = (MAIN_SECRET, None);
const OLD_AND_NEW: Secrets = (MAIN_SECRET, Some(NEW));
const NEW_AND_OLD: Secrets = (NEW, Some(MAIN_SECRET));
const NEW_ALONE: Secrets = (NEW, None);

fn variables((main, previous): Secrets) -> Vec<(&'static str, &'static str)> {
    let previous = previous.map(|previous| ("POSTHASTE_MAIN_SECRET_PREVIOUS", previous));
    [("POSTHASTE_MAIN_SECRET", main)].into_iter().chain(previous).collect()
}

async fn server(database: &Database, tenant: &str, secrets: Secrets) -> ServerProcess {
    ServerProcess::start(PROGRAM, "serve", &database.url, tenant, &variables(secrets)).await
}

async fn stop(mut server: ServerProcess) {
    server.process.signal(Signal::TERM);
    assert!(server.process.ended().await.success());
}

/// `posthaste reseal`; returns whether it is complete, and what it said.
async fn reseal(database: &Database, secrets: Secrets) -> (bool, String) {
    let mut environment = variables(secrets);
    environment.push(("POSTHASTE_DATABASE_URL", &database.url));
    let (status, out, errors) = run(command(PROGRAM, &["reseal"], &environment)).await;
    (status.success(), out + &errors)
}

/// Lets the half minute pass after which a secret counts as out of use.
async fn let_time_pass(database: &Database) {
    database.execute("update main_secret set noted_at = now() - interval '1 minute'").await;
}

/// A new source of GitHub's, made by this server: the last part of its URL, and the signature of an empty object.
async fn source(server: &ServerProcess) -> (String, String) {
    use hmac::{Hmac, KeyInit, Mac};

    let definition = json!({ "name": "GitHub", "provider": "github", "verifier": { "type": "hmac", "hmac": { "secret": "sealed" } } });
    let source = Project::of(&server.client).await.post("/sources", &definition).await;
    let mac = Hmac::<sha2::Sha256>::new_from_slice(b"sealed").expect("any length").chain_update(b"{}").finalize().into_bytes();
    let signature = mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    (source["mask_id"].as_str().expect("a mask").to_owned(), format!("sha256={signature}"))
}

/// Sends an event to a source through a server, which must know it for genuine.
async fn takes(server: &ServerProcess, (mask, signature): &(String, String)) {
    let request = server.client.anonymous().request("POST", &format!("/ingest/{mask}")).bytes("{}");
    request.header("x-hub-signature-256", signature).send().await.expect(200);
}

/// Publishes through a server, and waits until every one of these endpoints has its webhook, with its headers and its signature.
async fn delivers(customer: &Customer, server: &ServerProcess, endpoints: &[(Receiver, String)]) {
    let through = customer.through(&server.client);
    let id = through.publish(&json!({})).await;
    for (receiver, secret) in endpoints {
        let webhook = eventually("the webhook comes", async || receiver.so_far().into_iter().find(|webhook| webhook.id() == id)).await;
        assert_eq!(webhook.header("x-sealed"), "here");
        let verifier = standardwebhooks::Webhook::new(secret).expect("a secret");
        verifier.verify(&webhook.body, &webhook.header_map()).expect("its secret signs");
    }
}

/// A new endpoint of the customer, made by this server.
async fn endpoint(customer: &Customer, server: &ServerProcess) -> (Receiver, String) {
    let receiver = Receiver::start().await;
    let through = customer.through(&server.client);
    let id = through.endpoint_with(&json!({ "url": receiver.url("/"), "headers": { "x-sealed": "here" } })).await;
    let secret = through.secret(&id).await;
    (receiver, secret)
}

async fn create_under_a_key(server: &ServerProcess) -> Answer {
    server.client.request("POST", "/api/v1/app").key("kept").json(&json!({ "name": "kept" })).send().await.expect(201)
}

#[tokio::test]
async fn in_the_documented_order_no_delivery_is_stranded() {
    let (database, tenant) = (Database::create().await, new_tenant());
    let (one, other) = (server(&database, &tenant, OLD_ALONE).await, server(&database, &tenant, OLD_ALONE).await);
    let customer = Customer::create(&one.client).await;
    let mut endpoints = vec![endpoint(&customer, &one).await];
    let kept = create_under_a_key(&one).await;

    // The new one is added everywhere.
    stop(one).await;
    let one = server(&database, &tenant, OLD_AND_NEW).await;
    delivers(&customer, &other, &endpoints).await;
    stop(other).await;
    let other = server(&database, &tenant, OLD_AND_NEW).await;

    // Then one server after the other seals with it; each opens what either seals.
    stop(one).await;
    let one = server(&database, &tenant, NEW_AND_OLD).await;
    endpoints.push(endpoint(&customer, &one).await);
    endpoints.push(endpoint(&customer, &other).await);
    delivers(&customer, &one, &endpoints).await;
    delivers(&customer, &other, &endpoints).await;
    stop(one).await;
    delivers(&customer, &other, &endpoints).await;
    let one = server(&database, &tenant, NEW_AND_OLD).await;
    let (is_complete, said) = reseal(&database, NEW_AND_OLD).await;
    assert!(!is_complete && said.contains("another main secret"), "one server still seals with the old one: {said}");
    stop(other).await;
    let other = server(&database, &tenant, NEW_AND_OLD).await;

    // Then everything is sealed anew, while they run.
    let_time_pass(&database).await;
    delivers(&customer, &other, &endpoints).await;
    let (is_complete, said) = reseal(&database, NEW_AND_OLD).await;
    assert!(is_complete && said.contains("signing secrets: 0 sealed anew"), "{said}");
    assert!(said.contains("nothing needs POSTHASTE_MAIN_SECRET_PREVIOUS any more"), "{said}");

    // Then the old one is dropped, and whoever still has it alone is refused.
    stop(one).await;
    let one = server(&database, &tenant, NEW_ALONE).await;
    stop(other).await;
    let other = server(&database, &tenant, NEW_ALONE).await;
    endpoints.push(endpoint(&customer, &other).await);
    delivers(&customer, &one, &endpoints).await;
    delivers(&customer, &other, &endpoints).await;
    let replay = create_under_a_key(&other).await;
    assert!(replay.is_replay() && replay.body == kept.body);
    let mut late = ServerProcess::spawn(PROGRAM, "serve", &database.url, &tenant, processes::free_address(), &variables(OLD_ALONE));
    assert!(!late.process.ended().await.success());
    assert!(late.process.log().contains("POSTHASTE_MAIN_SECRET"), "{}", late.process.log());
}

#[tokio::test]
async fn what_an_old_secret_sealed_is_sealed_anew_in_a_count_that_is_said() {
    let (database, tenant) = (Database::create().await, new_tenant());
    let first = server(&database, &tenant, OLD_ALONE).await;
    let customer = Customer::create(&first.client).await;
    let endpoints = [endpoint(&customer, &first).await, endpoint(&customer, &first).await];
    create_under_a_key(&first).await;
    let source = source(&first).await;
    takes(&first, &source).await;
    stop(first).await;
    let (is_complete, said) = reseal(&database, NEW_ALONE).await;
    assert!(!is_complete && said.contains("POSTHASTE_MAIN_SECRET"), "without the old one it does nothing: {said}");
    let_time_pass(&database).await;
    let (is_complete, said) = reseal(&database, NEW_AND_OLD).await;
    assert!(is_complete, "{said}");
    for line in ["signing secrets: 2", "custom headers: 2", "saved answers: 1", "verifiers of sources: 1"] {
        let line = format!("{line} sealed anew, 0 were");
        assert!(said.contains(&line), "{line} in: {said}");
    }
    let (_, again) = reseal(&database, NEW_AND_OLD).await;
    assert!(again.contains("signing secrets: 0 sealed anew, 2 were"), "{again}");
    let second = server(&database, &tenant, NEW_ALONE).await;
    delivers(&customer, &second, &endpoints).await;
    takes(&second, &source).await;
    assert!(create_under_a_key(&second).await.is_replay());
}

#[tokio::test]
async fn a_server_that_was_left_behind_says_so_once_and_its_deliveries_wait_in_sight() {
    let (database, tenant) = (Database::create().await, new_tenant());
    let behind = server(&database, &tenant, OLD_ALONE).await;
    let customer = Customer::create(&behind.client).await;
    let ahead = server(&database, &tenant, NEW_AND_OLD).await;
    let (receiver, secret) = endpoint(&customer, &ahead).await;
    let neighbour = endpoint(&customer, &behind).await;

    // While there is a server that can, it delivers.
    let id = customer.through(&behind.client).publish(&json!({ "n": 1 })).await;
    eventually("the other server sends it", async || receiver.so_far().into_iter().find(|webhook| webhook.id() == id)).await;
    let is_unready = async || (behind.client.get("/api/v1/health").await.status == 503).then_some(());
    eventually("the server that was left behind is not ready", is_unready).await;
    stop(ahead).await;

    let id = customer.through(&behind.client).publish(&json!({ "n": 2 })).await;
    eventually("the neighbour gets it", async || neighbour.0.so_far().into_iter().find(|webhook| webhook.id() == id)).await;
    let waits = async || {
        let scrape = Scrape::of(&behind.client).await;
        let waits = scrape.get("oldest_due_age_seconds").is_some_and(|age| age > 3.0);
        (waits && scrape.get("endpoints_unreadable") == Some(1.0)).then_some(())
    };
    eventually("the metrics show that it waits", waits).await;
    let said = "cannot open the secrets or headers";
    let log = behind.process.log();
    assert_eq!(log.lines().filter(|line| line.contains(said)).count(), 1, "once: {log}");
    assert!(log.lines().any(|line| line.contains(said) && line.contains("endpoint_id")), "{log}");
    assert_eq!(receiver.so_far().len(), 1, "and nothing was sent unsigned");

    // The operator goes back: what was sealed with the new secret is sealed with the old one again.
    let_time_pass(&database).await;
    let (is_complete, said) = reseal(&database, OLD_AND_NEW).await;
    assert!(is_complete, "{said}");
    let webhook = eventually("it goes on", async || receiver.so_far().into_iter().find(|webhook| webhook.id() == id)).await;
    standardwebhooks::Webhook::new(&secret).expect("a secret").verify(&webhook.body, &webhook.header_map()).expect("signed");
    let is_ready = async || (behind.client.get("/api/v1/health").await.status == 204).then_some(());
    eventually("the server is ready again", is_ready).await;
    assert_eq!(Scrape::of(&behind.client).await.get("endpoints_unreadable"), Some(0.0));
}

#[tokio::test]
async fn an_endpoint_that_nobody_can_open_is_named_at_start_and_nobody_else_waits_for_it() {
    let (database, tenant) = (Database::create().await, new_tenant());
    let first = server(&database, &tenant, OLD_ALONE).await;
    let customer = Customer::create(&first.client).await;
    let lost = Receiver::start().await;
    let lost_id = customer.endpoint(&lost.url("/")).await;
    let neighbours = [endpoint(&customer, &first).await];
    stop(first).await;
    database.execute("update endpoint_secret set secret = overlay(secret placing 'lost' from 30) where id = (select min(id::text)::uuid from endpoint_secret)").await;
    let mut second = server(&database, &tenant, OLD_ALONE).await;
    second.process.printed("cannot open the secrets or headers of some endpoints").await;
    let named = second.process.printed(&lost_id).await;
    assert!(named.contains(&tenant) && named.contains(&customer.id), "{named}");
    delivers(&customer, &second, &neighbours).await;
    assert_eq!(second.client.get("/api/v1/health").await.status, 204, "what is lost is lost for every server");
    assert_eq!(Scrape::of(&second.client).await.get("endpoints_unreadable"), Some(1.0));
    let (is_complete, said) = reseal(&database, OLD_ALONE).await;
    assert!(!is_complete && said.contains(&lost_id), "{said}");

    let through = customer.through(&second.client);
    let rotate = through.path(&format!("/endpoint/{lost_id}/secret/rotate"));
    second.client.post(&rotate, &json!({ "gracePeriodSeconds": 0 })).await.expect(200);
    let webhook = lost.received(1).await.remove(0);
    let verifier = standardwebhooks::Webhook::new(&through.secret(&lost_id).await).expect("a secret");
    verifier.verify(&webhook.body, &webhook.header_map()).expect("the new secret signs");
    database.nothing_owed().await;
    assert!(reseal(&database, OLD_ALONE).await.0);
}
