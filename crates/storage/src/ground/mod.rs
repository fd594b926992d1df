//! The ground: how the database is reached, and what all statements share. It knows no table of the service but those of the
//! installation itself and of its partitions.

pub(crate) mod clock;
pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod database;
pub(crate) mod deadline;
pub(crate) mod error;
pub(crate) mod functions;
pub(crate) mod hosts;
pub(crate) mod locks;
pub mod main_secret;
pub(crate) mod opener;
pub mod page;
pub mod partitions;
pub(crate) mod pool;
pub(crate) mod schema;
pub(crate) mod sealed;
pub(crate) mod session;
pub(crate) mod trim;
pub mod wakeups;
