//! How long a user waits before its next request.
//!
//! Owns: think time as text and as a draw.
//! Never: waits.
//! Bound: `THINK_MAX`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::rng::Rng;

const THINK_MAX: Duration = Duration::from_secs(60 * 60);

/// Every time from `min` to `max` is equally likely.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Think {
    min: Duration,
    max: Duration,
}

impl Think {
    pub(crate) fn is_zero(self) -> bool {
        self.max.is_zero()
    }

    pub(crate) fn draw(self, rng: &mut Rng) -> Duration {
        if self.min == self.max {
            return self.min;
        }
        let nanos = (self.max - self.min).as_nanos();
        let below = u64::try_from(nanos).unwrap_or(u64::MAX).saturating_add(1);
        self.min + Duration::from_nanos(rng.below(below))
    }
}

impl FromStr for Think {
    type Err = String;

    /// `100ms` or `1s..=3s`.
    fn from_str(text: &str) -> Result<Self, String> {
        let time = |text: &str| {
            let time = humantime::parse_duration(text.trim()).map_err(|error| error.to_string())?;
            if THINK_MAX < time {
                return Err("expected a think time of at most 1h".to_owned());
            }
            Ok(time)
        };
        let (min, max) = text.split_once("..=").unwrap_or((text, text));
        let think = Self {
            min: time(min)?,
            max: time(max)?,
        };
        if think.max < think.min {
            return Err("expected MIN..=MAX with MIN <= MAX, for example 1s..=3s".to_owned());
        }
        Ok(think)
    }
}

impl fmt::Display for Think {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let min = humantime::format_duration(self.min);
        if self.min == self.max {
            return min.fmt(f);
        }
        write!(f, "{min}..={}", humantime::format_duration(self.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn think_time_is_constant_or_spread_over_its_range() {
        let mut rng = Rng::new(1, 0);
        let constant: Think = "250ms".parse().unwrap();
        assert_eq!(constant.draw(&mut rng), Duration::from_millis(250));
        let range: Think = "1s..=3s".parse().unwrap();
        let draws: Vec<_> = (0..2_000).map(|_| range.draw(&mut rng)).collect();
        let (min, max) = (draws.iter().min().unwrap(), draws.iter().max().unwrap());
        assert!(*min >= Duration::from_secs(1) && *max <= Duration::from_secs(3));
        assert!(*max - *min > Duration::from_millis(1_980));
        let mean = draws.iter().sum::<Duration>() / 2_000;
        assert!((1_950..=2_050).contains(&mean.as_millis()), "{mean:?}");
    }

    #[test]
    fn think_times_are_written_as_they_are_read_and_bounded() {
        for text in ["0s", "250ms", "1s..=3s", "1h"] {
            assert_eq!(text.parse::<Think>().unwrap().to_string(), text);
        }
        for text in ["", "1", "3s..=1s", "1h 1ms", "1s..="] {
            assert!(text.parse::<Think>().is_err(), "{text}");
        }
        assert!("0s".parse::<Think>().unwrap().is_zero());
    }
}
