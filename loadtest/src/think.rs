//! How long a user pauses.
//!
//! Owns: the range of a think time and the draw from it.
//! Bound: [`THINK_MAX`].

use std::str::FromStr;
use std::time::Duration;

use crate::rng::Rng;

const THINK_MAX: Duration = Duration::from_secs(60 * 60);

/// A pause, uniform between two ends; zero by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Think {
    shortest: Duration,
    longest: Duration,
}

impl Think {
    pub(crate) fn pick(self, rng: &mut Rng) -> Duration {
        let spread = self.longest.saturating_sub(self.shortest);
        if spread.is_zero() {
            return self.shortest;
        }
        let nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX);
        self.shortest + Duration::from_nanos(rng.below(nanos.saturating_add(1)))
    }

    pub(crate) const fn is_zero(self) -> bool {
        self.longest.is_zero()
    }
}

impl FromStr for Think {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (shortest, longest) = text.split_once("..").unwrap_or((text, text));
        let parse = |text| humantime::parse_duration(text).map_err(|e| format!("{text}: {e}"));
        let (shortest, longest) = (parse(shortest)?, parse(longest)?);
        if longest < shortest || THINK_MAX < longest {
            return Err("expected 100ms, or 100ms..300ms, at most 1h".to_owned());
        }
        Ok(Self { shortest, longest })
    }
}

impl std::fmt::Display for Think {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.shortest == self.longest {
            return write!(f, "{:?}", self.shortest);
        }
        write!(f, "{:?}..{:?}", self.shortest, self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_stays_between_its_ends_and_reaches_both_halves() {
        let think: Think = "100ms..300ms".parse().unwrap();
        let mut rng = Rng::new(1, 1);
        let picks: Vec<_> = (0..1_000).map(|_| think.pick(&mut rng)).collect();
        let (low, high) = (Duration::from_millis(100), Duration::from_millis(300));
        assert!(picks.iter().all(|pick| (low..=high).contains(pick)));
        let short = picks
            .iter()
            .filter(|pick| **pick < (low + high) / 2)
            .count();
        assert!((400..600).contains(&short), "{short}");
        let fixed: Think = "5ms".parse().unwrap();
        assert_eq!(fixed.pick(&mut rng), Duration::from_millis(5));
        assert_eq!(
            (fixed.to_string(), think.to_string()),
            ("5ms".into(), "100ms..300ms".into())
        );
        assert!(Think::default().is_zero() && !fixed.is_zero());
    }

    #[test]
    fn what_is_no_pause_is_refused() {
        for bad in ["", "100", "3s..1s", "1s..", "2h"] {
            assert!(bad.parse::<Think>().is_err(), "{bad}");
        }
        assert!("1h".parse::<Think>().is_ok());
    }
}
