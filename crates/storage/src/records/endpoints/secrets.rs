//! What is done with an endpoint's signing secrets and custom headers: shown, replaced, edited.

use std::time::Duration;

use domain::{
    endpoint::{Headers, check_header_count},
    signing::Secret,
};
use sqlx::types::Uuid;

use super::{Address, get, lock};
use crate::{
    Database, Error, Result, applications,
    connection::Connection,
    effect::Effect,
    sealed_parts::{open_secret, random_secret, read_headers, write_headers, write_secret},
};

/// The most superseded secrets that may still be signing at one time.
pub const MAX_OLD_SECRETS: usize = 10;

/// Replaces an endpoint's secret; the old one goes on signing beside it for the grace period. The present one changes nothing.
#[derive(Clone, Debug)]
pub struct RotateSecret {
    /// Which endpoint.
    pub address: Address,
    /// The new secret; a random one if absent.
    pub secret: Option<Secret>,
    /// For how long the old one still signs.
    pub grace: Duration,
}

impl Effect for RotateSecret {
    type Output = Secret;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Secret> {
        let (application_id, endpoint_id) = lock(&mut *tx, &self.address).await?;
        let id = Uuid::from(endpoint_id);
        sqlx::query!("delete from endpoint_secret where endpoint_id = $1 and expires_at <= now()", id).execute(&mut *tx).await?;
        let wanted = self.secret.unwrap_or_else(random_secret);
        let live =
            sqlx::query!("select id, secret, expires_at from endpoint_secret where endpoint_id = $1", id).fetch_all(&mut *tx).await?;
        let mut copies = Vec::new();
        for row in &live {
            // One that cannot be opened is replaced like any other that is not the new one.
            if open_secret(db, row.id, &row.secret).is_ok_and(|secret| secret == wanted) {
                if row.expires_at.is_none() {
                    return Ok(wanted);
                }
                copies.push(row.id);
            }
        }
        // One that still signs becomes the current one: it must not stay beside itself.
        sqlx::query!("delete from endpoint_secret where id = any ($1)", &copies).execute(&mut *tx).await?;
        let old = live.iter().filter(|row| row.expires_at.is_some()).count() - copies.len();
        if old >= MAX_OLD_SECRETS && !self.grace.is_zero() {
            return Err(Error::LimitReached(
                "this endpoint has too many superseded secrets that still sign: wait for one to expire, or rotate without a grace period",
            ));
        }
        if self.grace.is_zero() {
            sqlx::query!("delete from endpoint_secret where endpoint_id = $1 and expires_at is null", id).execute(&mut *tx).await?;
        } else {
            let seconds = self.grace.as_secs_f64();
            sqlx::query!(
                "update endpoint_secret set expires_at = now() + make_interval(secs => $2) where endpoint_id = $1 and expires_at is null",
                id,
                seconds
            )
            .execute(&mut *tx)
            .await?;
        }
        write_secret(db, &mut *tx, endpoint_id, &wanted).await?;
        applications::bump(tx, application_id).await?;
        Ok(wanted)
    }
}

/// Replaces or edits an endpoint's custom headers.
#[derive(Clone, Debug)]
pub struct SetHeaders {
    /// Which endpoint.
    pub address: Address,
    /// Name to new value; `None` removes the header. Checked.
    pub headers: Vec<(String, Option<String>)>,
    /// Drop all that are not named (PUT), but for these, whose values nobody is shown.
    pub replace_but: Option<Vec<String>>,
}

impl Effect for SetHeaders {
    type Output = ();

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<()> {
        let (application_id, endpoint_id) = lock(&mut *tx, &self.address).await?;
        // Headers that are replaced as a whole are not even opened: perhaps they cannot be.
        let replaces_all = self.replace_but.as_ref().is_some_and(Vec::is_empty);
        let mut headers = if replaces_all { Headers::new() } else { read_headers(db, &mut *tx, endpoint_id).await? };
        let before = headers.len();
        if let Some(kept) = &self.replace_but {
            if let Some(lost) = kept.iter().find(|kept| !headers.keys().any(|name| name.eq_ignore_ascii_case(kept))) {
                let why = format!("names `{lost}`, which this endpoint does not have: give its value in `headers`");
                return Err(Error::Invalid { field: "sensitive", why });
            }
            headers.retain(|name, _| kept.iter().any(|kept| kept.eq_ignore_ascii_case(name)));
        }
        for (name, value) in self.headers {
            headers.retain(|known, _| !known.eq_ignore_ascii_case(&name));
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        // Where an older release let too many add up, they may still be changed and become fewer.
        if headers.len() > before {
            check_header_count(headers.len()).map_err(|error| Error::Invalid { field: "headers", why: error.to_string() })?;
        }
        write_headers(db, &mut *tx, endpoint_id, &headers).await?;
        applications::bump(tx, application_id).await
    }
}

/// The current signing secret.
pub async fn secret(db: &Database, address: &Address) -> Result<Secret> {
    let id = Uuid::from(get(db, address).await?.id);
    let row = sqlx::query!("select id, secret from endpoint_secret where endpoint_id = $1 and expires_at is null", id)
        .fetch_optional(db.pool())
        .await?
        .ok_or(Error::NotFound("secret"))?;
    open_secret(db, row.id, &row.secret)
}

/// The custom headers.
pub async fn headers(db: &Database, address: &Address) -> Result<Headers> {
    let id = get(db, address).await?.id;
    read_headers(db, &mut db.pool().acquire().await?, id).await
}
