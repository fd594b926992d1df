//! A receiver that dies while it processes a webhook: before its commit nothing is done, after it all is.

use super::{Scene, answered};

#[tokio::test]
async fn a_receiver_that_dies_before_it_commits_has_done_nothing_and_gets_the_webhook_again() {
    let scene = Scene::set().await;
    let mut receiver = scene.receiver().await;
    let processing = scene.theirs.hold_inserts("payment").await;
    let message = scene.publish().await;
    processing.holds(1).await;
    receiver.kill().await;
    assert_eq!(scene.answers(&message, 1).await, [answered(0, "")]);
    let _receiver = scene.receiver().await;
    scene.app.database.let_retries_fall_due().await;
    // Postgres has not noticed yet that the first one is dead: the second copy waits for what becomes of its claim.
    scene.waiting(1).await;
    processing.release().await;
    assert_eq!(scene.answers(&message, 2).await[1], answered(200, "processed"), "the dead one's claim went with it");
    assert_eq!((scene.payments().await, scene.remembered().await), (1, 1));
}

#[tokio::test]
async fn a_receiver_that_dies_while_it_commits_does_not_process_the_webhook_again() {
    let scene = Scene::set().await;
    let mut receiver = scene.receiver().await;
    let committing = scene.theirs.hold_inserts("payment").await;
    // What would hold the insert now holds the commit.
    let at_commit = "drop trigger hold_insert on payment;
        create constraint trigger hold_commit after insert on payment deferrable initially deferred for each row execute function hold_insert();";
    scene.theirs.execute(at_commit).await;
    let message = scene.publish().await;
    committing.holds(1).await;
    receiver.kill().await;
    assert_eq!(scene.answers(&message, 1).await, [answered(0, "")]);
    let _receiver = scene.receiver().await;
    scene.app.database.let_retries_fall_due().await;
    scene.waiting(1).await;
    committing.release().await;
    assert_eq!(scene.answers(&message, 2).await[1], answered(200, "seen before"), "the dead one had committed");
    assert_eq!((scene.payments().await, scene.remembered().await), (1, 1));
}
