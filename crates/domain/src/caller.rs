//! Who asks, and what they may.

use crate::id::{ApplicationId, PortalAccessId, TenantId};

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// One thing that a caller may or may not do. The route table names one beside each operation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Permission {
            $($(#[$doc])* $name,)*
        }

        impl Permission {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// How documents call it: what it is about, and what is done with that.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

permissions! {
    /// See which applications the tenant has.
    ListApplications = "application:list",
    /// See an application.
    ReadApplication = "application:read",
    /// Make, change and remove applications.
    WriteApplication = "application:write",
    /// See endpoints, their custom headers and how they are.
    ReadEndpoint = "endpoint:read",
    /// Make, change and remove endpoints.
    WriteEndpoint = "endpoint:write",
    /// See the secrets that sign an endpoint's webhooks.
    ReadEndpointSecret = "endpoint-secret:read",
    /// Replace them.
    WriteEndpointSecret = "endpoint-secret:write",
    /// See what can happen.
    ReadEventType = "event-type:read",
    /// Declare, change and remove event types.
    WriteEventType = "event-type:write",
    /// See messages with their payloads.
    ReadMessage = "message:read",
    /// Publish messages.
    Publish = "message:publish",
    /// Erase the content of messages.
    Expunge = "message:expunge",
    /// Have a duplicate delivered after all: only its publisher knows that it is none.
    Release = "message:release",
    /// See attempts and what receivers answered.
    ReadAttempt = "attempt:read",
    /// Have a message sent to an endpoint again.
    Resend = "attempt:resend",
    /// See long work and how far it is.
    ReadTask = "task:read",
    /// Stop it.
    CancelTask = "task:cancel",
    /// See how idempotency keys are treated, and what is kept under them.
    ReadIdempotency = "idempotency:read",
    /// Change how they are treated.
    WriteIdempotency = "idempotency:write",
    /// See the endpoints that hear of the tenant's own events, and their custom headers.
    ReadOwnEndpoint = "operational-webhook:read",
    /// Make, change and remove them.
    WriteOwnEndpoint = "operational-webhook:write",
    /// See and replace their secrets.
    OwnEndpointSecret = "operational-webhook-secret:write",
    /// See what the tenant is called as a project, and how it wants its webhooks made.
    ReadProject = "project:read",
    /// Change that.
    WriteProject = "project:write",
    /// See what opens applications for their customers.
    ReadPortal = "portal:read",
    /// Hand that out, and take it back.
    WritePortal = "portal:write",
    /// Take back the token with which one asks.
    EndSession = "session:end",
    /// See where others send to the tenant.
    ReadSource = "source:read",
    /// Make, change and remove such places.
    WriteSource = "source:write",
    /// See what endpoints want.
    ReadSubscription = "subscription:read",
    /// Change that.
    WriteSubscription = "subscription:write",
}

impl Permission {
    /// Whether it is about what all applications of a tenant share, so that a caller who is kept to one of them may use it on a route
    /// that names none.
    pub const fn is_of_the_tenant(self) -> bool {
        matches!(self, Self::ReadEventType | Self::EndSession)
    }

    /// Whether it is about the endpoints that hear of the tenant's own events.
    pub const fn is_of_own_endpoints(self) -> bool {
        matches!(self, Self::ReadOwnEndpoint | Self::WriteOwnEndpoint | Self::OwnEndpointSecret)
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u64);

impl Permissions {
    /// Whoever speaks for the whole tenant.
    pub const ALL: Self = Self::of(Permission::ALL);
    /// Whoever speaks for one application: a tenant's customer, who looks after endpoints and sees what they got. Messages are published
    /// by the tenant.
    pub const APPLICATION: Self = Self::of(&[
        Permission::ReadApplication,
        Permission::ReadEndpoint,
        Permission::WriteEndpoint,
        Permission::ReadEndpointSecret,
        Permission::WriteEndpointSecret,
        Permission::ReadEventType,
        Permission::ReadMessage,
        Permission::ReadAttempt,
        Permission::Resend,
        Permission::EndSession,
    ]);

    /// Whoever looks on: at everything but secrets, with which webhooks could be forged.
    pub const VIEWER: Self = Self::of(&[
        Permission::ListApplications,
        Permission::ReadApplication,
        Permission::ReadEndpoint,
        Permission::ReadEventType,
        Permission::ReadMessage,
        Permission::ReadAttempt,
        Permission::ReadTask,
        Permission::ReadIdempotency,
        Permission::ReadOwnEndpoint,
        Permission::ReadProject,
        Permission::ReadPortal,
        Permission::ReadSource,
        Permission::ReadSubscription,
    ]);

    /// The set of these.
    pub const fn of(permissions: &[Permission]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < permissions.len() {
            bits |= bit(permissions[at]);
            at += 1;
        }
        Self(bits)
    }

    /// Whether this one is among them.
    pub const fn contain(self, permission: Permission) -> bool {
        self.0 & bit(permission) != 0
    }
}

const fn bit(permission: Permission) -> u64 {
    1 << permission as u64
}

/// As what somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The tenant itself: its backend, with a token of the organisation or an API key.
    Organisation,
    /// Somebody of the tenant who may only look, with an API key of that kind.
    Viewer,
    /// One customer of the tenant, with a token of this application.
    Application(ApplicationId),
}

impl Kind {
    /// What such callers may.
    pub const fn permissions(self) -> Permissions {
        match self {
            Self::Organisation => Permissions::ALL,
            Self::Viewer => Permissions::VIEWER,
            Self::Application(_) => Permissions::APPLICATION,
        }
    }
}

/// Who asks. Every request has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whose things it is about.
    pub tenant_id: TenantId,
    /// As what they ask.
    pub kind: Kind,
    /// What they may.
    pub permissions: Permissions,
    /// What was handed out to them, if they ask with that: it may be taken back.
    pub access: Option<PortalAccessId>,
}

impl Caller {
    /// A caller with everything that callers of this kind may.
    pub const fn new(tenant_id: TenantId, kind: Kind) -> Self {
        Self { tenant_id, kind, permissions: kind.permissions(), access: None }
    }

    /// The one application that the caller is kept to, if it is: all others do not exist for it.
    pub const fn application(&self) -> Option<ApplicationId> {
        match self.kind {
            Kind::Organisation | Kind::Viewer => None,
            Kind::Application(id) => Some(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_set_contains_what_it_was_made_of_and_nothing_else() {
        for permission in Permission::ALL {
            assert!(Permissions::ALL.contain(*permission), "{permission:?}");
            assert!(!Permissions::default().contain(*permission), "{permission:?}");
            let alone = Permissions::of(&[*permission]);
            assert!(Permission::ALL.iter().all(|other| alone.contain(*other) == (other == permission)), "{permission:?}");
        }
    }

    #[test]
    fn no_two_permissions_have_one_name() {
        let names: std::collections::HashSet<_> = Permission::ALL.iter().map(|permission| permission.name()).collect();
        assert_eq!(names.len(), Permission::ALL.len());
    }

    #[test]
    fn a_viewer_changes_nothing_and_sees_no_secrets() {
        let reads = |permission: &Permission| {
            let name = permission.name();
            !name.contains("secret") && (name.ends_with(":read") || name.ends_with(":list"))
        };
        for permission in Permission::ALL {
            assert_eq!(Permissions::VIEWER.contain(*permission), reads(permission), "{permission:?}");
        }
    }

    #[test]
    fn an_application_looks_after_its_endpoints_and_publishes_nothing() {
        let id = ApplicationId(Uuid::now_v7());
        let caller = Caller::new(TenantId(Uuid::now_v7()), Kind::Application(id));
        assert_eq!(caller.application(), Some(id));
        assert!(caller.permissions.contain(Permission::WriteEndpoint));
        for denied in [
            Permission::Publish,
            Permission::Expunge,
            Permission::Release,
            Permission::ListApplications,
            Permission::WriteApplication,
            Permission::ReadOwnEndpoint,
        ] {
            assert!(!caller.permissions.contain(denied), "{denied:?}");
        }
    }
}
