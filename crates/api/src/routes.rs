//! What is at which path, and who may use it: the routes that are served and the document that describes them come from here.

use axum::Router;
use domain::caller::Permission as May;
use storage::Db;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    context::Context,
    convoy::Convoy,
    ingest, metrics, openapi, readiness,
    svix::Svix,
    transport::table::{Table, operation},
};

/// Every operation that asks for a token.
pub(crate) fn router(context: &Context) -> Router {
    svix().router(context).merge(convoy().router(context))
}

/// Those of the Svix dialect, each with what the caller must be allowed.
fn svix() -> Table {
    of_the_tenant(of_applications(Table::new(&Svix)))
}

/// What is about applications and what they are sent.
fn of_applications(table: Table) -> Table {
    use crate::svix::{
        application, attempt, batch, delivery, endpoint, endpoint_headers, endpoint_health, endpoint_secret, endpoint_stats, event_type,
        event_type_import, example, expunge, message, task,
    };

    table
        .allow(May::ListApplications, operation!(application::list))
        .allow(May::WriteApplication, operation!(application::create))
        .allow(May::ReadApplication, operation!(application::get))
        .allow(May::WriteApplication, operation!(application::update))
        .allow(May::WriteApplication, operation!(application::patch))
        .allow(May::WriteApplication, operation!(application::delete))
        .allow(May::ReadEndpoint, operation!(endpoint::list))
        .allow(May::WriteEndpoint, operation!(endpoint::create))
        .allow(May::ReadEndpoint, operation!(endpoint::get))
        .allow(May::WriteEndpoint, operation!(endpoint::update))
        .allow(May::WriteEndpoint, operation!(endpoint::patch))
        .allow(May::WriteEndpoint, operation!(endpoint::delete))
        .allow(May::ReadEndpoint, operation!(endpoint_headers::get))
        .allow(May::WriteEndpoint, operation!(endpoint_headers::update))
        .allow(May::WriteEndpoint, operation!(endpoint_headers::patch))
        .allow(May::ReadEndpoint, operation!(endpoint_health::get))
        .allow(May::ReadEndpoint, operation!(endpoint_stats::get))
        .allow(May::ReadEndpointSecret, operation!(endpoint_secret::get))
        .allow(May::WriteEndpointSecret, operation!(endpoint_secret::rotate))
        .allow(May::ReadEventType, operation!(event_type::list))
        .allow(May::WriteEventType, operation!(event_type::create))
        .allow(May::ReadEventType, operation!(event_type::get))
        .allow(May::WriteEventType, operation!(event_type::update))
        .allow(May::WriteEventType, operation!(event_type::patch))
        .allow(May::WriteEventType, operation!(event_type::delete))
        .allow(May::WriteEventType, operation!(event_type_import::import))
        .allow(May::ReadMessage, operation!(message::list))
        .allow(May::Publish, operation!(message::create))
        .allow(May::ReadMessage, operation!(message::get))
        .allow(May::Release, operation!(message::deliver))
        .allow(May::Publish, operation!(batch::create))
        .allow(May::Expunge, operation!(expunge::message))
        .allow(May::Expunge, operation!(expunge::messages))
        .allow(May::Expunge, operation!(expunge::all))
        .allow(May::Expunge, operation!(expunge::answer))
        .allow(May::ReadAttempt, operation!(attempt::list_by_endpoint))
        .allow(May::ReadAttempt, operation!(attempt::list_by_message))
        .allow(May::ReadAttempt, operation!(attempt::get))
        .allow(May::ReadAttempt, operation!(delivery::list_destinations))
        .allow(May::ReadAttempt, operation!(delivery::list_messages))
        .allow(May::Resend, operation!(attempt::resend))
        .allow(May::Resend, operation!(task::recover))
        .allow(May::Resend, operation!(task::replay_missing))
        .allow(May::Resend, operation!(task::bulk_replay))
        .allow(May::Resend, operation!(example::send))
        .allow(May::ReadEndpoint, operation!(example::precheck))
}

/// What the Svix dialect has besides its applications and messages.
fn of_the_tenant(table: Table) -> Table {
    use crate::svix::{idempotency, own_endpoint, portal_access, retry, task};

    table
        .allow(May::ReadTask, operation!(task::list))
        .allow(May::ReadTask, operation!(task::get))
        .allow(May::CancelTask, operation!(task::cancel))
        .allow(May::WritePortal, operation!(portal_access::grant))
        .allow(May::WritePortal, operation!(portal_access::expire_all))
        .allow(May::EndSession, operation!(portal_access::logout))
        .allow(May::ReadIdempotency, operation!(idempotency::get_policy))
        .allow(May::WriteIdempotency, operation!(idempotency::update_policy))
        .allow(May::ReadIdempotency, operation!(idempotency::list_records))
        .allow(May::ReadProject, operation!(retry::get_policy))
        .allow(May::WriteProject, operation!(retry::update_policy))
        .allow(May::ReadOwnEndpoint, operation!(own_endpoint::list))
        .allow(May::WriteOwnEndpoint, operation!(own_endpoint::create))
        .allow(May::ReadOwnEndpoint, operation!(own_endpoint::get))
        .allow(May::WriteOwnEndpoint, operation!(own_endpoint::upsert))
        .allow(May::WriteOwnEndpoint, operation!(own_endpoint::delete))
        .allow(May::ReadOwnEndpoint, operation!(own_endpoint::get_headers))
        .allow(May::WriteOwnEndpoint, operation!(own_endpoint::update_headers))
        .allow(May::OwnEndpointSecret, operation!(own_endpoint::get_secret))
        .allow(May::OwnEndpointSecret, operation!(own_endpoint::rotate_secret))
}

/// Those of the Convoy dialect.
fn convoy() -> Table {
    use crate::convoy::{endpoint, event_type, failure_rate, filter, meta_event, onboard, portal_link, project, source, subscription};

    let table = Table::new(&Convoy)
        .allow(May::ReadProject, operation!(project::list))
        .allow(May::ReadProject, operation!(project::get))
        .allow(May::WriteProject, operation!(project::update))
        .allow(May::WriteProject, operation!(project::create))
        .allow(May::WriteProject, operation!(project::delete))
        .allow(May::ReadEventType, operation!(event_type::list))
        .allow(May::WriteEventType, operation!(event_type::create))
        .allow(May::WriteEventType, operation!(event_type::update))
        .allow(May::WriteEventType, operation!(event_type::deprecate))
        .allow(May::WriteEventType, operation!(event_type::import))
        .allow(May::ReadOwnEndpoint, operation!(meta_event::list))
        .allow(May::ReadOwnEndpoint, operation!(meta_event::get))
        .allow(May::WriteOwnEndpoint, operation!(meta_event::resend))
        .allow(May::ReadPortal, operation!(portal_link::list))
        .allow(May::WritePortal, operation!(portal_link::create))
        .allow(May::ReadPortal, operation!(portal_link::get))
        .allow(May::WritePortal, operation!(portal_link::update))
        .allow(May::WritePortal, operation!(portal_link::refresh))
        .allow(May::WritePortal, operation!(portal_link::revoke))
        .allow(May::ReadSource, operation!(source::list))
        .allow(May::WriteSource, operation!(source::create))
        .allow(May::ReadSource, operation!(source::get))
        .allow(May::WriteSource, operation!(source::update))
        .allow(May::WriteSource, operation!(source::delete))
        .allow(May::ReadEndpoint, operation!(endpoint::list))
        .allow(May::WriteEndpoint, operation!(endpoint::create))
        .allow(May::ReadEndpoint, operation!(endpoint::get))
        .allow(May::WriteEndpoint, operation!(endpoint::update))
        .allow(May::WriteEndpoint, operation!(endpoint::delete))
        .allow(May::ReadEndpoint, operation!(failure_rate::list))
        .allow(May::WriteEndpoint, operation!(onboard::onboard))
        .allow(May::WriteEndpointSecret, operation!(endpoint::expire_secret))
        .allow(May::WriteEndpoint, operation!(endpoint::pause))
        .allow(May::WriteEndpoint, operation!(endpoint::activate))
        .allow(May::ReadSubscription, operation!(subscription::list))
        .allow(May::WriteSubscription, operation!(subscription::create))
        .allow(May::ReadSubscription, operation!(subscription::get))
        .allow(May::WriteSubscription, operation!(subscription::update))
        .allow(May::WriteSubscription, operation!(subscription::delete))
        .allow(May::WriteSubscription, operation!(subscription::toggle_status))
        .allow(May::ReadSubscription, operation!(subscription::test_filter))
        .allow(May::ReadSubscription, operation!(filter::list))
        .allow(May::WriteSubscription, operation!(filter::create))
        .allow(May::WriteSubscription, operation!(filter::bulk_create))
        .allow(May::WriteSubscription, operation!(filter::bulk_update))
        .allow(May::WriteSubscription, operation!(filter::bulk_update_by_post))
        .allow(May::ReadSubscription, operation!(filter::get))
        .allow(May::WriteSubscription, operation!(filter::update))
        .allow(May::WriteSubscription, operation!(filter::delete))
        .allow(May::ReadSubscription, operation!(filter::test));
    events(table)
}

/// What the Convoy dialect has of events.
fn events(table: Table) -> Table {
    use crate::convoy::{attempt, delivery, event, publish};

    table
        .allow(May::ReadMessage, operation!(event::list))
        .allow(May::Publish, operation!(publish::create))
        .allow(May::Publish, operation!(publish::fan_out))
        .allow(May::Publish, operation!(publish::dynamic))
        .allow(May::Publish, operation!(publish::broadcast))
        .allow(May::ReadMessage, operation!(event::count))
        .allow(May::ReadMessage, operation!(event::get))
        .allow(May::Resend, operation!(event::replay))
        .allow(May::Resend, operation!(event::batch_replay))
        .allow(May::ReadAttempt, operation!(delivery::list))
        .allow(May::ReadAttempt, operation!(delivery::count))
        .allow(May::Resend, operation!(delivery::batch_retry))
        .allow(May::ReadAttempt, operation!(delivery::get))
        .allow(May::Resend, operation!(delivery::resend))
        .allow(May::Resend, operation!(delivery::force_resend))
        .allow(May::ReadAttempt, operation!(attempt::list))
        .allow(May::ReadAttempt, operation!(attempt::get))
}

/// Where other services send to us, who have no token.
pub(crate) fn ingest() -> OpenApiRouter<Context> {
    OpenApiRouter::new().routes(routes!(ingest::receive, ingest::challenge))
}

/// What anybody may ask, and a process without an API answers too.
pub(crate) fn probes() -> OpenApiRouter<Db> {
    OpenApiRouter::new().routes(routes!(readiness::ready)).routes(routes!(readiness::ping))
}

/// The probe that may have a listener of its own.
pub(crate) fn metrics() -> OpenApiRouter<Db> {
    OpenApiRouter::new().routes(routes!(metrics::scrape))
}

/// The OpenAPI document of this release.
pub(crate) fn document() -> OpenApi {
    let operations = convoy().document(svix().document(openapi::preamble()));
    let probes = probes().merge(metrics()).into_openapi();
    openapi::complete(operations.merge_from(ingest().into_openapi()).merge_from(probes))
}

/// The OpenAPI document of this release, as YAML.
///
/// # Panics
/// Never: the document is the same at every call, and a test renders it.
pub fn openapi_yaml() -> String {
    document().to_yaml().expect("the document renders")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Method and path without the names of its parameters.
    fn shape(method: &str, path: &str) -> String {
        let segments = path.split('/').map(|segment| if segment.starts_with('{') { "{}" } else { segment });
        format!("{method} {}", segments.collect::<Vec<_>>().join("/"))
    }

    /// Compares a dialect's list of what it does not have with its contract and with what there is.
    fn check(contract: &str, operations: &[(&str, &str)]) {
        let contract = contract.lines().filter(|line| !line.starts_with('#'));
        let contract = contract.flat_map(|line| {
            let (path, methods) = line.split_once(' ').expect("a path and methods");
            methods.split(' ').map(|method| shape(method, path)).collect::<Vec<_>>()
        });
        let ours = document().paths.paths;
        let ours = ours.iter().flat_map(|(path, item)| {
            let methods = [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("PATCH", &item.patch), ("DELETE", &item.delete)];
            methods.into_iter().filter(|(_, operation)| operation.is_some()).map(|(method, _)| shape(method, path)).collect::<Vec<_>>()
        });
        let ours: BTreeSet<_> = ours.collect();
        let missing: BTreeSet<_> = contract.filter(|operation| !ours.contains(operation)).collect();
        let listed: BTreeSet<_> =
            operations.iter().flat_map(|(path, methods)| methods.split(' ').map(|method| shape(method, path))).collect();
        assert_eq!(listed, missing);
    }

    #[test]
    fn the_lists_are_the_contracts_without_what_we_have() {
        check(include_str!("../../../tests/scenarios/svix/operations.txt"), &crate::svix::not_yet::OPERATIONS);
        check(include_str!("../../../tests/scenarios/convoy/operations.txt"), crate::convoy::not_yet::OPERATIONS);
    }
}
