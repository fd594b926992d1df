//! Tells the other nodes once a second which endpoints fail, and hears it from them.

use std::{sync::Arc, time::Duration};

use domain::id::EndpointId;
use storage::{
    directory::{Names, Owner},
    health::{Health, Turn},
};
use tokio::time::sleep;

use crate::dispatch::Dispatcher;

/// The rest between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);

/// The rest between two looks at endpoints that could not be opened.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How many endpoints are named.
const NAMED: usize = 10;

/// Goes on until it is aborted: says which endpoints cannot be opened, and lets those go that can be again.
pub(crate) async fn look_after_the_unreadable(health: Arc<Health>) {
    match health.look_at_all().await {
        Ok(unreadable) if !unreadable.is_empty() => {
            tracing::error!(
                count = unreadable.len(),
                "cannot open the secrets or headers of some endpoints: what they are owed waits for the main secret that sealed them, or for new ones (`posthaste reseal` names them all)"
            );
            for (endpoint_id, owner) in unreadable.into_iter().take(NAMED) {
                let names = health.find_names(owner).await.ok();
                tracing::error!(
                    tenant = names.as_ref().and_then(Names::tenant),
                    application_id = %owner.application_id,
                    application_uid = names.as_ref().and_then(Names::application_uid),
                    %endpoint_id,
                    "cannot be opened"
                );
            }
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(?error, "could not look whether all endpoints can be opened"),
    }
    loop {
        sleep(LOOK_AGAIN).await;
        // As soon as one can be opened, many can.
        while look_again(&health).await {}
    }
}

/// Whether any could be opened.
async fn look_again(health: &Health) -> bool {
    match health.look_again().await {
        Ok(readable) => {
            for (endpoint_id, owner) in &readable {
                let names = owner.map(|owner| health.names(owner));
                tracing::info!(
                    tenant = names.as_ref().and_then(Names::tenant),
                    application_id = owner.map(|owner| display(owner.application_id)),
                    application_uid = names.as_ref().and_then(Names::application_uid),
                    %endpoint_id,
                    "the secrets of an endpoint can be opened again"
                );
            }
            !readable.is_empty()
        }
        Err(error) => {
            tracing::debug!(?error, "could not look again at endpoints that could not be opened");
            false
        }
    }
}

/// Goes on until it is aborted. A round that is cut off is made up for by [`crate::Worker::stop`], or lost with the process,
/// which the next failures make up for.
pub(crate) async fn run(health: Arc<Health>, dispatcher: Arc<Dispatcher>) {
    let mut is_failing = false;
    loop {
        match health.exchange().await {
            Ok(news) => {
                is_failing = false;
                news.held.into_iter().for_each(|endpoint_id| dispatcher.hold(endpoint_id));
                for (owner, endpoint_id, turn) in news.turns {
                    log(&health, owner, endpoint_id, turn);
                }
            }
            Err(error) => {
                // An outage is logged once, however long it lasts.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot share how endpoints are; trying again until it works"
                    );
                }
            }
        }
        sleep(INTERVAL).await;
    }
}

fn log(health: &Health, owner: Owner, endpoint_id: EndpointId, turn: Turn) {
    let names = health.names(owner);
    let what = match turn {
        Turn::Held => "holding the deliveries of an endpoint that keeps failing",
        Turn::Recovering => "an endpoint that was held answers again",
        Turn::Well => "an endpoint has recovered",
        Turn::Disabled => "disabled an endpoint that has been failing for days",
    };
    tracing::info!(
        tenant = names.tenant(),
        application_id = %owner.application_id,
        application_uid = names.application_uid(),
        %endpoint_id,
        "{what}"
    );
}
