//! Parcels of counts on their way to the database. A parcel has a number, and is sent again, as it is, until it is known to be written: if
//! it had been, its number says so.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use chrono::DateTime;
use sqlx::types::Uuid;

use super::{Rollups, sums::Sums};
use crate::{
    Database, Result,
    statistics::{EndpointRow, Parcel, TypeRow, write},
};

/// The rest between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);
/// How many rows of each table one transaction writes: some tens of milliseconds.
const ROWS: usize = 1_000;

/// What is on its way to the database.
#[derive(Debug)]
pub(super) struct Writer {
    /// The number of this process.
    id: Uuid,
    /// The number of the last parcel.
    number: i64,
    parcels: VecDeque<Parcel>,
}

impl Writer {
    /// With nothing to write, under a number that no other process has.
    pub(super) fn new() -> Self {
        Self { id: Uuid::from_u128(rand::random()), number: 0, parcels: VecDeque::new() }
    }

    /// Makes parcels of what was counted, unless some are left: until those are written, it goes on being summed.
    fn pack(&mut self, take: impl FnOnce() -> Sums) {
        if !self.parcels.is_empty() {
            return;
        }
        let sums = take();
        let at = |minute: i64| DateTime::from_timestamp(minute.saturating_mul(60), 0).unwrap_or_default();
        let endpoints = sums.endpoints.into_iter().map(|((endpoint_id, minute), (tenant_id, counts))| EndpointRow {
            endpoint_id: endpoint_id.into(),
            at: at(minute),
            tenant_id: tenant_id.into(),
            counts,
        });
        let types = sums.applications.into_iter().flat_map(|((application_id, minute), types)| {
            let tenant_id = types.tenant_id.into();
            let row = move |(event_type, counts)| TypeRow {
                application_id: application_id.into(),
                at: at(minute),
                event_type,
                tenant_id,
                counts,
            };
            types.counts.into_iter().map(row)
        });
        let (mut endpoints, mut types): (Vec<_>, Vec<_>) = (endpoints.collect(), types.collect());
        endpoints.sort_unstable_by_key(|row| (row.endpoint_id, row.at));
        types.sort_unstable_by(|a, b| (a.application_id, a.at, &a.event_type).cmp(&(b.application_id, b.at, &b.event_type)));
        while !endpoints.is_empty() || !types.is_empty() {
            self.number += 1;
            let parcel = Parcel { number: self.number, endpoints: first(&mut endpoints), types: first(&mut types) };
            self.parcels.push_back(parcel);
        }
    }
}

/// Takes the first rows.
fn first<T>(rows: &mut Vec<T>) -> Vec<T> {
    let rest = rows.split_off(rows.len().min(ROWS));
    std::mem::replace(rows, rest)
}

/// Adds all that has been counted until now. What could not be written is written the next time.
pub(crate) async fn flush(db: &Database, rollups: &Rollups) -> Result<()> {
    let mut writer = rollups.writer.lock().await;
    // What was left comes first, and then what has been counted since.
    for _ in 0..2 {
        writer.pack(|| rollups.take());
        while let Some(parcel) = writer.parcels.front() {
            write(db, writer.id, parcel).await?;
            writer.parcels.pop_front();
        }
    }
    Ok(())
}

/// Adds again and again, for as long as somebody holds the handle. An outage is said once, however long it lasts.
pub(crate) async fn keep_flushing(db: Weak<Database>, rollups: Arc<Rollups>) {
    let mut is_failing = false;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(db) = db.upgrade() else { return };
        let flushed = flush(&db, &rollups).await;
        let was_failing = std::mem::replace(&mut is_failing, flushed.is_err());
        if let (Err(error), false) = (&flushed, was_failing) {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "what was counted cannot be added to the statistics; trying again until it works");
        }
    }
}
