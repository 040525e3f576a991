//! The settings of reads, with their defaults.

use std::time::Duration;

use tokio_postgres::config::TargetSessionAttrs;

use crate::store::route::{Route, Target};

/// How reads reach the database, and their limits.
#[derive(Clone, Debug)]
pub struct ReadSettings {
    /// Where. Session options are appended; on the way to the primary only a
    /// writable server is accepted: a standby would answer with the past.
    pub route: Route,
    /// Shown in `pg_stat_activity`. Default `engine-read`.
    pub application_name: String,
    /// Sessions at most. Default 8: reads are short, and each session costs the
    /// server some 10 MB; the committers need its processors more.
    pub connections_max: usize,
    /// Waiting for a free session. Default 2 s.
    pub connection_wait_max: Duration,
    /// Opening a session, sign-in included. Default 3 s.
    pub connect_timeout: Duration,
    /// One statement, cut off by the server. Default 5 s.
    pub statement_timeout: Duration,
    /// Waiting for a lock in the server. Default 2 s.
    pub lock_timeout: Duration,
    /// One call of [`super::Reader`], whatever hangs. Default 8 s, below
    /// the default request deadline of 10 s.
    pub operation_timeout: Duration,
    /// Rows of one account's chain that one page of history may step over.
    /// Default 20,000: 0.06 s when all of them are cached (EXPLAIN ANALYZE over
    /// the ledger of `suite/reads/plans.rs`, 2 cores, 2026-11-21), and within
    /// `statement_timeout` when each is a random read of 0.2 ms.
    pub walk_rows_max: u32,
}

impl ReadSettings {
    /// The defaults, for that database, whose hosts are tried in order.
    #[must_use]
    pub fn new(database: pgtls::Database) -> Self {
        Self::through(Route::direct(database))
    }

    /// The defaults, for that way.
    #[must_use]
    pub fn through(route: Route) -> Self {
        Self {
            route,
            application_name: "engine-read".to_owned(),
            connections_max: 8,
            connection_wait_max: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(5),
            lock_timeout: Duration::from_secs(2),
            operation_timeout: Duration::from_secs(8),
            walk_rows_max: 20_000,
        }
    }

    /// The session settings, as a start-up option string.
    ///
    /// At start-up and not by `SET`: a pooler in transaction mode would lose a
    /// `SET`, but refuses unknown start-up options with an error.
    #[must_use]
    pub fn session_options(&self) -> String {
        // Plans are made once per session, perhaps while the tables are empty,
        // and must be right when they are not: every query here is answered by
        // an index, nothing else is ever wanted.
        format!(
            "-c statement_timeout={} -c lock_timeout={} \
             -c idle_in_transaction_session_timeout={} \
             -c plan_cache_mode=force_generic_plan -c enable_seqscan=off \
             -c enable_bitmapscan=off -c enable_hashjoin=off \
             -c enable_mergejoin=off -c jit=off",
            self.statement_timeout.as_millis(),
            self.lock_timeout.as_millis(),
            self.operation_timeout.as_millis(),
        )
    }

    /// As sessions are opened at that server.
    pub(in crate::store) fn session_config(&self, target: &Target) -> tokio_postgres::Config {
        let mut config = target.narrow(self.route.database());
        let options = config
            .get_options()
            .map(|given| format!("{given} {}", self.session_options()))
            .unwrap_or_else(|| self.session_options());
        let silence_max = self.route.peer_silence_max();
        // Three probes within the limit, in the whole seconds that TCP counts.
        let part = Duration::from_secs((silence_max.as_secs() / 4).max(1));
        config
            .options(options)
            .application_name(&self.application_name)
            .connect_timeout(self.connect_timeout)
            .tcp_user_timeout(silence_max)
            .keepalives_idle(part)
            .keepalives_interval(part)
            .keepalives_retries(3);
        if self.route.is_to_primary() {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config
    }
}
