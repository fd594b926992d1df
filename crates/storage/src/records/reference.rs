//! How a thing is named, and whether it was made or found.

use domain::{
    application::{OWN, Uid},
    id::{ApplicationId, Id, TenantId},
};
use sqlx::types::Uuid;

use crate::{Error, Result};

/// How often a thing is looked for again that somebody else is making, or deleting, at the same time.
pub(crate) const GOES: usize = 10;

/// A thing by its id or by the tenant's own name for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference<I> {
    /// Our id.
    Id(I),
    /// The tenant's name.
    Uid(String),
}

impl Reference<ApplicationId> {
    /// The tenant's hidden application, whose endpoints hear of the tenant's own events. By its id it is found nowhere.
    pub fn own() -> Self {
        Self::Uid(OWN.to_owned())
    }
}

impl<I: Id> Reference<I> {
    /// Reads a path segment: an id if it is one of ours, else a name (which may not exist).
    pub fn parse(text: &str) -> Self {
        I::parse(text).map_or_else(|_| Self::Uid(text.to_owned()), Self::Id)
    }

    /// The uid of what a PUT makes under this reference: the name in its path, so that a repeat finds it. An id makes nothing.
    pub(crate) fn uid_to_make(&self, wanted: Option<&Uid>, what: &'static str) -> Result<Uid> {
        let Self::Uid(name) = self else { return Err(Error::NotFound(what)) };
        let named = Uid::parse::<I>(name).map_err(|_| Error::NotFound(what))?;
        if wanted.is_none_or(|uid| *uid == named) {
            return Ok(named);
        }
        let why = format!("must be `{named}`, the name in the path, or be left out: there is no {what} of that name yet");
        Err(Error::Invalid { field: "uid", why })
    }

    /// Whether it is the tenant's own name.
    pub(crate) fn is_uid(&self) -> bool {
        matches!(self, Self::Uid(_))
    }

    pub(crate) fn id(&self) -> Option<Uuid> {
        if let Self::Id(id) = self { Some((*id).into()) } else { None }
    }

    pub(crate) fn uid(&self) -> Option<&str> {
        if let Self::Uid(uid) = self { Some(uid) } else { None }
    }
}

/// Whether a write made a thing or found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// It is new.
    Created,
    /// It was there.
    Existed,
}

/// Whose a delivery or an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The tenant.
    pub tenant_id: TenantId,
    /// Which customer of it.
    pub application_id: ApplicationId,
}
