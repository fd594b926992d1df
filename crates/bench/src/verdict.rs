//! Whether what was measured reaches the targets of a scenario.

use serde::Serialize;

use crate::{
    figures::{Figure, Figures, median},
    scenario::{Bound, Of, Target},
};

/// A target beside what was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// What was to be reached, as a sentence.
    pub target: String,
    /// What was measured: the median over the rounds.
    pub measured: Option<f64>,
    /// Whether it was reached; none if it could not be measured.
    pub is_reached: Option<bool>,
}

/// The rounds of a scenario beside those of the two that it may be compared with, round by round: the null server's, and the runs of
/// [`crate::scenario::CLEAN`] right before each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside<'a> {
    pub(crate) rounds: &'a [Figures],
    pub(crate) null: &'a [Figures],
    pub(crate) clean: &'a [Figures],
}

impl Beside<'_> {
    pub(crate) fn judge(&self, target: &Target) -> Verdict {
        let measured = median(self.measured(target.figure, target.of));
        let is_reached = measured.map(|measured| match target.bound {
            Bound::AtLeast(bound) => measured >= bound,
            Bound::AtMost(bound) => measured <= bound,
        });
        Verdict { target: sentence(target), measured, is_reached }
    }

    /// The figure of each round; a ratio is of two runs of the same round, so that a machine that changes its pace does not
    /// matter.
    pub(crate) fn measured(&self, figure: Figure, of: Of) -> Vec<f64> {
        let own = |rounds: &[Figures]| rounds.iter().map(|round| figure.of(round)).collect::<Vec<_>>();
        let ratios = |above: &[Figures], below: &[Figures]| {
            let pairs = own(above).into_iter().zip(own(below));
            pairs.filter_map(|(above, below)| Some(above? / below.filter(|below| *below > 0.0)?)).collect()
        };
        match of {
            Of::Itself => own(self.rounds).into_iter().flatten().collect(),
            Of::Null => ratios(self.rounds, self.null),
            Of::Clean => ratios(self.rounds, self.clean),
            Of::CleanOverThis => ratios(self.clean, self.rounds),
        }
    }
}

fn sentence(target: &Target) -> String {
    let (name, unit) = target.figure.name();
    let (sign, bound) = match target.bound {
        Bound::AtLeast(bound) => ("≥", bound),
        Bound::AtMost(bound) => ("≤", bound),
    };
    match target.of {
        Of::Itself => format!("{name} {sign} {bound}{unit}"),
        Of::Null => format!("{name} {sign} {bound} × the null server's"),
        Of::Clean => format!("{name} {sign} {bound} × clean's"),
        Of::CleanOverThis => format!("clean's {name} {sign} {bound} × these"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(delivered_per_second: &[f64]) -> Vec<Figures> {
        delivered_per_second.iter().map(|rate| Figures { delivered_per_second: *rate, lost: 1, ..Figures::default() }).collect()
    }

    fn judged(bound: Bound, of: Of) -> (Option<f64>, Option<bool>) {
        // The machine was twice as fast in the second round: no ratio may show it.
        let (ours, null, clean) = (rounds(&[500.0, 1000.0]), rounds(&[1000.0, 2000.0]), rounds(&[400.0, 800.0]));
        let verdict = Beside { rounds: &ours, null: &null, clean: &clean }.judge(&Target { figure: Figure::DeliveredPerSecond, bound, of });
        (verdict.measured, verdict.is_reached)
    }

    #[test]
    fn ratios_are_of_runs_of_the_same_round() {
        assert_eq!(judged(Bound::AtLeast(0.5), Of::Null), (Some(0.5), Some(true)));
        assert_eq!(judged(Bound::AtLeast(1.5), Of::Clean), (Some(1.25), Some(false)));
        assert_eq!(judged(Bound::AtMost(0.7), Of::CleanOverThis), (Some(0.8), Some(false)));
        assert_eq!(judged(Bound::AtMost(750.0), Of::Itself), (Some(750.0), Some(true)));
    }

    #[test]
    fn what_could_not_be_measured_is_neither_reached_nor_missed() {
        let ours = rounds(&[1.0]);
        let target = Target { figure: Figure::PostgresCpu, bound: Bound::AtMost(80.0), of: Of::Itself };
        let verdict = Beside { rounds: &ours, null: &[], clean: &[] }.judge(&target);
        assert_eq!((verdict.measured, verdict.is_reached), (None, None));
        assert_eq!(verdict.target, "CPU of Postgres a message ≤ 80 µs");
    }
}
