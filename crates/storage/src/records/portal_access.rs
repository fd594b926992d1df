//! What opens one application for its customer: tokens, and links that have one. The text of a token leaves here once; what is kept
//! tells it from others.

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::{
    application::Uid,
    id::{ApplicationId, PortalAccessId, TenantId},
    portal::{Capabilities, PortalToken, SECRET},
};
use sqlx::types::Uuid;

use crate::{
    Database, Error, Result, api_keys,
    applications::{self, Reference},
    connection::Connection,
    effect::Effect,
    page::{Page, PageRequest},
    project_endpoints,
};

/// What a look-up that finds nothing says.
const WHAT: &str = "portal link";

/// What a token that somebody calls with opens.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its id.
    pub id: PortalAccessId,
    /// What its tenant is called.
    pub tenant: String,
    /// The application.
    pub application_id: ApplicationId,
    /// What its bearer may do there.
    pub capabilities: Capabilities,
    /// Of event types that are behind a flag, only those with one of these are shown; absent: all.
    pub feature_flags: Option<Vec<String>>,
    /// Until when it opens anything.
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether somebody took it back.
    pub is_revoked: bool,
}

/// What this token opens; nothing, if it is none of ours.
pub async fn find(db: &Database, token: &PortalToken) -> Result<Option<Found>> {
    let hash = token.hash();
    let row = sqlx::query!(
        r#"select p.id, p.application_id, p.capabilities, p.feature_flags, p.expires_at, p.revoked_at is not null as "is_revoked!", t.subject
             from portal_access p join tenant t on t.id = p.tenant_id where p.hash = $1"#,
        hash.as_slice(),
    )
    .fetch_optional(db.pool())
    .await?;
    Ok(row.map(|row| Found {
        id: row.id.into(),
        tenant: row.subject,
        application_id: row.application_id.into(),
        capabilities: Capabilities::stored(row.capabilities),
        feature_flags: row.feature_flags,
        expires_at: row.expires_at,
        is_revoked: row.is_revoked,
    }))
}

fn random_token() -> PortalToken {
    PortalToken::new(&api_keys::random(SECRET))
}

/// Makes a token for an application.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Whose.
    pub tenant_id: TenantId,
    /// For which.
    pub application: Reference<ApplicationId>,
    /// What it is good for.
    pub capabilities: Capabilities,
    /// Which event types behind a flag are shown; absent: all.
    pub feature_flags: Option<Vec<String>>,
    /// By which several are taken back together.
    pub session_id: Option<String>,
    /// For how long.
    pub lifetime: Duration,
}

impl Effect for Grant {
    type Output = PortalToken;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<PortalToken> {
        let application_id = applications::lock(&mut *tx, self.tenant_id, &self.application).await?;
        let token = random_token();
        let hash = token.hash();
        sqlx::query!(
            "insert into portal_access (id, tenant_id, application_id, capabilities, feature_flags, session_id, hash, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8))",
            db.new_id(),
            Uuid::from(self.tenant_id),
            Uuid::from(application_id),
            self.capabilities.code(),
            self.feature_flags.as_deref() as _,
            self.session_id,
            hash.as_slice(),
            self.lifetime.as_secs_f64(),
        )
        .execute(tx)
        .await?;
        Ok(token)
    }
}

/// Lets the tokens of an application, its links' among them, open nothing from some moment on.
#[derive(Clone, Debug)]
pub struct ExpireAll {
    /// Whose.
    pub tenant_id: TenantId,
    /// Of which.
    pub application: Reference<ApplicationId>,
    /// Only those of these sessions.
    pub sessions: Option<Vec<String>>,
    /// After how long.
    pub grace: Duration,
}

impl Effect for ExpireAll {
    type Output = ();

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<()> {
        let application_id = applications::lock(&mut *tx, self.tenant_id, &self.application).await?;
        sqlx::query!(
            "update portal_access set expires_at = least(expires_at, now() + make_interval(secs => $4))
              where application_id = $2 and tenant_id = $1 and ($3::text[] is null or session_id = any ($3))",
            Uuid::from(self.tenant_id),
            Uuid::from(application_id),
            self.sessions.as_deref() as _,
            self.grace.as_secs_f64(),
        )
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Takes a token back, or a link with its token.
#[derive(Clone, Copy, Debug)]
pub struct Revoke {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub id: PortalAccessId,
}

impl Effect for Revoke {
    type Output = ();

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<()> {
        let done = sqlx::query!(
            "update portal_access set revoked_at = now(), updated_at = now() where id = $2 and tenant_id = $1 and revoked_at is null",
            Uuid::from(self.tenant_id),
            Uuid::from(self.id),
        )
        .execute(tx)
        .await?;
        if done.rows_affected() == 0 { Err(Error::NotFound(WHAT)) } else { Ok(()) }
    }
}

/// A link as it is shown: without its token.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its id.
    pub id: PortalAccessId,
    /// Whose.
    pub tenant_id: TenantId,
    /// Which customer's, by the tenant's own name.
    pub owner: Option<String>,
    /// For people.
    pub name: String,
    /// Whether its token opens something for an hour only, and is renewed.
    pub is_renewed: bool,
    /// What it is good for.
    pub capabilities: Capabilities,
    /// How many endpoints there are to be seen by it.
    pub endpoints: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// For how long the token of a link opens anything that is renewed.
const RENEWED: Duration = Duration::from_hours(1);

/// Makes a link, and its owner's application if there is none.
#[derive(Clone, Debug)]
pub struct CreateLink {
    /// Whose.
    pub tenant_id: TenantId,
    /// For which customer.
    pub owner: Uid,
    /// For people.
    pub name: String,
    /// Whether its token opens something for an hour only.
    pub is_renewed: bool,
    /// What it is good for.
    pub capabilities: Capabilities,
}

impl Effect for CreateLink {
    type Output = (Link, PortalToken);

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Self::Output> {
        let application_id = project_endpoints::owned(db, &mut *tx, self.tenant_id, &self.owner).await?;
        let (id, token) = (db.new_id(), random_token());
        let hash = token.hash();
        sqlx::query!(
            "insert into portal_access (id, tenant_id, application_id, name, is_renewed, capabilities, hash, expires_at)
             values ($1, $2, $3, $4, $5, $6, $7, now() + make_interval(secs => $8))",
            id,
            Uuid::from(self.tenant_id),
            Uuid::from(application_id),
            self.name,
            self.is_renewed,
            self.capabilities.code(),
            hash.as_slice(),
            lifetime(self.is_renewed),
        )
        .execute(&mut *tx)
        .await?;
        Ok((link(tx, self.tenant_id, id.into()).await?, token))
    }
}

/// How long a token is good, in seconds; nothing: until it is taken back.
fn lifetime(is_renewed: bool) -> Option<f64> {
    is_renewed.then(|| RENEWED.as_secs_f64())
}

/// Changes a link: absent fields stay as they are.
#[derive(Clone, Debug)]
pub struct UpdateLink {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub id: PortalAccessId,
    /// Whose it must be already.
    pub owner: Option<Uid>,
    /// For people.
    pub name: Option<String>,
    /// Whether its token opens something for an hour only: the one that there is from now on.
    pub is_renewed: Option<bool>,
    /// What it is good for.
    pub capabilities: Option<Capabilities>,
}

impl Effect for UpdateLink {
    type Output = Link;

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<Link> {
        let before = link(&mut *tx, self.tenant_id, self.id).await?;
        if self.owner.is_some_and(|owner| before.owner.as_deref() != Some(owner.as_str())) {
            let why = "cannot be changed: a link stays with its owner; make another one there".to_owned();
            return Err(Error::Invalid { field: "owner_id", why });
        }
        let is_renewed = self.is_renewed.filter(|is_renewed| *is_renewed != before.is_renewed);
        sqlx::query!(
            "update portal_access set name = coalesce($3, name), capabilities = coalesce($4, capabilities), updated_at = now(),
                                      is_renewed = coalesce($5, is_renewed),
                                      expires_at = case when $5::boolean is null then expires_at else now() + make_interval(secs => $6) end
              where id = $2 and tenant_id = $1",
            Uuid::from(self.tenant_id),
            Uuid::from(self.id),
            self.name,
            self.capabilities.map(Capabilities::code),
            is_renewed,
            is_renewed.and_then(lifetime),
        )
        .execute(&mut *tx)
        .await?;
        link(tx, self.tenant_id, self.id).await
    }
}

/// Gives a link another token; the one before it opens nothing any more.
#[derive(Clone, Copy, Debug)]
pub struct RenewLink {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub id: PortalAccessId,
}

impl Effect for RenewLink {
    type Output = PortalToken;

    async fn apply(self, _: &Database, tx: &mut Connection) -> Result<PortalToken> {
        let before = link(&mut *tx, self.tenant_id, self.id).await?;
        let token = random_token();
        let hash = token.hash();
        sqlx::query!(
            "update portal_access set hash = $3, expires_at = now() + make_interval(secs => $4), updated_at = now() where id = $2 and tenant_id = $1",
            Uuid::from(self.tenant_id),
            Uuid::from(self.id),
            hash.as_slice(),
            lifetime(before.is_renewed),
        )
        .execute(tx)
        .await?;
        Ok(token)
    }
}

/// One link that was not taken back.
pub async fn get(db: &Database, tenant_id: TenantId, id: PortalAccessId) -> Result<Link> {
    link(&mut db.pool().acquire().await?, tenant_id, id).await
}

async fn link(connection: &mut Connection, tenant_id: TenantId, id: PortalAccessId) -> Result<Link> {
    links(connection, tenant_id, &[id.into()]).await?.pop().ok_or(Error::NotFound(WHAT))
}

/// Links of the tenant by id, as far as they are there.
async fn links(connection: &mut Connection, tenant_id: TenantId, ids: &[Uuid]) -> Result<Vec<Link>> {
    let rows = sqlx::query!(
        r#"select p.id, p.name as "name!", p.is_renewed, p.capabilities, p.created_at, p.updated_at, a.uid,
                  (select count(*) from endpoint e where e.application_id = a.id and e.deleted_at is null) as "endpoints!"
             from portal_access p join application a on a.id = p.application_id
            where p.id = any ($2) and p.tenant_id = $1 and p.name is not null and p.revoked_at is null order by p.id"#,
        Uuid::from(tenant_id),
        ids,
    )
    .fetch_all(connection)
    .await?;
    let links = rows.into_iter().map(|row| Link {
        id: row.id.into(),
        tenant_id,
        owner: row.uid,
        name: row.name,
        is_renewed: row.is_renewed,
        capabilities: Capabilities::stored(row.capabilities),
        endpoints: row.endpoints,
        created_at: row.created_at,
        updated_at: row.updated_at,
    });
    Ok(links.collect())
}

/// Which links a list shows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those of this owner.
    pub owner: Option<String>,
    /// Only those with this in their name, whatever the size of its letters.
    pub text: Option<String>,
}

/// The tenant's links by id.
pub async fn list(db: &Database, tenant_id: TenantId, filter: &Filter, page: &PageRequest<PortalAccessId>) -> Result<Page<Link>> {
    let (first, end) = page.bounds(None, None);
    macro_rules! scan {
        ($order:tt) => {
            sqlx::query_scalar!(
                r#"select id from portal_access where tenant_id = $1 and id >= $2 and id < $3 and name is not null and revoked_at is null
                    and ($5::text is null or exists (select from application a where a.id = portal_access.application_id and a.uid = $5))
                    and ($6::text is null or strpos(lower(name), lower($6)) > 0)
                    order by id "#
                    + $order
                    + " limit $4",
                Uuid::from(tenant_id),
                first,
                end,
                page.rows(),
                filter.owner.as_deref() as _,
                filter.text.as_deref() as _,
            )
            .fetch_all(db.lists())
            .await
            .map_err(Error::of_list)?
        };
    }
    let ids = if page.scans_up() { scan!("asc") } else { scan!("desc") };
    let mut found = links(&mut db.lists().acquire().await.map_err(Error::of_list)?, tenant_id, &ids).await?;
    if !page.scans_up() {
        found.reverse();
    }
    Ok(page.page(found))
}
