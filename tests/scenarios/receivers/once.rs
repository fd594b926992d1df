//! Copies of a webhook, after each other and at the same time: the receiver does what it asks for once.

use chrono::{DateTime, Utc};
use serde_json::json;
use support::{Options, Receiver};

use super::{Scene, answered, example};

#[tokio::test]
async fn a_webhook_whose_answer_is_lost_comes_again_and_is_processed_once() {
    let scene = Scene::set().await;
    let _receiver = scene.receiver().await;
    lost_answer(&scene).await;
}

#[tokio::test]
async fn a_resend_is_answered_and_not_processed() {
    let scene = Scene::set().await;
    let _receiver = scene.receiver().await;
    resend(&scene).await;
}

#[tokio::test]
async fn ten_copies_at_the_same_time_are_processed_once() {
    let scene = Scene::set().await;
    let _receiver = scene.receiver().await;
    ten_copies(&scene).await;
}

/// The receiver commits and answers, and nobody hears of it.
pub(super) async fn lost_answer(scene: &Scene) {
    scene.wire.lose_http_answer_once(b"webhook-id");
    let message = scene.publish().await;
    assert_eq!(scene.answers(&message, 1).await, [answered(0, "")], "the answer was lost");
    assert_eq!(scene.payments().await, 1, "and yet the webhook was processed");
    scene.app.database.let_retries_fall_due().await;
    assert_eq!(scene.answers(&message, 2).await[1], answered(200, "seen before"));
    assert_eq!((scene.payments().await, scene.remembered().await), (1, 1));
}

/// Somebody sends the message again by hand.
pub(super) async fn resend(scene: &Scene) {
    let message = scene.publish().await;
    assert_eq!(scene.answers(&message, 1).await, [answered(200, "processed")]);
    scene.resend(&message).await;
    assert_eq!(scene.answers(&message, 2).await[1], answered(200, "seen before"));
    assert_eq!((scene.payments().await, scene.remembered().await), (1, 1));
    let other = scene.customer.publish(&json!({ "order": 18 })).await;
    assert_eq!(scene.answers(&other, 1).await, [answered(200, "processed")], "another message is another one");
}

/// Nine copies come while the first is being processed.
pub(super) async fn ten_copies(scene: &Scene) {
    let processing = scene.theirs.hold_inserts("payment").await;
    let message = scene.publish().await;
    processing.holds(1).await;
    for _ in 0..9 {
        scene.resend(&message).await;
    }
    scene.waiting(9).await;
    processing.release().await;
    let mut answers = scene.answers(&message, 10).await;
    answers.sort();
    assert_eq!(answers.remove(0), answered(200, "processed"));
    assert_eq!(answers, vec![answered(200, "seen before"); 9], "a copy is answered with 200 too, but only once it is true");
    assert_eq!((scene.payments().await, scene.remembered().await), (1, 1));
}

#[tokio::test]
async fn what_cannot_be_processed_is_not_claimed_and_comes_again() {
    let scene = Scene::set().await;
    let _receiver = scene.receiver().await;
    scene.theirs.execute("alter table payment add constraint broken check (order_number <> 17)").await;
    let message = scene.publish().await;
    assert_eq!(scene.answers(&message, 1).await, [answered(500, "try again")]);
    assert_eq!((scene.payments().await, scene.remembered().await), (0, 0), "the claim went with what failed");
    scene.theirs.execute("alter table payment drop constraint broken").await;
    scene.app.database.let_retries_fall_due().await;
    assert_eq!(scene.answers(&message, 2).await[1], answered(200, "processed"));
    assert_eq!(scene.payments().await, 1);
}

#[tokio::test]
async fn a_webhook_is_remembered_for_six_days_longer_than_it_may_be_repeated() {
    let scene = Scene::with(Options::default()).await;
    let receiver = Receiver::start().await;
    scene.customer.endpoint(&receiver.url("/")).await;
    let _receiver = scene.receiver().await;
    let message = scene.publish().await;
    scene.answers(&message, 2).await;
    let until: DateTime<Utc> = receiver.received(1).await[0].header("posthaste-redelivery-until").parse().expect("a time");
    let days = "select extract(epoch from forget_after - interval '6 days') from webhook_seen";
    let apart = scene.theirs.number(days).await - until.timestamp();
    assert!((-2..=2).contains(&apart), "both endpoints were told the same, but for {apart} seconds");
    scene.theirs.execute(&example("forget.sql")).await;
    assert_eq!(scene.remembered().await, 1);
    scene.theirs.execute("update webhook_seen set forget_after = now() - interval '1 second'").await;
    scene.theirs.execute(&example("forget.sql")).await;
    assert_eq!(scene.remembered().await, 0);
    scene.resend(&message).await;
    scene.answers(&message, 3).await;
    assert_eq!(scene.payments().await, 2, "who forgets, repeats");
    let days = scene.theirs.number("select round(extract(epoch from forget_after - now()) / 86400) from webhook_seen").await;
    assert_eq!(days, 6, "a resend says nothing of redeliveries");
}
