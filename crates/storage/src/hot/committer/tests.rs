//! The committer, the queue and the claim against a real Postgres.

use std::time::Duration;

use bytes::Bytes;
use domain::{
    application::Uid,
    delivery::{AttemptClass, Next, Outcome},
    endpoint::EndpointUrl,
    id::{ApplicationId, EndpointId, TenantId},
    idempotency::Policy,
};
use embedded::{Cluster, Durability, Options as ClusterOptions};
use futures::FutureExt;
use sqlx::types::Uuid;

use super::*;
use crate::{
    Config,
    answer::Answer,
    applications::{self, Reference},
    attempts, directory, endpoints,
    hand_off::{self, Jobs, Limits},
    idempotency,
    page::PageRequest,
    partitions,
    queue::Claimer,
};

const LEASE: Duration = Duration::from_mins(1);

/// A tenant with one application and one endpoint, on a cluster of its own.
struct Stage {
    db: Db,
    tenant_id: TenantId,
    application: Reference<ApplicationId>,
    endpoint_id: EndpointId,
    cluster: Cluster,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn set() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = ClusterOptions { durability: Durability::Relaxed, ..ClusterOptions::default() };
        let cluster = Cluster::start_with(folder.path(), &options).await.expect("a cluster");
        cluster.create_database("test", None).await.expect("a database");
        let config = Config {
            url: cluster.url("test"),
            main_secret: "a main secret of 32 characters..".into(),
            previous_main_secret: None,
            max_connections: 10,
            policy: Policy::default(),
        };
        Db::migrate(&config).await.expect("migrated");
        let db = Db::connect(&config).await.expect("connected");
        let tenant_id = crate::tenants::find_or_create(&db, "org_test").await.expect("a tenant");
        let application = Reference::Uid("customer".to_owned());
        let uid = Uid::parse::<ApplicationId>("customer").expect("a uid");
        let change = applications::Change { uid: Some(Some(uid)), name: Some("Customer".into()), ..Default::default() };
        run(&db, applications::Create { tenant_id, change, get_if_exists: false }).await;
        let url = EndpointUrl::parse("http://127.0.0.1:9/").expect("a URL");
        let change = endpoints::Change { url: Some(url), ..Default::default() };
        let create = endpoints::Create {
            tenant_id,
            application: application.clone(),
            change,
            secret: None,
            headers: domain::endpoint::Headers::new(),
        };
        run(&db, create).await;
        let endpoint_id = directory::find(&db, tenant_id, &application).await.expect("found").targets[0].endpoint.id;
        Self { db, tenant_id, application, endpoint_id, cluster, _folder: folder }
    }

    async fn message(&self, payload: &str) -> NewMessage {
        NewMessage {
            subscribers: directory::find(&self.db, self.tenant_id, &self.application).await.expect("found"),
            application: self.application.clone(),
            event_type: "invoice.paid".into(),
            event_id: None,
            channels: vec!["berlin".into()],
            message_key: None,
            key_scope: KeyScope::Application,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            content_type: "application/json".into(),
            particulars: None,
            broadcast: None,
            payload_retention: None,
            claim: None,
        }
    }

    fn start(&self) -> (Committer, HandOff, Jobs) {
        let (hand_off, jobs) = hand_off::channel(Limits { per_endpoint: 4, in_all: 64 });
        let options = Options { lease: LEASE, hand_off: Some(hand_off.clone()) };
        (start(&self.db, options), hand_off, jobs)
    }

    #[expect(clippy::disallowed_methods, reason = "the table's name is computed")]
    async fn count(&self, table: &'static str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}"))).fetch_one(self.db.pool()).await.expect("counted")
    }

    /// Lets the leases of a dead worker run out.
    async fn age_leases(&self) {
        sqlx::raw_sql("update queue set due_at = now() - interval '1 s' where lease is not null")
            .execute(self.db.pool())
            .await
            .expect("aged");
    }

    async fn attempts(&self) -> Vec<domain::delivery::Attempt> {
        let address = endpoints::Address {
            tenant_id: self.tenant_id,
            application: self.application.clone(),
            endpoint: Reference::Id(self.endpoint_id),
        };
        let page = PageRequest { limit: 50, cursor: None, is_backwards: false, is_ascending: true };
        attempts::list_by_endpoint(&self.db, &address, &attempts::Filter::default(), &page).await.expect("listed").items
    }
}

async fn run<E: idempotency::Effect + 'static>(db: &Db, effect: E) {
    let answer = |result: std::result::Result<&E::Output, &Error>| {
        assert!(result.is_ok(), "the effect succeeds");
        Answer { status: 200, body: Bytes::new(), content_type: None, location: None }
    };
    idempotency::execute(db, None, effect, answer).await.expect("executed");
}

fn claim(scope: u128, fingerprint: u128) -> Claim {
    Claim {
        tenant_id: TenantId(Uuid::nil()),
        scope: Uuid::from_u128(scope),
        fingerprint: Uuid::from_u128(fingerprint),
        policy: Policy::default(),
    }
}

fn report(outcome: Outcome, next: Next) -> Report {
    Report {
        outcome,
        class: AttemptClass::Success,
        status_code: 200,
        response: Bytes::from_static(b"a\0b"),
        duration: Duration::from_millis(3),
        url: "http://x/".into(),
        is_resent: false,
        next,
    }
}

fn accepted(published: &Published) -> (&domain::message::Message, bool) {
    match published {
        Published::Accepted { message, is_replay } => (message, *is_replay),
        other => panic!("accepted expected: {other:?}"),
    }
}

#[tokio::test]
async fn a_message_is_stored_handed_over_and_its_result_recorded_under_its_lease() {
    let stage = Stage::set().await;
    let (committer, _hand_off, mut jobs) = stage.start();
    let published = committer.publisher.publish(&Arc::new(stage.message(r#"{"a":1}"#).await)).await.expect("published");
    let (message, is_replay) = accepted(&published);
    assert!(!is_replay);
    let job = jobs.recv().await.expect("a job");
    assert_eq!((job.message_id, job.number, job.payload.as_deref()), (message.id, 1, Some(br#"{"a":1}"#.as_slice())));
    assert_eq!(stage.count("queue").await, 1);

    committer.completer.complete(job, report(Outcome::Failed, Next::Retry(Duration::from_hours(1))));
    committer.publisher.publish(&Arc::new(NewMessage { channels: vec![], ..stage.message("{}").await })).await.expect("published");
    committer.completer.complete(jobs.recv().await.expect("a job"), report(Outcome::Succeeded, Next::Finished));
    committer.stop().await;
    assert_eq!((stage.count("queue").await, stage.count("queue_later").await), (0, 1));
    let attempts = stage.attempts().await;
    assert_eq!(attempts.len(), 2);
    assert_eq!((attempts[0].outcome, attempts[0].response.as_ref()), (Outcome::Failed, b"a\0b".as_slice()));
    assert!(attempts[0].next_attempt_at.is_some());
    stage.cluster.stop().await;
}

#[tokio::test]
async fn keys_event_ids_and_message_keys_hold_in_one_batch_and_across_batches() {
    let stage = Stage::set().await;
    let (committer, _hand_off, _jobs) = stage.start();
    let publisher = &committer.publisher;
    let keyed = |fingerprint, message: NewMessage| NewMessage { claim: Some(claim(7, fingerprint)), ..message };
    let first = publisher.publish(&Arc::new(keyed(1, stage.message("{}").await))).await.expect("published");
    let repeat = publisher.publish(&Arc::new(keyed(1, stage.message("{}").await))).await.expect("replayed");
    assert_eq!(accepted(&first).0, accepted(&repeat).0);
    assert!(accepted(&repeat).1);
    assert!(matches!(publisher.publish(&Arc::new(keyed(2, stage.message("{}").await))).await, Err(Error::KeyReused)));

    let named = |message: NewMessage| NewMessage { event_id: Some("evt-1".into()), ..message };
    let one = publisher.publish(&Arc::new(named(stage.message("{}").await))).await.expect("published");
    let other = publisher.publish(&Arc::new(named(stage.message("{}").await))).await.expect("answered");
    assert!(matches!(other, Published::EventIdTaken { by, is_replay: false } if by == accepted(&one).0.id));

    let deduped = |payload: &str, message: NewMessage| NewMessage {
        message_key: Some("k".into()),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        ..message
    };
    let base = stage.message("{}").await;
    let all = futures::future::join_all((0..8).map(|_| async {
        let message = Arc::new(deduped("{}", base.clone()));
        publisher.publish(&message).await
    }))
    .await;
    let messages: Vec<_> = all.iter().map(|published| accepted(published.as_ref().expect("published")).0.clone()).collect();
    let firsts: Vec<_> = messages.iter().filter(|message| !message.is_duplicate()).collect();
    assert_eq!(firsts.len(), 1);
    assert!(messages.iter().all(|message| message.is_duplicate() || message.id == firsts[0].id));
    let mismatched = publisher.publish(&Arc::new(deduped(r#"{"other":1}"#, base))).await.expect("published");
    assert!(accepted(&mismatched).0.payload_mismatch);
    assert_eq!(accepted(&mismatched).0.duplicate_of, Some(firsts[0].id));
    assert_eq!((stage.count("message").await, stage.count("queue").await), (11, 3));
    committer.stop().await;
    stage.cluster.stop().await;
}

#[tokio::test]
async fn a_late_worker_cannot_overwrite_a_rescued_delivery_and_three_crashes_end_it() {
    let stage = Stage::set().await;
    let (committer, hand_off, mut jobs) = stage.start();
    committer.publisher.publish(&Arc::new(stage.message("{}").await)).await.expect("published");
    let dead = jobs.recv().await.expect("a job");
    stage.age_leases().await;
    let mut claimer = Claimer::connect(&stage.db, hand_off, LEASE);
    assert_eq!(claimer.run_once().await.expect("claimed").claimed, 1);
    committer.completer.complete(dead, report(Outcome::Succeeded, Next::Finished));
    let rescued = jobs.recv().await.expect("a job");
    assert_eq!(rescued.number, 1, "an unknown attempt does not use up the schedule");
    drop(rescued);
    for claimed in [1, 0] {
        stage.age_leases().await;
        assert_eq!(claimer.run_once().await.expect("claimed").claimed, claimed);
    }
    committer.stop().await;
    assert_eq!(stage.count("queue").await, 0);
    let attempts = stage.attempts().await;
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::Unknown, Outcome::Failed]);
    assert!(attempts[2].response.starts_with(b"worker crashed"));
    assert_eq!(stage.count("attempt where is_latest").await, 1);
    stage.cluster.stop().await;
}

#[tokio::test]
async fn overflow_waits_in_the_queue_and_is_claimed_when_slots_are_free() {
    let stage = Stage::set().await;
    let (committer, hand_off, mut jobs) = stage.start();
    for _ in 0..14 {
        committer.publisher.publish(&Arc::new(stage.message("{}").await)).await.expect("published");
    }
    assert_eq!(stage.count("queue where lease is null").await, 2);
    let mut claimer = Claimer::connect(&stage.db, hand_off.clone(), LEASE);
    assert_eq!(claimer.run_once().await.expect("looked").claimed, 0, "the endpoint is busy");
    for _ in 0..12 {
        committer.completer.complete(jobs.recv().await.expect("a job"), report(Outcome::Succeeded, Next::Finished));
    }
    assert_eq!(claimer.run_once().await.expect("claimed").claimed, 2);
    hand_off.close();
    while let Some(job) = jobs.recv().await {
        committer.completer.hand_back(job);
    }
    committer.stop().await;
    assert_eq!(stage.count("queue where lease is null").await, 2);
    stage.cluster.stop().await;
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "what the catalogue says need not be recorded")]
async fn a_missing_partition_is_made_and_a_stale_cache_is_found_out() {
    let stage = Stage::set().await;
    let (committer, _hand_off, mut jobs) = stage.start();
    let stale = stage.message("{}").await;
    let partitions: Vec<String> =
        sqlx::query_scalar("select inhrelid::regclass::text from pg_inherits join pg_class c on c.oid = inhrelid where c.relkind = 'r'")
            .fetch_all(stage.db.pool())
            .await
            .expect("listed");
    for partition in partitions {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("drop table {partition}"))).execute(stage.db.pool()).await.expect("dropped");
    }
    let address = endpoints::Address {
        tenant_id: stage.tenant_id,
        application: stage.application.clone(),
        endpoint: Reference::Id(stage.endpoint_id),
    };
    run(
        &stage.db,
        endpoints::Update { address, change: endpoints::Change { is_disabled: Some(true), ..Default::default() }, or_create: false },
    )
    .await;
    committer.publisher.publish(&Arc::new(stale)).await.expect("published");
    assert_eq!((stage.count("message").await, stage.count("queue").await), (1, 0));
    committer.stop().await;
    assert!(jobs.recv().now_or_never().is_none_or(|job| job.is_none()), "nothing was handed over");
    partitions::ensure(&stage.db).await.expect("nothing to do");
    stage.cluster.stop().await;
}

#[tokio::test]
async fn a_batch_whose_commit_was_not_heard_of_is_run_again_without_a_trace() {
    let stage = Stage::set().await;
    let (hand_off, _jobs) = hand_off::channel(Limits { per_endpoint: 4, in_all: 64 });
    let shared = Arc::new(Shared { db: stage.db.clone(), new: mpsc::unbounded_channel().0.downgrade(), room: Arc::default() });
    let mut pending = Vec::new();
    for (claim, key) in [(Some(claim(1, 1)), None), (None, None), (None, Some("k")), (Some(claim(2, 2)), Some("other"))] {
        let new = NewMessage { claim, message_key: key.map(Into::into), ..stage.message("{}").await };
        let place = shared.room.take(stage.tenant_id, None, 2).expect("room");
        pending.push(Pending::new(stage.db.new_id().into(), new.into(), claim, oneshot::channel().0, None, place));
    }
    let mut batch = batch::Batch::new(pending, Vec::new(), Some(&hand_off), LEASE);
    let mut link = link::Link::try_connect(&stage.db, None).await.expect("connected");
    let (first, _) = batch.run(link.connection().await.expect("connected"), LEASE).await.expect("committed");
    assert!(first.iter().all(|decided| decided.verdict == batch::Verdict::Executed));
    // The answer is lost, and so is the connection; the next one waits until the old session has ended.
    batch.is_rerun = true;
    let mut link = link::Link::connect(&stage.db, Some(link)).await;
    let (again, _) = batch.run(link.connection().await.expect("connected"), LEASE).await.expect("committed");
    assert!(again.iter().all(|decided| decided.verdict == batch::Verdict::ExecutedBefore && decided.reference.is_none()));
    assert_eq!((stage.count("message").await, stage.count("queue").await, stage.count("idempotency").await), (4, 4, 2));
    stage.cluster.stop().await;
}

#[tokio::test]
async fn what_memory_has_no_room_for_is_refused_and_counted() {
    let stage = Stage::set().await;
    let (committer, _hand_off, _jobs) = stage.start();
    let large = NewMessage { payload: Bytes::from(vec![0; room::WAITING_BYTES + 1]), ..stage.message("{}").await };
    assert!(matches!(committer.publisher.publish(&Arc::new(large)).await, Err(Error::Overloaded)));
    let shown = stage.db.scrape().await;
    assert!(shown.contains("posthaste_messages_refused_total{reason=\"overloaded\"} 1\n"), "{shown}");
    assert!(shown.contains("posthaste_messages_accepted_total 0\n"), "{shown}");
    committer.stop().await;
    stage.cluster.stop().await;
}
