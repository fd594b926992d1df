//! Ids in SQL are spelled as in the API: whoever has one from an answer or a log line finds the row.

use domain::id::{ApplicationId, AttemptId, EndpointId, Id, MessageId};
use rand::RngExt;
use serde_json::json;
use support::{App, Database, Receiver};
use uuid::Uuid;

#[tokio::test]
async fn sql_spells_ids_as_the_api_does() {
    let database = Database::create().await;
    let moments = [0, 1, 1_399_999_999_999, 1_400_000_000_000, 1_790_000_000_123, 5_694_967_295_000, (1 << 48) - 1];
    let mut ids: Vec<Uuid> = moments
        .into_iter()
        .flat_map(|millis| [[0; 10], [255; 10]].map(|rest| uuid::Builder::from_unix_timestamp_millis(millis, &rest).into_uuid()))
        .collect();
    for _ in 0..300 {
        let millis = rand::rng().random_range(0..1 << 48);
        ids.push(uuid::Builder::from_unix_timestamp_millis(millis, &rand::rng().random()).into_uuid());
    }
    for (place, id) in ids.into_iter().enumerate() {
        let (prefix, public) = match place % 4 {
            0 => ("app", ApplicationId(id).public()),
            1 => ("atmpt", AttemptId(id).public()),
            2 => ("ep", EndpointId(id).public()),
            _ => ("msg", MessageId(id).public()),
        };
        let sql = format!("values (posthaste_id('{public}')::text), (posthaste_id('{prefix}', '{id}'))");
        assert_eq!(database.texts(&sql).await, [id.to_string(), public]);
    }
}

#[tokio::test]
async fn what_is_no_id_is_null_in_sql() {
    let database = Database::create().await;
    let id = MessageId(Uuid::now_v7()).public();
    let random = MessageId(Uuid::new_v4()).public();
    let foreign =
        ["", "msg_", "msg_0", "msg_zzzzzzzzzzzzzzzzzzzzzzzzzzz", "msg_000000000000000000000000000", "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2"];
    for text in foreign.into_iter().chain([id.replace("msg_", "x_").as_str(), &format!("{id}0"), &random]) {
        assert_eq!(database.number(&format!("select (posthaste_id('{text}') is null)::int")).await, 1, "{text}");
        assert!(MessageId::parse(text).is_err(), "{text}");
    }
}

#[tokio::test]
async fn a_row_is_found_by_the_id_that_the_api_shows() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let customer = app.customer().await;
    let endpoint = customer.endpoint(&receiver.url("/")).await;
    let message = customer.publish(&json!({})).await;
    customer.attempts(&message, 1).await;
    let sql = format!("select posthaste_id('ep', endpoint_id) from attempt where message_id = posthaste_id('{message}')");
    assert_eq!(app.database.texts(&sql).await, [endpoint]);
    let plan = app.database.texts(&format!("explain select 1 from application where id = posthaste_id('{}')", customer.id)).await;
    assert!(plan.iter().any(|line| line.contains("::uuid")), "the planner knows the id: {plan:?}");
}
