//! A connection through which a server is asked for its facts.
//!
//! Owns: the connection and which kind of server is at its end.
//! Never: draws a conclusion, or keeps a connection that failed.
//! Bound: the caller's time limit.

use std::time::Duration;

use super::facts::{self, Catalog, Facts};
use super::{Lifeline, Target};
use crate::store::wire::{Connection, SessionSettings, WireError};

/// A connection to ask through.
#[derive(Debug)]
pub(super) struct Ear {
    connection: Connection,
    catalog: &'static dyn Catalog,
}

impl Ear {
    /// Lets that much time pass; false as soon as the server ends the connection.
    pub(super) async fn stays_open(&mut self, pause: Duration) -> bool {
        self.connection.stay_quiet(pause).await.is_ok()
    }
}

/// Connects if need be, and asks.
pub(super) async fn listen(
    settings: &SessionSettings,
    target: &Target,
    ear: Option<Box<Ear>>,
) -> Result<(Box<Ear>, Facts), WireError> {
    let mut ear = match ear {
        Some(ear) => ear,
        None => {
            let lifeline = Lifeline::default();
            let mut connection = Connection::connect(settings, target, lifeline).await?;
            let catalog = facts::catalog(&mut connection).await?;
            Box::new(Ear {
                connection,
                catalog,
            })
        }
    };
    let facts = facts::ask(&mut ear.connection, ear.catalog).await?;
    Ok((ear, facts))
}
