//! Which accounts a request names.
//!
//! Owns: the range of account ids and how one, or a pair, is chosen from it.
//! Never: holds a table over accounts, or anything that changes: a choice is a
//! function of the random numbers and the place in the ring it is given.
//! Invariant: the two sides of a transfer differ.

use std::fmt;
use std::str::FromStr;

use rand_distr::{Distribution, Zipf};

use crate::rng::Rng;

/// The engine's largest account id: 2^53 - 1.
const ACCOUNT_MAX: u64 = 9_007_199_254_740_991;
const PPM: u64 = 1_000_000;
/// Beyond it the first account takes practically everything.
const EXPONENT_MAX: f64 = 10.0;
/// A steep Zipf may draw the first side again and again; its neighbour then
/// stands in for the other side.
const REDRAWS_MAX: u32 = 32;

/// A range of account ids, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accounts {
    first: u64,
    last: u64,
}

impl Accounts {
    /// What `engine dev` opens.
    pub(super) const DEFAULT: Self = Self {
        first: 1,
        last: 1000,
    };

    pub(crate) const fn count(self) -> u64 {
        self.last - self.first + 1
    }

    pub(crate) const fn first(self) -> u64 {
        self.first
    }

    pub(crate) const fn last(self) -> u64 {
        self.last
    }

    /// The shortest range that both are part of.
    pub(crate) fn spanning(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }

    /// Digits of the longest id.
    pub(crate) fn width(self) -> usize {
        self.last.to_string().len()
    }
}

impl FromStr for Accounts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text
            .split_once("..=")
            .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        let (first, last) = ends.ok_or("expected FIRST..=LAST, for example 1..=1000")?;
        if last < first || ACCOUNT_MAX < last {
            return Err(format!("expected FIRST <= LAST <= {ACCOUNT_MAX}"));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.first, self.last)
    }
}

/// How accounts are chosen from a range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Choice {
    /// Each is equally likely.
    Uniform,
    /// The n-th of the range is chosen with a weight of 1 / n^exponent.
    Zipf { exponent: f64 },
    /// A share of the transfers credits, and of the reads asks for, one of the
    /// first `accounts`; the others are uniform.
    Hot { share: Share, accounts: u64 },
    /// User u begins at the u-th account and goes on by one with each request;
    /// a transfer goes from that account to the next, the last to the first.
    Ring,
}

impl Choice {
    /// One hot account, or none for a share of zero.
    pub(crate) const fn hot(share: Share) -> Self {
        if share.ppm == 0 {
            return Self::Uniform;
        }
        Self::Hot { share, accounts: 1 }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = match text.split_once(':') {
            None => match text {
                "uniform" => Some(Self::Uniform),
                "ring" => Some(Self::Ring),
                _ => None,
            },
            Some(("zipf", exponent)) => exponent
                .parse()
                .ok()
                .filter(|exponent| (0.0..=EXPONENT_MAX).contains(exponent))
                .map(|exponent| Self::Zipf { exponent }),
            Some(("hot", rest)) => {
                let (share, accounts) = rest.split_once(':').unwrap_or((rest, "1"));
                let share = share.parse::<Share>()?;
                let accounts = accounts.parse().ok().filter(|count| *count > 0);
                accounts.map(|accounts| Self::Hot { share, accounts })
            }
            Some(_) => None,
        };
        found.ok_or_else(|| {
            "expected uniform, zipf:EXPONENT (0 to 10), hot:SHARE:ACCOUNTS \
             (a share into the first so many accounts) or ring"
                .to_owned()
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Zipf { exponent } => write!(f, "zipf:{exponent}"),
            Self::Hot { share, accounts } => write!(f, "hot:{share}:{accounts}"),
            Self::Ring => f.write_str("ring"),
        }
    }
}

/// `0` to `1`, in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    ppm: u64,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let formed = digits(whole) && digits(fraction) && whole.len() == 1 && fraction.len() <= 6;
        let ppm = format!("{whole}{fraction:0<6}").parse().ok();
        ppm.filter(|ppm| formed && *ppm <= PPM)
            .map(|ppm| Self { ppm })
            .ok_or_else(|| "expected a share from 0 to 1 with at most six decimals".to_owned())
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:06}", self.ppm / PPM, self.ppm % PPM);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// The two sides of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sides {
    pub(crate) debit: u64,
    pub(crate) credit: u64,
}

/// A range of accounts and the choice from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Population {
    accounts: Accounts,
    choice: Choice,
    /// Made once: it takes a logarithm or a power to make.
    zipf: Option<Zipf<f64>>,
}

impl Population {
    /// # Errors
    /// What about the choice the range does not allow.
    pub(crate) fn new(accounts: Accounts, choice: Choice) -> Result<Self, String> {
        let zipf = match choice {
            Choice::Uniform | Choice::Ring => None,
            Choice::Zipf { exponent } => Some(
                Zipf::new(float(accounts.count()), exponent).map_err(|error| error.to_string())?,
            ),
            Choice::Hot { accounts: hot, .. } if hot < accounts.count() => None,
            Choice::Hot { accounts: hot, .. } => {
                return Err(format!(
                    "{hot} hot accounts of {} leave none to pay into them",
                    accounts.count()
                ));
            }
        };
        Ok(Self {
            accounts,
            choice,
            zipf,
        })
    }

    pub(super) const fn choice(&self) -> Choice {
        self.choice
    }

    pub(crate) const fn accounts(&self) -> Accounts {
        self.accounts
    }

    /// The account of a read. `place` is where the user is in the ring.
    pub(crate) fn one(&self, rng: &mut Rng, place: u64) -> u64 {
        let count = self.accounts.count();
        let index = match self.choice {
            Choice::Uniform => rng.below(count),
            Choice::Zipf { .. } => self.rank(rng),
            Choice::Hot { share, accounts } if rng.below(PPM) < share.ppm => rng.below(accounts),
            Choice::Hot { .. } => rng.below(count),
            Choice::Ring => place % count,
        };
        self.accounts.first + index
    }

    /// Two different accounts; there must be two.
    pub(crate) fn two(&self, rng: &mut Rng, place: u64) -> Sides {
        let count = self.accounts.count();
        let (debit, credit) = match self.choice {
            Choice::Uniform => uniform_pair(rng, count),
            Choice::Zipf { .. } => {
                let debit = self.rank(rng);
                let others = (0..REDRAWS_MAX).map(|_| self.rank(rng));
                let credit = others.into_iter().find(|other| *other != debit);
                (debit, credit.unwrap_or((debit + 1) % count))
            }
            Choice::Hot { share, accounts } if rng.below(PPM) < share.ppm => {
                let debit = accounts + rng.below(count - accounts);
                (debit, rng.below(accounts))
            }
            Choice::Hot { .. } => uniform_pair(rng, count),
            Choice::Ring => (place % count, (place + 1) % count),
        };
        Sides {
            debit: self.accounts.first + debit,
            credit: self.accounts.first + credit,
        }
    }

    /// `0..count`, by Zipf.
    fn rank(&self, rng: &mut Rng) -> u64 {
        let Some(zipf) = self.zipf else {
            return 0;
        };
        #[expect(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number from 1 to 2^53; `as` saturates besides"
        )]
        let rank = zipf.sample(rng) as u64;
        // Rounding may exceed the last rank by one.
        rank.saturating_sub(1).min(self.accounts.count() - 1)
    }
}

impl fmt::Display for Population {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.choice {
            Choice::Uniform => self.accounts.fmt(f),
            Choice::Zipf { .. } | Choice::Hot { .. } | Choice::Ring => {
                write!(f, "{} {}", self.accounts, self.choice)
            }
        }
    }
}

fn uniform_pair(rng: &mut Rng, count: u64) -> (u64, u64) {
    let debit = rng.below(count);
    // One of the others, each equally likely.
    let other = rng.below(count - 1);
    (debit, if other < debit { other } else { other + 1 })
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a count of accounts is at most 2^53, which a double holds exactly"
)]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn population(accounts: &str, choice: &str) -> Population {
        Population::new(accounts.parse().unwrap(), choice.parse().unwrap()).unwrap()
    }

    /// How often each account was read in `draws` draws.
    fn reads(population: &Population, draws: u64) -> Vec<f64> {
        let mut rng = Rng::new(11, 5);
        let count = usize::try_from(population.accounts.count()).unwrap();
        let mut seen = vec![0.0; count];
        for place in 0..draws {
            let id = population.one(&mut rng, place) - population.accounts.first;
            seen[usize::try_from(id).unwrap()] += 1.0;
        }
        seen
    }

    fn chi_square(seen: &[f64], weights: &[f64]) -> f64 {
        let (draws, total): (f64, f64) = (seen.iter().sum(), weights.iter().sum());
        let term = |(seen, weight): (&f64, &f64)| {
            let expected = draws * weight / total;
            (seen - expected).powi(2) / expected
        };
        seen.iter().zip(weights).map(term).sum()
    }

    #[test]
    fn zipf_shares_fall_with_the_rank_as_the_exponent_says() {
        for exponent in [0.0_f64, 0.5, 0.99, 1.0, 1.5, 3.0] {
            let zipf = population("5..=54", &format!("zipf:{exponent}"));
            let weights: Vec<f64> = (1..=50).map(|n| f64::from(n).powf(-exponent)).collect();
            let fit = chi_square(&reads(&zipf, 200_000), &weights);
            // 49 degrees of freedom: 85.4 is passed once in a thousand.
            assert!(fit < 85.4, "exponent={exponent} chi2={fit}");
            // The test would notice another exponent.
            let wrong: Vec<f64> = (1..=50)
                .map(|n| f64::from(n).powf(-exponent - 0.05))
                .collect();
            let fit = chi_square(&reads(&zipf, 200_000), &wrong);
            assert!(fit > 85.4, "exponent={exponent} chi2={fit}");
        }
    }

    #[test]
    fn the_paying_side_of_a_zipf_transfer_follows_it_too() {
        let zipf = population("1..=20", "zipf:1.1");
        let mut rng = Rng::new(4, 0);
        let mut seen = vec![0.0; 20];
        for _ in 0..100_000 {
            let sides = zipf.two(&mut rng, 0);
            assert_ne!(sides.debit, sides.credit);
            seen[usize::try_from(sides.debit).unwrap() - 1] += 1.0;
        }
        let weights: Vec<f64> = (1..=20).map(|n| f64::from(n).powf(-1.1)).collect();
        // 19 degrees of freedom: 43.8 is passed once in a thousand.
        assert!(chi_square(&seen, &weights) < 43.8);
    }

    #[test]
    fn zipf_needs_no_memory_for_many_accounts_and_stays_inside_them() {
        for exponent in ["0", "0.9", "1", "10"] {
            let zipf = population("1..=9007199254740991", &format!("zipf:{exponent}"));
            let mut rng = Rng::new(1, 1);
            for _ in 0..1_000 {
                let sides = zipf.two(&mut rng, 0);
                assert!((1..=ACCOUNT_MAX).contains(&sides.debit));
                assert!((1..=ACCOUNT_MAX).contains(&sides.credit));
                assert_ne!(sides.debit, sides.credit);
            }
        }
    }

    #[test]
    fn the_hot_share_credits_the_first_accounts_evenly() {
        let hot = population("100..=199", "hot:0.8:4");
        let mut rng = Rng::new(2, 0);
        let mut credits = [0_u32; 100];
        for _ in 0..50_000 {
            let sides = hot.two(&mut rng, 0);
            assert_ne!(sides.debit, sides.credit);
            credits[usize::try_from(sides.credit).unwrap() - 100] += 1;
        }
        // 0.8 / 4, and one in a hundred of the uniform rest.
        for count in &credits[..4] {
            assert!((9_800..=10_400).contains(count), "{credits:?}");
        }
        assert!(credits[4..].iter().all(|count| *count < 160));
        let reads = reads(&hot, 50_000);
        assert!((9_800.0..=10_400.0).contains(&reads[3]), "{reads:?}");
    }

    #[test]
    fn a_ring_goes_around_and_treats_every_account_alike() {
        let ring = population("7..=9", "ring");
        let mut rng = Rng::new(0, 0);
        let pairs: Vec<_> = (0..4)
            .map(|place| ring.two(&mut rng, place))
            .map(|sides| (sides.debit, sides.credit))
            .collect();
        assert_eq!(pairs, [(7, 8), (8, 9), (9, 7), (7, 8)]);
        assert_eq!(reads(&ring, 300), [100.0; 3]);
    }

    #[test]
    fn uniform_reaches_every_pair_of_two_and_of_three() {
        for (range, pairs) in [("9..=10", 2), ("0..=2", 6)] {
            let uniform = population(range, "uniform");
            let mut rng = Rng::new(8, 0);
            let mut seen = std::collections::BTreeMap::new();
            for _ in 0..6_000 {
                let sides = uniform.two(&mut rng, 0);
                *seen.entry((sides.debit, sides.credit)).or_insert(0) += 1;
            }
            assert_eq!(seen.len(), pairs);
            assert!(seen.values().all(|count| *count > 850), "{seen:?}");
        }
    }

    #[test]
    fn choices_are_written_as_they_are_read_and_bounded() {
        for text in ["uniform", "zipf:1.1", "hot:0.25:3", "hot:1:1", "ring"] {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "zipf",
            "zipf:-1",
            "zipf:10.1",
            "zipf:NaN",
            "hot:1.1:1",
            "hot:0.5:0",
            "hot:0.1234567:1",
            "other:1",
        ] {
            assert!(text.parse::<Choice>().is_err(), "{text}");
        }
        let accounts: Accounts = "1..=4".parse().unwrap();
        assert!(Population::new(accounts, "hot:0.5:3".parse().unwrap()).is_ok());
        assert!(Population::new(accounts, "hot:0.5:4".parse().unwrap()).is_err());
    }
}
