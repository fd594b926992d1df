//! A limit said as so many in so long, as so many a second, which is what holds.

use std::time::Duration;

use thiserror::Error;

/// Why a limit is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("must be at least one a second: slower limits are not supported yet")]
pub struct TooSlow;

/// So many a second: rounded down, and at most 65,535.
pub fn per_second(count: u32, per: Duration) -> Result<u16, TooSlow> {
    let seconds = per.as_secs().max(1);
    match u64::from(count) / seconds {
        0 => Err(TooSlow),
        rate => Ok(u16::try_from(rate).unwrap_or(u16::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_by_the_second() {
        let rate = |count, seconds| per_second(count, Duration::from_secs(seconds));
        assert_eq!(rate(10, 1), Ok(10));
        assert_eq!(rate(119, 60), Ok(1));
        assert_eq!(rate(59, 60), Err(TooSlow));
        assert_eq!(rate(5, 0), Ok(5));
        assert_eq!(rate(u32::MAX, 1), Ok(u16::MAX));
    }
}
