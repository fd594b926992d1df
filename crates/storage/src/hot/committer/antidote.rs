//! What becomes of a single item that cannot be stored, so that nothing else waits behind it.

use bytes::Bytes;
use domain::application::Uid;

use super::batch::Batch;
use crate::{
    Db, Error,
    directory::{self, Subscribers},
};

/// What is left to do with a single item that cannot be stored: a message is refused; a result is recorded without what
/// the receiver sent, and if even that cannot be stored, its lease runs out and shows it as unknown. Returns whether anything is left
/// to be written.
pub(super) fn antidote(db: &Db, batch: &mut Batch) -> bool {
    for (pending, _) in batch.new.drain(..) {
        let Subscribers { application, tenant, .. } = &*pending.subscribers;
        tracing::error!(
            tenant = &**tenant,
            application_id = %application.id,
            application_uid = application.uid.as_ref().map(Uid::as_str),
            message_id = %pending.id,
            "a message cannot be stored"
        );
        pending.settle(Err(Error::Database(sqlx::Error::WorkerCrashed)));
    }
    let Some(finish) = batch.finished.first_mut() else { return false };
    let job = &finish.job;
    let Some(report) = finish.report.as_mut() else { return false };
    if report.url.is_empty() {
        let names = directory::names(db, job.owner());
        tracing::error!(
            tenant = names.tenant(),
            application_id = %job.application_id,
            application_uid = names.application_uid(),
            message_id = %job.message_id,
            endpoint_id = %job.endpoint_id,
            "a result cannot be stored"
        );
        return false;
    }
    report.url.clear();
    finish.event = None;
    report.response = Bytes::from_static(b"the response could not be stored");
    true
}
