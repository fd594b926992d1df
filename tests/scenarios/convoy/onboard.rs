//! Many endpoints at once.

use serde_json::{Value, json};
use support::{App, Project, Receiver, project::items};

#[tokio::test]
async fn endpoints_are_made_with_their_subscriptions_all_or_none() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let receiver = Receiver::start().await;
    let item = |name: &str, event_type: &str| json!({ "name": name, "url": receiver.url(&format!("/{name}")), "event_type": event_type });
    let mut wanted = vec![item("paid", "invoice.paid"), item("all", "*"), item("any", "")];
    wanted[0]["auth_username"] = json!("acme");
    wanted[0]["auth_password"] = json!("hush");
    let made = project.done("POST", "/onboard", &json!({ "items": wanted }), 202).await;
    assert_eq!((&made["total_items"], &made["batch_count"]), (&json!(3), &json!(1)));
    let endpoints = items(&project.get("/endpoints?sort=ASC").await);
    let names: Vec<_> = endpoints.iter().map(|endpoint| endpoint["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["paid", "all", "any"]);
    assert_eq!(endpoints[0]["authentication"]["basic_auth"], json!({ "username": "acme", "password": "hush" }));
    assert_eq!(items(&project.get("/subscriptions").await).len(), 3);

    for endpoint in &endpoints {
        let event = json!({ "endpoint_id": endpoint["uid"], "event_type": "invoice.sent", "data": {} });
        project.post("/events", &event).await;
    }
    app.database.nothing_owed().await;
    let mut paths: Vec<_> = receiver.so_far().into_iter().map(|webhook| webhook.path).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/all", "/any"]);

    let broken = json!({ "items": [item("fine", "x"), { "name": "x", "url": "ftp://example.com" }] });
    let why = project.refused("POST", "/onboard", &broken, 400).await;
    assert!(why.starts_with("body.items.1.url: "), "{why}");
    assert_eq!(items(&project.get("/endpoints").await).len(), 3, "the first was not made either");
}

#[tokio::test]
async fn a_dry_run_tells_what_is_wrong_with_each_and_makes_nothing() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let url = "https://example.com/";
    let wanted = json!({ "items": [
        { "name": "fine", "url": url, "event_type": "a.b" },
        { "name": "", "url": url },
        { "name": "x", "url": "x" },
        { "name": "x", "url": url, "event_type": "a b" },
        { "name": "x", "url": url, "auth_username": "only" },
        { "name": "x", "url": url, "auth_username": "a:b", "auth_password": "c" },
    ] });
    let told = project.done("POST", "/onboard?dry_run=true", &wanted, 200).await;
    assert_eq!((&told["total_rows"], &told["valid_count"]), (&json!(6), &json!(1)));
    let wrong: Vec<_> = told["errors"].as_array().expect("errors").iter().map(|error| (&error["row"], &error["field"])).collect();
    let expected = [(2, "name"), (3, "url"), (4, "event_type"), (5, "auth_password"), (6, "auth_username")];
    assert_eq!(format!("{wrong:?}"), format!("{:?}", expected.map(|(row, field)| (json!(row), json!(field)))));
    project.put("", &json!({ "config": { "ssl": { "enforce_secure_endpoints": true } } })).await;
    let plain = json!({ "items": [{ "name": "x", "url": "http://example.com/" }] });
    let told = project.done("POST", "/onboard?dry_run=true", &plain, 200).await;
    assert_eq!(told["errors"][0]["field"], "url");
    assert_eq!(items(&project.get("/endpoints").await), Vec::<Value>::new());
}

#[tokio::test]
async fn many_are_made_once_and_more_are_refused_with_what_is_no_json() {
    let app = App::start().await;
    let project = Project::of(&app.client).await;
    let many = |count: usize| {
        let item = |number| json!({ "name": format!("number {number}"), "url": "https://example.com/" });
        json!({ "items": (0..count).map(item).collect::<Vec<_>>() })
    };
    let onboard = async || {
        let request = app.client.request("POST", &project.path("/onboard")).key("once").json(&many(500));
        request.send().await.expect(202)
    };
    let (first, again) = (onboard().await, onboard().await);
    assert_eq!((first.is_replay(), again.is_replay(), first.json() == again.json()), (false, true, true));
    assert_eq!(app.database.number("select count(*) from subscription").await, 500);
    for (body, what) in [(many(0), "body.items: "), (many(501), "body.items: ")] {
        let why = project.refused("POST", "/onboard", &body, 400).await;
        assert!(why.starts_with(what), "{why}");
    }
    let file = "--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nname,url\r\n--x--\r\n";
    let request = app.client.request("POST", &project.path("/onboard")).unchecked().untyped(file);
    let csv = request.header("content-type", "multipart/form-data; boundary=x").send().await.expect(501);
    assert_eq!(csv.json()["message"], "not supported yet: a file of CSV: send what is in it as JSON");

    let incoming = Project::of(&app.client.with_token(&support::token(&support::new_tenant()))).await;
    incoming.put("", &json!({ "type": "incoming" })).await;
    let why = incoming.refused("POST", "/onboard", &many(1), 400).await;
    assert!(why.contains("incoming project"), "{why}");
}
