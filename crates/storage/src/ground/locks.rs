//! The ids of advisory locks, and the names from which they are made.

use sqlx::types::Uuid;

/// The name-space of header keys in [`lock_id`].
pub(crate) const KEY_LOCK: u8 = 1;
/// The name-space of event ids in [`lock_id`].
pub(crate) const EVENT_ID_LOCK: u8 = 2;
/// The name-space of message keys in [`lock_id`].
pub(crate) const MESSAGE_KEY_LOCK: u8 = 3;
/// The name-space of a committer's sessions in [`lock_id`].
pub(crate) const SESSION_LOCK: u8 = 4;

/// The advisory lock under which one node at a time makes partitions ("part" in ASCII). This lock and the next one are those of the
/// table `message` of this schema, since another schema of the database may hold other tenants.
pub(crate) const PARTITIONS_LOCK: i32 = 0x70_61_72_74;
/// The advisory lock under which one node at a time drops them ("drop" in ASCII): another one, because a sweep may wait for a
/// long reader, and a partition that is missing must not wait with it.
pub(crate) const SWEEP_LOCK: i32 = 0x64_72_6f_70;

/// The name-space of event ids in [`domain::idempotency::scope_hash`].
pub(crate) const EVENT_ID: &str = "event_id";
/// The name-space of message keys on routes that name an application, in [`domain::idempotency::scope_hash`].
pub(crate) const MESSAGE_KEY: &str = "message_key";
/// The name-space of message keys that are a tenant's, in [`domain::idempotency::scope_hash`].
pub(crate) const MESSAGE_KEY_OF_TENANT: &str = "message_key_of_tenant";

/// The advisory lock of a name: its last 56 bits under a name-space of 8, so that keys, event ids and message keys do not
/// meet. (The first bits of a key's scope are the same in all operations.) Two names that share 56 bits cost each other a busy
/// answer, never a wrong one.
pub(crate) fn lock_id(name_space: u8, name: Uuid) -> i64 {
    let bytes = name.as_bytes();
    i64::from_be_bytes([name_space, bytes[9], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14], bytes[15]])
}
