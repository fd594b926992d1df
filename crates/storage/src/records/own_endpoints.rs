//! The endpoints that hear of a tenant's own events: those of its hidden application.

use domain::{
    application::{OWN, Uid},
    endpoint::Endpoint,
    id::{EndpointId, TenantId},
};

use crate::{
    Database, Error, Result,
    applications::{self, Change},
    connection::Connection,
    effect::Effect,
    endpoints, own_events,
    page::{Page, PageRequest},
    reference::Reference,
};

/// A write to the endpoints of the hidden application, which is made if it is not there yet.
#[derive(Clone, Debug)]
pub struct Equipped<E> {
    /// Whose.
    pub tenant_id: TenantId,
    /// What is written.
    pub effect: E,
}

impl<E: Effect> Effect for Equipped<E> {
    type Output = E::Output;

    const WAKES: bool = E::WAKES;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Self::Output> {
        let hidden = Change { uid: Some(Some(Uid::stored(OWN.to_owned()))), ..Change::default() };
        // Nothing comes of it if it is there.
        applications::insert(db, &mut *tx, self.tenant_id, &hidden).await?;
        let output = self.effect.apply(db, &mut *tx).await?;
        own_events::tell(tx).await?;
        Ok(output)
    }
}

/// The endpoints of the hidden application; none, if there never was one.
pub async fn list(db: &Database, tenant_id: TenantId, page: &PageRequest<EndpointId>) -> Result<Page<Endpoint>> {
    match endpoints::list(db, tenant_id, &Reference::own(), page).await {
        Err(Error::NotFound(_)) => Ok(Page { items: Vec::new(), has_more: false }),
        listed => listed,
    }
}
