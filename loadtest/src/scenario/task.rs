//! What a request does, as flags and scenario files write it.
//!
//! Owns: the names of tasks.
//! Never: makes a request; `request` does.
//! Bound: `BATCH_MAX` transfers in a call, `PAGE_MAX` rows on a page.

use std::fmt;
use std::str::FromStr;

/// The engine's limit of transfers in one call.
pub(crate) const BATCH_MAX: u32 = 8_192;
/// The engine's limits of a page of history.
const PAGE_MAX: u32 = 1_000;
const PAGE_DEFAULT: u32 = 100;

/// What each request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Transfer,
    /// That many transfers per call.
    Batch(u32),
    Balance,
    /// The newest so many transfers of an account.
    History(u32),
    /// One of the user's own transfers by its id.
    Lookup,
    /// One of the user's own keyed transfers or batches, sent again as it was.
    Repeat,
    Health,
}

impl Task {
    /// Whether it moves money each time.
    pub(crate) const fn transfers(self) -> bool {
        match self {
            Self::Transfer | Self::Batch(_) => true,
            Self::Balance | Self::History(_) | Self::Lookup | Self::Repeat | Self::Health => false,
        }
    }
}

fn number(text: &str, max: u32) -> Option<u32> {
    text.parse().ok().filter(|count| (1..=max).contains(count))
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = match text.split_once(':') {
            None => match text {
                "transfer" => Some(Self::Transfer),
                "balance" => Some(Self::Balance),
                "history" => Some(Self::History(PAGE_DEFAULT)),
                "lookup" => Some(Self::Lookup),
                "repeat" => Some(Self::Repeat),
                "health" => Some(Self::Health),
                _ => None,
            },
            Some(("batch", count)) => number(count, BATCH_MAX).map(Self::Batch),
            Some(("history", rows)) => number(rows, PAGE_MAX).map(Self::History),
            Some(_) => None,
        };
        found.ok_or_else(|| {
            format!(
                "expected transfer, batch:N (1 to {BATCH_MAX}), balance, history, \
                 history:N (1 to {PAGE_MAX}), lookup, repeat or health"
            )
        })
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transfer => f.write_str("transfer"),
            Self::Batch(count) => write!(f, "batch:{count}"),
            Self::Balance => f.write_str("balance"),
            Self::History(PAGE_DEFAULT) => f.write_str("history"),
            Self::History(rows) => write!(f, "history:{rows}"),
            Self::Lookup => f.write_str("lookup"),
            Self::Repeat => f.write_str("repeat"),
            Self::Health => f.write_str("health"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_written_as_it_is_read() {
        for text in [
            "transfer",
            "batch:1",
            "batch:8192",
            "balance",
            "history",
            "history:1000",
            "lookup",
            "repeat",
            "health",
        ] {
            assert_eq!(text.parse::<Task>().unwrap().to_string(), text);
        }
        for text in ["", "batch", "batch:0", "batch:8193", "history:1001", "x:1"] {
            let message = text.parse::<Task>().unwrap_err();
            assert!(message.contains("expected transfer"), "{text}: {message}");
        }
    }
}
