//! What is done with endpoints: made, changed, given another secret, paused, removed. Each write brings what is shown of the endpoint then.

use std::time::Duration;

use domain::{
    application::Uid,
    endpoint::{Endpoint, EndpointUrl, Headers, Settings, SignatureStyle},
    id::{ApplicationId, EndpointId, TenantId},
    project::{Project, ProjectKind},
    signing::Secret,
    throttle::per_second,
};
use rand::{RngExt, distr::Alphanumeric};

use super::{
    Shown, WHAT,
    read::{address_of, shown},
};
use crate::{
    Database, Error, Result,
    applications::{self, Change as ApplicationChange},
    connection::Connection,
    effect::Effect,
    endpoints::{self, Address, Pausing},
    projects,
    reference::{GOES, Reference},
    sealed_parts::write_headers,
};

/// How many letters and digits a secret has that nobody chose.
const SECRET: usize = 32;
/// For how long the old secret still signs when a change brings another one.
const GRACE: Duration = Duration::from_hours(24);
/// What a limit is of if nobody says.
const SECOND: Duration = Duration::from_secs(1);

/// What is to change of an endpoint: absent fields stay as they are.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Where its webhooks go; required for a new one.
    pub url: Option<EndpointUrl>,
    /// For people.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Switched off.
    pub is_disabled: Option<bool>,
    /// How requests are signed.
    pub signature: Option<SignatureStyle>,
    /// How long a request may take.
    pub timeout: Option<Option<Duration>>,
    /// At most so many,
    pub throttle_count: Option<u32>,
    /// in so long. None at all if the count is 0.
    pub throttle_per: Option<Duration>,
    /// The media type that was asked for.
    pub content_type: Option<String>,
    /// Whom to write to.
    pub support_email: Option<String>,
    /// As it was asked for.
    pub slack_webhook_url: Option<String>,
    /// As it was asked for.
    pub teams_webhook_url: Option<String>,
}

impl Change {
    /// What comes of it for an endpoint with these settings.
    fn over(self, mut settings: Settings) -> Result<endpoints::Change> {
        let mut throttle_rate = None;
        let count = self.throttle_count.or(settings.throttle_count.filter(|_| self.throttle_per.is_some()));
        if let Some(count) = count {
            let per = self.throttle_per.filter(|per| !per.is_zero()).or(settings.throttle_per).unwrap_or(SECOND);
            let refuse = |error: domain::throttle::TooSlow| Error::Invalid { field: "rate_limit", why: error.to_string() };
            throttle_rate = Some(if count == 0 { None } else { Some(per_second(count, per).map_err(refuse)?) });
            (settings.throttle_count, settings.throttle_per) = if count == 0 { (None, None) } else { (Some(count), Some(per)) };
        }
        settings.signature = self.signature.or(settings.signature);
        if let Some(timeout) = self.timeout {
            settings.timeout = timeout;
        }
        let texts = [
            (self.name, &mut settings.name),
            (self.content_type, &mut settings.content_type),
            (self.support_email, &mut settings.support_email),
            (self.slack_webhook_url, &mut settings.slack_webhook_url),
            (self.teams_webhook_url, &mut settings.teams_webhook_url),
        ];
        for (wanted, kept) in texts {
            if let Some(text) = wanted {
                *kept = Some(text).filter(|text| !text.is_empty());
            }
        }
        Ok(endpoints::Change {
            url: self.url,
            description: self.description,
            is_disabled: self.is_disabled,
            throttle_rate,
            settings: Some(settings),
            ..endpoints::Change::default()
        })
    }
}

/// Makes an endpoint, and its owner's application if there is none. It gets what its subscriptions let through.
#[derive(Clone, Debug)]
pub struct Create {
    /// For whom.
    pub tenant_id: TenantId,
    /// For which customer; the project itself, if absent.
    pub owner: Option<Uid>,
    /// What it is to be.
    pub change: Change,
    /// Its signing secret; a random one if absent.
    pub secret: Option<Secret>,
    /// What is added to its requests, checked.
    pub headers: Headers,
}

impl Effect for Create {
    type Output = Shown;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Shown> {
        let Self { tenant_id, owner, change, secret, headers } = self;
        let project = projects::of(&mut *tx, tenant_id).await?;
        check_url(&project, change.url.as_ref())?;
        let (application_id, noted) = match owner {
            Some(owner) if project.kind == ProjectKind::Outgoing => (owned(db, &mut *tx, tenant_id, &owner).await?, None),
            owner => (projects::ensure(db, &mut *tx, tenant_id).await?, owner.map(|owner| owner.to_string())),
        };
        let start = Settings { owner: noted, signature: Some(SignatureStyle::Advanced), ..Settings::default() };
        let change = endpoints::Change { is_subscribed: Some(true), ..change.over(start)? };
        let secret = Some(secret.unwrap_or_else(random_secret));
        let create = endpoints::Create { tenant_id, application: Reference::Id(application_id), change, secret, headers };
        let endpoint = create.apply(db, &mut *tx).await?;
        show(db, tx, endpoint).await
    }
}

/// The application of an owner, which is made on its first use.
pub(crate) async fn owned(db: &Database, tx: &mut Connection, tenant_id: TenantId, owner: &Uid) -> Result<ApplicationId> {
    let known = Reference::Uid(owner.to_string());
    let change = ApplicationChange { uid: Some(Some(owner.clone())), name: Some(owner.to_string()), ..ApplicationChange::default() };
    for _ in 0..GOES {
        if let Some(row) = applications::find(&mut *tx, tenant_id, &known).await? {
            return Ok(row.id.into());
        }
        // Nothing comes of it if somebody else has just made it.
        if let Some(made) = applications::insert(db, &mut *tx, tenant_id, &change).await? {
            return Ok(made.id);
        }
    }
    Err(Error::NotFound("application"))
}

/// Whether the project lets an endpoint have this URL.
///
/// # Errors
/// [`Error::Invalid`] if it must be an https URL and is none.
pub fn check_url(project: &Project, url: Option<&EndpointUrl>) -> Result<()> {
    let is_enforced = project.config.get("ssl").and_then(|ssl| ssl["enforce_secure_endpoints"].as_bool()).unwrap_or_default();
    match url {
        Some(url) if is_enforced && !url.as_str().to_ascii_lowercase().starts_with("https:") => {
            let why = "must be an https URL: the project's `config.ssl.enforce_secure_endpoints` asks for that".to_owned();
            Err(Error::Invalid { field: "url", why })
        }
        _ => Ok(()),
    }
}

pub(super) fn random_secret() -> Secret {
    let text: String = rand::rng().sample_iter(Alphanumeric).take(SECRET).map(char::from).collect();
    Secret::symmetric(text.into_bytes())
}

/// Changes an endpoint.
#[derive(Clone, Debug)]
pub struct Update {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub endpoint_id: EndpointId,
    /// Whose it must be already.
    pub owner: Option<String>,
    /// What changes.
    pub change: Change,
    /// Another signing secret: the old one goes on for a day.
    pub secret: Option<Secret>,
    /// What is added to its requests from now on, checked.
    pub headers: Option<Headers>,
}

impl Effect for Update {
    type Output = Shown;

    /// What was held for the endpoint may have been let go.
    const WAKES: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Shown> {
        let Self { tenant_id, endpoint_id, owner, change, secret, headers } = self;
        let address = address_of(&mut *tx, tenant_id, endpoint_id).await?;
        check_url(&projects::of(&mut *tx, tenant_id).await?, change.url.as_ref())?;
        let application_id = applications::lock(&mut *tx, tenant_id, &address.application).await?;
        let row = endpoints::find(&mut *tx, application_id, &address.endpoint).await?.ok_or(Error::NotFound(WHAT))?;
        let before = show(db, &mut *tx, row.into()).await?;
        if owner.is_some_and(|owner| before.owner.as_ref().is_none_or(|known| *known != owner)) {
            let why = "cannot be changed: an endpoint stays with its owner; make another one there".to_owned();
            return Err(Error::Invalid { field: "owner_id", why });
        }
        let change = change.over(before.endpoint.settings)?;
        let (endpoint, _) = endpoints::Update { address: address.clone(), change, or_create: false }.apply(db, &mut *tx).await?;
        if let Some(headers) = headers {
            write_headers(db, &mut *tx, endpoint_id, &headers).await?;
        }
        if secret.is_some() {
            endpoints::RotateSecret { address, secret, grace: GRACE }.apply(db, &mut *tx).await?;
        }
        show(db, tx, endpoint).await
    }
}

/// Gives an endpoint another secret.
#[derive(Clone, Debug)]
pub struct ExpireSecret {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub endpoint_id: EndpointId,
    /// The new secret; a random one if absent.
    pub secret: Option<Secret>,
    /// For how long the old one still signs.
    pub grace: Duration,
}

impl Effect for ExpireSecret {
    type Output = Shown;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Shown> {
        let address = address_of(&mut *tx, self.tenant_id, self.endpoint_id).await?;
        let secret = Some(self.secret.unwrap_or_else(random_secret));
        endpoints::RotateSecret { address: address.clone(), secret, grace: self.grace }.apply(db, &mut *tx).await?;
        let endpoint = reread(&mut *tx, &address).await?;
        show(db, tx, endpoint).await
    }
}

/// Pauses an endpoint, so that what is owed to it waits, or lets it go on.
#[derive(Clone, Debug)]
pub struct Pause {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub endpoint_id: EndpointId,
    /// What is wanted.
    pub pausing: Pausing,
}

impl Effect for Pause {
    type Output = Shown;

    const WAKES: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<Shown> {
        let address = address_of(&mut *tx, self.tenant_id, self.endpoint_id).await?;
        let (endpoint, _) = endpoints::Pause { address, pausing: self.pausing }.apply(db, &mut *tx).await?;
        show(db, tx, endpoint).await
    }
}

/// Removes an endpoint; what is still owed to it ends as canceled.
#[derive(Clone, Copy, Debug)]
pub struct Delete {
    /// Whose.
    pub tenant_id: TenantId,
    /// Which.
    pub endpoint_id: EndpointId,
}

impl Effect for Delete {
    type Output = ();

    const WAKES: bool = true;

    async fn apply(self, db: &Database, tx: &mut Connection) -> Result<()> {
        let address = address_of(&mut *tx, self.tenant_id, self.endpoint_id).await?;
        endpoints::Delete(address).apply(db, tx).await
    }
}

async fn reread(tx: &mut Connection, address: &Address) -> Result<Endpoint> {
    let application_id = applications::lock(&mut *tx, address.tenant_id, &address.application).await?;
    Ok(endpoints::find(tx, application_id, &address.endpoint).await?.ok_or(Error::NotFound(WHAT))?.into())
}

async fn show(db: &Database, tx: &mut Connection, endpoint: Endpoint) -> Result<Shown> {
    shown(db, tx, endpoint.tenant_id, vec![endpoint]).await?.pop().ok_or(Error::NotFound(WHAT))
}
