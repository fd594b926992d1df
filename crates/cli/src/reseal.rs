//! `posthaste reseal`: the last step but one of a change of the main secret.

use anyhow::{Context as _, Result, bail};
use storage::reseal::{self, Count};

use crate::{config::Settings, say};

/// Seals everything anew, and says what became of it; fails while anything still needs another secret.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    const CANNOT: &str = "cannot seal the values in the database of POSTHASTE_DATABASE_URL anew";

    let db = crate::server::connect(&settings.database()?).await?;
    let resealed = reseal::run(&db).await.context(CANNOT)?;
    let counts = [
        ("signing secrets", resealed.secrets),
        ("custom headers", resealed.headers),
        ("saved answers", resealed.answers),
        ("verifiers of sources", resealed.verifiers),
    ];
    for (what, Count { resealed, current, unreadable }) in counts {
        say(&format!("{what}: {resealed} sealed anew, {current} were sealed with POSTHASTE_MAIN_SECRET, {unreadable} cannot be opened"))?;
    }
    if !resealed.unreadable_endpoints.is_empty() {
        bail!(
            "these endpoints have secrets or headers that neither POSTHASTE_MAIN_SECRET nor POSTHASTE_MAIN_SECRET_PREVIOUS opens: {}; run this with the secret that sealed them, or give them new ones (rotate without a grace period, and PUT their headers)",
            resealed.unreadable_endpoints.join(", ")
        );
    }
    if !resealed.unreadable_sources.is_empty() {
        bail!(
            "these sources have verifiers that neither POSTHASTE_MAIN_SECRET nor POSTHASTE_MAIN_SECRET_PREVIOUS opens, so that they take nothing: {}; run this with the secret that sealed them, or PUT their verifiers anew",
            resealed.unreadable_sources.join(", ")
        );
    }
    if resealed.is_another_in_use {
        bail!(
            "within the last half minute a server has sealed values with another main secret: start every server with the new one, and run this again"
        );
    }
    say("nothing needs POSTHASTE_MAIN_SECRET_PREVIOUS any more")
}
