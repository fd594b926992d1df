//! The binary `posthaste`: reads the configuration, starts the other rooms, and stops them in order.
//!
//! Reading order:
//! [`config`] every setting · [`roles`] [`server`] what runs together and how it stops · [`serve`] until a signal comes · [`dev`] the
//! same with nothing to set up · [`bench`] how fast it is · [`reseal`] another main secret · [`key`] keys of programs · [`seed`] what `dev` starts with ·
//! [`secrets`] what `dev` makes up once · [`address`] where it listens · [`telemetry`] logs.

mod address;
mod bench;
pub mod config;
mod dev;
mod key;
mod reseal;
mod roles;
mod secrets;
mod seed;
mod serve;
pub mod server;
mod telemetry;

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use chrono::{DateTime, Utc};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use domain::id::{ApplicationId, Id as _};
use reqwest::header::SERVER;
use storage::Migrated;

use crate::{config::Settings, roles::Roles};

/// The tenant of `token` and of `dev` if none is named.
const DEFAULT_TENANT: &str = "org_default";
/// How long the health check waits for an answer; Docker's own limit is 30 seconds.
const HEALTH_PATIENCE: Duration = Duration::from_secs(5);
/// The version, and the commit that it was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("BUILT_FROM_COMMIT"), ")");

/// Posthaste accepts a message once, delivers it to every subscribed endpoint, and can prove what happened.
#[derive(Parser)]
#[command(name = "posthaste", version = VERSION, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs everything with nothing to set up: a private Postgres, generated secrets, a sample application
    Dev,
    /// Runs API and worker
    Serve {
        #[command(flatten)]
        start: Start,
    },
    /// Runs the API alone
    Api {
        #[command(flatten)]
        start: Start,
    },
    /// Runs the worker alone
    Worker {
        #[command(flatten)]
        start: Start,
    },
    /// Brings the database's schema up to date, and exits
    Migrate,
    /// Seals anew what POSTHASTE_MAIN_SECRET_PREVIOUS has sealed, says how much that was, and exits
    Reseal,
    /// Prints a bearer token
    Token {
        /// The tenant: `org_` and 1 to 100 letters, digits, `-` or `_`
        #[arg(default_value = DEFAULT_TENANT)]
        tenant: String,
        /// Only for this application of the tenant, by its id (`app_…`): such a token looks after endpoints, sees messages and attempts,
        /// publishes nothing, and is valid for 28 days
        #[arg(long, value_name = "ID")]
        application: Option<String>,
    },
    /// Makes, lists and revokes API keys, which programs send as bearer tokens
    Key {
        #[command(subcommand)]
        action: key::Action,
    },
    /// Prints the OpenAPI description of the API
    Openapi,
    /// Measures this program on this machine, beside a server that only speaks HTTP; needs no set-up
    Bench {
        #[command(flatten)]
        arguments: bench::Arguments,
    },
    /// Asks the server at the listen address, or the `dev` that is running with the data folder, whether it is healthy: exits
    /// with 0 if so, else with 1
    Healthcheck,
}

#[derive(clap::Args)]
struct Start {
    /// Bring the database's schema up to date first, as `posthaste migrate` would
    #[arg(long)]
    migrate: bool,
}

/// Runs the command that this process was started with, and says how it went.
pub fn main() -> ExitCode {
    // The HTTP client for our own API and for downloads asks for one; an error means that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let matches = config::with_settings(Cli::command()).get_matches();
    let outcome = Cli::from_arg_matches(&matches).map_err(Into::into).and_then(|cli| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start a runtime")?;
        let outcome = runtime.block_on(run(cli));
        // Not even a look-up of a name that nobody answers may hold up the end.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(io::stderr(), "posthaste: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let settings = cli.settings;
    match cli.command {
        Command::Dev => Box::pin(dev::run(settings)).await,
        Command::Serve { start } => serve::run(&settings, Roles::Both, start.migrate).await,
        Command::Api { start } => serve::run(&settings, Roles::Api, start.migrate).await,
        Command::Worker { start } => serve::run(&settings, Roles::Worker, start.migrate).await,
        Command::Migrate => unless_signalled(&settings, migrate).await,
        Command::Reseal => unless_signalled(&settings, reseal::run).await,
        Command::Token { tenant, application } => token(&settings, &tenant, application.as_deref()),
        Command::Key { action } => unless_signalled(&settings, async |settings| key::run(settings, action).await).await,
        Command::Openapi => say(api::openapi_yaml().trim_end()),
        Command::Bench { arguments } => bench::run(&settings, arguments).await,
        Command::Healthcheck => healthcheck(&settings).await,
    }
}

/// Runs a command to its end, unless a signal comes: then the process ends at once, with the exit status that is the custom.
async fn unless_signalled(settings: &Settings, command: impl AsyncFnOnce(&Settings) -> Result<()>) -> Result<()> {
    telemetry::start(settings)?;
    let mut signals = serve::Signals::listen()?;
    tokio::select! {
        outcome = command(settings) => outcome,
        status = signals.next() => {
            tracing::info!("interrupted: what had not been finished was not done; run it again");
            std::process::exit(status)
        }
    }
}

async fn migrate(settings: &Settings) -> Result<()> {
    match serve::migrate(&settings.database()?).await? {
        Migrated::Applied(names) => {
            for name in &names {
                say(&format!("applied {name}"))?;
            }
            say("the database's schema is current")
        }
        Migrated::Nothing(version) => say(&format!("nothing to do: the database's schema is current, at {version:04}")),
        Migrated::Newer(ahead) => say(&format!(
            "nothing was changed: the database's schema, at {:04}, is newer than this release, which knows {:04}, and lets it run",
            ahead.schema, ahead.program
        )),
    }
}

/// Refuses what cannot be a tenant.
fn check_tenant(tenant: &str) -> Result<()> {
    let name = tenant.strip_prefix("org_").unwrap_or_default();
    if name.is_empty() || name.len() > 100 || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
        bail!("`{tenant}` is not a tenant: write `org_` and 1 to 100 letters, digits, `-` or `_`, such as {DEFAULT_TENANT}");
    }
    Ok(())
}

fn token(settings: &Settings, tenant: &str, application: Option<&str>) -> Result<()> {
    check_tenant(tenant)?;
    let application = application.map(|id| {
        ApplicationId::parse(id)
            .map_err(|_| anyhow!("`{id}` is not the id of an application: write it as the API shows it, `app_` and 27 characters"))
    });
    let application = application.transpose()?;
    let secrets = match settings.jwt_secrets()? {
        Some(secrets) => secrets,
        None => secrets::read(&settings.data_dir())?.map(|secrets| vec![secrets.jwt]).ok_or_else(|| {
            anyhow!(
                "POSTHASTE_JWT_SECRET is not set, and {} holds no secrets of `posthaste dev`: set it to the secret of the server, or run this where `posthaste dev` runs",
                settings.data_dir().display()
            )
        })?,
    };
    let now = now();
    say(&match application {
        Some(id) => api::mint_application_token(&secrets[0], tenant, id, now),
        None => api::mint_token(&secrets[0], tenant, now),
    })
}

/// A tenant's token that is valid from this moment.
fn mint_token(secret: &str, tenant: &str) -> String {
    api::mint_token(secret, tenant, now())
}

/// The moment from which a token is valid.
#[expect(clippy::disallowed_methods, reason = "the one place where a clock is needed before there is a database")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

async fn healthcheck(settings: &Settings) -> Result<()> {
    let wanted = settings.listen()?;
    let is_known = settings.is_listen_set() && wanted.port() != 0;
    let address = if is_known { None } else { address::of_running(&settings.data_dir())? }.unwrap_or(wanted);
    if address.port() == 0 {
        bail!("POSTHASTE_LISTEN names no port, so the server cannot be found: set it to the address that the server is using");
    }
    let url = format!("http://{}/api/v1/health", reachable(address));
    let answer = http_client()?.get(&url).timeout(HEALTH_PATIENCE).send().await;
    let answer = answer.with_context(|| format!("not healthy: {url} did not answer"))?;
    // Any program may have taken the port and answer whatever it is asked with a 200.
    if answer.headers().get(SERVER).is_none_or(|name| name.as_bytes() != api::SERVER_NAME.as_bytes()) {
        bail!("not healthy: what answers at {url} is not Posthaste: set POSTHASTE_LISTEN to the address that the server is using");
    }
    match answer.status() {
        status if status.is_success() => say(&format!("healthy: {url}")),
        status => bail!("not healthy: {url} answered {status}"),
    }
}

/// A client for our own API; proxies are meant for the way out, not for this machine.
fn http_client() -> Result<reqwest::Client> {
    // A client wants a TLS provider even if it never speaks TLS. An error means that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().context("cannot make an HTTP client")
}

/// The address under which this machine reaches what listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => (Ipv4Addr::LOCALHOST, v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => (Ipv6Addr::LOCALHOST, v6.port()).into(),
        _ => address,
    }
}

/// Prints a line on standard output. A reader that has seen enough, such as `head`, may leave early.
fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
