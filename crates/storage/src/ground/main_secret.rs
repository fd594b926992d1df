//! Which main secrets the servers of an installation seal with, so that one that could not open what another has sealed says so.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use sqlx::types::Uuid;

use crate::{Database, Error, Result, connect::refuse};

/// What a seal check says once opened.
pub(crate) const SEAL_CHECK: &[u8] = b"posthaste";
/// How often a server says which secret it seals with, and looks which ones others seal with.
const INTERVAL: Duration = Duration::from_secs(10);
/// What a server is told that cannot open what another one seals.
const STRANGE: &str = "another server of this installation seals with a main secret that this one does not have: set POSTHASTE_MAIN_SECRET_PREVIOUS to it; if it is lost, or nothing is sealed with it any more, run `posthaste reseal`";

/// Refuses a main secret that is not the one that the database was set up with, nor the one that came after it.
pub(crate) async fn check(db: &Database) -> Result<()> {
    let seal_check = sqlx::query_scalar!("select seal_check from installation").fetch_optional(db.pool()).await?;
    let seal_check = seal_check.ok_or_else(|| refuse("the database is not set up: run `posthaste migrate`"))?;
    db.sealer().open(Uuid::nil(), &seal_check).map(drop)
}

/// Lets this process seal: refuses if it could not open what others seal; else the others learn of its secret, and it goes on
/// looking at theirs for as long as somebody holds the handle.
pub async fn take_part(db: &Arc<Database>) -> Result<()> {
    if !look(db).await? {
        return Err(Error::Unusable(STRANGE.into()));
    }
    note(db).await?;
    tokio::spawn(keep_looking(Arc::downgrade(db)));
    Ok(())
}

/// Whether this process can open what any server seals.
async fn look(db: &Database) -> Result<bool> {
    let rows = sqlx::query!("select id, seal_check from main_secret").fetch_all(db.pool()).await?;
    Ok(rows.iter().all(|row| db.sealer().open(row.id, &row.seal_check).is_ok()))
}

/// Says that this process seals with its secret; another process with the same one may have said so.
pub(crate) async fn note(db: &Database) -> Result<()> {
    let rows = sqlx::query!("select id, seal_check from main_secret order by id").fetch_all(db.pool()).await?;
    if let Some(known) = rows.iter().find(|row| db.sealer().has_sealed(row.id, &row.seal_check)) {
        let seconds = INTERVAL.as_secs_f64() / 2.0;
        sqlx::query!(
            "update main_secret set noted_at = now() where id = $1 and noted_at < now() - make_interval(secs => $2)",
            known.id,
            seconds
        )
        .execute(db.pool())
        .await?;
        return Ok(());
    }
    let id = Uuid::from_u128(rand::random());
    sqlx::query!("insert into main_secret (id, seal_check) values ($1, $2)", id, db.sealer().seal(id, SEAL_CHECK))
        .execute(db.pool())
        .await?;
    Ok(())
}

/// Forgets the secrets that nothing is sealed with any more. `false`: a server has sealed with one of them just now, and that one
/// is kept.
pub(crate) async fn forget_others(db: &Database) -> Result<bool> {
    note(db).await?;
    let rows = sqlx::query!(
        r#"select id, seal_check, noted_at > now() - make_interval(secs => $1) as "is_in_use!" from main_secret"#,
        INTERVAL.as_secs_f64() * 3.0
    )
    .fetch_all(db.pool())
    .await?;
    let (in_use, forgotten): (Vec<_>, Vec<_>) =
        rows.into_iter().filter(|row| !db.sealer().has_sealed(row.id, &row.seal_check)).partition(|row| row.is_in_use);
    let forgotten: Vec<_> = forgotten.into_iter().map(|row| row.id).collect();
    sqlx::query!("delete from main_secret where id = any ($1)", &forgotten).execute(db.pool()).await?;
    Ok(in_use.is_empty())
}

async fn keep_looking(db: Weak<Database>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(db) = db.upgrade() else { return };
        let is_fine = match look(&db).await {
            Ok(is_fine) => is_fine,
            Err(error) => {
                tracing::debug!(?error, "could not look which main secrets are in use");
                continue;
            }
        };
        if db.set_strange(!is_fine) == is_fine {
            if is_fine {
                tracing::info!("this server can open again what all others seal");
            } else {
                tracing::error!("this server is not ready: {STRANGE}");
            }
        }
        if let Err(error) = note(&db).await {
            tracing::debug!(?error, "could not say which main secret this server seals with");
        }
    }
}
