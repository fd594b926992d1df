//! By what the deliveries to one endpoint go: how long a request may take, and when one that failed is tried again.

use std::{borrow::Cow, time::Duration};

use domain::{endpoint::Settings, project::Rules, retry::RetrySchedule};

/// What holds for an endpoint.
#[derive(Debug)]
pub(crate) struct Terms<'a> {
    /// How long one request may take.
    pub(crate) timeout: Duration,
    /// The waits between attempts.
    pub(crate) schedule: Cow<'a, RetrySchedule>,
}

impl<'a> Terms<'a> {
    /// What the endpoint has, else its project, else the installation. A request never takes longer than `timeout`, whatever an endpoint asks
    /// for: the lease of a delivery, and with it what is done for a worker that died, is reckoned by that.
    pub(crate) fn of(settings: &Settings, rules: &Rules, timeout: Duration, schedule: &'a RetrySchedule) -> Self {
        let own = settings.timeout.filter(|own| !own.is_zero());
        let strategy = settings.retry.or(rules.retry);
        Self {
            timeout: own.map_or(timeout, |own| own.min(timeout)),
            schedule: strategy.map_or(Cow::Borrowed(schedule), |strategy| Cow::Owned(strategy.schedule())),
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::retry_strategy::{Growth, RetryStrategy};

    use super::*;

    #[test]
    fn the_endpoint_is_asked_before_the_project_and_that_before_the_installation() {
        let installed = RetrySchedule::default();
        let longest = Duration::from_secs(15);
        let strategy = |attempts| RetryStrategy::new(Growth::Linear, Duration::from_secs(9), attempts).ok();
        let attempts = |retry, of_project| {
            let (settings, rules) = (Settings { retry, ..Settings::default() }, Rules { retry: of_project, ..Rules::default() });
            Terms::of(&settings, &rules, longest, &installed).schedule.0.len() + 1
        };
        assert_eq!([attempts(None, None), attempts(None, strategy(3)), attempts(strategy(2), strategy(3))], [8, 3, 2]);
        let timeout = |own: Option<u64>| {
            let settings = Settings { timeout: own.map(Duration::from_secs), ..Settings::default() };
            Terms::of(&settings, &Rules::default(), longest, &installed).timeout.as_secs()
        };
        assert_eq!([None, Some(0), Some(3), Some(15), Some(60)].map(timeout), [15, 15, 3, 15, 15]);
    }
}
