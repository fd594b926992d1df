//! Attempts: what was sent, when, and what came back.

use serde_json::json;
use support::{App, Options, Receiver, Reply};
use svix::{
    api::{MessageAttemptListByEndpointOptions, MessageAttemptListByMsgOptions},
    models::{MessageStatus, StatusCodeClass},
};

use super::status_of;

#[tokio::test]
async fn attempts_are_listed_by_message_and_by_endpoint_and_found_by_what_came_of_them() {
    let app = App::with(Options::retries(1)).await;
    let api = app.sdk().await;
    let receiver = Receiver::start().await;
    receiver.on("/flaky", [Reply::status(503).body("try later"), Reply::status(201).body("thanks")]);
    let customer = app.customer().await;
    let flaky = customer.endpoint(&receiver.url("/flaky")).await;
    let good = customer.endpoint(&receiver.url("/good")).await;
    let message = customer.publish(&json!({ "n": 1 })).await;
    let attempts = customer.attempts(&message, 3).await;
    let by_flaky: Vec<_> = attempts.iter().filter(|attempt| attempt.0["endpointId"] == flaky.as_str()).collect();
    let seen: Vec<_> = by_flaky.iter().map(|attempt| (attempt.code(), attempt.status(), attempt.response())).collect();
    assert_eq!(seen, [(503, "fail", "try later"), (201, "success", "thanks")]);
    assert_eq!(by_flaky[0].0["url"], receiver.url("/flaky"));
    assert_eq!(by_flaky[0].0["msgId"], message.as_str());

    let (id, ep) = (customer.id.clone(), flaky.clone());
    let options = |status, class| MessageAttemptListByEndpointOptions {
        status,
        status_code_class: class,
        with_content: Some(true),
        ..Default::default()
    };
    let codes = async |status, class| -> Vec<i16> {
        let list = api.message_attempt().list_by_endpoint(id.clone(), ep.clone(), Some(options(status, class))).await.expect("a list");
        list.data.iter().map(|attempt| attempt.response_status_code).collect()
    };
    assert_eq!(codes(None, None).await, [201, 503], "the newest first");
    assert_eq!(codes(Some(MessageStatus::Success), None).await, [201]);
    assert_eq!(codes(Some(MessageStatus::Fail), None).await, [503]);
    assert_eq!(codes(None, Some(StatusCodeClass::Code5xx)).await, [503]);
    assert_eq!(codes(None, Some(StatusCodeClass::Code3xx)).await, [0; 0]);
    let of_good = MessageAttemptListByMsgOptions { endpoint_id: Some(good.clone()), ..Default::default() };
    let list = api.message_attempt().list_by_msg(id.clone(), message.clone(), Some(of_good)).await.expect("a list");
    assert_eq!((list.data.len(), list.data[0].endpoint_id.as_str()), (1, good.as_str()));
    assert_eq!(list.data[0].response, "{}", "without content");

    let attempt = by_flaky[1].id().to_owned();
    let one = api.message_attempt().get(id.clone(), message.clone(), attempt.clone(), None).await.expect("one attempt");
    assert_eq!((one.response_status_code, one.endpoint_id.as_str()), (201, flaky.as_str()));
    let other = customer.publish(&json!({ "n": 2 })).await;
    assert_eq!(status_of(api.message_attempt().get(id, other, attempt, None).await), 404, "of another message");
}

#[tokio::test]
async fn attempts_are_paged_and_filtered_by_time_type_and_channel() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    for number in 0..3 {
        let body = json!({ "eventType": format!("type.{number}"), "payload": {}, "channels": [format!("channel.{number}")] });
        let message = customer.publish_raw(&body, None).await.expect(202).text("id");
        customer.attempts(&message, 1).await;
    }
    let list =
        async |query: &str| customer.client.get(&customer.path(&format!("/attempt/endpoint/{endpoint}?{query}"))).await.expect(200).json();
    let first = list("limit=2").await;
    assert_eq!((first["data"].as_array().map(Vec::len), &first["done"]), (Some(2), &json!(false)));
    let rest = list(&format!("limit=2&iterator={}", first["iterator"].as_str().expect("more"))).await;
    assert_eq!((rest["data"].as_array().map(Vec::len), &rest["done"]), (Some(1), &json!(true)));
    let counts = async |query: &str| list(query).await["data"].as_array().map(Vec::len).expect("a page");
    assert_eq!(counts("event_types=type.0,type.2").await, 2);
    assert_eq!(counts("channel=channel.1").await, 1);
    assert_eq!(counts("after=2999-01-01T00:00:00Z").await, 0);
    assert_eq!(counts("before=2020-01-01T00:00:00Z").await, 0);
    assert_eq!(counts("status=1").await, 0);
}
