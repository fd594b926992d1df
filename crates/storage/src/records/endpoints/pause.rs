//! Pausing an endpoint: what is owed to it waits until it is activated.

use domain::endpoint::Endpoint;
use sqlx::types::Uuid;

use super::{Address, WHAT, find, keep_rate, lock};
use crate::{
    Database, Error, Result,
    applications::{self, Reference},
    connection::Connection,
    effect::Effect,
    endpoint_health,
};

/// What is to become of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pausing {
    /// It is paused if it is not, and goes on if it is.
    Toggle,
    /// It goes on, and is switched on if it was off.
    Activate,
}

/// Pauses an endpoint, so that what is owed to it waits, or lets it go on. Brings the endpoint, and whether it is paused now.
#[derive(Clone, Debug)]
pub struct Pause {
    /// Which.
    pub address: Address,
    /// What is wanted.
    pub pausing: Pausing,
}

impl Effect for Pause {
    type Output = (Endpoint, bool);

    const WAKES: bool = true;

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<(Endpoint, bool)> {
        let (application_id, endpoint_id) = lock(&mut *tx, &self.address).await?;
        let (id, tenant_id) = (Uuid::from(endpoint_id), Uuid::from(self.address.tenant_id));
        // Under the lock of its application nobody else pauses it, or lets it go on.
        let was_paused = !endpoint_health::paused_of(&mut *tx, self.address.tenant_id, &[id]).await?.is_empty();
        let is_paused = self.pausing == Pausing::Toggle && !was_paused;
        endpoint_health::pause(&mut *tx, tenant_id, id, is_paused).await?;
        if self.pausing == Pausing::Activate {
            switch_on(&mut *tx, tenant_id, id).await?;
        }
        applications::bump(&mut *tx, application_id).await?;
        let row = find(tx, application_id, &Reference::Id(endpoint_id)).await?.ok_or(Error::NotFound(WHAT))?;
        Ok((row.into(), is_paused))
    }
}

async fn switch_on(tx: &mut Connection, tenant_id: Uuid, id: Uuid) -> Result<()> {
    let switched = sqlx::query!(
        "update endpoint set is_disabled = false, updated_at = now() where id = $1 and tenant_id = $2 and is_disabled",
        id,
        tenant_id
    );
    if switched.execute(&mut *tx).await?.rows_affected() > 0 {
        endpoint_health::reset(&mut *tx, id).await?;
        keep_rate(tx, id).await?;
    }
    Ok(())
}
