//! `posthaste dev`: everything, with nothing to set up.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, Result, anyhow};
use embedded::Cluster;

use crate::{
    DEFAULT_TENANT,
    address::{self, Published},
    config::Settings,
    mint_token,
    roles::Roles,
    say, secrets, seed,
    serve::{Signals, migrate, until_signalled},
    server::{self, Running},
    telemetry,
};

/// The name of the database in the private cluster.
const DATABASE: &str = "posthaste";
/// What may be called besides the public internet: receivers on this machine.
const LOOPBACK: &str = "127.0.0.0/8,::1/128";

/// Runs until a signal comes. What the user set is used; what is missing is made up.
pub(crate) async fn run(mut settings: Settings) -> Result<()> {
    telemetry::start(&settings)?;
    let mut signals = Signals::listen()?;
    let started = tokio::select! {
        started = start(&mut settings) => started?,
        _ = signals.next() => return Ok(()),
    };
    let Started { cluster, running, token, source, taken, published: _published } = started;
    say(&welcome(&running, &token, source.as_deref(), taken))?;
    until_signalled(running, signals).await;
    if let Some(cluster) = cluster {
        cluster.stop().await;
    }
    Ok(())
}

struct Started {
    cluster: Option<Cluster>,
    running: Running,
    token: String,
    /// Where the sample source is.
    source: Option<String>,
    /// The usual address, if another program is using it.
    taken: Option<SocketAddr>,
    published: Option<Published>,
}

async fn start(settings: &mut Settings) -> Result<Started> {
    let data_dir = settings.data_dir();
    let cluster = if settings.database_url.as_ref().is_none_or(String::is_empty) {
        let cluster = start_cluster(&data_dir).await?;
        settings.database_url = Some(cluster.url(DATABASE));
        Some(cluster)
    } else {
        fs::create_dir_all(&data_dir).with_context(|| format!("cannot make the data folder {}", data_dir.display()))?;
        None
    };
    let secrets = secrets::read_or_make(&data_dir)?;
    fill(&mut settings.main_secret, secrets.main);
    fill(&mut settings.jwt_secret, secrets.jwt);
    fill(&mut settings.egress_allow, LOOPBACK.to_owned());
    let mut config = settings.config(Roles::Both)?;
    config.has_playground = true;
    config.may_take_another_port = !settings.is_listen_set();
    migrate(&config.database).await?;
    let running = server::start(&config, Roles::Both).await?;
    let token = mint_token(&config.jwt_secrets[0], DEFAULT_TENANT);
    let source = seed::plant(&format!("http://{}", crate::reachable(running.address)), &token).await?;
    let published = address::publish(&data_dir, running.address)?;
    let taken = (config.may_take_another_port && running.address != config.listen).then_some(config.listen);
    Ok(Started { cluster, running, token, source, taken, published })
}

async fn start_cluster(data_dir: &Path) -> Result<Cluster> {
    let cluster = Cluster::start(data_dir).await.map_err(|error| match error {
        embedded::Error::NoBinaries(_) => anyhow!("{error}, or set POSTHASTE_DATABASE_URL to a Postgres that runs elsewhere"),
        embedded::Error::InUse(_) => anyhow!("{error} (POSTHASTE_DATA_DIR)"),
        error => error.into(),
    })?;
    if !cluster.has_database(DATABASE).await? {
        cluster.create_database(DATABASE, None).await?;
    }
    // For `just db`, and for anybody who wants to look inside.
    let file = data_dir.join("database-url");
    fs::write(&file, cluster.url(DATABASE)).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(cluster)
}

fn fill(setting: &mut Option<String>, value: String) {
    if setting.as_ref().is_none_or(String::is_empty) {
        *setting = Some(value);
    }
}

fn welcome(running: &Running, token: &str, source: Option<&str>, taken: Option<SocketAddr>) -> String {
    let address = crate::reachable(running.address);
    let url = format!("http://{address}");
    let notice = taken.map_or_else(String::new, |taken| {
        format!("\n\nAnother program is using {taken}, so it has taken a free port: where the README says {taken}, write {address}.")
    });
    let ingest = source.map_or_else(String::new, |source| {
        format!(
            "\n\nBe another service, which sends events to a source, and one of them twice:\n\n\
             curl {source} -H 'Content-Type: application/json' -d '{{\"id\": \"evt_1\", \"amount\": 4200}}'"
        )
    });
    format!(
        r#"
Posthaste is running.{notice}

  API     {url}/api/v1
  Token   {token}

Send the first message:

curl {url}/api/v1/app/{application}/msg/ -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' -d '{{"eventType": "invoice.paid", "payload": {{"invoice": "inv_1", "amount": 4200}}}}'

See it arrive:

  {url}{receiver}{ingest}

Ctrl-C stops everything; the data stays.
"#,
        application = seed::APPLICATION,
        receiver = seed::RECEIVER,
    )
}
