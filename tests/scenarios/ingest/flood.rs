//! What floods one source keeps nobody waiting who sends to another of the same project.

use std::time::Duration;

use serde_json::json;
use support::{App, Options, Roles};
use tokio::task::JoinSet;

use super::{Project, Source, is_duplicate};

/// How many endpoints the project has: four of its events fill a batch to the last row, so that only who comes first has a place in it.
const ENDPOINTS: usize = 499;
/// How many events flood one source at once.
const FLOOD: usize = 60;
/// How long the neighbour goes on after the flood.
const AFTERWARDS: usize = 3;

#[tokio::test]
async fn a_flood_at_one_source_keeps_no_event_of_another_waiting() {
    let app = App::with(Options { roles: Roles::Api, ..Options::default() }).await;
    let project = Project::of(&app).await;
    project.customer.endpoint("http://127.0.0.1:9/").await;
    app.database.copy_endpoint(&project.customer.id, ENDPOINTS).await;
    let (flooded, neighbour) = (project.keyed(&["request.body.n"]).await, project.keyed(&["request.body.n"]).await);
    let mut sending = JoinSet::new();
    for number in 0..FLOOD {
        sending.spawn(until_taken(flooded.clone(), number));
    }
    // It sends one event after the other for as long as the flood lasts, and each is taken.
    let (mut own, mut left) = (0, AFTERWARDS);
    while left > 0 {
        assert!(!is_duplicate(&neighbour.send(&json!({ "n": own })).await));
        own += 1;
        while let Some(taken) = sending.try_join_next() {
            taken.expect("taken");
        }
        left -= usize::from(sending.is_empty());
    }
    assert_eq!(project.events().await.len(), FLOOD + own);
    assert!(own > 2 * AFTERWARDS, "the neighbour sent all the while, {own} events");
    let overtaken = app.database.texts(OVERTAKEN).await;
    assert_eq!(overtaken.len(), own);
    let most = overtaken.iter().map(|count| count.parse::<usize>().expect("a number")).max();
    // One that was being put together when it came, and one more if the two looked at the clock at once.
    assert!(most <= Some(2), "so many batches of the flood overtook each event of the neighbour: {overtaken:?}");
}

/// Sends an event, and comes back when it is told to, until it is taken.
async fn until_taken(source: Source, number: usize) {
    loop {
        let answer = source.send(&json!({ "n": number })).await;
        if answer.status == 200 {
            return;
        }
        let wait = answer.expect(503).header("retry-after").expect("it says when to come back").parse().expect("seconds");
        tokio::time::sleep(Duration::from_secs(wait)).await;
    }
}

/// For each event of the source that was made last: how many transactions with none of its events began after it had come, which its id
/// says, and ended before its own. What is due without a lease says when its transaction began.
const OVERTAKEN: &str = "
    with stored as materialized (
      select q.message_id, (m.particulars ->> 'source')::uuid = (select max(id::text)::uuid from source) as is_neighbour,
          min(q.due_at) as begun, min(q.xmin::text::bigint) as transaction
        from queue q join message m on m.id = q.message_id group by 1, 2
    )
    select (select count(distinct f.transaction) from stored f where not f.is_neighbour and f.transaction < s.transaction
        and uuid_floor(f.begun) > s.message_id)::text
      from stored s where s.is_neighbour order by s.message_id";
