//! How keys are treated: on which methods, which outcomes are remembered and for how long, and what a repeat has to expect.

use std::time::Duration;

/// The shortest that a policy may remember a key.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// The longest that any policy may remember a key: look-ups prune partitions older than this.
pub const MAX_TTL: Duration = Duration::from_hours(7 * 24);
/// The longest that a repeat may be made to wait.
pub const MAX_WAIT: Duration = Duration::from_mins(1);

/// Which outcomes are remembered under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saves {
    /// 2xx and 3xx alone.
    Successes,
    /// Every outcome that an execution reached: also a 409 that the effect itself answered.
    Executed,
    /// Those, and what was refused because something in the path does not exist (404), or failed for a reason of ours (500).
    All,
}

/// How keys are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether PATCH takes a key as POST does.
    pub covers_patch: bool,
    /// Whether PUT does.
    pub covers_put: bool,
    /// What is remembered.
    pub saves: Saves,
    /// For how long.
    pub ttl: Duration,
    /// How long a second request waits for the first before it gets its 409.
    pub wait: Duration,
    /// Whether a repeat must be the same request: if not, any request under a known key gets its outcome.
    pub compares: bool,
}

impl Default for Policy {
    /// POST, PUT and PATCH, executed outcomes, 24 hours and 1 minute, no wait.
    fn default() -> Self {
        Self {
            covers_patch: true,
            covers_put: true,
            saves: Saves::Executed,
            ttl: Duration::from_mins(24 * 60 + 1),
            wait: Duration::ZERO,
            compares: true,
        }
    }
}

impl Policy {
    /// POST alone, successes alone, 12 hours, five seconds of wait: what Svix documents.
    pub fn svix() -> Self {
        Self {
            covers_patch: false,
            covers_put: false,
            saves: Saves::Successes,
            ttl: Duration::from_hours(12),
            wait: Duration::from_secs(5),
            ..Self::default()
        }
    }

    /// Errors too, even ours: what Novu documents.
    pub fn novu() -> Self {
        Self { saves: Saves::All, ..Self::default() }
    }

    /// Whether a key on a request of this method means anything.
    pub fn covers(&self, method: &str) -> bool {
        match method {
            "POST" => true,
            "PUT" => self.covers_put,
            "PATCH" => self.covers_patch,
            _ => false,
        }
    }

    /// Whether an outcome with this status, which an execution reached, is remembered.
    pub fn saves_status(&self, status: u16) -> bool {
        match self.saves {
            Saves::Successes => (200..400).contains(&status),
            Saves::Executed | Saves::All => (200..500).contains(&status),
        }
    }
}

/// A policy by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// [`Policy::default`].
    Default,
    /// [`Policy::svix`].
    Svix,
    /// [`Policy::novu`].
    Novu,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Default, Self::Svix, Self::Novu];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Svix => "svix",
            Self::Novu => "novu",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// What it says.
    pub fn policy(self) -> Policy {
        match self {
            Self::Default => Policy::default(),
            Self::Svix => Policy::svix(),
            Self::Novu => Policy::novu(),
        }
    }
}

/// What a tenant wants otherwise than the installation has it; what is absent is as there, also when that changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Override {
    /// What the rest is measured from, in place of the installation's policy.
    pub preset: Option<Preset>,
    /// As [`Policy::covers_patch`].
    pub covers_patch: Option<bool>,
    /// As [`Policy::covers_put`].
    pub covers_put: Option<bool>,
    /// As [`Policy::saves`].
    pub saves: Option<Saves>,
    /// As [`Policy::ttl`].
    pub ttl: Option<Duration>,
    /// As [`Policy::wait`].
    pub wait: Option<Duration>,
    /// As [`Policy::compares`].
    pub compares: Option<bool>,
}

impl Override {
    /// The policy that holds for the tenant.
    pub fn over(&self, installation: Policy) -> Policy {
        let base = self.preset.map_or(installation, Preset::policy);
        Policy {
            covers_patch: self.covers_patch.unwrap_or(base.covers_patch),
            covers_put: self.covers_put.unwrap_or(base.covers_put),
            saves: self.saves.unwrap_or(base.saves),
            ttl: self.ttl.unwrap_or(base.ttl),
            wait: self.wait.unwrap_or(base.wait),
            compares: self.compares.unwrap_or(base.compares),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tenant_leaves_open_is_as_the_installation_has_it() {
        let installation = Policy { wait: Duration::from_secs(2), ..Policy::svix() };
        assert_eq!(Override::default().over(installation), installation);
        let shorter = Override { ttl: Some(Duration::from_hours(1)), ..Override::default() };
        assert_eq!(shorter.over(installation), Policy { ttl: Duration::from_hours(1), ..installation });
        let other = Override { preset: Some(Preset::Novu), compares: Some(false), ..Override::default() };
        assert_eq!(other.over(installation), Policy { compares: false, ..Policy::novu() });
    }

    #[test]
    fn presets_have_names() {
        for preset in Preset::ALL {
            assert_eq!(Preset::named(preset.name()), Some(preset));
        }
        assert_eq!(Preset::named("stripe"), None);
    }
}
