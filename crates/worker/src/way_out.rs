//! Whose fault it is that a send did not get past the operator's proxy.
//!
//! A proxy that cannot be reached is ours. What it answers when it does not connect us, a 503 say, may be its own trouble or the
//! receiver's. So a first refusal is ours as well: the delivery waits, and no attempt is recorded. Only if the proxy has connected us
//! to somebody else since, and refuses again, the receiver is at fault: nothing else tells a dead receiver from a dead proxy.

use std::{sync::Arc, time::Instant};

use domain::delivery::Exchange;
use parking_lot::Mutex;
use storage::{hand_off::Job, health::Health};

use crate::egress::{Barred, Egress};

/// What is known of the way out.
#[derive(Debug)]
pub(crate) struct WayOut {
    health: Arc<Health>,
    /// Since when it is barred: an outage is logged once, not once per send.
    barred_since: Mutex<Option<Instant>>,
}

impl WayOut {
    pub(crate) fn new(health: Arc<Health>) -> Self {
        Self { health, barred_since: Mutex::default() }
    }

    /// What the receiver did; `None`, if the delivery is to wait because of us. Its endpoint is left alone for a while, then.
    pub(crate) fn judge(&self, job: &Job, sent: Result<Exchange, Box<Barred>>, egress: &Egress) -> Option<Exchange> {
        let endpoint_id = job.endpoint_id;
        let barred = match sent {
            Ok(exchange) => {
                self.health.is_within_reach(endpoint_id);
                self.note_opening(egress);
                return Some(exchange);
            }
            Err(barred) => barred,
        };
        let before = self.health.put_off_since(endpoint_id);
        if !barred.is_certain && before.is_some_and(|before| egress.last_let_through().is_some_and(|then| then > before)) {
            self.health.is_its_own(endpoint_id);
            return Some(barred.exchange);
        }
        self.health.put_off(endpoint_id);
        let Barred { proxy, why, .. } = *barred;
        let names = self.health.names(job.owner());
        if self.barred_since.lock().replace(Instant::now()).is_some() {
            tracing::debug!(
                tenant = names.tenant(), application_id = %job.application_id, application_uid = names.application_uid(),
                message_id = %job.message_id, %endpoint_id, proxy, why, "the proxy does not connect us: the delivery waits"
            );
        } else {
            tracing::error!(
                tenant = names.tenant(), application_id = %job.application_id, application_uid = names.application_uid(),
                message_id = %job.message_id, %endpoint_id, proxy, why,
                "the proxy of POSTHASTE_EGRESS_PROXY does not connect us: deliveries wait until it does"
            );
        }
        None
    }

    fn note_opening(&self, egress: &Egress) {
        let Some(let_through) = egress.last_let_through() else { return };
        if self.barred_since.lock().take_if(|since| let_through > *since).is_some() {
            tracing::info!("the proxy of POSTHASTE_EGRESS_PROXY connects us again");
        }
    }
}
