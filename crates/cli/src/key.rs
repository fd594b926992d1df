//! `posthaste key`: keys that programs call the API with, made and taken back where the database is.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Subcommand;
use domain::{
    api_key::{KnownKey, Role},
    id::{ApiKeyId, Id as _},
};
use storage::api_keys;

use crate::{DEFAULT_TENANT, check_tenant, config::Settings, say, server};

/// The longest name of a key, in characters.
const MAX_NAME: usize = 200;
/// The longest time after which a key may expire: ten years, as tokens do.
const MAX_LIFETIME: Duration = Duration::from_hours(3650 * 24);

/// What is done with keys.
#[derive(Subcommand)]
pub(crate) enum Action {
    /// Makes a key and prints it: it is shown this once
    Create {
        /// The tenant: `org_` and 1 to 100 letters, digits, `-` or `_`
        #[arg(long, default_value = DEFAULT_TENANT)]
        tenant: String,
        /// What people call the key
        #[arg(long)]
        name: String,
        /// Only for looking: it changes nothing, and is shown no secrets
        #[arg(long)]
        viewer: bool,
        /// How long it is good for, such as `90d`; until it is revoked if absent
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
    },
    /// Lists the keys of a tenant, the newest first
    List {
        /// The tenant
        #[arg(long, default_value = DEFAULT_TENANT)]
        tenant: String,
    },
    /// Takes a key back: ten seconds later no server accepts it
    Revoke {
        /// The tenant
        #[arg(long, default_value = DEFAULT_TENANT)]
        tenant: String,
        /// The key's id, as `key list` shows it (`key_…`)
        id: String,
    },
}

/// Does it.
pub(crate) async fn run(settings: &Settings, action: Action) -> Result<()> {
    let tenant = match &action {
        Action::Create { tenant, .. } | Action::List { tenant } | Action::Revoke { tenant, .. } => tenant.clone(),
    };
    check_tenant(&tenant)?;
    match action {
        Action::Create { name, viewer, expires, .. } => create(settings, &tenant, &name, viewer, expires).await,
        Action::List { .. } => {
            let db = server::connect(&settings.database()?).await?;
            let now = db.now();
            for key in api_keys::list(&db, &tenant).await.context("cannot read the keys")? {
                say(&line(&key, now))?;
            }
            Ok(())
        }
        Action::Revoke { id, .. } => {
            let known = ApiKeyId::parse(&id);
            let known = known.map_err(|_| {
                anyhow!("`{id}` is not the id of a key: write it as `posthaste key list` shows it, `key_` and 27 characters")
            })?;
            let db = server::connect(&settings.database()?).await?;
            match api_keys::revoke(&db, &tenant, known).await {
                Ok(key) => say(&format!("revoked: {} ({}); servers forget it within ten seconds", key.id, key.name)),
                Err(storage::Error::NotFound(_)) => {
                    bail!("{tenant} has no key {id}: `posthaste key list --tenant {tenant}` shows those that it has")
                }
                Err(error) => Err(error).context("cannot revoke the key"),
            }
        }
    }
}

async fn create(settings: &Settings, tenant: &str, name: &str, is_viewer: bool, lifetime: Option<Duration>) -> Result<()> {
    if name.trim().is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        bail!("`--name` must be 1 to {MAX_NAME} printable characters");
    }
    if lifetime.is_some_and(|lifetime| lifetime.as_secs() == 0 || lifetime > MAX_LIFETIME) {
        bail!("`--expires` must be from 1s to 3650d: leave it out for a key that is good until it is revoked");
    }
    let role = if is_viewer { Role::Viewer } else { Role::Admin };
    let db = server::connect(&settings.database()?).await?;
    let (key, known) = api_keys::create(&db, tenant, name, role, lifetime).await.context("cannot make a key")?;
    tracing::info!(id = %known.id, tenant, "made an API key");
    say(key.expose())
}

/// A key in a line: its id, how its text begins, who may do what with it, and since and until when.
fn line(key: &KnownKey, now: DateTime<Utc>) -> String {
    let day = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let role = match key.role {
        Role::Admin => "admin",
        Role::Viewer => "viewer",
    };
    let state = match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {}", day(at)),
        (None, Some(at)) if at <= now => format!("expired {}", day(at)),
        (None, Some(at)) => format!("expires {}", day(at)),
        (None, None) => "does not expire".to_owned(),
    };
    format!("{}  CO.{}.…  {role:<6}  made {}  {state}  {}", key.id, key.mask, day(key.created_at), key.name)
}
