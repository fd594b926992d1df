//! Postgres goes away and comes back: the server says so, keeps running, and recovers by itself.

use serde_json::{Value, json};
use support::{
    App, Attempt, Client, Customer, Database, Node, Options, Receiver, Reply, cluster, customer::message, database, new_tenant,
    proxy::Proxy, token,
};

/// A node whose way to Postgres can be cut.
async fn node_behind_a_proxy() -> (Database, Proxy, Node) {
    let database = Database::create().await;
    let proxy = Proxy::to(cluster::place_of(&database.url)).await;
    let url = cluster::url_through(&database.url, proxy.address);
    let node = Node::start(&url, &Options::default(), &token(&new_tenant())).await;
    (database, proxy, node)
}

async fn health(client: &Client) -> u16 {
    client.get("/api/v1/health").await.status
}

#[tokio::test]
async fn without_postgres_requests_get_a_503_and_the_server_recovers_by_itself() {
    let (_database, proxy, node) = node_behind_a_proxy().await;
    let receiver = Receiver::start().await;
    let customer = Customer::create(&node.client).await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    customer.publish(&json!({ "n": 1 })).await;
    receiver.received(1).await;
    assert_eq!(health(&node.client).await, 204);

    proxy.cut();
    let body = message(&json!({ "n": 2 }));
    let requests: [(&str, String, Value); 5] = [
        ("POST", customer.path("/msg"), body.clone()),
        ("POST", "/api/v1/app".into(), json!({ "name": "x" })),
        ("GET", customer.path(&format!("/endpoint/{endpoint}")), Value::Null),
        ("GET", customer.path("/msg"), Value::Null),
        ("PATCH", customer.path(""), json!({ "name": "x" })),
    ];
    for (method, path, body) in requests {
        let request = node.client.request(method, &path);
        let request = if body.is_null() { request } else { request.key("during the outage").json(&body) };
        let answer = request.send().await.expect(503);
        assert_eq!(answer.text("code"), "unavailable", "{method} {path}");
        let wait: u64 = answer.header("retry-after").expect("a Retry-After").parse().expect("seconds");
        assert!((1..=60).contains(&wait));
    }
    assert_eq!(health(&node.client).await, 503);
    assert_eq!(node.client.get("/api/v1/health/ping").await.status, 204, "the server itself is alive");

    proxy.mend();
    support::eventually("the server recovers", async || (health(&node.client).await == 204).then_some(())).await;
    let publish = async || {
        let answer = customer.publish_raw(&body, Some("during the outage")).await;
        (answer.status == 202).then_some(answer)
    };
    let accepted = support::eventually("messages are accepted again", publish).await;
    assert_eq!(receiver.received(2).await[1].id(), accepted.text("id"));
    assert_eq!(customer.messages().await.len(), 2, "no request of the outage took effect");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_again() {
    let (database, proxy, node) = node_behind_a_proxy().await;
    let receiver = Receiver::start().await;
    let customer = Customer::create(&node.client).await;
    customer.endpoint(&receiver.url("/")).await;
    let body = message(&json!({ "marker": "3f9a7c-lost-commit" }));
    proxy.cut_once_after(b"3f9a7c-lost-commit");
    let answer = customer.publish_raw(&body, Some("key")).await;
    proxy.has_cut().await;
    assert!(matches!(answer.status, 202 | 503), "one true answer, or none: {answer:?}");
    let settled = support::eventually("the request is settled", async || {
        let answer = customer.publish_raw(&body, Some("key")).await;
        assert!(matches!(answer.status, 202 | 409 | 503), "{answer:?}");
        (answer.status == 202).then_some(answer)
    })
    .await;
    if answer.status == 202 {
        assert_eq!(answer.body, settled.body);
    }
    receiver.received(1).await;
    database.nothing_owed().await;
    assert_eq!((customer.messages().await.len(), receiver.so_far().len()), (1, 1));
}

#[tokio::test]
async fn a_message_whose_commit_was_not_heard_of_is_accepted_and_sent_once() {
    let (database, proxy, node) = node_behind_a_proxy().await;
    let receiver = Receiver::start().await;
    let customer = Customer::create(&node.client).await;
    customer.endpoint(&receiver.url("/")).await;
    let body = message(&json!({ "marker": "b81f04-committed" }));
    proxy.lose_answer_once(b"b81f04-committed");
    let answer = customer.publish_raw(&body, Some("key")).await.expect(202);
    proxy.has_cut().await;
    assert!(!answer.is_replay(), "it is the first to be told");
    assert_eq!(receiver.received(1).await[0].id(), answer.text("id"));
    database.nothing_owed().await;
    let again = customer.publish_raw(&body, Some("key")).await.expect(202);
    assert!(again.is_replay());
    assert_eq!(again.body, answer.body);
    let attempts = customer.attempts_so_far(&answer.text("id")).await;
    assert_eq!(attempts.iter().map(Attempt::status).collect::<Vec<_>>(), ["success"], "none is unknown");
    assert_eq!((customer.messages().await.len(), receiver.so_far().len()), (1, 1));
}

#[tokio::test]
async fn another_write_whose_commit_was_not_heard_of_has_happened_once() {
    for is_answered in [true, false] {
        let (_database, proxy, node) = node_behind_a_proxy().await;
        let create = async |name: &str| node.client.request("POST", "/api/v1/app").key(name).json(&json!({ "name": name })).send().await;
        create("the first makes the tenant").await.expect(201);
        let mut names = (0..).map(|number| format!("unheard {number}"));
        let name = support::eventually("its own commit is cut off, not one of the server's", async || {
            if is_answered {
                proxy.lose_answer_once(b"COMMIT");
            } else {
                proxy.cut_once_after(b"COMMIT");
            }
            let name = names.next().expect("one more");
            let answer = create(&name).await;
            assert!(matches!(answer.status, 201 | 503), "one true answer, or none: {answer:?}");
            (answer.status == 503).then_some(name)
        })
        .await;
        let settled = support::eventually("the request is settled", async || {
            let answer = create(&name).await;
            assert!(matches!(answer.status, 201 | 409 | 503), "{answer:?}");
            (answer.status == 201).then_some(answer)
        })
        .await;
        assert!(settled.is_replay() || !is_answered, "Postgres had said that it was committed");
        let all = node.client.get("/api/v1/app?limit=250").await.expect(200).json();
        let found: Vec<_> = all["data"].as_array().expect("a page").iter().filter(|app| app["name"] == name).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["id"], settled.text("id"));
    }
}

#[tokio::test]
async fn when_every_connection_is_busy_a_request_gets_a_503_and_leaves_no_trace() {
    let app = App::start().await;
    let create = |name: String| app.client.request("POST", "/api/v1/app").key(&name).json(&json!({ "name": name })).send();
    create("the first makes the tenant".into()).await.expect(201);
    let hold = app.database.hold_inserts("application").await;
    let connections = database::config(&app.database.url).max_connections;
    let busy: Vec<_> = (0..connections).map(|number| tokio::spawn(create(format!("busy {number}")))).collect();
    hold.holds(connections.into()).await;
    let refused = create("one more".into()).await.expect(503);
    assert_eq!(refused.text("code"), "unavailable");
    assert!(refused.header("retry-after").is_some());
    hold.release().await;
    for request in busy {
        request.await.expect("no panic");
    }
    let made = create("one more".into()).await.expect(201);
    assert!(!made.is_replay(), "the refusal was not saved");
    let count = "select count(*) from application where name = 'one more'";
    assert_eq!(app.database.number(count).await, 1);
}

#[tokio::test]
async fn a_result_whose_commit_was_not_heard_of_is_recorded_once() {
    for (replies, recorded) in [
        (vec![Reply::status(200).body("7c20ae-recorded")], &[200][..]),
        (vec![Reply::status(500).body("7c20ae-recorded"), Reply::status(200)], &[500, 200]),
    ] {
        let (database, proxy, node) = node_behind_a_proxy().await;
        let receiver = Receiver::start().await;
        receiver.on("/", replies);
        let customer = Customer::create(&node.client).await;
        customer.endpoint(&receiver.url("/")).await;
        proxy.lose_answer_once(b"7c20ae-recorded");
        let message = customer.publish(&json!({})).await;
        proxy.has_cut().await;
        support::eventually("the result is recorded", async || {
            database.let_retries_fall_due().await;
            (database.owed().await == 0).then_some(())
        })
        .await;
        support::eventually("the server recovers", async || (health(&node.client).await == 204).then_some(())).await;
        let attempts = customer.attempts_so_far(&message).await;
        assert_eq!(attempts.iter().map(Attempt::code).collect::<Vec<_>>(), recorded, "each result once, and none is unknown");
        assert_eq!(receiver.so_far().len(), recorded.len());
    }
}

#[tokio::test]
async fn a_result_that_cannot_be_recorded_at_once_is_recorded_later() {
    let (database, proxy, node) = node_behind_a_proxy().await;
    let receiver = Receiver::start().await;
    let gate = support::Gate::default();
    receiver.on("/", [Reply::status(200).held_by(&gate)]);
    let customer = Customer::create(&node.client).await;
    customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    receiver.received(1).await;
    proxy.cut();
    gate.open();
    assert_eq!(health(&node.client).await, 503);
    proxy.mend();
    database.nothing_owed().await;
    let attempts = support::eventually("the server recovers", async || {
        let path = customer.path(&format!("/attempt/msg/{message}"));
        let answer = node.client.get(&path).await;
        (answer.status == 200).then(|| answer.json()["data"].clone())
    })
    .await;
    assert_eq!((attempts.as_array().map(Vec::len), &attempts[0]["responseStatusCode"]), (Some(1), &json!(200)));
    assert_eq!(receiver.so_far().len(), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_after_its_last_byte_changes_nothing() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    customer.endpoint(&receiver.url("/")).await;
    let hold = app.database.hold_inserts("message").await;
    let body = message(&json!({ "n": 1 })).to_string();
    let mut connection = tokio::net::TcpStream::connect(app.node.address).await.expect("a connection");
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: x\r\nidempotency-key: gone\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        customer.path("/msg"),
        app.client.token.as_deref().expect("a token"),
        body.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut connection, (head + &body).as_bytes()).await.expect("an open connection");
    hold.holds(1).await;
    drop(connection);
    hold.release().await;
    let webhook = receiver.received(1).await.remove(0);
    let replay = customer.publish_raw(&message(&json!({ "n": 1 })), Some("gone")).await.expect(202);
    assert!(replay.is_replay());
    assert_eq!((replay.text("id"), customer.messages().await.len()), (webhook.id().to_owned(), 1));
}
