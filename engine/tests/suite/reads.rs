//! What the engine reads outside a commit, against a real PostgreSQL.

mod accounts;
mod closed_months;
mod history;
mod ledger;
mod plans;
mod proxy;
mod trouble;

use engine::clock::Clock;
use engine::store::read::{ReadSettings, Reader};

/// Settings for that URL, the defaults.
fn settings(url: &str) -> ReadSettings {
    ReadSettings::new(url.parse().unwrap())
}

fn reader(url: &str) -> Reader {
    Reader::connect(&settings(url), Clock::System)
}
