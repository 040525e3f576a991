//! Which machine takes which part of a run.
//!
//! Owns: how many threads each has, and their places.
//! Invariant: places are next to each other and fill `of` exactly; where each
//! thread needs a user there are no more threads than users.

use std::num::NonZeroU32;

use super::wire::{Job, Versions};
use crate::args::{Config, Place};
use crate::scenario::ScenarioText;
use crate::tls::TlsClient;

/// The jobs of workers that would take so many threads each.
///
/// # Errors
/// If there are fewer users than workers.
pub(super) fn jobs(config: &Config, wanted: &[u32]) -> Result<Vec<Job>, String> {
    let load = &config.scenario.load;
    // The page may add users to a closed run; in the open model each thread sends
    // its share of the arrivals and needs a connection for it.
    let most = match (config.web.web, &load.arrivals) {
        (Some(_), None) => u32::MAX,
        (Some(_) | None, _) => load.users,
    };
    let threads = cap(wanted, most).ok_or_else(|| {
        format!(
            "{} users cannot be shared by {} workers: give at least one user for each",
            load.users,
            wanted.len()
        )
    })?;
    let of = NonZeroU32::new(threads.iter().sum()).ok_or("no worker has a thread")?;
    let scenario = ScenarioText::new(&config.scenario);
    let authorities = config.tls.as_ref().map(TlsClient::authorities);
    let authorities = authorities.transpose()?.flatten();
    let mut first = 0;
    let numbered = threads.into_iter().zip(1..);
    Ok(numbered
        .map(|(threads, number)| {
            let place = Place { first, of };
            first += threads;
            Job {
                versions: Versions::ours(),
                host: config.host.clone(),
                authorities: authorities.clone(),
                headers: config.target.headers.clone(),
                scenario: scenario.clone(),
                threads,
                place,
                timeout: config.timeout,
                retries: config.retries,
                journal: config.journal.as_ref().map(|journal| {
                    let name = journal.path.display();
                    format!("{name}.{number}")
                }),
            }
        })
        .collect())
}

/// As wanted, but no more than `most` together: those with most give first.
fn cap(wanted: &[u32], most: u32) -> Option<Vec<u32>> {
    let mut threads: Vec<u32> = wanted.iter().map(|&threads| threads.max(1)).collect();
    loop {
        let sum: u64 = threads.iter().copied().map(u64::from).sum();
        if sum <= u64::from(most) {
            return Some(threads);
        }
        let largest = threads.iter_mut().max().filter(|threads| **threads > 1)?;
        *largest -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_threads_than_users_and_each_worker_has_one() {
        assert_eq!(cap(&[4, 8], 100), Some(vec![4, 8]));
        assert_eq!(cap(&[0, 8], 9), Some(vec![1, 8]));
        assert_eq!(cap(&[2, 8], 8), Some(vec![2, 6]));
        assert_eq!(cap(&[2, 8], 4), Some(vec![2, 2]));
        assert_eq!(cap(&[2, 8], 2), Some(vec![1, 1]));
        assert_eq!(cap(&[2, 8], 1), None);
        assert_eq!(cap(&[256; 100], u32::MAX), Some(vec![256; 100]));
    }
}
